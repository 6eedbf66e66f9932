"""A run as it is opened and closed: what is read, checked and written down before the first verb and after the last.

Writes `data.json` (the account of the data), `left_out.jsonl` (the rows that can't be used, if any) and what
`runs/setting.py` and `runs/identity.py` write. Whatever is wrong with keys, prices or data is said here, before
anything is bought.
"""

from __future__ import annotations

import json
from typing import Self

from llamaduo.config import Backend, Experiment
from llamaduo.data.coverage import load_coverage, refuse_empty
from llamaduo.data.dataset import Account, CoverageDataset, gate_rows
from llamaduo.display import Display, headline
from llamaduo.evidence import gate, reach
from llamaduo.evidence.stop import Gains
from llamaduo.local.memory import refuse_if_too_large
from llamaduo.local.vllm_server import program
from llamaduo.records import Example, Verdict
from llamaduo.runs import identity, setting
from llamaduo.runs.folder import RunDir, write_kept
from llamaduo.runs.layout import ACCOUNT, UNUSED
from llamaduo.runs.state import Iteration, RunState
from llamaduo.runs.tracking import Tracker
from llamaduo.service.access import asked_llms, open_service
from llamaduo.service.concealing import texts_of
from llamaduo.service.trusted import trusted
from llamaduo.stages.check import check, usable
from llamaduo.stages.infer import odd_stops
from llamaduo.steps.growth import Growing
from llamaduo.steps.student import Student


class OpenRun:
    """One run under way, with what is open for it and what it knows so far; use it as a context manager."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunDir,
        state: RunState,
        display: Display,
        dataset: CoverageDataset | None = None,
    ) -> None:
        self.experiment = experiment = setting.with_reasks_of(folder.path, experiment)
        self.display = display
        self._folder, self._state = folder, state
        self._service = open_service(experiment, folder.path)
        try:
            self.dataset = dataset or load_coverage(experiment)
            self.dataset = self._usable()
            self._outlook_told = self._outlook()
            self._account = self._checked()
        except BaseException:
            if self._service:
                self._service.close()
            raise
        self.history: list[Iteration] = []
        self.gains = Gains()
        self._sure = False
        self._growing = Growing(
            experiment,
            self.dataset,
            service=self._service,
            folder=folder,
            display=display,
            make_sure=self._make_sure,
            student=self._student,
        )
        self._used_usd: dict[str, float] = {}
        """Price of each answer and each judgement that was used, by its request's key."""
        self._beside: dict[tuple[str, str], list[Verdict]] = {}
        """Verdicts on those that are judged beside the iterations, by name and split."""
        self._beside_usd = 0.0
        if self._service and (concealing := self._service.concealing):
            rows = (*self.dataset.train, *self.dataset.dev, *self.dataset.test)
            concealing.tally.count_rows((texts_of(row) for row in rows), concealing.hider)
            if keys := concealing.tally.rows.get("key"):
                self._outlook_told.append(
                    f"{keys['rows']} rows hold a key: it is not sent, and the model may learn it."
                )
        folder.tell = display.note
        if self._service:
            folder.mending = self._service.from_the_journal_alone

    def __enter__(self) -> Self:
        path = self._folder.path
        identity.remember(self.experiment, path)
        setting.write_config(self.experiment, path)
        self._folder.write_state(self._state)
        self._tracker = Tracker(self.experiment, path)
        self.experiment = setting.with_rubric_in(self.experiment, path)
        for note in setting.write_environment(self.experiment, path):
            self.display.note(note)
        told = headline(self.experiment, self.dataset, path)
        if self._account:
            write_kept(path / ACCOUNT, f"{json.dumps(self._account.tree(), indent=1)}\n".encode())
            told += self._account.lines()
        if self.dataset.unused:
            write_kept(path / UNUSED, "".join(one.line() for one in self.dataset.unused).encode())
            told.append(f"  each of the {len(self.dataset.unused):,} that can't be used: {path / UNUSED}")
        self.display.start(told, [])
        imported = []
        if self._service:
            self._service.says, imported = self.display.note, self._service.outlook
        for note in [*self.dataset.notes, *self._outlook_told, *imported]:
            self.display.note(note)
        return self

    def __exit__(self, *_: object) -> None:
        self._tracker.close()
        for note in self._service.notes if self._service else []:
            self.display.note(note)
        for remark in self._service.remarks if self._service else []:
            self.display.remark(remark)
        if self._tracker.problem:
            self.display.note(f"{self._tracker.problem}; the run is not affected.")
        if self._service:
            self._service.close()

    @property
    def gate_split(self) -> tuple[Example, ...]:
        """The rows that the gate looks at."""
        return gate_rows(self.experiment, self.dataset)

    def _usable(self) -> CoverageDataset:
        """Return the data that the model and its template can do with; raises InputError for a split without."""
        setup = self.experiment
        found = usable(self.dataset, model=setup.local_model, train=setup.train, infer=setup.infer)
        if found is not self.dataset:
            refuse_empty(found, setup)
        return found

    def _checked(self) -> Account | None:
        """Return the account of the data with what the model can't use; raises InputError for what nobody could."""
        account, setup = self.dataset.account, self.experiment
        bought = gate.asked(setup.loop.gate) and setup.synthesis.enabled
        return account and check(
            self.dataset,
            account,
            model=setup.local_model,
            train=setup.train,
            infer=setup.infer,
            learned=setup.loop.growth.include_coverage,
            most_missing={setup.protocol.gate_split.value: setup.judge.max_unscored} if bought else {},
        )

    def _outlook(self) -> list[str]:
        """Return what the gate can see with so many prompts; raises InputError where it can only buy data in vain."""
        setup = self.experiment
        told = [] if setup.service.replay else trusted(setup, asked_llms(setup))
        seen = reach.told_of(setup, self.gate_split, self.dataset.test)
        return [*told, *odd_stops(setup.infer.stop), *seen]

    def _student(self, number: int) -> Student:
        """Return what the strategy of synthesis looks at of an iteration's model."""
        raise NotImplementedError

    def _make_sure(self) -> None:
        """Raise ConfigError, before anything is bought or loaded, for what would fail on this machine afterwards."""
        if not self._sure:
            refuse_if_too_large(self.experiment)
            if self.experiment.infer.backend is Backend.vllm:
                program(self.experiment.infer)
            self._sure = True
