"""What an override is: as people write it, what follows from it, and what a shared YAML may not set."""
