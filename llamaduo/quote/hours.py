"""The hours that training and answering would take, as a range, with what the estimate rests on.

    known = measured_rates(Path("results")).get(experiment.local_model.path)
    for part in rendered([work(experiment, load_coverage(experiment), rounds=5, measured=known)]): print(part)

The lower figure is a gate passed at the first iteration at the fastest rate, the upper one all iterations at the
slowest. Rates come, in this order, from finished runs of the same local model below the results folder; for pocket
models from what two CPU cores came to; else from the model's size: LoRA takes 4 FLOP a parameter and token (6 with
gradient checkpointing) at a share of the GPU's peak, and a decoding step reads all weights once. Loads no torch.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamaduo.config import Assumptions, Backend, Experiment, GateSplit, is_pocket
from llamaduo.data.dataset import CoverageDataset, gate_rows
from llamaduo.errors import LlamaduoError
from llamaduo.records import Example
from llamaduo.runs import layout
from llamaduo.runs.record import RunRecord, read_runs
from llamaduo.steps.growth import volume
from llamaduo.studies.costs import speed

if TYPE_CHECKING:
    from rich.console import RenderableType

Range = tuple[float, float]
"""(at least, at most)."""

CHARACTERS_A_TOKEN = 4.0
"""An assumption, where nothing was measured."""
_FLOP, _FLOP_CHECKPOINTED = 4, 6
_SHARE_OF_PEAK: Range = (0.2, 0.4)
"""Of the dense bf16 peak: published LoRA trainings of 7B models on A100 reach 0.25 to 0.34, good ones 0.4."""
_SHARE_OF_BANDWIDTH: Range = (0.2, 0.6)
"""Of the memory's bandwidth, while answers are drawn: an assumption."""
_BYTES = 2
"""A weight in bf16."""
_VLLM_ROWS = 64
"""Answers side by side in a vLLM server: an assumption."""
_POCKET = ((2100.0, 6000.0), (160.0, 390.0), 1.3)
"""Training and answering in tokens a second on two CPU cores with other work, and characters a token: the stages of
one default run on 2026-11-21."""


@dataclass(frozen=True)
class Rates:
    """Tokens a second of one device, slowest and fastest."""

    train: Range
    answer: Range
    characters_a_token: float
    basis: str
    """What they rest on, as a sentence."""


@dataclass(frozen=True)
class Work:
    """The hours of one run, each (at least, at most); None where nobody can tell."""

    local_model: str
    serving: Assumptions
    train_hours: Range | None
    answer_hours: Range | None
    basis: str
    priced: bool
    """Whether the hours are a GPU's; a CPU's have no price."""


def work(experiment: Experiment, dataset: CoverageDataset, rounds: int, measured: Rates | None) -> Work:
    """Return the hours of one experiment, with `rounds` iterations at most; `measured` are rates of finished runs."""
    rates = measured or _assumed(experiment)
    path, pocket = experiment.local_model.path, is_pocket(experiment.local_model.path)
    trained, answered = _characters(experiment, dataset, rounds)
    if rates is None:
        basis = f"{experiment.local_model.name}: not known; local_model.size is not set, nor {path} measured."
        return Work(experiment.local_model.name, experiment.serving, None, None, basis, not pocket)

    def hours(characters: Range, rate: Range) -> Range:
        low, high = (count / rates.characters_a_token / 3600 for count in characters)
        return low / rate[1], high / rate[0]

    return Work(
        experiment.local_model.name,
        experiment.serving,
        hours(trained, rates.train) if any(trained) else (0.0, 0.0),
        hours(answered, rates.answer) if any(answered) else (0.0, 0.0),
        f"{experiment.local_model.name}: {rates.basis}",
        not pocket,
    )


