"""Coverage data in and out: file formats, the split, and how a chat is rendered to tokens."""
