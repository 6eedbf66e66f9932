"""The verdict: what a run found, in one sentence that names score, interval, n and rule."""

from __future__ import annotations

from collections.abc import Sequence

from llamaduo.config import Backend, Experiment, GateRule, who_answers
from llamaduo.evidence.stop import gate_value
from llamaduo.records import Iteration, Scorecard

_WHY = {
    "max_iterations": "the last allowed iteration is done",
    "plateau": "more data stopped helping",
    "no_new_data": "there is no new data to train on",
    "budget": "the budget is spent",
}


def verdict(
    experiment: Experiment, history: Sequence[Iteration], stop_reason: str, best: int | None, test: Scorecard | None
) -> str:
    """Return the verdict on a run that `stop_reason` has ended."""
    model, task = who_answers(experiment), experiment.task.name
    if best is None:
        return f"No verdict on {model} for {task}: {_WHY[stop_reason]} before the first iteration was judged."
    chosen = history[best]
    found = ", ".join(f"{name} {_score(chosen, name)}" for name in ("similarity", "precision"))
    where = f"{experiment.protocol.gate_split.value} split, {chosen.answers} answers"
    gate = experiment.loop.gate
    asked = [f"{n} {getattr(gate, n):g}" for n in ("similarity", "precision") if getattr(gate, n) is not None]
    if not asked:
        why = f" ({_WHY[stop_reason]})" if stop_reason == "budget" else ""
        done = "1 volume" if len(history) == 1 else f"{len(history)} volumes"
        head = f"Done: {done} of {model} on {task}{why}, no gate; best is iteration {best}: {found} ({where})."
    elif stop_reason == "passed":
        rule = "lower 95% limits" if gate.rule is GateRule.lower else "means"
        head = (
            f"Passed: {model} of iteration {best} ({chosen.train_rows:,} rows) takes over {task}: {found}; "
            f"the {rule} reach the gate of {' and '.join(asked)} ({where})."
        )
    else:
        head = (
            f"Not passed: {model} does not reach {' and '.join(asked)} on {task}, and {_WHY[stop_reason]}. "
            f"Best is iteration {best}: {found} ({where}).{_why_not(experiment, chosen)}"
        )
    return head + _on_test(test)


def _score(iteration: Iteration, name: str) -> str:
    mean = getattr(iteration, f"{name}_mean")
    if mean is None:
        return "not scored"
    low, high = getattr(iteration, f"{name}_low"), getattr(iteration, f"{name}_high")
    return f"{mean:.1f}" if low is None else f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def _why_not(experiment: Experiment, chosen: Iteration) -> str:
    gate = experiment.loop.gate
    lacking = [
        name
        for name in ("similarity", "precision")
        if getattr(gate, name) is not None and gate_value(chosen, name, gate.rule) is None
    ]
    text = f" No {' and no '.join(lacking)} exists to compare with the gate." if lacking else ""
    if chosen.unanswered:
        elsewhere = experiment.infer.backend is Backend.endpoint
        context = "context" if elsewhere else f"{experiment.local_model.context} tokens of context"
        text += (
            f" {chosen.unanswered} of {chosen.answers} answers are missing: their prompts exceed the model's "
            f"{context} less infer.max_new_tokens."
        )
    return text


def _on_test(test: Scorecard | None) -> str:
    if test is None:
        return ""
    parts = []
    for name in ("similarity", "precision"):
        found = getattr(test, name)
        if found.mean is not None:
            limits = "" if found.low is None else f" [{found.low:.1f}, {found.high:.1f}]"
            parts.append(f"{name} {found.mean:.1f}{limits}")
    return f" On the test split, looked at once: {', '.join(parts) or 'not scored'} ({test.answers} answers)."
