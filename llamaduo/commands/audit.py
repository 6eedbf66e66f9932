"""`llamaduo audit RUN`: what a finished run's answers and synthetic rows are like, iteration by iteration.

    llamaduo audit results/runs/pocket_llama-classification-1a2b3c4d

Writes `iterations/NN/audit.json` with its marker for each iteration that has none, and the run's page again; prints the
chosen iteration's. Offline: no service LLM is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llamaduo.audit.terms import read_categories
from llamaduo.commands.arguments import told_apart
from llamaduo.config import Experiment
from llamaduo.data.coverage import load_coverage
from llamaduo.data.dataset import CoverageDataset
from llamaduo.display import plain_console
from llamaduo.environment import settle_libraries
from llamaduo.errors import ConfigError, InputError, LlamaduoError
from llamaduo.runs.folder import RunDir
from llamaduo.runs.record import RunRecord, read_runs
from llamaduo.steps.auditing import NONE, Swaps, audited
from llamaduo.studies.pages.page import write_run_page

USAGE = """\
usage: llamaduo audit RUN [--swaps N] [--terms FILE]

What a finished run's answers and synthetic rows are like, offline: refusals, words of toxic texts, languages, lengths,
variety; and whether answers change where another identity term stands in the prompt. Writes iterations/NN/audit.json:
docs/audit.md says what each number means.

  --swaps N      prompts of each category of terms that the chosen model answers anew (default 100; 0: none)
  --terms FILE   identity terms of your own (YAML)"""
_SWAPS = "100"


def main(arguments: Sequence[str]) -> int:
    """Audit a run, print what was found and return the exit code: 0, whatever was found."""
    console = plain_console()
    settle_libraries()
    given = told_apart(arguments, values=("--swaps", "--terms"))
    run, most = _run(Path(given.place(f"{USAGE.splitlines()[0]}."))), given.options.get("--swaps", _SWAPS)
    if not most.isdecimal():
        raise ConfigError(f"--swaps {most}: must be a number of prompts; 0 asks for none.")
    swaps = Swaps(int(most), given.path("--terms"))
    read_categories(swaps.terms)  # what is wrong with a list is said before anything is read
    dataset, note = _coverage(run.experiment)
    assert run.chosen is not None
    with RunDir(run.folder, console.print) as folder:
        found = [
            audited(folder, run.experiment, dataset, line.iteration, swaps if line is run.chosen else NONE)
            for line in run.history
        ]
    write_run_page(run.folder)
    if note:
        console.print(note)
    for line in shown(found[run.chosen.iteration]):
        console.print(line, highlight=False)
    return 0


def _run(folder: Path) -> RunRecord:
    runs = read_runs(folder)
    if len(runs) > 1:
        raise InputError(f"{folder}: {len(runs)} runs; name one of them, such as {runs[0].folder}.")
    (run,) = runs
    if run.state.status != "done" or run.chosen is None:
        raise InputError(f"{folder}: the run is not finished ({run.state.status}): end it with the same llamaduo run.")
    return run


def _coverage(experiment: Experiment) -> tuple[CoverageDataset | None, str]:
    """Return the coverage data, or None and a line that says why they can't be had."""
    try:
        return load_coverage(experiment), ""
    except LlamaduoError as error:
        return None, f"rows are not audited, since the coverage data can't be read: {error}"


def shown(tree: dict[str, Any]) -> Iterator[str]:
    """Yield an audit in lines."""
    answers, rows = tree["answers"], tree["rows"]
    yield (
        f"audit of iteration {tree['iteration']}: {answers['answers']:,} answers to {answers['prompts']:,} prompts "
        f"({tree['split']} split)"
    )
    yield from _lines(answers, "references", "their references")
    for name, change in answers["change"].items():
        told = f"{change['points']:+.1f} points{_span(change)}, p = {change['p']:g}"
        yield f"  {name}, since the iteration before: {told}"
    if rows:
        yield f"{rows['rows']:,} synthetic rows beside {rows['coverage_rows']:,} of coverage"
        yield from _lines(rows, "coverage", "coverage")
        yield from _variety(rows["diversity"])
    yield from _bias(tree.get("bias"))


def _lines(tree: dict[str, Any], other: str, name: str) -> Iterator[str]:
    for what in ("refusals", "toxic"):
        share, theirs = tree[what], tree[other][what]
        label = {"refusals": "refusals", "toxic": "with toxic words"}[what]
        yield f"  {label}: {_percent(share)} ({name}: {_percent(theirs)})"
        for text in share["examples"][:1]:
            yield f"    such as: {text}"
    drift = tree["language_drift"]
    yield f"  in another language: {_percent(drift)} of {drift['n']:,} that are long enough to tell"
    length = tree["length_ratio"]
    if length["ratio"] is not None:
        yield f"  length: {length['ratio']:.2f} times {name}{_span(length, digits=2)}"


_UNITS = {"length": "% of the mean length"}


def _bias(tree: dict[str, Any] | None) -> Iterator[str]:
    """Yield what came of identity terms in each other's place."""
    if tree is None:
        return
    if not tree["categories"]:
        yield "identity terms: no prompt names one that can be put in another's place, so nothing can be said of bias."
        return
    looked = ", ".join(f"{name} ({of['prompts']:,})" for name, of in tree["categories"].items())
    yield f"identity terms in each other's place, {tree['answers']:,} answers; prompts by category: {looked}"
    if tree["too_few"]:
        yield f"  too few prompts to tell anything from noise: {', '.join(tree['too_few'])}"
    standing = [gap for gap in tree["gaps"] if gap["stands"]]
    for gap in standing:
        unit = _UNITS.get(gap["outcome"], " points")
        yield (
            f"  {gap['category']}, {gap['term']}: {gap['outcome']} {gap['gap']:+.1f}{unit}{_span(gap)} beside the "
            f"other terms, over {gap['prompts']:,} prompts (p = {gap['p']:g} over all terms)"
        )
    if not standing and len(tree["too_few"]) < len(tree["categories"]):
        yield f"  no difference between terms is told from noise ({len(tree['gaps']):,} were looked at)"
    for one in tree["examples"][:1]:
        yield f"    such as ({one['term']}): {one['prompt']} -> {one['answer']}"
        yield f"    and ({one['other']}): {one['other_prompt']} -> {one['other_answer']}"


def _variety(tree: dict[str, Any]) -> Iterator[str]:
    for part, lines in tree["distinct"].items():
        told = ", ".join(
            f"{line['rows']:.3f} ({line['coverage']:.3f}) of {line['at']:,} {line['n']}-grams"
            for line in lines
            if line["rows"] is not None and line["coverage"] is not None
        )
        if told:
            yield f"  distinct in {part} (coverage): {told}"
    near, reach = tree["nearest"], tree["reach"]
    if near["median"] is not None and near["coverage"]["median"] is not None:
        yield (
            f"  distance to the nearest coverage row: median {near['median']:.2f} (coverage rows from each other "
            f"{near['coverage']['median']:.2f}); {near['near_percent']:.1f}% are nearer than 0.25"
        )
    yield f"  topics of coverage with new rows: {reach['reached']} of {reach['clusters']}"


def _percent(share: dict[str, Any]) -> str:
    return "none" if share["percent"] is None else f"{share['percent']:.1f}%{_span(share)}"


def _span(tree: dict[str, Any], *, digits: int = 1) -> str:
    low, high = tree["low"], tree["high"]
    return "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
