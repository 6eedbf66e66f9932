"""What a run will cost, in calls and in hours, before anything is bought."""
