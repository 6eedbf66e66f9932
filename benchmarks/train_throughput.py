"""Measure how many real tokens a second training takes in, beside TRL's SFTTrainer.

    python benchmarks/train_throughput.py                 three rounds, about fifteen minutes
    python benchmarks/train_throughput.py --quick         one round on few rows, within a minute
    python benchmarks/train_throughput.py packing=true    another setting of ours (a field of Train); saves nothing

Needs TRL (`pip install -c constraints.txt -e ".[bench]"`) and the real conversations beside the project; no GPU, key
or network. Everybody trains the same random Llama of 4.3 million parameters (`toy_llama.py`), in float32 on one
thread, on the same rows, once over: the conversations of at most 1,024 tokens. The same LoRA (r = 16, all linear
layers, no dropout), the same learning rate, 8 rows an optimizer step, which is what TRL takes by default.

    ours             llamaduo.training.fit: 1 batch of 8 rows a step, which it cuts further where that saves padding
    trl              SFTTrainer as it comes, but for float32 and gradient checkpointing: 1 batch of 8 rows a step
    trl packing      packing=True (best fit decreasing, 1,024 tokens, no attention across rows) as it is fastest here:
                     2 packs a step, one at a time; a pack holds 3.4 of these rows
    ... as shipped   the same two with gradient checkpointing, and batches of 8 (rows, or packs), as TRL has it by
                     default; in the first round only, for comparison

The targets are those against the faster two. Without FlashAttention, TRL makes a batch of packs into one long row, and
transformers derives a dense block-diagonal mask from its position ids: that is right, but eight packs in one batch
attend over 8,192 x 8,192 positions, so that packs one at a time are four times as fast.

Real tokens are those that aren't padding, counted where they are embedded (`meter.py`), for everybody. The clock runs
from the end of the first step to the end of the last: loading, rendering and imports are not in it. In every step the
gradients are looked at. Other work on the machine shows less in processor time, whose ratios stand beside.

Before that: everybody's rows have the same tokens and labels, and with a learning rate of 0 the same loss per response
token as the model called row by row, within 1e-4.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import statistics
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from measure import Options, Result, conclude, folder, options, private, say, summary
from meter import Reading, plain
from toy_llama import DATA, Turns, conversations, make
from trainers import Peer, Setting, by_hand, overridden, rendered, with_llamaduo, with_trl

from llamaduo import config
from llamaduo.config import Train

QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
ROWS_A_STEP = 8
MAX_LENGTH = 1024
OURS = Train(
    learning_rate=2e-4,
    epochs=1,
    max_length=MAX_LENGTH,
    lora_r=16,
    lora_alpha=32,
    lora_dropout=0.0,
    batch_size=ROWS_A_STEP,
)
OVER = {"trl": 2.0, "trl packing": 1.2}
PADDING, LOSS = 0.06, 1e-4
TARGET = (
    f">= {OVER['trl']:g} times TRL and >= {OVER['trl packing']:g} times TRL with packing; padding <= {PADDING:.0%}; "
    f"same rows, same loss per response token within {LOSS:g}, no step without gradients"
)

PEERS = {
    "trl": Peer(packing=False, batch=ROWS_A_STEP, accumulation=1, checkpointing=False),
    "trl packing": Peer(packing=True, batch=1, accumulation=2, checkpointing=False),
}
AS_SHIPPED = {f"{name}, as shipped": Peer(peer.packing, 8, 1, checkpointing=True) for name, peer in PEERS.items()}


def main() -> None:
    wanted = options(__doc__)
    if not DATA.exists():
        say(f"train_throughput: skipped, {DATA.name} is not beside the project")
        return
    if importlib.util.find_spec("trl") is None:
        sys.exit('train_throughput: the peer is TRL, which is missing: pip install -c constraints.txt -e ".[bench]"')
    load = os.getloadavg()
    with folder() as place:
        alone(place / "home")
        say(f"made the model: {make(place / 'model')}")
        setting = Setting(place / "model", place, short(place / "model"), overridden(OURS, wanted.overrides))
        checks = checked(replace(setting, turns=sample(setting.turns, 16 if wanted.quick else 48)))
        timed = replace(setting, turns=sample(setting.turns, 32)) if wanted.quick else setting
        readings = measured(timed, rounds=1) if wanted.quick else measured(timed, rounds=3, once=AS_SHIPPED)
    shown(readings)
    raw = {
        "ours": config.plain(setting.ours),
        "peers": {name: asdict(peer) for name, peer in (PEERS | AS_SHIPPED).items()},
        "rows": len(timed.turns),
        "checks": checks,
        "readings": {name: [plain(reading) for reading in found] for name, found in readings.items()},
    }
    conclude(result(readings, checks, timed, wanted), raw, wanted, load)


def alone(home: Path) -> None:
    """Keep this process to one thread, a home of its own, and quiet."""
    os.environ.update(private(home) | QUIET | {"OMP_NUM_THREADS": "1"})
    import datasets
    import torch
    import transformers

    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


# The rows


def short(model: Path) -> list[Turns]:
    """Return the conversations that are not too long to train on."""
    turns = conversations()
    kept = [each for each, (ids, _) in zip(turns, rendered(model, turns), strict=True) if len(ids) <= MAX_LENGTH]
    say(f"rows: {len(kept)} of {len(turns)}; {len(turns) - len(kept)} exceed {MAX_LENGTH:,} tokens")
    return kept


def sample(turns: Sequence[Turns], count: int) -> list[Turns]:
    """Return rows from all over the list."""
    return [turns[at * len(turns) // count] for at in range(count)]


# The same rows, the same loss


def checked(setting: Setting) -> dict[str, Any]:
    """Return everybody's loss per response token while nothing is learned, and whether TRL's rows are ours."""
    rows = sorted(rendered(setting.model, setting.turns))
    still = replace(setting, ours=replace(setting.ours, learning_rate=0.0))
    trained = {"ours": with_llamaduo(still)} | {name: with_trl(still, peer) for name, peer in PEERS.items()}
    loss = {"row by row": by_hand(setting.model, rows)} | {name: each.loss for name, each in trained.items()}
    same = {name: each.rows == rows for name, each in trained.items() if each.rows is not None}
    apart = max(loss.values()) - min(loss.values())
    say(f"loss per response token on {len(rows)} rows: {loss}, at most {apart:.1e} apart; same rows: {same}")
    return {"rows": len(rows), "loss": loss, "apart": apart, "same_rows": same}


# The measurement


def measured(setting: Setting, rounds: int, once: Mapping[str, Peer] = {}) -> dict[str, list[Reading]]:
    """Return everybody's readings, round by round, those of `once` in the first; who goes first changes."""
    peers = PEERS | dict(once)
    found: dict[str, list[Reading]] = {name: [] for name in ("ours", *peers)}
    for number in range(rounds):
        taking_part = [name for name in found if number == 0 or name not in once]
        for name in taking_part if number % 2 == 0 else reversed(taking_part):
            seeded = replace(setting, seed=number)
            trained = with_llamaduo(seeded) if name == "ours" else with_trl(seeded, peers[name])
            found[name].append(trained.reading)
            say(f"round {number + 1}, {name}: {trained.reading.tokens_per_second:,.0f} real tokens/s")
            gc.collect()
    return found


