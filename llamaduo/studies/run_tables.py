"""Tables with a row a run: the overview, and published numbers beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llamaduo.display import pocket_note
from llamaduo.evidence.resample import NOTHING, Measure
from llamaduo.studies.cells import SCORES, Scored, count, label, number, row_names
from llamaduo.studies.parts import Cell, Table
from llamaduo.studies.published import Published, published_scores
from llamaduo.studies.runs import RunRecord
from llamaduo.studies.study import Study
from llamaduo.studies.swept import NAMES, identities
from llamaduo.studies.tidy import Row

_RUNS = (
    "One row a run. Scores are the panel's means, 0 to 100, with 95% intervals over prompts, of the answers that the "
    "run is reported by; empty until it is done. Rows: trained on in the best iteration, synthetic ones among them. "
    "Unscored: verdicts without a score in the best iteration. Cost: service LLM calls in USD. Time: of all iterations."
)


def overview(study: Study, scored: Scored) -> Table:
    """Return how each run stands."""
    identity = identities(study)
    names = list(dict.fromkeys(["task", "local_model", *row_names(identity)]))
    header = (*(NAMES.get(name, name) for name in names), "status", "iterations", "rows", "synthetic rows",
              *SCORES, "n", "unscored", "cost", "seconds", "run")  # fmt: skip
    rows = tuple(
        (*(label(row[name]) for name in names), *_standing(run, scored))
        for run, row in zip(study.runs, identity, strict=True)
    )
    return Table("runs", "Runs", _RUNS, header, rows, labels=len(names))


def _standing(run: RunRecord, scored: Scored) -> Iterator[Cell]:
    state, chosen = run.state, run.chosen
    yield Cell(state.stop_reason or state.status, note=state.error or "")
    yield count(state.iterations)
    yield count(chosen.train_rows if chosen else None)
    yield count(chosen.synthetic_rows if chosen else None)
    means = [scored.measure([run.name], score=score) for score in SCORES]
    yield from map(number, means)
    yield count(max(one.n for one in means) or None)
    yield count(chosen.unscored if chosen else None)
    yield Cell(f"${state.cost_usd:.2f}", round(state.cost_usd, 6))
    seconds = sum(line.seconds for line in run.history)
    yield Cell(f"{seconds:,.0f}", round(seconds, 3))
    yield Cell(run.name)


_PUBLISHED = (
    "Our scores, with 95% intervals over prompts, beside the numbers published with the LlamaDuo paper (arXiv "
    "2408.13467). Published numbers are taken from third parties' notes: approximate, without an interval; empty where "
    "none is known. Difference: ours minus published, where task, model, judge, score and generator are the same; its "
    "interval is ours alone."
)

_PAPERS_JUDGES = ("gpt_4o", "claude_3_sonnet", "gemini_1_5_flash")


def published_table(study: Study, scored: Scored) -> Iterator[Table]:
    """Yield published numbers beside ours, if any run has the task, model and judge of one; never for a rehearsal."""
    known = published_scores()
    models, tasks = {entry.model for entry in known}, {entry.task for entry in known}
    identity = identities(study)
    extra = [name for name in row_names(identity, "task", "judges") if name not in ("local_model", "service_llm")]
    rows, matched = [], False
    for run, row in zip(study.runs, identity, strict=True):
        if row["local_model"] not in models or row["task"] not in tasks or pocket_note(run.config):
            continue
        for judge in [name for name in run.judges if name in _PAPERS_JUDGES]:
            for score in SCORES:
                ours = scored.measure([run.name], judge, score=score)
                if ours.value is None:
                    continue
                theirs = _theirs(known, row, judge, score)
                matched |= theirs is not None
                named = [row["task"], row["local_model"], judge, score, row["service_llm"], *(row[e] for e in extra)]
                rows.append((*map(label, named), *_beside(ours, theirs, row["service_llm"])))
    if matched:
        names = ("task", "model", "judge", "score", "generator", *(NAMES.get(name, name) for name in extra))
        header = (*names, "ours", "published", "published with", "difference", "source", "n")
        yield Table("published", "Published numbers beside ours", _PUBLISHED, header, tuple(rows), labels=len(names))


def _theirs(known: Sequence[Published], row: Row, judge: str, score: str) -> Published | None:
    """Return the published number of a task, model, judge and score, with our generator before others."""
    found = [p for p in known
             if (p.task, p.model, p.judge, p.score) == (row["task"], row["local_model"], judge, score)]  # fmt: skip
    return min(found, key=lambda p: (p.generator != row["service_llm"], str(p.generator)), default=None)


def _beside(ours: Measure, theirs: Published | None, generator: str | None) -> Iterator[Cell]:
    yield number(ours)
    if theirs is None:
        yield from [Cell("")] * 4
    else:
        yield Cell(f"{theirs.value:.1f}", theirs.value)
        yield Cell(theirs.generator or "none")
        comparable = theirs.generator == generator
        yield number(_apart(ours, theirs.value) if comparable else NOTHING, sign=True)
        yield Cell(f"{theirs.source}, approximate")
    yield count(ours.n or None)


def _apart(ours: Measure, published: float) -> Measure:
    def shifted(value: float | None) -> float | None:
        return None if value is None else round(value - published, 4)

    return Measure(shifted(ours.value), shifted(ours.low), shifted(ours.high), ours.n, ours.prompts)