def measured_rates(results: Path) -> dict[str, Rates]:
    """Return the rates of the finished runs below a folder, by the local model's path."""
    try:
        runs = [run for run in read_runs(results) if run.state.status == "done"]
    except LlamaduoError:
        return {}
    by_path: dict[str, list[RunRecord]] = {}
    for run in runs:
        by_path.setdefault(str(run.experiment.local_model.path or ""), []).append(run)
    found = {path: _measured(together) for path, together in by_path.items()}
    return {path: rates for path, rates in found.items() if rates}


def _measured(runs: Sequence[RunRecord]) -> Rates | None:
    """Return the slowest and the fastest run's rates, None if no run trained or none answered with its own model.

    What an endpoint has answered says nothing of the local model.
    """
    own = [run for run in runs if not run.experiment.infer.served]
    trained = [rate for run in runs if (rate := speed.rate(speed.training(run.folder)))]
    answered = [rate for run in own if (rate := speed.rate(speed.answering(run.folder)))]
    if not trained or not answered:
        return None
    gpus = dict.fromkeys(
        name for run in runs for name in (run.environment.get("hardware") or {}).get("gpus") or ["CPU"]
    )
    basis = (
        f"measured on {', '.join(gpus)}: {_rates(min(trained), max(trained))} trained ({_finished(trained)}), "
        f"{_rates(min(answered), max(answered))} answered ({_finished(answered)})."
    )
    ranges = ((min(trained), max(trained)), (min(answered), max(answered)))
    return Rates(*ranges, _characters_a_token(own) or CHARACTERS_A_TOKEN, basis)


def _characters_a_token(runs: Sequence[RunRecord]) -> float | None:
    """Return the characters of all answers of some runs by their tokens, None where there are no answers."""
    characters = tokens = 0
    for run in runs:
        for place in layout.places(run.folder):
            if speed.answered_by_service_llm(place):
                continue
            answers = speed.read_answers(place / layout.PREDICTIONS)
            characters += sum(answers.characters)
            tokens += sum(answers.completion_tokens)
    return characters / tokens if characters and tokens else None


def _finished(rates: Sequence[float]) -> str:
    return f"n = {len(rates)} finished {'run' if len(rates) == 1 else 'runs'}"


def _rates(low: float, high: float) -> str:
    return f"{low:,.0f} tokens/s" if round(low) == round(high) else f"{low:,.0f} to {high:,.0f} tokens/s"


def _assumed(experiment: Experiment) -> Rates | None:
    """Return rates from the model's size, or of pocket models; None if the size isn't known."""
    if is_pocket(experiment.local_model.path):
        train, answer, each = _POCKET
        return Rates(train, answer, each, f"{_rates(*train)} trained, {_rates(*answer)} answered on two CPU cores.")
    count = parameters(experiment.local_model.path) or experiment.local_model.size
    if count is None:
        return None
    serving, flop = experiment.serving, _FLOP_CHECKPOINTED if experiment.train.gradient_checkpointing else _FLOP
    rows = _VLLM_ROWS if experiment.infer.backend is Backend.vllm else experiment.infer.batch_size
    train = _times(serving.gpu_tflops * 1e12 / (flop * count), _SHARE_OF_PEAK)
    answer = _times(rows * serving.gpu_gb_per_second * 1e9 / (_BYTES * count), _SHARE_OF_BANDWIDTH)
    basis = (
        f"estimated for one {serving.gpu}: {count / 1e9:.1f}B parameters, {flop} FLOP a parameter and token at "
        f"{_percent(_SHARE_OF_PEAK)} of {serving.gpu_tflops:g} TFLOPS ({_rates(*train)}); answers {rows} side by side, "
        f"at {_percent(_SHARE_OF_BANDWIDTH)} of {serving.gpu_gb_per_second:g} GB/s ({_rates(*answer)})."
    )
    return Rates(train, answer, CHARACTERS_A_TOKEN, basis)


def _times(rate: float, shares: Range) -> Range:
    return rate * shares[0], rate * shares[1]


