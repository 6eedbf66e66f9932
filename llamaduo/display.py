"""What people see while a run goes on: a live screen on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from llamaduo.config import DataSource, Experiment, JudgeKind, ServiceLLM, answering_server, is_pocket, who_answers
from llamaduo.data.dataset import CoverageDataset
from llamaduo.evidence.scorecard import unanswered
from llamaduo.records import Adapter, Prediction, Scorecard
from llamaduo.redaction import printable, redact
from llamaduo.runs.state import Iteration, RunState

if TYPE_CHECKING:
    from rich.console import RenderableType

Progress = Callable[[int, int], None]

_VERBS = {
    "train": "fine-tuning",
    "infer": "answering",
    "judge": "judging",
    "weigh": "weighing training rows",
    "synthesize": "synthesising data",
    "curate": "curating data",
}
_UNITS = {"train": "steps", "infer": "answers", "judge": "verdicts", "synthesize": "requests"}


def span(mean: float | None, low: float | None, high: float | None) -> str:
    """Return a score with its 95% interval, such as `92.3 [90.1, 94.0]`."""
    if mean is None:
        return "not scored"
    return f"{mean:.1f}" if low is None or high is None else f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def place(where: int | str) -> str:
    """Return what is said of an iteration, or of what lies outside of them."""
    if isinstance(where, int):
        return f"iteration {where}"
    return {"start": "before", "test": "test split"}.get(where, where.replace("_", " "))


def iterations_table(history: Sequence[Iteration], title: str | None = None) -> Table:
    """Return the table of iterations, one row each."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.collapse_padding = True
    for name in (
        "#",
        "rows (synth.)",
        "similarity [95%]",
        "precision [95%]",
        "answers",
        "covered",
        "unsc.",
        "cost",
        "time",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row in history:
        table.add_row(
            str(row.iteration),
            f"{row.train_rows:,} ({row.synthetic_rows:,})",
            span(row.similarity_mean, row.similarity_low, row.similarity_high),
            span(row.precision_mean, row.precision_low, row.precision_high),
            f"{row.answers:,}" + (f" of {row.answers + row.unjudged:,}" if row.unjudged else ""),
            "-" if row.coverage is None else f"{row.coverage:.0f}%",
            str(row.unscored),
            f"${row.cost_usd:.2f}",
            f"{row.seconds:.0f} s",
        )
    return table


class _Console(Console):
    """A console whose own escapes pass, and none that is in what it is given.

    It falls silent when nobody reads any more: a closed pipe must not end what is under way.
    """

    @property  # type: ignore[misc]  # Rich never sets it
    def file(self) -> IO[str]:
        """The stream behind all that stands before it."""
        found: Any = super().file
        while hasattr(found, "rich_proxied_file"):
            found = found.rich_proxied_file
        return found  # type: ignore[no-any-return]

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render something, its text as it may be printed."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else redact(printable(text)).replace("\r", ""), style, control)

    def on_broken_pipe(self) -> None:
        """Send everything that follows to nowhere."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def plain_console() -> Console:
    """Return a console that prints text as it is; 140 columns where it is no terminal."""
    console = _Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 140
    return console


class Display:
    """Shows a run; `quiet` shows nothing, which tests and sweeps in worker processes want."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = _Console(quiet=quiet, highlight=False, markup=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = 120
        self._live = Live(console=self.console, refresh_per_second=8) if self.console.is_terminal else None
        self._history: list[Iteration] = []
        self._stage: tuple[str, str, float, int, int] | None = None
        self._cost = 0.0
        self._remarks: list[str] = []

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._stage = None
            self._live.update(self._screen(), refresh=True)
            self._live.stop()

    def start(self, lines: Sequence[str], history: Sequence[Iteration]) -> None:
        """Say what is being run, and what of it is already there."""
        for line in lines:
            self.console.print(line)
        for iteration in history:
            self.iteration(iteration)

    def note(self, text: str) -> None:
        """Say something that a reader should know."""
        self.console.print(Text(text, style="yellow"))

    def remark(self, text: str) -> None:
        """Keep what a reader should know until the run is done: it is said behind the result."""
        self._remarks.append(text)

    @contextmanager
    def stage(self, verb: str, where: str) -> Iterator[Progress]:
        """Show a stage while it runs; yields the function that takes (done, total)."""
        start = time.monotonic()
        self._stage = (verb, where, start, 0, 0)
        self._refresh()

        def progress(done: int, total: int) -> None:
            self._stage = (verb, where, start, done, total)
            self._refresh()

        yield progress
        done = self._stage[3] if self._stage else 0
        self._stage = None
        if not self._live:
            count = f", {done:,} {_UNITS.get(verb, 'rows')}" if done else ""
            self.console.print(f"  {where}: {_VERBS[verb]}{count} in {time.monotonic() - start:.1f} s")

    def iteration(self, record: Iteration) -> None:
        """Add a line to the table of iterations."""
        self._history.append(record)
        self._cost += record.cost_usd
        if self._live:
            self._refresh()
        else:
            self.console.print(
                f"iteration {record.iteration}: {record.train_rows:,} rows ({record.synthetic_rows:,} synthetic), "
                f"similarity {span(record.similarity_mean, record.similarity_low, record.similarity_high)}, "
                f"precision {span(record.precision_mean, record.precision_low, record.precision_high)}, "
                f"{record.unscored} unscored{_judged(record)}, ${record.cost_usd:.2f}, {record.seconds:.0f} s"
            )

    def criteria(self, number: int, card: Scorecard) -> None:
        """Say what an iteration comes to by the user's own criteria, if there are any."""
        if card.criteria:
            told = (f"{name} {span(c['mean'], c['low'], c['high'])}" for name, c in card.criteria.items())
            self.note(f"iteration {number}: {', '.join(told)}")

    def finish(self, state: RunState, folder: str) -> None:
        """Say the verdict, the rule that stopped the run, and where the results are."""
        self.__exit__()
        if not self._live and self._history:
            self.console.print(iterations_table(self._history))
        self.console.print()
        self.console.print(Text(state.verdict or "", style="bold"))
        for line in state.details:
            self.console.print(Text(f"- {line}"))
        self.console.print(
            f"Stopped by: {state.stop_reason}. Service LLM calls: ${state.cost_usd:.2f}. Results: {folder}"
        )
        for remark in self._remarks:
            self.note(remark)

    def _refresh(self) -> None:
        if self._live:
            self._live.update(self._screen())

    def _screen(self) -> RenderableType:
        parts: list[RenderableType] = [iterations_table(self._history)] if self._history else []
        if self._stage:
            parts.append(Text(self._stage_line(), style="cyan"))
        return Group(*parts)

    def _stage_line(self) -> str:
        assert self._stage is not None
        verb, where, start, done, total = self._stage
        spent = time.monotonic() - start
        line = f"{where}: {_VERBS[verb]}"
        if total:
            line += f"  {'█' * (20 * done // total):░<20}  {done:,}/{total:,} {_UNITS.get(verb, 'rows')}"
        if done and spent > 0.5:
            line += f"  {done / spent:,.1f}/s, {spent * (total - done) / done:.0f} s left"
        return f"{line}  ${self._cost:.2f} so far"


def _judged(record: Iteration) -> str:
    """Say how much of an iteration was judged, where that isn't all."""
    if record.unjudged:
        return f", {record.answers:,} of {record.answers + record.unjudged:,} answers judged: it can't pass any more"
    return f", {record.spared:,} repeats not needed" if record.spared else ""


def _place_of(server: ServiceLLM) -> str:
    return f"{server.model} at {server.base_url or server.base_url_env or server.provider}"


def headline(experiment: Experiment, dataset: CoverageDataset, folder: Path) -> list[str]:
    """Return the first lines of a run: what is demonstration, who teaches, learns and judges, on which rows."""
    teacher_name = experiment.service_llm.name if experiment.synthesis.enabled else "no synthesis"
    panel = ", ".join(experiment.judge.panel) if experiment.judge.kind is JudgeKind.service else "chrF and ROUGE-L"
    sizes = f"{len(dataset.train):,} train, {len(dataset.dev):,} dev, {len(dataset.test):,} test"
    server = answering_server(experiment)
    return [
        *pocket_label(experiment),
        f"{experiment.task.name}: {teacher_name} -> {who_answers(experiment)}, judged by {panel} ({sizes})",
        *([f"{_place_of(server)} answers; what is trained here is not asked."] if server else []),
        f"{folder}",
    ]


def pocket_label(experiment: Experiment) -> list[str]:
    """Return what of this run is only a demonstration; nothing for a real one."""
    note = pocket_note(experiment)
    return [f"POCKET PROFILE: {note}"] if note else []


def pocket_note(experiment: Experiment) -> str:
    """Return what of a run is only a rehearsal, as a sentence; empty for a real one."""
    parts = []
    if experiment.data.source is DataSource.pocket:
        parts.append("made-up tickets")
    if experiment.synthesis.enabled and _is_program(experiment.service_llm):
        parts.append("a program as the service LLM")
    if _is_program(answering_server(experiment)):
        parts.append("a program that answers")
    if any(map(_is_program, experiment.judge.panel.values())):
        parts.append("a program as the judge")
    if is_pocket(experiment.local_model.path or "") and not experiment.infer.served:
        parts.append("a local model of one million parameters")
    return f"{', '.join(parts)}. The loop around them is the real one." if parts else ""


def _is_program(llm: ServiceLLM | None) -> bool:
    return llm is not None and llm.provider == "pocket"


def left_out(experiment: Experiment, trained: Adapter, count: int, listed: Path) -> list[str]:
    """Return a sentence on training rows, of so many, that were left out whole and are listed in a file."""
    if not trained.skipped_rows:
        return []
    reasons = {
        f"exceed {experiment.train.max_length} tokens": trained.too_long_rows,
        "hold an end mark": trained.end_mark_rows,
        "are refused or changed by the chat template": trained.template_rows,
    }
    told = " and ".join(f"{rows} {reason}" for reason, rows in reasons.items() if rows)
    return [f"{trained.skipped_rows} of {count} training rows are left out whole: {told}; see {listed}."]


def missing_answers(experiment: Experiment, predictions: Sequence[Prediction]) -> list[str]:
    """Return a sentence for each way in which answers are missing; none if none is."""
    notes, count = [], len(predictions)
    too_long = sum(prediction.finish_reason == "prompt_too_long" for prediction in predictions)
    if too_long:
        room = f"{experiment.local_model.context - experiment.infer.max_new_tokens} tokens that the model's context"
        told = "server's context" if experiment.infer.served else f"{room} leaves for them"
        notes.append(f"{too_long} of {count} answers are missing: their prompts exceed the {told}. Nothing was cut.")
    reasons = unanswered(predictions)
    if reasons:
        told = ", ".join(f"{name} {number}" for name, number in reasons.items())
        notes.append(f"{reasons.total()} of {count} answers did not come ({told}): they count as unscored.")
    return notes
