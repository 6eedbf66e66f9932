"""Tables with a row a run: the overview, published numbers beside ours, and which model wins how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from llamaduo.display import pocket_note
from llamaduo.evidence.resample import NOTHING, Measure
from llamaduo.runs.record import RunRecord
from llamaduo.studies.factors import NAMES, contexts, identities, varying
from llamaduo.studies.parts import Cell, Table
from llamaduo.studies.published import Published, published_scores, published_wins
from llamaduo.studies.study import Study
from llamaduo.studies.tables.cells import SCORES, Candidates, Scored, best, count, label, number, row_names
from llamaduo.studies.tidy import Row, identity

_RUNS = (
    "One row a run. Scores are the panel's means, 0 to 100, with 95% intervals over prompts, of the answers that the "
    "run is reported by, of this run's model: training noise is no part of them. Empty until it is done. n: answers "
    "with a score, to so many prompts. Rows: trained on in the best iteration, synthetic ones among them. "
    "Unscored: verdicts without a score among those that the scores are of. Cost: service LLM calls in USD. Time: of "
    "all iterations."
)


def overview(study: Study, scored: Scored) -> Table:
    """Return how each run stands."""
    identified = identities(study)
    names = list(dict.fromkeys(["task", "local_model", *row_names(identified)]))
    header = (*(NAMES.get(name, name) for name in names), "status", "iterations", "rows", "synthetic rows",
              *SCORES, "prompts", "n", "unscored", "cost", "seconds", "run")  # fmt: skip
    rows = tuple(
        (*(label(row[name]) for name in names), *_standing(run, scored))
        for run, row in zip(study.runs, identified, strict=True)
    )
    return Table("runs", "Runs", _RUNS, header, rows, labels=len(names))


def _standing(run: RunRecord, scored: Scored) -> Iterator[Cell]:
    state, chosen = run.state, run.chosen
    yield Cell(state.stop_reason or state.status, note=state.error or "")
    yield count(state.iterations)
    yield count(chosen.train_rows if chosen else None)
    yield count(chosen.synthetic_rows if chosen else None)
    means = [scored.recorded(run.name, score=score) for score in SCORES]
    yield from map(number, means)
    yield count(max(one.prompts for one in means) or None)
    yield count(max(one.n for one in means) or None)
    reported = scored.row(run.name)
    yield count(reported["unscored"] if reported else None)
    yield Cell(f"${state.cost_usd:.2f}", round(state.cost_usd, 6))
    seconds = sum(line.seconds for line in run.history)
    yield Cell(f"{seconds:,.0f}", round(seconds, 3))
    yield Cell(run.name)


_PUBLISHED = (
    "Our scores, with 95% intervals over prompts, beside the numbers published with the LlamaDuo paper (arXiv "
    "2408.13467). Published numbers are taken from third parties' notes: approximate, without an interval; empty where "
    "none is known. Difference: ours minus published, where task, model, judge, score and generator are the same, and "
    "protocol, judge's prompt and volume are the paper's; the LoRA rank behind a published number is not known. Its "
    "interval is ours alone. n: our answers."
)

_PAPERS_JUDGES = ("gpt_4o", "claude_3_sonnet", "gemini_1_5_flash")


def published_table(study: Study, scored: Scored) -> Iterator[Table]:
    """Yield published numbers beside ours, if any run has the task, model and judge of one; never for a rehearsal."""
    known = published_scores()
    models, tasks = {entry.model for entry in known}, {entry.task for entry in known}
    identified = identities(study)
    extra = [name for name in row_names(identified, "task", "judges") if name not in ("local_model", "service_llm")]
    rows, matched = [], False
    for run, row in zip(study.runs, identified, strict=True):
        if row["local_model"] not in models or row["task"] not in tasks or pocket_note(run.experiment):
            continue
        for judge in [name for name in run.judges if name in _PAPERS_JUDGES]:
            for score in SCORES:
                ours = scored.measure([run.name], judge, score=score)
                if ours.value is None:
                    continue
                theirs = _theirs(known, row, judge, score)
                matched |= theirs is not None
                named = [row["task"], row["local_model"], judge, score, row["service_llm"], *(row[e] for e in extra)]
                rows.append((*map(label, named), *_beside(ours, theirs, other_than_papers(run, theirs))))
    if matched:
        names = ("task", "model", "judge", "score", "generator", *(NAMES.get(name, name) for name in extra))
        header = (*names, "ours", "published", "published with", "difference", "source", "prompts", "n")
        yield Table("published", "Published numbers beside ours", f"{_PUBLISHED} {scored.training}".rstrip(), header,
                    tuple(rows), labels=len(names))  # fmt: skip


def _theirs(known: Sequence[Published], row: Row, judge: str, score: str) -> Published | None:
    """Return the published number of a task, model, judge and score, with our generator before others."""
    found = [p for p in known
             if (p.task, p.model, p.judge, p.score) == (row["task"], row["local_model"], judge, score)]  # fmt: skip
    return min(found, key=lambda p: (p.generator != row["service_llm"], str(p.generator)), default=None)


def other_than_papers(run: RunRecord, theirs: Published | None) -> str:
    """Return what of a run is not as behind a published number, so that no difference means anything; empty if nothing.

    A model that wasn't fine-tuned has no generator and no volume, in the paper and here.
    """
    who = identity(run)
    others = []
    if theirs is not None and theirs.generator != who["service_llm"]:
        others.append("generator")
    if who["protocol"] != "paper":
        others.append("protocol")
    if who["judge_prompt"] != "paper":
        others.append("judge's prompt")
    if who["method"] not in ("fine-tuned", "served"):
        others.append("method")
    if who["method"] == "fine-tuned" and who["volume"] != run.experiment.task.synthetic_rows:
        others.append("volume")
    return f"no difference, since not the paper's: {', '.join(others)}" if others else ""


def _beside(ours: Measure, theirs: Published | None, other: str) -> Iterator[Cell]:
    yield number(ours)
    if theirs is None:
        yield from [Cell("")] * 4
    else:
        yield Cell(f"{theirs.value:.1f}", theirs.value)
        yield Cell(theirs.generator or "none")
        yield number(NOTHING if other else _apart(ours, theirs.value), sign=True, note=other)
        yield Cell(f"{theirs.source}, approximate")
    yield count(ours.prompts or None)
    yield count(ours.n or None)


def _apart(ours: Measure, published: float) -> Measure:
    def shifted(value: float | None) -> float | None:
        return None if value is None else round(value - published, 4)

    return Measure(shifted(ours.value), shifted(ours.low), shifted(ours.high), ours.n, ours.prompts)


_WINS = (
    "In how many comparisons a fine-tuned local model is the best at a task, of all that were made: each judge's two "
    "scores, in each setting (generator, volume ...) in which two models or more were run. Best: the highest mean, "
    "equal ones all; clearly: by more than noise, as bold type in the main tables, with Holm's correction over all "
    "comparisons of this table."
)
_WINS_PUBLISHED = (
    " Published: what the LlamaDuo paper (arXiv 2408.13467) is said to have found, by third parties' notes, "
    "approximate; the winner of a task alone is known, and its scenarios need not be ours."
)


def wins_table(study: Study, scored: Scored) -> Iterator[Table]:
    """Yield how often each local model is best at a task, published wins beside it; nothing without two models."""
    won: dict[tuple[str, str], int] = {}
    clearly, of = Counter[tuple[str, str]](), Counter[str]()
    columns: dict[tuple[str, int, tuple[str, ...]], Candidates] = {}
    for at, (task, levels, judge, score) in enumerate(_comparisons(study, scored)):
        means = {model: scored.measure(runs, judge, score=score).value for model, runs in levels.items()}
        known = {model: value for model, value in means.items() if value is not None}
        if len(known) < 2:
            continue
        of[task] += 1
        for model, value in known.items():
            won[task, model] = won.get((task, model), 0) + (value == max(known.values()))
        behind = [(known[model], scored.by_prompt(levels[model], score, judge)) for model in known]
        columns[task, at, tuple(known)] = behind
    for (task, _, models), first in best(columns).items():
        clearly[task, models[first]] += 1
    rehearsed = any(pocket_note(run.experiment) for run in study.runs)
    papers = {} if rehearsed else {win.task: win for win in published_wins()}
    beside = any(task in papers for task, _ in won)
    rows = []
    for task, model in sorted(won):
        fields = [Cell(task), Cell(model), count(won[task, model]), count(clearly[task, model]), count(of[task])]
        theirs = papers.get(task)
        if beside and theirs is not None and theirs.model == model:
            fields += [count(theirs.won), count(theirs.of), Cell(f"{theirs.source}, approximate")]
        rows.append((*fields, *[Cell("")] * (8 - len(fields) if beside else 0)))
    if rows:
        published = ("published best in", "published of", "source") if beside else ()
        header = ("task", "model", "best in", "clearly", "of", *published)
        yield Table(
            "wins", "Which model is best how often", _WINS + _WINS_PUBLISHED * beside, header, tuple(rows), labels=2
        )


def _comparisons(study: Study, scored: Scored) -> Iterator[tuple[str, dict[str, list[str]], str, str]]:
    """Yield task, runs of each model, judge and score of every comparison that the study makes between models."""
    rows = [row for row in identities(study) if row["method"] == "fine-tuned" and scored.row(row["run"])]
    for levels in contexts(rows, varying(rows), "local_model").values():
        runs = {model: [row["run"] for row in found] for model, found in levels.items()}
        (first, *_) = levels.values()
        judges = first[0]["judges"].split(" + ")
        for judge in judges:
            for score in SCORES:
                yield first[0]["task"], runs, judge, score
