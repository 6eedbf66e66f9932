"""The tidy table of a study: one row for each run, iteration, split and judge, with all that tells runs apart.

    rows = tidy(study.runs, study.scores)         what read_study(Path("results/main_table")).rows holds
    write(rows, Path("results/main_table"))             runs.csv and runs.parquet

A row begins with the run's identity (`IDENTITY`); `judge` is `all` for the panel's mean, or a panel member.
`reported` marks the one row a judge that stands for its run in tables: the test split's under
`protocol=clean`, the best iteration's under `protocol=paper`. Scores are 0 to 100, null where none exists;
`precision_n` and `similarity_n` are the answers that have them, `prompts` the prompts behind these, near copies
counted once. Coverage's limits and n, and a single judge's n, are counted from verdicts, which are read for reported
rows and for those of who stands beside: null elsewhere. Older runs recorded no prompts, and limits that a bootstrap
gave: their reported rows have those that their verdicts give now.

Who was judged beside a run's models has rows, too, on the split that the run is reported by: `beside` says who
(`service_llm`, `base`, `few_shot`; null in all other rows), and `local_model` and `method` are those of a run that has
it alone. They are never `reported`, since they don't stand for their run.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llamaduo.config import Experiment, plain, who_answers
from llamaduo.evidence.compare import ByPrompt, by_prompt, mean, means
from llamaduo.evidence.resample import NOTHING, Measure
from llamaduo.files.writing import write_bytes, write_text
from llamaduo.runs.record import RunRecord
from llamaduo.runs.state import Iteration
from llamaduo.studies.answers import Scores
from llamaduo.studies.beside import StandIn, stand_ins

Row = dict[str, Any]

IDENTITY = (
    "study", "run", "task", "local_model", "method", "service_llm", "volume", "lora_r", "lora_alpha", "epochs",
    "learning_rate", "quantization", "start", "protocol", "judge_prompt", "judge_repeats", "samples", "temperature",
    "seed", "data_seed",
)  # fmt: skip
"""Columns that say which run it is, in the order of tables."""

_SCORES = ("similarity", "precision")
_LIMITS = ("mean", "low", "high")

COLUMNS = (
    *IDENTITY, "beside", "judge", "split", "iteration", "reported",
    *(f"{name}_{limit}" for name in _SCORES for limit in (*_LIMITS, "n")),
    "coverage", "coverage_low", "coverage_high", "coverage_n", "prompts", "answers", "unanswered", "scored",
    "unscored", "train_rows", "synthetic_rows", "skipped_rows", "train_loss", "cost_usd", "seconds", "status",
    "stop_reason", "accepted",
)  # fmt: skip


def identity(run: RunRecord) -> Row:
    """Return what tells a run from others: `IDENTITY`, null where a column doesn't apply."""
    made = run.experiment
    volumes = made.loop.growth.volumes
    values = {
        "study": made.study,
        "run": run.name,
        "task": made.task.name,
        "local_model": who_answers(made, short=True),
        "method": method(made),
        "service_llm": made.service_llm.name if made.synthesis.enabled else None,
        "volume": volumes[0] if len(volumes) == 1 else None,
        "start": plain(made.loop.start),
        "protocol": made.protocol.name,
        "judge_prompt": made.judge.prompt,
        "judge_repeats": made.judge.repeats,
        "samples": made.infer.samples,
        "temperature": made.infer.temperature,
        "seed": made.runtime.seed,
        "data_seed": made.data.seed,
    }
    trains = ("lora_r", "lora_alpha", "epochs", "learning_rate", "quantization")
    values |= {name: plain(getattr(made.train, name)) if made.train.enabled else None for name in trains}
    return {name: values[name] for name in IDENTITY}


def method(experiment: Experiment) -> str:
    """Return how the answering model came to its task: `fine-tuned`, `base`, `4-shot`, `served` or a mixture."""
    how = "served" if experiment.infer.served else "fine-tuned" if experiment.train.enabled else "base"
    shots = experiment.infer.shots
    return how if not shots else f"{shots}-shot" if how == "base" else f"{how}, {shots}-shot"


