"""What a set of texts is like, offline: its topics, how varied it is, whom it treats how."""
