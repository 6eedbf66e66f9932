"""Measure how much of a GPU training uses, with models of the paper's shapes and random weights.

    python benchmarks/gpu/train.py                            every shape, bf16 and nf4, about ten minutes on an H200
    python benchmarks/gpu/train.py --quick                    two steps a cell; saves nothing, nor do the next
    python benchmarks/gpu/train.py --only llama3_8b:none      one cell (may be repeated)
    python benchmarks/gpu/train.py --whole                    rows of 2,048 tokens each, so that nothing is packed
    python benchmarks/gpu/train.py --attention NAME           another attention than sdpa, as `runtime.attention`
    python benchmarks/gpu/train.py tokens_per_batch=8192      other fields of Train
    python benchmarks/gpu/train.py --tiny                     the shapes shrunk, in float32 on CPU

llamaduo's own training: LoRA with r = 32 on all linear layers, without dropout or gradient checkpointing, rows of
log-normal length (median 266 tokens, sigma 0.8: those of No Robots' coding rows) packed into 2,048, one pack a forward
pass (`tokens_per_batch` makes that more), 16 an optimizer step. Three steps of warm-up, then about ten that count; the
GPU has finished a step before the clock is read.

The share of the peak takes 4 FLOP per parameter and token, as LoRA needs them without recomputation (forward 2,
backward 2: only the adapter's matrices get gradients of their own). Parameters are those that a token is multiplied
with: all but the embeddings, and the head, which our loss applies to response tokens alone (94 of 100 here, so that a
share is overstated by a factor of 1.004 for LLaMA 3 8B and 1.013 for Gemma 2B). Attention and the adapter are not
counted. The peak is the dense bf16 one of the data sheet. Real tokens only: padding counts as waste.

In every step every trained matrix must have a gradient (LoRA's A has none in the first, where B is zero). The figure
is the share of LLaMA 3 8B's shape in bf16, target at least 0.40; everything else is reported beside it.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import random
import sys
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import Options, Result, conclude, folder, options, private, say, summary
from meter import Meter, Reading, plain, read
from random_models import SHAPES, parameters, prepare, random_weights, text, tiny
from trainers import overridden

from llamaduo import config
from llamaduo.config import Isolation, LocalModel, Quantization, Runtime, Train
from llamaduo.errors import LlamaduoError
from llamaduo.records import Example

CLAIM = "llama3_8b:none"
CELLS = tuple(f"{shape}:{quantization}" for quantization in ("none", "nf4") for shape in SHAPES)
SHARE = 0.40
TARGET = f"{CLAIM}: >= {SHARE:.0%} of the dense bf16 peak at 4 FLOP per parameter and token, no step without gradients"
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Dense bf16 FLOP a second, by a part of the device's name."""
FLOP = 4
"""Floating-point operations a parameter and token."""


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    length: int
    """Tokens of a pack, and of the longest row."""
    packs: int
    """Packs in an optimizer step."""
    warm_up: int
    """Steps before the clock starts."""
    steps: int
    """Steps after that."""


FULL = Size(length=2048, packs=16, warm_up=3, steps=10)
TINY = Size(length=128, packs=4, warm_up=1, steps=2)


@dataclass(frozen=True)
class Cell:
    """What came of a shape."""

    parameters: int
    counted: int
    """Those that the share counts."""
    reading: Reading | None = None
    """None where there was no training: see `error`."""
    share: float | None = None
    """Of the device's peak; None where that isn't known."""
    loss: float | None = None
    peak_gib: float | None = None
    """Memory of the GPU, allocated at most behind the warm-up."""
    error: str | None = None


def main() -> None:
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--only", action="append", choices=CELLS)
    own.add_argument("--whole", action="store_true")
    own.add_argument("--attention")
    own.add_argument("--tiny", action="store_true")
    mine, rest = own.parse_known_args()
    wanted = options(__doc__, rest)
    wanted = replace(wanted, save=wanted.save and not (mine.only or mine.whole or mine.attention or mine.tiny))
    size = replace(TINY if mine.tiny else FULL, **{"steps": 2} if wanted.quick else {})
    load = os.getloadavg()
    with folder() as place:
        os.environ.update(private(place / "home") | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"})
        device = ready(mine.tiny)
        train = overridden(settings(size), wanted.overrides)
        cells = {}
        for name in mine.only or CELLS:
            cells[name] = measured(name, size, train, mine, device)
            say(f"{name:16} {told(cells[name])}")
    raw = {"device": device, "size": asdict(size), "train": config.plain(train)}
    raw["cells"] = {name: shown(cell) for name, cell in cells.items()}
    conclude(result(cells, mine.tiny, wanted), raw, wanted, load)


def ready(on_cpu: bool) -> dict[str, Any]:
    """Return what is measured on; ends the script where a GPU is needed and there is none."""
    import torch

    if not on_cpu and not torch.cuda.is_available():
        sys.exit("gpu/train: there is no GPU here; --tiny tries the script out on CPU.")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)
    if on_cpu:
        return {"name": "cpu", "kind": "cpu"}
    found = torch.cuda.get_device_properties(0)
    memory = round(found.total_memory / 2**30, 1)
    return {"name": found.name, "kind": "cuda", "memory_gib": memory, "cuda": torch.version.cuda}