def ratios(ours: Sequence[Reading], peer: Sequence[Reading], per: str = "tokens_per_second") -> list[float]:
    """Return how many times faster ours was, round by round."""
    return [getattr(a, per) / getattr(b, per) for a, b in zip(ours, peer, strict=False)]


def shown(readings: dict[str, list[Reading]]) -> None:
    """Print a line a trainer."""
    for name, found in readings.items():
        speed = summary([reading.tokens_per_second for reading in found])
        ratio = summary(ratios(readings["ours"], found))
        padding = max(reading.padding for reading in found)
        say(
            f"{name:23} median {speed['median']:7,.0f} real tokens/s [{speed['min']:,.0f}, {speed['max']:,.0f}], "
            f"n = {len(found)}, padding {padding:.1%}, ours is {ratio['median']:.2f} times as fast"
        )


def missed(readings: dict[str, list[Reading]], checks: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return what is wrong with the measurement, and which targets of speed and padding were missed."""
    ours = readings["ours"]
    wrong = {
        "the losses differ": checks["apart"] > LOSS,
        "the rows differ": not all(checks["same_rows"].values()),
        "steps without gradients": not all(reading.learns for found in readings.values() for reading in found),
    }
    slow = {f"over {name}": statistics.median(ratios(ours, readings[name])) < OVER[name] for name in PEERS}
    slow["padding"] = max(reading.padding for reading in ours) > PADDING
    return [name for name, so in wrong.items() if so], [name for name, so in slow.items() if so]


def result(readings: dict[str, list[Reading]], checks: dict[str, Any], setting: Setting, wanted: Options) -> Result:
    """Sum the rounds up."""
    wrong, slow = missed(readings, checks)
    note = "; ".join([*wrong, *(f"target missed: {name}" for name in slow)]) or "every target is met"
    if wanted.quick:
        note = f"quick: one round of {len(setting.turns)} rows, too few for batches of like length; {note}"
    ours = readings["ours"]
    spread: dict[str, Any] = {}
    for name, found in readings.items():
        spread[name] = {"tokens_per_second": summary([reading.tokens_per_second for reading in found])}
        if name != "ours":
            spread[name] |= {"ratio": summary(ratios(ours, found)), "n": len(found)}
            spread[name]["ratio_of_processor_time"] = summary(ratios(ours, found, "tokens_per_processor_second"))
    spread |= {"padding": summary([reading.padding for reading in ours]), "loss_apart": checks["apart"]}
    holds = False if wrong or (slow and not wanted.quick) else None if wanted.quick else True
    figure = round(statistics.median(ratios(ours, readings["trl"])), 4)
    return Result(
        "train_throughput", figure, "times TRL's real tokens a second", TARGET, holds, len(ours), spread, note
    )


if __name__ == "__main__":
    main()
