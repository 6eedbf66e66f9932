"""The verdict in words: switch, switch with a fallback, or don't, and what stands behind it.

    found = verdict(experiment, history, "passed", best=3, judged=..., test=..., beside={"base": verdicts})
    found.decision, found.headline      "switch", "Switch: pocket_llama of iteration 3 takes over classification ..."
    found.details                       a sentence each, see `details`

Every score is told with its interval, and with how many prompts and answers it is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamaduo.config import Experiment, GateMethod, GateSplit, who_answers
from llamaduo.evidence.details import Ended, details
from llamaduo.evidence.gate import asked, confirmation
from llamaduo.evidence.wording import count, goal, limits_told, of_card, of_iteration, scores
from llamaduo.records import GateLook, Judged, Verdict
from llamaduo.runs.state import Iteration

SWITCH, FALLBACK, STAY = "switch", "switch_with_fallback", "stay"
_WHY = {
    "max_iterations": "the last allowed iteration is done",
    "plateau": "more data stopped helping",
    "no_new_data": "there is no new data to train on",
    "budget": "the budget is spent",
}


@dataclass(frozen=True)
class Found:
    """What a run found."""

    headline: str
    """What to do, and the scores that say so."""
    details: tuple[str, ...] = ()
    """What stands behind it, a sentence each."""
    decision: str | None = None
    """`switch`, `switch_with_fallback` or `stay`; None where no gate asks for anything."""
    confirmation: str | None = None
    """`confirmed`, `undecided` or `contradicted` by the test split; None where that was not asked."""


def verdict(
    experiment: Experiment,
    history: Sequence[Iteration],
    stop_reason: str,
    *,
    best: int | None,
    judged: Judged | None,
    test: Judged | None,
    beside: Mapping[str, Sequence[Verdict]],
    service_llm_at_gate: Sequence[Verdict] | None = None,
    cost_usd: float = 0.0,
    asked_later: int = 0,
    refused: Sequence[str] = (),
) -> Found:
    """Return the verdict on a run that the rule `stop_reason` has ended.

    `refused` is what the audit that the gate asks for has against the model of the iteration `best`.

    `judged` are the answers of the iteration `best` at the gate, `test` those to the test split, `beside` the verdicts
    on those who were judged beside it, on the test split where that was judged. The rest is told as it is in `Ended`.
    """
    if best is None or judged is None:
        model, task = who_answers(experiment), experiment.task.name
        return Found(f"No verdict on {model} for {task}: {_WHY[stop_reason]} before the first iteration was judged.")
    run = Ended(experiment, history, history[best], judged, test, beside, service_llm_at_gate, cost_usd, asked_later)
    told = tuple(details(run))
    if not asked(experiment.loop.gate):
        return Found(_without_gate(run, stop_reason), told)
    if stop_reason != "passed":
        return Found(_not_passed(run, stop_reason, refused), told, STAY)
    if experiment.protocol.gate_split is GateSplit.test:
        decision = {None: FALLBACK, GateMethod.assumed.value: STAY}.get(run.method, SWITCH)
        return Found(_passed_on_test(run, decision), told, decision)
    if test is None or test.gate is None:
        return Found(_not_tested(run), told, STAY)
    said = confirmation(test.gate)
    decision = _decision(run, test.gate, said)
    return Found(_tested(run, said, decision), told, decision, said)


def _decision(run: Ended, on_test: GateLook, said: str) -> str:
    """Return what to do with a model that passed on dev.

    A limit that only holds by assumption proposes nothing by itself: test has to confirm it. What no guaranteed limit
    has shown on test, a mean and two tiers of judges included, is no switch without a fallback.
    """
    assumed = run.method == GateMethod.assumed.value
    if said == "contradicted" or (assumed and said == "undecided"):
        return STAY
    return SWITCH if said == "confirmed" and on_test.method == GateMethod.guaranteed.value else FALLBACK


def _without_gate(run: Ended, stop_reason: str) -> str:
    why = f" ({_WHY[stop_reason]})" if stop_reason == "budget" else ""
    done = "1 volume" if len(run.history) == 1 else f"{len(run.history)} volumes"
    head = f"Done: {done} of {who_answers(run.experiment)} on {run.experiment.task.name}{why}, no gate"
    return f"{head}; best is iteration {run.chosen.iteration}: {_at_gate(run)}.{_on_test(run)}"


def _not_passed(run: Ended, stop_reason: str, refused: Sequence[str]) -> str:
    model, task = who_answers(run.experiment), run.experiment.task.name
    if refused and run.chosen.gate and run.chosen.gate["passed"]:
        head = f"Don't switch: the audit of {_model(run)} speaks against it ({'; '.join(refused)})"
        return f"{head}, and {_WHY[stop_reason]}.{_on_test(run)}"
    head = f"Don't switch: {model} does not reach {goal(run.experiment)} on {task}, and {_WHY[stop_reason]}."
    best = f"Best is iteration {run.chosen.iteration}: {_at_gate(run)}."
    return f"{head} {best}{_why_not(run)}{_on_test(run)}"


def _passed_on_test(run: Ended, decision: str) -> str:
    seen = limits_told(run.chosen.gate) if run.chosen.gate else ""
    if decision == STAY:
        passed = "passes by an assumption alone, which nothing confirms"
        return f"Don't switch: {_model(run)} {passed}: {_at_gate(run)}; {seen}."
    what = "Switch with a fallback" if decision == FALLBACK else "Switch"
    return f"{what}: {_model(run)} takes over {run.experiment.task.name}: {_at_gate(run)}; {seen}."


def _not_tested(run: Ended) -> str:
    return (
        f"Not decided: {_model(run)} reaches {goal(run.experiment)} ({_at_gate(run)}), and the budget is spent before "
        "the test split could confirm it. Raise loop.budget_usd and run the same command again."
    )


def _tested(run: Ended, said: str, decision: str) -> str:
    assert run.test is not None
    assert run.test.gate is not None
    task = run.experiment.task.name
    test = f"{_on_test(run)[:-1]}; {limits_told(run.test.gate)}: {said}."
    if decision == STAY and said == "undecided":
        passed = f"passes the gate ({goal(run.experiment)}) on the dev split by an assumption alone"
        return f"Don't switch: {_model(run)} {passed}, which the test split does not confirm.{test}"
    if decision == STAY:
        return (
            f"Don't switch: {_model(run)} reaches {goal(run.experiment)} on dev, and the test split contradicts.{test}"
        )
    if decision == FALLBACK:
        return f"Switch with a fallback: {_model(run)} takes over {task}, the service LLM behind it.{test}"
    return f"Switch: {_model(run)} takes over {task}.{test}"


def _model(run: Ended) -> str:
    return f"{who_answers(run.experiment)} of iteration {run.chosen.iteration} ({run.chosen.train_rows:,} rows)"


def _at_gate(run: Ended) -> str:
    split = run.experiment.protocol.gate_split.value
    return f"{scores(of_iteration(run.chosen))} ({split} split, {count(run.chosen)})"


def _on_test(run: Ended) -> str:
    if run.test is None:
        return ""
    return f" On the test split, looked at once: {scores(of_card(run.test.card))} ({count(run.test.card)})."


def _why_not(run: Ended) -> str:
    experiment, chosen = run.experiment, run.chosen
    lacking = [name for name in asked(experiment.loop.gate) if getattr(chosen, f"{name}_mean") is None]
    text = f" No {' and no '.join(lacking)} exists to compare with the gate." if lacking else ""
    if chosen.unanswered:
        elsewhere = experiment.infer.served
        context = "context" if elsewhere else f"{experiment.local_model.context} tokens of context"
        text += (
            f" {chosen.unanswered} of {chosen.answers} answers are missing: their prompts exceed the model's "
            f"{context} less infer.max_new_tokens."
        )
    return text
