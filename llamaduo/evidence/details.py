"""What stands behind a verdict: the gate, ceiling and floor, weak slices, failures, and what would help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from llamaduo.config import Beside, Experiment, GateRule
from llamaduo.evidence.findings import failing, more_prompts, regression, told_score, weakest
from llamaduo.evidence.gate import SCORES, asked, looks
from llamaduo.evidence.reach import ASSUMED, mean_rule_error
from llamaduo.evidence.scorecard import clusters, score
from llamaduo.evidence.stop import overall
from llamaduo.evidence.wording import count, limits_told, of_card, scores, short, size, span
from llamaduo.records import GateLook, Judged, Verdict
from llamaduo.runs.state import Iteration

ASSUMED_OF_TIERS = (
    "The limits assume that no prompt that was not asked is worth less, by both tiers together, than 0 or the worst "
    "one that was asked, nor more than 100 or the best one."
)


@dataclass(frozen=True)
class Ended:
    """A run that has come to its end, with at least one iteration."""

    experiment: Experiment
    history: Sequence[Iteration]
    chosen: Iteration
    """The iteration that passed, or the best one."""
    judged: Judged
    """Its answers at the gate."""
    test: Judged | None
    """Its answers to the test split, where that isn't the gate's."""
    beside: Mapping[str, Sequence[Verdict]]
    """Verdicts on those who were judged beside it, on the split that the details are about, by name."""
    service_llm_at_gate: Sequence[Verdict] | None = None
    """Verdicts on the service LLM's answers at the gate, where they were bought."""
    cost_usd: float = 0.0
    """Price of all replies that the run used, each once."""
    asked_later: int = 0
    """Verdicts that were left out at first and asked for since a plateau depended on them."""

    @property
    def method(self) -> str | None:
        """How the limits were had that the gate looked at; None for means."""
        return self.chosen.gate["method"] if self.chosen.gate else None

    @property
    def split(self) -> str:
        """The split that the details are about."""
        return "test" if self.test else self.experiment.protocol.gate_split.value

    @property
    def shown(self) -> Judged:
        """The answers that the details are about."""
        return self.test or self.judged

    @property
    def everywhere(self) -> Judged:
        """The same with the verdicts of judges who saw every answer."""
        return replace(self.shown, verdicts=self.of_all(self.shown.verdicts))

    def of_all(self, verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
        """Return the verdicts of judges who saw every answer: all but the dear ones."""
        return [v for v in verdicts if v.judge not in self.experiment.judge.dear]


def details(run: Ended) -> Iterator[str]:
    """Yield what stands behind the verdict on a run."""
    yield from _gate_told(run)
    yield from _economy_told(run)
    yield from _tiers_told(run)
    for name, verdicts in run.beside.items():
        yield _beside_told(run, name, verdicts)
    for one in weakest(run.everywhere):
        told = f"{told_score(run.shown)} {span(one.estimate)} ({size(one.estimate)}, {run.split} split)"
        yield f"Weak slice: {one.name}: {told}."
    yield from _regression_told(run)
    yield from _failures_told(run)
    yield f"Service LLM replies that this run used: ${run.cost_usd:,.2f}."
    helps = _helps(run)
    if helps:
        yield f"Most likely to help: {helps}."


def _gate_told(run: Ended) -> Iterator[str]:
    """Say what the gate looked at, and what its rule promises."""
    if not run.chosen.gate:
        return
    seen, split = GateLook(**run.chosen.gate), run.experiment.protocol.gate_split.value
    if seen.error is None:
        gate = run.experiment.loop.gate
        least = max(float(getattr(gate, name)) for name in asked(gate))
        wrongly = mean_rule_error(least, seen.prompts) if seen.rule == GateRule.mean.value else None
        error = f" A model that is truly at {least - 1:g} passes it in about {wrongly:.0%} of looks." if wrongly else ""
        yield f"The gate looked at means of {seen.prompts:,} prompts ({split} split): {limits_told(seen)}.{error}"
        return
    times = looks(run.experiment)
    several = f", and there are {times} looks at most" if times > 1 else ""
    label = f" {ASSUMED}" if seen.method == "assumed" else ""
    which = f"{seen.prompts:,} prompts"
    if seen.unjudged:
        which = f"{seen.prompts:,} of {seen.prompts + seen.unjudged:,} prompts, at which it couldn't be passed any more"
    yield (
        f"The gate ({split} split, {which}): {limits_told(seen)}, every missing answer counted as 0. "
        f"Such a limit is too high in at most {seen.error:.2g} of looks{several}.{label}"
    )


def _economy_told(run: Ended) -> Iterator[str]:
    """Say how many verdicts were not asked for."""
    spared = sum(line.spared for line in run.history) - run.asked_later
    if spared <= 0:
        return
    repeats = run.experiment.judge.repeats
    total = sum(line.answers + line.unjudged for line in run.history) * len(run.experiment.judge.panel) * repeats
    split = run.experiment.protocol.gate_split.value
    yield (
        f"Judge economy: {total - spared:,} of {total:,} verdicts on the {split} split were asked for "
        f"({spared / total:.0%} fewer): the others could not change what the gate decides (judge.economy=off asks "
        "for all)."
    )


def _tiers_told(run: Ended) -> Iterator[str]:
    """Say how many answers the dear judges saw, and what scores are then."""
    judges = run.experiment.judge
    if not judges.dear:
        return
    seen = len({(v.prompt_id, v.sample) for v in run.shown.verdicts if v.judge in judges.dear})
    cheap = ", ".join(name for name in judges.panel if name not in judges.dear)
    yield (
        f"Two tiers of judges: {', '.join(judges.dear)} saw {seen:,} of {len(run.shown.predictions):,} answers "
        f"({run.split} split, drawn at random from each prompt's), {cheap} all. Scores are what the dear judges would "
        f"say of all answers, combined from both; slices, changes and failing answers below are by {cheap} alone. "
        f"{ASSUMED_OF_TIERS}"
    )


def _beside_told(run: Ended, name: str, verdicts: Sequence[Verdict]) -> str:
    cut, near = run.experiment.loop.coverage_cut, clusters(run.shown.predictions)
    card = score(verdicts, coverage_cut=cut, clusters=near, dear=run.experiment.judge.dear)
    what = {Beside.service_llm: f"Ceiling, {run.experiment.service_llm.name}", Beside.base: "Floor, the base model"}
    head = what.get(Beside(name), "Floor, the base model with pairs before each prompt")
    shares = [
        f"{100 * ours / theirs:.0f}% of its {which}"
        for which in SCORES
        if (ours := getattr(run.shown.card, which).mean) is not None and (theirs := getattr(card, which).mean)
    ]
    reached = f"; the local model reaches {' and '.join(shares)}" if name == Beside.service_llm and shares else ""
    return f"{head}: {scores(of_card(card))} ({run.split} split, {count(card)}){reached}."


def _regression_told(run: Ended) -> Iterator[str]:
    if Beside.base not in run.beside:
        return
    cut = run.experiment.loop.coverage_cut
    found = regression(run.everywhere, run.of_all(run.beside[Beside.base]), cut)
    yield (
        f"Since the base model {found.lost} of {found.right} prompts that were right went wrong, and {found.won} of "
        f"{found.wrong} that were wrong came right ({run.split} split; right: most answers reach {cut:g})."
    )


def _failures_told(run: Ended) -> Iterator[str]:
    name, cut = told_score(run.shown), run.experiment.loop.coverage_cut
    lowest = failing(run.everywhere, cut)
    if not lowest:
        yield f"No answer to the {run.split} split has a {name} below {cut:g}."
    for answer, value in lowest:
        texts = f"{short(answer.prompt)} -> {short(answer.text)}, reference {short(answer.reference)}"
        yield f"Failing, {name} {value:.0f}: {texts}."


def _helps(run: Ended) -> str:
    """Say which of more prompts, more rows and another model would most likely bring the gate into reach."""
    if not run.chosen.gate:
        return ""
    split, judged, seen = run.experiment.protocol.gate_split.value, run.judged, GateLook(**run.chosen.gate)
    theirs: Sequence[Verdict] | None = run.service_llm_at_gate
    if seen.passed:
        if run.test is None or run.test.gate is None or run.test.gate.passed:
            return ""
        split, judged, seen = "test", run.test, run.test.gate
        theirs = run.beside.get(Beside.service_llm)
    enough = more_prompts(judged, seen, run.experiment.loop.gate, theirs)
    if enough:
        return f"more prompts: {enough:,} that score like these {seen.prompts:,} would pass (data.{split}_rows)"
    if split == "test":
        return "another draw of data and training: on dev it passed, on test its mean falls short"
    steps = [(after.train_rows, overall(after) - overall(before)) for before, after in pairwise(run.history)]
    told = f"the last step, to {steps[-1][0]:,} rows, brought {steps[-1][1]:+.1f} points" if steps else "1 volume tried"
    if steps and steps[-1][1] >= run.experiment.loop.min_gain:
        return f"more rows: {told} (loop.max_iterations)"
    return f"another or a larger local model, or a higher rank: {told}"
