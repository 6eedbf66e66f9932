"""The paper's loop: fine-tune, answer, judge, synthesise, curate, again, until the evidence says stop.

    state = run(experiment, display=Display())

`close_the_loop` is the loop. Each of its verbs is a method of `steps.Steps`, which ties a stage to an
artifact in the run's folder: a run that was broken off goes on at the first artifact without a marker.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llamaduo.config import Beside, Experiment, plain
from llamaduo.display import Display
from llamaduo.errors import BudgetError, ConfigError, InputError
from llamaduo.evidence.stop import best
from llamaduo.evidence.verdict import FALLBACK, SWITCH, verdict
from llamaduo.records import Judged
from llamaduo.redaction import redact
from llamaduo.runs.finished import finished, run_folder
from llamaduo.runs.folder import RunDir
from llamaduo.runs.layout import START
from llamaduo.runs.state import RunState
from llamaduo.steps.steps import Steps


def close_the_loop(steps: Steps) -> str:
    """Go round until a rule says stop; fills `steps.history` and returns the rule's name."""
    steps.judge_beside("gate", steps.gate_split)
    pool = steps.grow(START, [], steps.volume(0))
    adapter: Path | None = None
    while True:
        iteration = len(steps.history)
        rows = steps.rows(iteration, pool)
        if not rows:
            return "no_new_data"
        trained = steps.train(iteration, rows, start_from=adapter)
        adapter = steps.adapter(iteration)
        predictions = steps.infer(iteration, steps.gate_split, adapter)
        verdicts = steps.judge(iteration, predictions)
        steps.record(iteration, trained, predictions, verdicts)
        reason = steps.stop_reason()
        while reason == "plateau" and steps.judge_rest():
            reason = steps.stop_reason()  # what looked like a plateau may be none when all is judged
        if reason:
            return reason
        pool = pool + steps.grow(iteration, pool, steps.volume(iteration + 1))
        if len(steps.rows(iteration + 1, pool)) <= len(rows):
            return "no_new_data"


Opens = Callable[[Experiment, RunDir, RunState, Display], Steps]
"""Opens the steps of a run: `Steps`, or what stands in for it."""


def run(experiment: Experiment, *, display: Display, opens: Opens = Steps) -> RunState:
    """Run one experiment to its end, from wherever it stands, and return its state.

    Raises LlamaduoError; the folder is resumable after any error and any interruption. A run that never began, since
    something was wrong with its configuration, its keys or its data, leaves none.
    """
    done = finished(experiment)
    if done:
        return done
    with RunDir(run_folder(experiment)) as folder:
        state = folder.read_state()
        state.status, state.stop_reason, state.error = "running", None, None
        opened = False
        try:
            with opens(experiment, folder, state, display) as steps:
                opened = True
                try:
                    _finish(steps, state)
                except Exception:
                    steps.account(None)
                    raise
        except Exception as error:
            if not opened or isinstance(error, ConfigError | InputError):
                folder.forget()
            if folder.is_forgotten:
                raise
            state.status, state.error = "failed", redact(f"{error}") or type(error).__name__
            folder.write_state(state)
            raise
        folder.write_state(state)
    return state


def _finish(steps: Steps, state: RunState) -> None:
    """Close the loop, let the test split dispose of what dev proposes, and write what was found into the state."""
    test: Judged | None = None
    reason = "budget"
    try:
        reason = close_the_loop(steps)
        test = steps.report_test(_chosen(steps, reason))
    except BudgetError as error:
        steps.display.note(str(error))
        state.stop_reason = "budget"
    chosen = _chosen(steps, reason)
    found = verdict(
        steps.experiment,
        steps.history,
        reason,
        best=chosen,
        judged=None if chosen is None else steps.judged(chosen),
        test=test,
        beside=steps.verdicts_beside("test" if test else "gate"),
        service_llm_at_gate=steps.verdicts_beside("gate").get(Beside.service_llm),
        cost_usd=steps.cost_usd(),
        asked_later=steps.gains.asked_later,
        refused=() if chosen is None or reason == "passed" else steps.audit_faults(chosen),
    )
    state.best_iteration = chosen
    state.accepted_iteration = chosen if found.decision in (SWITCH, FALLBACK) else None
    state.stop_reason = state.stop_reason or reason
    steps.account(test.card if test else None)
    state.test_gate = plain(test.gate) if test and test.gate else None
    state.verdict, state.details = found.headline, found.details
    state.decision, state.confirmation = found.decision, found.confirmation
    state.status = "done"


def _chosen(steps: Steps, reason: str) -> int | None:
    """Return the iteration that passed, else the best one, else None."""
    if not steps.history:
        return None
    return len(steps.history) - 1 if reason == "passed" else best(steps.history, steps.gains.gain)
