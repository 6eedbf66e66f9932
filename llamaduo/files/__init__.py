"""What lies on disk: content hashes, links, scratch folders, paths of data."""
