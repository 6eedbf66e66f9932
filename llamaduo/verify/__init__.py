"""What others check: an archive of a run, and every number of a run or a study derived again."""
