"""A run under way: its verbs, each tied to its artifact, what is opened for them, and the growth of its data.

`load_data(experiment)` is what programs read an experiment's coverage data with.
"""

from llamaduo.data.coverage import load_coverage as load_data

__all__ = ["load_data"]