def training_sd(experiment: Experiment) -> float:
    """Return what a run's score is taken to scatter by between seeds, in points; 0 where no model was trained."""
    trained = method(experiment).startswith("fine-tuned")
    return float(experiment.evidence.training_noise_sd) if trained else 0.0


def tidy(runs: Iterable[RunRecord], scores: Mapping[str, Scores]) -> list[Row]:
    """Return the rows of all runs; every row has all `COLUMNS`.

    `scores` are, by the run's name, those of the answers that a run is reported by, and by the own names of those who
    stand beside it, theirs.
    """
    rows: list[Row] = []
    counted: list[tuple[Row, str, ByPrompt]] = []
    for run in runs:
        found = [(row, scores.get(run.name)) for row in _of_run(run)]
        found += [(row, scores.get(one.run.name)) for one in stand_ins(run) for row in _of_stand_in(one, run)]
        for row, theirs in found:
            if theirs is not None and (row["reported"] or row["beside"]):
                sides = _counted_in_verdicts(theirs, row, run.experiment.loop.coverage_cut)
                counted += [(row, name, side) for name, side in sides]
        rows += [row for row, _ in found]
    for (row, name, _), one in zip(counted, means([side for *_, side in counted]), strict=True):
        row |= {f"{name}_low": one.low, f"{name}_high": one.high}
    return rows


def _counted_in_verdicts(scores: Scores, row: Row, cut: float) -> Iterator[tuple[str, ByPrompt]]:
    """Put into a reported row what only verdicts tell of it, and yield what its limits are still to be taken of.

    These are coverage and, in older runs, the scores.
    """
    one = None if row["judge"] == "all" else row["judge"]
    if one is not None and one not in scores.judges:
        return
    behind = {name: by_prompt(scores.clusters, scores.of_answers(name, one)) for name in _SCORES}
    covered_ = by_prompt(scores.clusters, scores.covered(cut, one))
    older = not row["prompts"]
    row |= {f"{name}_n": side.n for name, side in behind.items() if row[f"{name}_n"] is None}
    row |= {"prompts": max(len(side.prompts) for side in behind.values()) or None, "coverage_n": covered_.n}
    yield "coverage", covered_
    if older:
        yield from ((name, side) for name, side in behind.items() if row[f"{name}_low"] is not None)


def covered(scores: Scores, cut: float, judge: str | None = None) -> Measure:
    """Return the percentage of answers whose two scores reach the cut, of the panel or one judge."""
    return mean(by_prompt(scores.clusters, scores.covered(cut, judge)))


def coverage_of(row: Row) -> Measure:
    """Return the same as a reported row holds it; no value where no verdicts could be counted."""
    if not row["coverage_n"]:
        return NOTHING
    return Measure(row["coverage"], row["coverage_low"], row["coverage_high"], row["coverage_n"], row["prompts"])


def _of_run(run: RunRecord) -> list[Row]:
    known = dict.fromkeys(COLUMNS) | identity(run)
    known |= {"status": run.state.status, "stop_reason": run.state.stop_reason, "reported": False, "accepted": False}
    test = run.state.test
    rows: list[Row] = []
    for line in run.history:
        here = known | _of_iteration(line) | {"split": run.split}
        here["accepted"] = line.iteration == run.state.accepted_iteration
        here["reported"] = run.state.status == "done" and not test and line is run.chosen
        limits = [f"{name}_{limit}" for name in _SCORES for limit in _LIMITS]
        whole = {name: getattr(line, name) for name in (*limits, *_COUNTED, "cost_usd", "seconds")}
        whole |= {f"{name}_n": n for name, n in run.scored.get(line.iteration, {}).items()}
        whole["prompts"] = line.prompts or None
        rows += _with_judges(here, whole, line.judges)
    if test and run.chosen:
        here = known | _of_iteration(run.chosen) | {"split": "test", "reported": run.state.status == "done"}
        here["accepted"] = run.chosen.iteration == run.state.accepted_iteration
        rows += _of_card(here, test)
    return rows


