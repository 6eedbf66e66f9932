"""`llamaduo judge-audit`: what the judges of an experiment make of answers whose worth is known.

    llamaduo judge-audit judge=today_panel data=file data.path=pairs.jsonl --labels scored.csv

Composes an experiment as `run` does, makes answers to rows of the gate's split (`stages.probe`), lets every member of
the panel score them through the journal and the budget, and names the faults that the scores show (`evidence.audit`).
Writes `results/<study>/judge-audit-<8 hex>/`: `predictions.jsonl`, `verdicts.jsonl`, with labels `labelled.jsonl`, and
`audit.json`, each with its marker; the same command again prints what is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from llamaduo.commands.arguments import told_apart
from llamaduo.commands.audit_shown import rendered, summary
from llamaduo.compose import compose
from llamaduo.config import Experiment, JudgeKind, fingerprint, plain
from llamaduo.data.coverage import load_coverage
from llamaduo.data.dataset import gate_rows
from llamaduo.data.labels import Labelled, read_labels
from llamaduo.display import Display, plain_console
from llamaduo.errors import ConfigError, InputError, RunFolderError
from llamaduo.evidence.known_answers import FEWEST, KINDS, REPEATED
from llamaduo.quote.hours import CHARACTERS_A_TOKEN
from llamaduo.quote.quote import VERDICT_TOKENS
from llamaduo.records import Example, Prediction, Verdict
from llamaduo.runs.folder import RunDir
from llamaduo.runs.layout import PREDICTIONS, VERDICTS
from llamaduo.service.access import journal_path, open_service
from llamaduo.service.journal import Journal
from llamaduo.service.prices import tariff
from llamaduo.service.requests import Request
from llamaduo.stages.judge import judge, request
from llamaduo.stages.probe import probe

_ITEMS = 24
USAGE = f"""\
usage: llamaduo judge-audit [key=value ...] [--items N] [--labels FILE] [--quote]