def settings(size: Size) -> Train:
    """Return how every cell trains, but for its quantization."""
    return Train(
        learning_rate=2e-4,
        epochs=1,
        max_length=size.length,
        lora_r=32,
        lora_alpha=64,
        lora_dropout=0.0,
        batch_size=size.packs,
        packing=True,
    )


def measured(name: str, size: Size, train: Train, mine: argparse.Namespace, device: dict[str, Any]) -> Cell:
    """Train one cell; what doesn't fit is said in its place."""
    import torch

    shape, quantization = name.split(":")
    with folder() as place:
        prepare(place, tiny(SHAPES[shape]) if mine.tiny else SHAPES[shape])
        cell = Cell(*parameters(place))
        model = LocalModel(name=shape, path=str(place), context=size.length)
        examples = rows(model, size, mine.whole)
        job = replace(train, quantization=Quantization(quantization))
        gc.collect()
        if device["kind"] == "cuda":
            torch.cuda.empty_cache()
        try:
            reading, loss = trained(model, examples, job, runtime(device["kind"], mine.attention), size.warm_up)
        except (torch.OutOfMemoryError, LlamaduoError) as error:
            return replace(cell, error=" ".join(str(error).split())[:300])
    peak = next((value for part, value in PEAKS.items() if part in device["name"]), None)
    share = peak and FLOP * cell.counted * reading.tokens_per_second / peak
    memory = torch.cuda.max_memory_allocated() / 2**30 if device["kind"] == "cuda" else None
    return replace(cell, reading=reading, loss=loss, share=share, peak_gib=memory)


def rows(model: LocalModel, size: Size, whole: bool) -> list[Example]:
    """Return rows that fill the packs of all steps: made-up text that answers a question mark."""
    from llamaduo.local.model import load_chat

    rng, turns, made = random.Random(1), ({"role": "user", "content": "?"},), []
    overhead = len(load_chat(model).prompt_ids(turns)) + 1
    room = (size.warm_up + size.steps) * size.packs * size.length
    while room > 0:
        drawn = size.length if whole else round(rng.lognormvariate(math.log(0.13 * size.length), 0.8))
        length = min(max(drawn, 2 * overhead), size.length)
        made.append(Example(str(len(made)), turns, text(length - overhead, rng)))
        room -= length
    return made


def runtime(kind: str, attention: str | None) -> Runtime:
    """Return where a cell is trained: in this process, where the meter sees it."""
    threads = 1 if kind == "cpu" else None
    return Runtime(device=kind, threads=threads, attention=attention, isolation=Isolation.none)


def trained(
    model: LocalModel, examples: list[Example], job: Train, where: Runtime, warm_up: int
) -> tuple[Reading, float]:
    """Train once over the rows; returns what the meter read, and the loss."""
    import torch

    from llamaduo.training.fit import train
    from llamaduo.training.job import TrainJob

    def stepped(done: int, _: int) -> None:
        meter.mark()
        if done == warm_up and where.device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    with folder() as out, random_weights(), Meter(pad=0) as meter:
        adapter = train(
            TrainJob(out, model, job, where),
            examples,
            progress=stepped,
        )
    return read(meter.marks, warm_up), adapter.loss


def told(cell: Cell) -> str:
    """Return a cell as a line."""
    if cell.reading is None:
        return f"not trained: {cell.error}"
    share = "" if cell.share is None else f", {cell.share:.1%} of the peak"
    memory = "" if cell.peak_gib is None else f", {cell.peak_gib:.1f} GiB at most"
    gradients = "gradients in every step" if cell.reading.learns else "STEPS WITHOUT GRADIENTS"
    return (
        f"{cell.reading.tokens_per_second:9,.0f} real tokens/s over {cell.reading.steps} steps{share}, "
        f"padding {cell.reading.padding:.1%}{memory}, {gradients}"
    )


def shown(cell: Cell) -> dict[str, Any]:
    """Return a cell for the file, with the gradient's norm in every step."""
    reading = cell.reading and plain(cell.reading) | {"gradients": cell.reading.gradients}
    return asdict(cell) | {"reading": reading}


def result(cells: dict[str, Cell], on_cpu: bool, wanted: Options) -> Result:
    """Sum the cells up."""
    claim = cells.get(CLAIM)
    figure = claim.share if claim else None
    dead = [name for name, cell in cells.items() if cell.reading and not cell.reading.learns]
    failed = [name for name, cell in cells.items() if cell.reading is None]
    said = {
        "tiny: shapes shrunk, on CPU, no figure of the claim": on_cpu,
        "quick: two steps a cell": wanted.quick,
        f"steps without gradients: {', '.join(dead)}": dead,
        f"not trained: {', '.join(failed)}": failed,
    }
    note = "; ".join(text for text, so in said.items() if so) or "every shape trained, with gradients in every step"
    untold = on_cpu or wanted.quick or claim is None
    holds = False if dead else None if untold else bool(figure and figure >= SHARE)
    spread = {
        name: {"tokens_per_second": summary(cell.reading.by_step), "share": cell.share, "peak_gib": cell.peak_gib}
        for name, cell in cells.items()
        if cell.reading
    }
    n = claim.reading.steps if claim and claim.reading else 0
    return Result("gpu_train", figure, "share of the dense bf16 peak", TARGET, holds, n, spread, note)


if __name__ == "__main__":
    main()
