"""Many runs: their plan, each run a job, here or on a cluster, and how they stand."""
