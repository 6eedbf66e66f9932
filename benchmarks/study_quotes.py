"""Work out what every study of experiments/ would cost, and keep the line that says so in its file up to date.

    python benchmarks/study_quotes.py             print the quote of every study
    python benchmarks/study_quotes.py --write     put them into the files, where a line begins with "# Quote:"

Calls, tokens and money are what `llamaduo quote` works out with an empty journal, but on stand-ins for the coverage
data, which lie on the Hub: as many rows as the study takes, each of 130 tokens (the published rows have 85 to 155).
GPU hours are those of training, estimated: 4 FLOP for each parameter and token (LoRA: forward, and backward through
frozen weights), tokens = rows x 130 x epochs of every iteration, an H200 at 40% of its 989 TFLOP/s in bf16.
Answering, judging and the price of 4-bit weights are not in it. Nothing is asked, downloaded or written elsewhere.
"""

from __future__ import annotations

import datetime
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from llamaduo import quote as quoting
from llamaduo.compose import compose
from llamaduo.config import Experiment
from llamaduo.records import CoverageDataset, Example
from llamaduo.steps import volume

ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "experiments"
TOKENS_A_ROW = 130
_PROMPT, _RESPONSE = 98 * 4, 32 * 4  # characters, four a token
PARAMETERS = {
    "gemma_2b": 2.5e9, "gemma_7b": 8.5e9, "mistral_7b_v0_3": 7.2e9, "llama3_8b": 8.0e9,
    "llama3_2_1b": 1.2e9, "llama3_2_3b": 3.2e9,
}  # fmt: skip
"""Of each local model, embeddings included."""
FLOP_A_SECOND = 0.4 * 989e12


def main() -> None:
    for path in sorted(STUDIES.glob("*.yaml")):
        if path.stem.startswith("pocket_"):
            continue
        line = quote_line(path.stem)
        print(f"{path.stem}: {line}", flush=True)
        if "--write" in sys.argv[1:]:
            write(path, line)


def write(path: Path, line: str) -> None:
    """Put a study's quote into its file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [f"# Quote: {line}" if old.startswith("# Quote:") else old for old in lines]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def quote_line(study: str) -> str:
    """Return what a study would cost, in one line."""
    with tempfile.TemporaryDirectory() as empty:
        places = [f"service.journal={empty}/journal.sqlite", f"runtime.results={empty}"]
        found = compose(["-cd", str(STUDIES), "-cn", study, *places])
        assert found is not None
        return described(found.experiments)


def described(experiments: Sequence[Experiment]) -> str:
    """Return calls, tokens, money and GPU hours of experiments; a range where the gate may end them early."""
    with mock.patch.object(quoting, "load_data", stand_in):
        made = quoting.quote(experiments, today=datetime.date.today())
    calls = [sum(line.calls[at] - line.held[at] for line in made.lines) for at in (0, 1)]
    tokens = [[sum(made.tokens(line, at)[way] for line in made.lines) for at in (0, 1)] for way in (0, 1)]
    money = [sum(made.usd(line, at, batch=False) or 0 for line in made.lines) for at in (0, 1)]
    hours = [sum(gpu_hours(experiment, at) for experiment in experiments) for at in (0, 1)]
    return (
        f"{made.runs} runs, {span(calls)} calls, {span([n / 1e6 for n in tokens[0]])} million tokens in, "
        f"{span([n / 1e6 for n in tokens[1]])} out, ${span(money)}; {span(hours)} GPU hours (estimated)."
    )


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


def gpu_hours(experiment: Experiment, at: int) -> float:
    """Return the hours on an H200 that training takes, of the first iteration (0) or of all of them (1)."""
    if not experiment.train.enabled:
        return 0.0
    growth, coverage = experiment.loop.growth, experiment.data.train_rows or 0
    rounds = range(experiment.loop.max_iterations if at and experiment.synthesis.enabled else 1)
    rows = sum(volume(growth, coverage, number) + coverage * growth.include_coverage for number in rounds)
    tokens = rows * TOKENS_A_ROW * experiment.train.epochs
    return 4 * PARAMETERS[experiment.local_model.name] * tokens / FLOP_A_SECOND / 3600


if __name__ == "__main__":
    main()
