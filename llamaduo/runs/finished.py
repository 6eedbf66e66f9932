"""Where a run lies, and whether it has anything left to do.

state = finished(experiment)        None, or the state of a run that is done, whole, and of the same models and data
"""

from __future__ import annotations

from pathlib import Path

from llamaduo.config import Experiment, fingerprint
from llamaduo.runs.folder import read_state
from llamaduo.runs.identity import refuse_others
from llamaduo.runs.marks import absent, faults
from llamaduo.runs.state import RunState


def run_folder(experiment: Experiment) -> Path:
    """Return where a run lies: `<results>/<study>/<name>-<fingerprint>`."""
    return Path(experiment.runtime.results) / experiment.study / f"{experiment.name}-{fingerprint(experiment)}"


def finished(experiment: Experiment) -> RunState | None:
    """Return the state of a run that has nothing left to do, or None; one that the budget stopped may go on.

    One with damaged files has something left to do. Raises InputError where its models or data are others by now.
    """
    folder = run_folder(experiment)
    state = read_state(folder)
    if state.status != "done" or state.stop_reason == "budget":
        return None
    refuse_others(experiment, folder)
    return None if faults(folder) or absent(folder, state) else state
