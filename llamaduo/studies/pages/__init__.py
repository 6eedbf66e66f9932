"""The pages of a run and of a study: one file each, without a network."""
