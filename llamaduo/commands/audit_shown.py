"""An audit as plain values (`audit.json`), and as people read it.

{"items": 24, "split": "dev", "judges": {"gpt_4o": {
    "kinds": {"right": {"similarity": {"mean": 98.9, "low": 98.1, "high": 99.5, "n": 24}, "precision": ...}, ...},
    "noise": {"similarity": {"value": 1.1, ...}, ...}, "scored": 384, "unscored": 0, "reasons": {}, "cost_usd": 0.31,
    "findings": [{"fault": "prefers_long", "score": "precision", "text": "prefers long answers: ...", ...}],
    "labels": {"precision": {"n": 40, "spearman": ..., "alpha": ..., "bias": ..., "corrected": ...}}}}}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaduo.config import Judge
from llamaduo.data.labels import Labelled
from llamaduo.display import span
from llamaduo.evidence.agreement import alpha, rank_correlation, self_noise
from llamaduo.evidence.audit import FAULTS, Finding, findings
from llamaduo.evidence.compare import by_prompt, difference
from llamaduo.evidence.corrected import BESIDE_PEOPLE, FEWEST, against_people, corrected_mean
from llamaduo.evidence.known_answers import EXPECTED, KINDS, REPEATED, SCORES, collect, means
from llamaduo.records import Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType


def summary(
    verdicts: Sequence[Verdict], judge: Judge, labelled: Sequence[Labelled], of_labelled: Sequence[Verdict]
) -> dict[str, Any]:
    """Return what was found of each member of the panel, as plain values."""
    import numpy as np

    found = {}
    for name, llm in judge.panel.items():
        replies = collect(verdicts, name)
        items = np.arange(len(replies.precision["right"]))
        kinds = {score: means(replies, score) for score in SCORES}
        noise = {
            score: asdict(
                self_noise(np.tile(items, len(REPEATED)), np.vstack([replies.of(score)[kind] for kind in REPEATED]))
            )
            for score in SCORES
        }
        people, apart = _with_people(labelled, [v for v in of_labelled if v.judge == name])
        found[name] = {
            "llm": f"{llm.provider}/{llm.model}",
            "kinds": {kind: {score: asdict(kinds[score][kind]) for score in SCORES} for kind in KINDS},
            "noise": noise,
            "scored": replies.scored,
            "unscored": replies.reasons.total(),
            "reasons": dict(replies.reasons),
            "cost_usd": round(replies.cost_usd + sum(v.cost_usd for v in of_labelled if v.judge == name), 10),
            "findings": [asdict(one) for one in [*findings(replies, max_unscored=judge.max_unscored), *apart]],
            "labels": people,
        }
    return found


def _with_people(labelled: Sequence[Labelled], verdicts: Sequence[Verdict]) -> tuple[dict[str, Any], list[Finding]]:
    """Return how one judge's scores compare with people's, by score, and the faults that this shows."""
    import numpy as np

    ids = np.array([one.prediction.prompt_id for one in labelled])
    found: dict[str, Any] = {}
    named: list[Finding] = []
    for score in SCORES:
        human = np.array([_or_nan(getattr(one, score)) for one in labelled])
        if np.isnan(human).all():
            continue
        table: dict[tuple[str, int], list[float]] = {}
        for verdict in verdicts:
            value = getattr(verdict, score)
            if verdict.unscored is None and value is not None:
                table.setdefault((verdict.prompt_id, verdict.sample), []).append(value)
        given = [table.get((one.prediction.prompt_id, one.prediction.sample), []) for one in labelled]
        judged = np.array([sum(values) / len(values) if values else np.nan for values in given])
        people = np.where(np.isnan(judged), np.nan, human)
        both = ~np.isnan(people)
        ranks = rank_correlation(ids, judged, human, "spearman")
        bias = difference(by_prompt(ids, np.where(both, judged, np.nan)), by_prompt(ids, people))
        named += against_people(score, bias, ranks)
        found[score] = {
            "answers": int((~np.isnan(judged)).sum()),
            "n": int(both.sum()),
            "human_mean": float(people[both].mean()) if both.any() else None,
            "judge_mean": float(judged[~np.isnan(judged)].mean()) if given and both.any() else None,
            "spearman": asdict(ranks),
            "alpha": asdict(alpha(ids, np.column_stack([judged, human]))),
            "bias": asdict(bias),
            "corrected": asdict(corrected_mean(ids, judged, human)),
        }
    return found, named


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def rendered(found: Mapping[str, Any], folder: Path) -> Iterator[RenderableType]:
    """Yield what is shown of an audit."""
    for name, one in found["judges"].items():
        yield ""
        yield _table(f"{name} ({one['llm']}), {found['items']} items", one)
        noise = ", ".join(f"{score} {_measure(one['noise'][score])}" for score in SCORES)
        yield f"SD between repeats of the same request, points: {noise}."
        if one["unscored"]:
            told = ", ".join(f"{reason} {count}" for reason, count in one["reasons"].items())
            yield f"{one['unscored']} of {one['scored'] + one['unscored']} replies are unscored: {told}."
        yield from _strict_on_form(one["kinds"])
        yield from _people(one["labels"])
        yield from _named(name, one, found["items"])
    cost = sum(one["cost_usd"] for one in found["judges"].values())
    yield "\nMeans over items with 95% intervals. Faults: one-sided tests at 1%, Student's t (docs/judges.md)."
    yield f"Replies: ${cost:,.2f}. Results: {folder}"


def _table(title: str, one: Mapping[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1))
    for heading in ("answer", "should be"):
        table.add_column(heading, no_wrap=True)
    for score in SCORES:
        table.add_column(score, justify="right", no_wrap=True)
    for kind, label in KINDS.items():
        cells = [span(row["mean"], row["low"], row["high"]) for row in (one["kinds"][kind][score] for score in SCORES)]
        table.add_row(label, EXPECTED.get(kind, "low"), *cells)
    return table


def _strict_on_form(kinds: Mapping[str, Any]) -> Iterator[str]:
    """Say what a polite sentence costs, if it costs much: no fault, but worth knowing of a judge."""
    right, polite = (kinds[kind]["precision"]["mean"] for kind in ("right", "polite"))
    if right is not None and polite is not None and right - polite > 30:
        yield (
            f"No fault, but know it: a polite sentence after the reference costs {right - polite:.0f} points of "
            "precision; this judge wants the bare answer."
        )


def _named(name: str, one: Mapping[str, Any], items: int) -> Iterator[str]:
    """Yield the faults, a line each; or that none shows."""
    if not one["findings"]:
        sought = len(FAULTS) if one["labels"] else len(FAULTS) - len(BESIDE_PEOPLE)
        yield f"{name}: no fault shows beyond noise on {items} items. {sought} were looked for: docs/judges.md."
        return
    yield f"{name}: FAULTS"
    for fault in one["findings"]:
        yield f"  - {fault['score']}: {fault['text']}" if fault["score"] != "both" else f"  - {fault['text']}"


def _people(labels: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what comes of the answers that people scored."""
    for score, one in labels.items():
        yield (
            f"{score}, {one['n']} answers scored by people: rank correlation {_measure(one['spearman'], 2)}, alpha "
            f"{_measure(one['alpha'], 2)}, judge minus people {_measure(one['bias'])} points."
        )
        corrected = one["corrected"]
        if corrected["value"] is None:
            continue
        least = f"; an interval needs {FEWEST} prompts with a human score" if corrected["low"] is None else ""
        yield (
            f"{score}, mean over {one['answers']} answers: the judge says {one['judge_mean']:.1f}, corrected by people "
            f"{_measure(corrected)}{least}."
        )


def _measure(measure: Mapping[str, Any], digits: int = 1) -> str:
    """Return a measure with its 95% interval, such as `0.82 [0.71, 0.93]`."""
    value, low, high = measure["value"], measure["low"], measure["high"]
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if low is None else f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
