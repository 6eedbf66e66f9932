"""Measure how many output tokens a second answering gives on a GPU, with LLaMA 3 8B's shape and random weights.

    python benchmarks/gpu/infer.py                       every way, bfloat16, some minutes on an H200
    python benchmarks/gpu/infer.py --only stage          one way (may be repeated); saves nothing
    python benchmarks/gpu/infer.py --slots 128           another number of slots; saves nothing
    python benchmarks/gpu/infer.py --tiny                the shape shrunk, in float32 on CPU; saves nothing
    python benchmarks/gpu/infer.py --quick               one round; saves nothing

64 prompts x 4 samples at temperature 0.8. Prompts have log-normal lengths (median 100 tokens, sigma 0.8, as in No
Robots' coding rows), answers 200 to 400 tokens, 300 in the mean: each sample has a limit of its own that nobody knows
beforehand. Prefill is in the time, and so is the making of CUDA graphs.

    stage            what a run with infer.batch_size=256 does: llamaduo.local.decoding, forward passes captured as
                     CUDA graphs (on a GPU alone), fewer slots where memory runs out. What it notes stands in the result
    slots            the same without CUDA graphs: starting the hundreds of kernels of a step takes most of its time
    generate_batch   transformers' continuous batching, as it comes. Its draws can't be repeated: they depend on what
                     else is in the batch
    original         batches of 8 padded on the left, transformers' generate; the first of its four repeats, once

The figure is that of the fastest of the first three, target at least 10,000; its ratio to the original's stands beside.
A way that fails is reported as failed and leaves the others alone.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infer_throughput import NO_TOKEN, Answers, Work, batches
from measure import Options, Result, conclude, folder, options, private, say, summary
from random_models import SHAPES, prepare, random_weights, tiny

K = 4
TEMPERATURE = 0.8
SHAPE = "llama3_8b"
OURS = ("stage", "slots", "generate_batch")
WAYS = (*OURS, "original")
SPEED = 10_000
TARGET = f">= {SPEED:,} output tokens a second on an H200"


@dataclass(frozen=True)
class Size:
    """How much is answered."""

    prompts: int
    prompt: int
    """Median length of a prompt."""
    answer: int
    """Mean length of an answer."""
    rounds: int


FULL = Size(prompts=64, prompt=100, answer=300, rounds=3)
TINY = Size(prompts=8, prompt=12, answer=9, rounds=1)


@dataclass
class Way:
    """What came of a way to answer."""

    tokens: list[int] = field(default_factory=list)
    """Output tokens of every round."""
    seconds: list[float] = field(default_factory=list)
    peak_gib: float | None = None
    """Memory of the GPU, allocated at most."""
    notes: list[str] = field(default_factory=list)
    """What a reader of a run would be told: of memory that ran out, of graphs that can't be made."""
    error: str | None = None

    def speeds(self) -> list[float]:
        """Return output tokens a second of every round."""
        return [tokens / seconds for tokens, seconds in zip(self.tokens, self.seconds, strict=True)]