def _of_stand_in(one: StandIn, run: RunRecord) -> list[Row]:
    known = dict.fromkeys(COLUMNS) | identity(one.run) | {"run": run.name, "beside": one.name.value}
    known |= {"status": run.state.status, "stop_reason": run.state.stop_reason, "reported": False, "accepted": False}
    return _of_card(known | {"split": one.split}, one.card)


def _of_card(here: Row, card: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a scorecard."""
    whole = {f"{name}_{limit}": (card.get(name) or {}).get(limit)
             for name in _SCORES for limit in (*_LIMITS, "n")}  # fmt: skip
    whole |= {name: card.get(name) for name in (*_COUNTED, "cost_usd")}
    whole["prompts"] = max((card.get(name) or {}).get("prompts", 0) for name in _SCORES) or None
    return _with_judges(here, whole, card.get("judges") or {})


_COUNTED = ("coverage", "answers", "unanswered", "scored", "unscored")


def _of_iteration(line: Iteration) -> Row:
    names = ("iteration", "train_rows", "synthetic_rows", "skipped_rows", "train_loss")
    return {name: getattr(line, name) for name in names}


def _with_judges(here: Row, whole: Row, judges: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Return the panel's row and one for each member."""
    rows = [here | {"judge": "all"} | whole]
    for name, scores in judges.items():
        answers = {name: whole[name] for name in ("answers", "unanswered", "prompts")}
        rows.append(here | {"judge": name} | answers | {k: v for k, v in scores.items() if k in COLUMNS})
    return rows


def factors(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return the identity columns in which runs differ, each with its values, sorted; `study` and `run` left out."""
    found = {}
    for name in IDENTITY[2:]:
        values = {row[name] for row in rows}
        if len(values) > 1:
            found[name] = sorted(values, key=lambda value: (value is not None, isinstance(value, str), value))
    return found


def write(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write `runs.csv` and `runs.parquet`, without the column `beside` where it says nothing; return their paths."""
    if not any(row["beside"] for row in rows):
        rows = [{name: value for name, value in row.items() if name != "beside"} for row in rows]
    write_text(folder / "runs.csv", as_csv(rows))
    _write_parquet(rows, folder / "runs.parquet")
    return [folder / "runs.csv", folder / "runs.parquet"]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV; null is an empty field. What a spreadsheet would take for a formula gets a `'` before it."""
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_no_formula(name) for name in names)
    writer.writerows([_no_formula(row.get(name)) for name in names] for row in rows)
    return out.getvalue()


_FORMULA = re.compile(r"[\t\r]|\s*[=+@\uff1d\uff0b\uff0d\uff20-]")
_NUMBER = re.compile(r"[-+]?(\d[\d.,]*(e[-+]?\d+)?%?( ?\[[-+\d., ]*\])?)?")
"""Such as -1.5, +0.6 [-11.7, +12.9] and a lone -."""


def is_formula(text: str) -> bool:
    """Tell whether a spreadsheet could take a text for a formula; numbers with a sign are none."""
    return bool(_FORMULA.match(text)) and not _NUMBER.fullmatch(text)


def _no_formula(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.replace("\r", " ")  # which csv would write as it is, and a reader takes for the end of a line
    return f"'{text}" if is_formula(text) else text


_TEXT = {"study", "run", "task", "local_model", "method", "service_llm", "quantization", "start", "protocol",
         "judge_prompt", "beside", "judge", "split", "status", "stop_reason"}  # fmt: skip
_TRUTH = {"reported", "accepted"}
_WHOLE = {"volume", "lora_r", "lora_alpha", "epochs", "judge_repeats", "samples", "seed", "data_seed", "iteration",
          "similarity_n", "precision_n", "coverage_n", "prompts", "answers", "unanswered", "scored", "unscored",
          "train_rows", "synthetic_rows", "skipped_rows"}  # fmt: skip


def _write_parquet(rows: Sequence[Row], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    def kind(name: str) -> Any:
        if name in _TEXT:
            return pyarrow.string()
        return pyarrow.bool_() if name in _TRUTH else pyarrow.int64() if name in _WHOLE else pyarrow.float64()

    schema = pyarrow.schema([(name, kind(name)) for name in COLUMNS if not rows or name in rows[0]])
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), out, compression="zstd")
    write_bytes(path, out.getvalue())
