"""What others may do while a run's process is stopped, as by Ctrl-Z: work on another run, and not on this one.

    for wrong in while_stopped(experiment, place, run):
        ...

The neighbour asks the same service LLM, under the same limits, with a journal of its own in the same folder: the calls
that the stopped process has in flight take its slots, and a call's timeout later they are free.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llamaduo.config import Experiment
from llamaduo.errors import RunFolderError
from llamaduo.service.attempts import Reply
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal
from llamaduo.service.requests import Request

TIMEOUT_S = 6.0
"""A call's; long enough that a busy machine passes none."""
PROMPTS = tuple(f"What does a neighbour ask? {number}" for number in range(4))
_REFUSED, _BOUGHT = 10, 11
Forked = Callable[[Callable[[], Any], Path], Any]


def with_timeouts(experiment: Experiment) -> Experiment:
    """Return the experiment with short timeouts, so that whoever waits for a slot needn't wait long."""
    found = copy.deepcopy(experiment)
    for llm in (*found.judge.panel.values(), found.service_llm):
        llm.timeout_s = TIMEOUT_S
    return found


def neighbours(experiment: Experiment) -> list[Request]:
    """Return what the neighbour asks."""
    return [Request(experiment.service_llm, prompt, None, 0, "beside") for prompt in PROMPTS]


def is_stopped(pid: int) -> bool:
    """Wait until a child has stopped or ended; tell whether it has stopped."""
    found = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    return found is not None and found.si_code == os.CLD_STOPPED


def while_stopped(experiment: Experiment, run: Callable[[], Any], forked: Forked, patience_s: float) -> Iterator[str]:
    """Start what may be started meanwhile, and say what has come out wrong."""
    place = Path(experiment.service.journal or "").parent
    for work, code, wrong in (
        (lambda: _refused(run), _REFUSED, "a second process on the stopped run was not refused"),
        (lambda: _asked(experiment, place), _BOUGHT, "another run got no replies beside a stopped one"),
    ):
        process = forked(work, place / "error")
        process.join(patience_s)
        ended = process.exitcode
        process.kill()
        process.join()
        if ended != code:
            yield f"{wrong} (it ended with {ended})"


def _refused(run: Callable[[], Any]) -> int:
    try:
        run()
    except RunFolderError as error:
        return _REFUSED if "works on this run" in str(error) else 1
    return 0


def _asked(experiment: Experiment, place: Path) -> int:
    earlier = len(list(place.glob("neighbour*.sqlite")))
    service = Service(Journal(place / f"neighbour{earlier}.sqlite"), run="runs/neighbour", budget_usd=None)
    outcomes = service.ask(neighbours(experiment), lambda *_: None)
    service.close()
    return _BOUGHT if all(isinstance(outcome, Reply) for outcome in outcomes) else 1