def main() -> None:
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--only", action="append", choices=WAYS)
    own.add_argument("--slots", type=int, default=256)
    own.add_argument("--tiny", action="store_true")
    mine, rest = own.parse_known_args()
    wanted = options(__doc__, rest)
    if wanted.overrides:
        sys.exit(f"gpu/infer: {' '.join(wanted.overrides)}: no run is measured here, so nothing can be overridden.")
    wanted = replace(wanted, save=wanted.save and not (mine.only or mine.tiny or mine.slots != 256))
    size = replace(TINY if mine.tiny else FULL, **{"rounds": 1} if wanted.quick else {})
    load = os.getloadavg()
    with folder() as place:
        os.environ.update(private(place / "home") | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"})
        device = ready(mine.tiny)
        network = made(place / "model", mine.tiny)
        ways = {name: measured(name, network, size, mine.slots) for name in mine.only or WAYS}
    raw = {"device": device, "size": asdict(size), "slots": mine.slots}
    raw["ways"] = {name: asdict(way) for name, way in ways.items()}
    conclude(result(ways, mine.tiny, wanted), raw, wanted, load)


def ready(on_cpu: bool) -> dict[str, Any]:
    """Return what is measured on; ends the script where a GPU is needed and there is none."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if on_cpu:
        return {"name": "cpu", "kind": "cpu"}
    if not torch.cuda.is_available():
        sys.exit("gpu/infer: there is no GPU here; --tiny tries the script out on CPU.")
    found = torch.cuda.get_device_properties(0)
    told = {"name": found.name, "kind": "cuda", "memory_gib": round(found.total_memory / 2**30, 1)}
    return told | {"cuda": torch.version.cuda}


def made(place: Path, on_cpu: bool) -> Any:
    """Return the network, loaded as llamaduo loads one."""
    from llamaduo.config import LocalModel, Quantization, Runtime
    from llamaduo.local.model import load_base

    prepare(place, tiny(SHAPES[SHAPE]) if on_cpu else SHAPES[SHAPE])
    runtime = Runtime(device="cpu", threads=1) if on_cpu else Runtime(device="cuda")
    with random_weights():
        return load_base(LocalModel(name=SHAPE, path=str(place), context=8192), runtime, Quantization.none)


def drawn(size: Size, seed: int, vocabulary: int) -> Work:
    """Return a round's prompts, and lengths of their answers."""
    rng = random.Random(seed)
    lengths = [round(rng.lognormvariate(math.log(size.prompt), 0.8)) for _ in range(size.prompts)]
    prompts = [rng.choices(range(3, vocabulary), k=min(max(length, 4), 10 * size.prompt)) for length in lengths]
    low, high = round(size.answer * 2 / 3), round(size.answer * 4 / 3)
    return Work(prompts, [[rng.randint(low, high) for _ in range(K)] for _ in prompts])


# The ways


def in_slots(network: Any, work: Work, slots: int, note: Callable[[str], None] | None = None) -> Answers:
    """Answer as a run does, which tells `note` what it has to tell; or by its decoding alone, without CUDA graphs."""
    from llamaduo.local.decoding import Rules, Sample, decode, decode_what_fits

    places = [(at, k) for at in range(len(work.prompts)) for k in range(K)]
    samples = [Sample(at, K * at + k, work.lengths[at][k]) for at, k in places]
    found: Answers = {}

    def finished(number: int, ids: list[int]) -> None:
        found[places[number]] = ids

    way = decode if note is None else partial(decode_what_fits, note=note)
    way(network, work.prompts, samples, Rules(TEMPERATURE, frozenset({NO_TOKEN})), slots=slots, finished=finished)
    return found


def generate_batch(network: Any, work: Work) -> Answers:
    """Answer by transformers' continuous batching, every sample a request with a limit of its own."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    small = ContinuousBatchingConfig(num_blocks=64, max_batch_tokens=256)  # all of the memory is for GPUs
    how = GenerationConfig(
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=0,
        top_p=1.0,
        eos_token_id=NO_TOKEN,
        pad_token_id=0,
        max_new_tokens=max(map(max, work.lengths)),
    )
    found: Answers = {}
    with network.continuous_batching_context_manager(
        generation_config=how,
        block=True,
        timeout=5,
        continuous_batching_config=small if network.device.type == "cpu" else None,
    ) as manager:
        asked = {
            manager.add_request(prompt, max_new_tokens=work.lengths[at][k]): (at, k)
            for at, prompt in enumerate(work.prompts)
            for k in range(K)
        }
        while asked:
            reply = manager.get_result(timeout=1)
            if reply is None and not manager.is_running():
                raise RuntimeError("generate_batch ended before its requests did.")
            if reply is not None and reply.is_finished():
                found[asked.pop(reply.request_id)] = list(reply.generated_tokens)
    return found


def first_samples(work: Work) -> Work:
    """Return the work of the original's first repeat."""
    return Work(work.prompts, [lengths[:1] for lengths in work.lengths])


def answered(name: str, network: Any, work: Work, slots: int, note: Callable[[str], None]) -> Answers:
    ways: dict[str, Callable[[], Answers]] = {
        "stage": lambda: in_slots(network, work, slots, note),
        "slots": lambda: in_slots(network, work, slots),
        "generate_batch": lambda: generate_batch(network, work),
        "original": lambda: batches(network, work, k=1),
    }
    return ways[name]()


# Measuring


def measured(name: str, network: Any, size: Size, slots: int) -> Way:
    """Time a way of answering, after a short round that isn't counted."""
    way, vocabulary, attention = Way(), network.config.vocab_size, network.config._attn_implementation
    emptied(network)
    try:
        answered(name, network, drawn(replace(size, prompts=8, answer=6), 100, vocabulary), slots, way.notes.append)
        for seed in range(1 if name == "original" else size.rounds):
            work = drawn(size, seed, vocabulary)
            timed(way, name, network, first_samples(work) if name == "original" else work, slots)
    except Exception as error:  # a way that fails must not take the others' figures with it
        way.error = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    network.set_attn_implementation(attention)  # continuous batching may have taken another
    way.peak_gib = peak(network)
    say(f"{name:14} {told(way)}")
    return way


def timed(way: Way, name: str, network: Any, work: Work, slots: int) -> None:
    """Add a round; an answer that hasn't the length it was given is an error."""
    start = time.perf_counter()
    answers = answered(name, network, work, slots, way.notes.append)
    seconds = time.perf_counter() - start
    lengths = {(at, k): length for at, row in enumerate(work.lengths) for k, length in enumerate(row)}
    if {place: len(ids) for place, ids in answers.items()} != lengths:
        raise ValueError("an answer is missing, or has not the length that it was given.")
    way.tokens.append(work.tokens())
    way.seconds.append(round(seconds, 4))


def emptied(network: Any) -> None:
    """Give back what the last way took, and begin to count memory anew."""
    import torch

    gc.collect()
    if network.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(network: Any) -> float | None:
    """Return the memory that was allocated at most, in GiB."""
    import torch

    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if network.device.type == "cuda" else None


def told(way: Way) -> str:
    """Return a way as a line."""
    if way.error:
        return f"failed: {way.error}"
    speeds = summary(way.speeds())
    memory = "" if way.peak_gib is None else f", {way.peak_gib:.1f} GiB at most"
    span = f"[{speeds['min']:,.0f}, {speeds['max']:,.0f}]"
    notes = f"; {way.notes[0]}" if way.notes else ""
    return f"{speeds['median']:9,.0f} output tokens/s {span}, n = {len(way.seconds)}{memory}{notes}"


def result(ways: dict[str, Way], on_cpu: bool, wanted: Options) -> Result:
    """Sum the ways up."""
    spread: dict[str, Any] = {name: summary(way.speeds()) for name, way in ways.items() if not way.error}
    best = max((name for name in OURS if name in spread), key=lambda name: spread[name]["median"], default=None)
    figure = spread[best]["median"] if best else None
    if best and "original" in spread:
        spread |= {"over original": round(spread[best]["median"] / spread["original"]["median"], 2)}
    said = {
        "tiny: shape shrunk, on CPU, no figure of the claim": on_cpu,
        "quick: one round": wanted.quick,
        f"the fastest is {best}": best,
        f"failed: {', '.join(name for name, way in ways.items() if way.error)}": any(
            way.error for way in ways.values()
        ),
    }
    note = "; ".join(text for text, so in said.items() if so)
    untold = on_cpu or wanted.quick
    holds = None if untold else bool(figure and figure >= SPEED)
    n = len(ways[best].seconds) if best else 0
    return Result("gpu_infer", None if on_cpu else figure, "output tokens a second", TARGET, holds, n, spread, note)


if __name__ == "__main__":
    main()
