"""Measure what a sweep costs beyond the runs that it makes.

    python benchmarks/sweep.py             five rounds
    python benchmarks/sweep.py --quick     two rounds

Each round makes the same small runs three times, each in an empty folder: as single commands, as a sweep with the
basic launcher, and as a sweep through joblib with one run at a time side by side with a second worker. A run has no
model (a program of the pocket profile judges; data are the made-up tickets; no training, answers come from nowhere:
`train=none`, the smallest preset), so the launcher's share is large. What is compared is the wall time a run:

    overhead = (sweep's wall time - sum of what its runs took by themselves) / runs

where what a run takes by itself is measured inside the process that makes it, from the launcher's call to its end.
A sweep whose runs are finished already is timed as well. Target: at most 1 s a run, for basic and for joblib.
"""