def _percent(shares: Range) -> str:
    return f"{shares[0]:.0%} to {shares[1]:.0%}"


def parameters(path: str) -> int | None:
    """Return the parameters in a model's folder, as its safetensors files count them; None if there are none."""
    try:
        return sum(map(_in_file, sorted(Path(path).expanduser().glob("*.safetensors")))) or None
    except (OSError, ValueError, LookupError, struct.error):
        return None


def _in_file(path: Path) -> int:
    """Return the numbers in a safetensors file, from its header: a length of 8 bytes, then that much JSON."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _characters(experiment: Experiment, dataset: CoverageDataset, rounds: int) -> tuple[Range, Range]:
    """Return the characters to train on and to answer with; synthetic rows count as long as coverage rows."""
    each = _mean([len(e.prompt) + len(e.response) for e in dataset.train])
    train, growth = experiment.train, experiment.loop.growth
    own = len(dataset.train) if growth.include_coverage else 0
    rows = [own + (volume(growth, len(dataset.train), n) if experiment.synthesis.enabled else 0) for n in range(rounds)]
    step = train.batch_size * train.accumulation
    epochs = [max(train.epochs, math.ceil(train.min_steps / math.ceil(count / step))) for count in rows if count]
    seen = [count * times for count, times in zip(filter(None, rows), epochs, strict=True)]
    trained = (each * seen[0], each * sum(seen)) if train.enabled and seen else (0.0, 0.0)
    if experiment.infer.served:
        return trained, (0.0, 0.0)
    gate = experiment.infer.samples * _replies(gate_rows(experiment, dataset))
    clean = experiment.protocol.gate_split is not GateSplit.test
    test = experiment.infer.samples * _replies(dataset.test) if clean else 0.0
    return trained, (gate + test, rounds * gate + test)


def _replies(examples: Iterable[Example]) -> float:
    """Return the characters of all references, which stand for the answers."""
    return float(sum(len(example.response) for example in examples))


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0


def rendered(works: Sequence[Work]) -> Iterator[RenderableType]:
    """Yield what is shown of the hours: a line for each local model, then what it rests on."""
    from rich.table import Table

    if not works:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("local model", no_wrap=True)
    for name in ("runs", "training", "answering", "price of the hours"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in dict.fromkeys(made.local_model for made in works):
        table.add_row(name, *_cells([made for made in works if made.local_model == name]))
    yield table
    yield from dict.fromkeys(made.basis for made in works)
    priced = dict.fromkeys(
        f"Price of an hour: {made.serving.gpu}, ${made.serving.gpu_usd_per_hour:g} ({made.serving.gpu_as_of})."
        for made in works
        if made.priced
    )
    yield from priced


def _cells(works: Sequence[Work]) -> list[str]:
    """Return the fields of one local model: all of its runs one after the other."""
    trained = [made.train_hours for made in works if made.train_hours]
    answered = [made.answer_hours for made in works if made.answer_hours]
    if len(trained) < len(works) or len(answered) < len(works):
        return [str(len(works)), "not known", "not known", "-"]
    usd = [
        [(train[at] + answer[at]) * made.serving.gpu_usd_per_hour for at in (0, 1)]
        for made, train, answer in zip(works, trained, answered, strict=True)
    ]
    price = f"${sum(low for low, _ in usd):,.2f} to ${sum(high for _, high in usd):,.2f}"
    return [str(len(works)), _time(_sum(trained)), _time(_sum(answered)), price if works[0].priced else "-"]


def _sum(ranges: Sequence[Range]) -> Range:
    return sum(low for low, _ in ranges), sum(high for _, high in ranges)


def _time(hours: Range) -> str:
    """Return hours, or minutes where there are few of them."""
    if hours[1] < 1:
        return f"{60 * hours[0]:.1f} to {60 * hours[1]:.1f} min"
    return f"{hours[0]:.1f} to {hours[1]:.1f} h"
