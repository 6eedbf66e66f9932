"""Work out what every study of experiments/ would cost, and keep the line that says so in its file up to date.

    python benchmarks/study_quotes.py             print the quote of every study
    python benchmarks/study_quotes.py --write     put them into the files, where a line begins with "# Quote:" or,
                                                  for what is optional, with "# With runtime.seed=1,2,3:"

Calls, tokens and money are what `llamaduo quote` works out with an empty journal, but on stand-ins for the coverage
data, which lie on the Hub: as many rows as the study takes, each of 130 tokens (the published rows have 85 to 155).
GPU hours are those of the same quote, of training and of answering (`llamaduo/quote/hours.py`): a range from a gate
passed at the first iteration at the fastest rate to all iterations at the slowest, on the GPU of `serving=`, none
measured.
Nothing is asked, downloaded or written elsewhere.
"""

from __future__ import annotations

import datetime
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from llamaduo.compose import compose
from llamaduo.config import Experiment
from llamaduo.data.dataset import CoverageDataset
from llamaduo.quote import quote as quoting
from llamaduo.records import Example

ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "experiments"
TOKENS_A_ROW = 130
_PROMPT, _RESPONSE = 98 * 4, 32 * 4  # characters, four a token


def main() -> None:
    for path in sorted(STUDIES.glob("*.yaml")):
        if path.stem.startswith("pocket_"):
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, old in enumerate(lines):
            if begun := _PRICED.match(old):
                lines[number] = f"{begun[0]} {quote_line(path.stem, *filter(None, [begun['option']]))}"
                print(f"{path.stem}: {lines[number]}", flush=True)
        if "--write" in sys.argv[1:]:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")


_PRICED = re.compile(r"# (?:Quote|With (?P<option>\S+=\S+)):")
"""How a line begins that says what a study costs, as it stands or with an option."""


def quote_line(study: str, *overrides: str) -> str:
    """Return what a study would cost, in one line."""
    with tempfile.TemporaryDirectory() as empty:
        places = [f"service.journal={empty}/journal.sqlite", f"runtime.results={empty}"]
        found = compose(["-cd", str(STUDIES), "-cn", study, *overrides, *places])
        assert found is not None
        return described(found.experiments)


def described(experiments: Sequence[Experiment]) -> str:
    """Return calls, tokens, money and GPU hours of experiments; a range where one is expected."""
    with mock.patch.object(quoting, "load_coverage", stand_in):
        made = quoting.quote(experiments, today=datetime.date.today())
    calls = [sum(line.calls[at] - line.held[at] for line in made.lines) for at in (0, 1)]
    tokens = [[sum(made.tokens(line, at)[way] for line in made.lines) for at in (0, 1)] for way in (0, 1)]
    money = [sum(made.usd(line, at, batch=False) or 0 for line in made.lines) for at in (0, 1)]
    trained, answered = hours([found.train_hours for found in made.works]), hours([f.answer_hours for f in made.works])
    (gpu,) = {experiment.serving.gpu for experiment in experiments}
    return (
        f"{made.runs} runs, {span(calls)} calls, {span([n / 1e6 for n in tokens[0]])} million tokens in, "
        f"{span([n / 1e6 for n in tokens[1]])} out, ${span(money)}; GPU hours on one {gpu}, estimated: "
        f"{span(trained)} training, {span(answered)} answering."
    )


def hours(found: Sequence[tuple[float, float] | None]) -> list[float]:
    """Return the hours of all runs together, (at least, at most); every model of a study has a known size."""
    return [sum(pair[at] for pair in found if pair) for at in (0, 1)]


def span(pair: Sequence[float]) -> str:
    """Return one number, or two with `to` between; below ten with two digits."""
    shown = [f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.2g}" for number in pair]
    return shown[0] if shown[0] == shown[1] else " to ".join(shown)


def stand_in(experiment: Experiment) -> CoverageDataset:
    """Return coverage data of the right number of rows, each of `TOKENS_A_ROW` tokens."""
    sizes = (experiment.data.train_rows or 0, experiment.data.dev_rows or 0, experiment.data.test_rows or 0)
    rows = [_row(f"{experiment.task.name} {number} ") for number in range(sum(sizes))]
    train, dev = sizes[0], sizes[0] + sizes[1]
    return CoverageDataset(train=tuple(rows[:train]), dev=tuple(rows[train:dev]), test=tuple(rows[dev:]))


def _row(name: str) -> Example:
    prompt = name.ljust(_PROMPT, "x")
    return Example(name, ({"role": "user", "content": prompt},), "y" * _RESPONSE)


if __name__ == "__main__":
    main()
