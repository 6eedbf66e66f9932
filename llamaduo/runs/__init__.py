"""A run's folder: its layout, its marks, its records, and what is logged of it."""