What the judges of an experiment make of answers whose worth is known: right, empty, copied, padded, "give full marks".
Each fault that the scores show beyond noise is named. The keys are those of `llamaduo run`: docs/judges.md.

  --items N      rows of the gate's split that answers are made for, {FEWEST} or more (default {_ITEMS}); 16 calls each
  --labels FILE  answers that people scored (JSONL, CSV ...): agreement, and the judge's mean corrected by them
  --quote        say what it would cost, and ask nobody"""
_REPEATS = 3
_FORMAT = 1
"""Changes when the same replies would come to another `audit.json`."""
_PARTS = ("ten kinds of answers", "two kinds, repeated", "answers that people scored")


def main(arguments: Sequence[str]) -> int:
    """Audit the judges, print what was found and return the exit code: 0, whatever was found."""
    given, console = told_apart(arguments, flags=("--quote",), values=("--items", "--labels")), plain_console()
    items = _count(given.options.get("--items", f"{_ITEMS}"))
    experiment = _experiment(given.words)
    if experiment is None:
        return 0
    audit = Audit(experiment, items, given.path("--labels"))
    for line in audit.beforehand():
        console.print(line)
    if "--quote" not in given.options:
        for part in rendered(audit.result(), audit.folder):
            console.print(part)
    return 0


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < FEWEST:
        raise ConfigError(
            f"--items {value}: must be a number, {FEWEST} at least: with fewer no fault is told from noise."
        )
    return int(value)


def _experiment(overrides: list[str]) -> Experiment | None:
    """Return the experiment, without what only a run asks; None if it was only to be shown."""
    chosen = any(word.startswith(("synthesis", "volume", "-")) for word in overrides)
    composed = compose(overrides if chosen else [*overrides, "synthesis=none"])  # no teacher is needed, nor its key
    if composed is None:
        return None
    if composed.sweep is not None:
        raise ConfigError("judge-audit takes one experiment, not a sweep: leave out -m, and name a panel of judges.")
    experiment = composed.experiments[0]
    if experiment.judge.kind is not JudgeKind.service:
        raise ConfigError("judge=reference asks no judge, so there is none to audit: take another judge.")
    return experiment


class Audit:
    """One audit: what is asked, and where its results lie."""

    def __init__(self, experiment: Experiment, items: int, labels: Path | None) -> None:
        self._experiment = experiment
        dataset = load_coverage(experiment)
        coverage = (*dataset.train, *dataset.dev, *dataset.test)
        self._labelled: list[Labelled] = read_labels(labels, coverage) if labels else []
        self._split = experiment.protocol.gate_split.value
        self._wanted = items
        self._rows = _rows(gate_rows(experiment, dataset), items, self._split)
        self._probes = probe(self._rows)
        told = json.dumps([_FORMAT, fingerprint(experiment), len(self._rows), [asdict(one) for one in self._labelled]])
        digest = hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()[:8]
        self.folder = Path(experiment.runtime.results) / experiment.study / f"judge-audit-{digest}"

    def _parts(self) -> list[tuple[list[Prediction], int]]:
        """Return what is judged, and how many times each: the probes, those that are repeated, labelled answers."""
        repeated = {place for place, name in enumerate(KINDS) if name in REPEATED}
        once = [one for one in self._probes if one.sample not in repeated]
        often = [one for one in self._probes if one.sample in repeated]
        judge_repeats = self._experiment.judge.repeats
        return [
            (once, 1),
            (often, max(_REPEATS, judge_repeats)),
            ([one.prediction for one in self._labelled], judge_repeats),
        ]

    def _requests(self, name: str) -> list[Request]:
        return [
            request(self._experiment.judge, prediction, name, repeat)
            for predictions, repeats in self._parts()
            for prediction in predictions
            for repeat in range(repeats)
        ]

    def beforehand(self) -> list[str]:
        """Return what is to be asked and what it may cost, a line each; nothing is sent."""
        panel, path = self._experiment.judge.panel, journal_path(self._experiment)
        settings = self._experiment.service
        imported = settings.replay or settings.imported
        journal = Journal(path, read_only=True, imported=imported) if path.is_file() else None
        each = sum(len(some) * times for some, times in self._parts()[:2]) // len(self._rows)
        labelled = f", and {len(self._labelled):,} answers of the labels" if self._labelled else ""
        lines = _pocket_note(self._experiment)
        fewer = " (there are no more)" if len(self._rows) < self._wanted else ""
        lines.append(
            f"judge-audit: {len(self._rows)} {self._split} items{fewer}, {each} calls of each judge an item{labelled}."
        )
        for name, llm in panel.items():
            distinct = {one.key: one for one in self._requests(name)}
            left = [one for key, one in distinct.items() if journal is None or journal.find(key) is None]
            price = tariff(llm, self._experiment.prices)
            about = sum(price.cost(round(one.characters / CHARACTERS_A_TOKEN), VERDICT_TOKENS) for one in left)
            reasks = 1 + self._experiment.judge.reasks + self._experiment.service.reasks
            most = reasks * sum(price.cost(one.longest_prompt, one.longest_reply) for one in left)
            held = f", {len(distinct) - len(left):,} of them in the journal" if len(left) < len(distinct) else ""
            lines.append(
                f"  {name}: {len(distinct):,} calls{held}; about ${about:,.2f}, ${most:,.2f} at the very most."
            )
        if journal:
            journal.close()
        return lines

    def result(self) -> dict[str, Any]:
        """Return the audit, from its folder if it is there, else asked for; raises ServiceError and BudgetError."""
        folder = self._made()

        def asked() -> dict[str, Any]:
            verdicts = folder.rows(self.folder / VERDICTS, Verdict, lambda: self._judged([0, 1]))
            labelled: list[Verdict] = []
            if self._labelled:
                labelled = folder.rows(self.folder / "labelled.jsonl", Verdict, lambda: self._judged([2]))
            return {
                "format": _FORMAT,
                "study": self._experiment.study,
                "task": self._experiment.task.name,
                "split": self._split,
                "items": len(self._rows),
                "judge": plain(self._experiment.judge),
                "judges": summary(verdicts, self._experiment.judge, self._labelled, labelled),
            }

        folder.rows(self.folder / PREDICTIONS, Prediction, lambda: self._probes)
        found: dict[str, Any] = folder.tree(self.folder / "audit.json", asked)
        return found

    def _made(self) -> RunDir:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"{self.folder}: can't be made ({error.strerror}); set runtime.results.") from error
        return RunDir(self.folder)

    def _judged(self, parts: list[int]) -> list[Verdict]:
        """Let the panel score some of the parts: the judge stage of a run, with its journal, budget and reading."""
        service = open_service(self._experiment, self.folder, list(self._experiment.judge.panel.values()))
        assert service is not None
        made: list[Verdict] = []
        try:
            with Display() as display:
                service.says = display.note
                for note in service.outlook:
                    display.note(note)
                for part in parts:
                    predictions, repeats = self._parts()[part]
                    config = replace(self._experiment.judge, repeats=repeats, any_scale=True)  # it names one
                    with display.stage("judge", f"audit, {_PARTS[part]}") as progress:
                        made += judge(predictions, config=config, service=service, progress=progress)
        finally:
            service.close()
        return made


def _rows(rows: Sequence[Example], wanted: int, split: str) -> list[Example]:
    """Return the rows that answers are made for: the first of the split, whose order is drawn by its seed."""
    if len(rows) < FEWEST:
        raise InputError(
            f"the {split} split has {len(rows)} rows; an audit needs {FEWEST} at least: add rows, or raise "
            f"data.{split}_rows or data.{split}_fraction."
        )
    return list(rows[:wanted])


def _pocket_note(experiment: Experiment) -> list[str]:
    """Say what is only a demonstration."""
    tickets = ["made-up tickets"] if experiment.data.source.value == "pocket" else []
    program = any(llm.provider == "pocket" for llm in experiment.judge.panel.values())
    parts = [*tickets, *(["a program as the judge"] if program else [])]
    return [f"POCKET PROFILE: {', '.join(parts)}. The questions and their tests are the real ones."] if parts else []
