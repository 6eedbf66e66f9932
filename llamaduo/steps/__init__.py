"""A run under way: its verbs, each tied to its artifact, what is opened for them, and the growth of its data."""
