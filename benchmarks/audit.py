"""Bias audits of made-up answers: how often a planted gap of 20 points is found, and how often one is that isn't there.

    python benchmarks/audit.py            200 audits of every setting, with and without a planted gap
    python benchmarks/audit.py --quick    40 of three settings

In a setting a number of prompts is answered with each term of each category in its place. Answers are scored either
gradually (a beta distribution around the prompt's own level, which scatters by 10 points) or right or wrong, with K
samples an answer. Refusals (2%) and lengths are measured besides, as in a real audit, so that the family is as large.
A planted gap lowers the expected score of one term of one category by 20 points. Found: that term is told to come off
worse. False alarm: without a planted gap anything is told; with one, any other term. A second world without a gap
makes the prompts' answers to all terms scatter anew by rare total failures, the hardest for tests that take noise to be
normal. The last line is the figure: the lowest share found over the settings that are said to have enough prompts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llamaduo.audit.bias import gaps
from llamaduo.evidence.bounded import limits

RESULTS = Path(__file__).parent / "results"
GAP = 20.0
TARGET, ALARMS = 0.95, 0.05


@dataclass(frozen=True)
class Setting:
    """What an audit looks at."""

    prompts: int
    """Prompts of each category."""
    terms: tuple[int, ...]
    """Terms of each category."""
    level: float
    """Mean score without a gap."""
    noise: float
    """Standard deviation of an answer's score around its prompt's level; 0: answers are right or wrong."""
    samples: int = 1
    """Answers to each prompt with each term."""
    enough: bool = True
    """Whether there are prompts enough to find a gap of 20 points, as docs/audit.md says."""


SETTINGS = (
    Setting(30, (2,), 80, 15),
    Setting(40, (2, 8, 6), 80, 15),
    Setting(100, (2, 8, 6, 3), 70, 25),
    Setting(150, (2, 8, 6, 3), 60, 30),
    Setting(30, (8,), 90, 10),
    Setting(300, (2, 8, 6, 3), 80, 0),
    Setting(100, (2, 8, 6, 3), 80, 0, samples=4),
    Setting(200, (8,), 50, 0),
    Setting(20, (2, 8, 6, 3), 70, 25, enough=False),
    Setting(60, (2, 8, 6, 3), 80, 0, enough=False),
    Setting(8, (8,), 80, 15, enough=False),
)
QUICK = (0, 1, 4)
WORLDS = ("planted", "even", "rare_failures")


def main() -> int:
    """Run all settings, print them, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="within a minute")
    parser.add_argument("--audits", type=int, default=None, help="audits of each setting and world (default 200)")
    given = parser.parse_args()
    audits = given.audits or (40 if given.quick else 200)
    chosen = [SETTINGS[at] for at in QUICK] if given.quick else list(SETTINGS)
    start, lines = time.monotonic(), []
    for setting in chosen:
        counted = {world: count(setting, world, audits) for world in WORLDS}
        lines.append({"setting": asdict(setting), "audits": audits, **counted})
        told = ", ".join(f"{world}: found {of['found']}, false {of['false']}" for world, of in counted.items())
        print(f"{setting}: of {audits}: {told} ({time.monotonic() - start:.0f} s)", flush=True)
    enough = [line for line in lines if line["setting"]["enough"]]
    found = [line["planted"]["found"] / audits for line in enough]
    alarms = {world: sum(line[world]["false"] for line in lines) / (audits * len(lines)) for world in WORLDS}
    worst = {world: max(line[world]["false"] / audits for line in lines) for world in WORLDS}
    sure = limits([100.0] * round(min(found) * audits) + [0.0] * (audits - round(min(found) * audits)), [1] * audits)
    summary = {
        "name": "bias audit: a planted gap of 20 points is found",
        "figure": min(found),
        "unit": "share of audits, the lowest of the settings with enough prompts",
        "target": TARGET,
        "holds": min(found) >= TARGET and max(alarms.values()) <= ALARMS,
        "n": audits,
        "spread": {
            "interval": [round(limit / 100, 4) for limit in sure],
            "found": found,
            "false_alarms": alarms,
            "false_alarms_worst_setting": worst,
        },
    }
    if not given.quick:
        (RESULTS / "audit.json").write_text(json.dumps({**summary, "settings": lines}, indent=1) + "\n")
    print(json.dumps(summary))
    return 0


def count(setting: Setting, world: str, audits: int) -> dict[str, int]:
    """Return how many of so many audits find the planted gap, and how many tell of another."""
    found = false = 0
    for seed in range(audits):
        rng = np.random.default_rng([seed, WORLDS.index(world), setting.prompts, *setting.terms, int(setting.level)])
        tables, names, planted = made(setting, world, rng)
        told = {(gap.category, gap.term, gap.outcome, gap.gap < 0) for gap in gaps(tables, names) if gap.stands}
        found += planted in told
        false += bool(told - {planted})
    return {"found": found, "false": false}


def made(setting: Setting, world: str, rng: np.random.Generator) -> tuple[dict[Any, Any], dict[str, list[str]], Any]:
    """Return tables of made-up answers by category and outcome, the names of their columns, and what is planted."""
    tables, names = {}, {}
    where = int(rng.integers(len(setting.terms)))
    column = int(rng.integers(setting.terms[where]))
    for at, terms in enumerate(setting.terms):
        lower = np.zeros(terms)
        if world == "planted" and at == where:
            lower[column] = GAP
        category = f"c{at}"
        names[category] = [f"t{term}" for term in range(terms)]
        shape = (setting.prompts, terms)
        tables[category, "score"] = scores(setting, world, shape, lower, rng)
        tables[category, "refusal"] = 100.0 * (rng.random(shape) < 0.02)
        lengths = rng.lognormal(4, 0.4, shape)
        tables[category, "length"] = 100 * lengths / lengths.mean(axis=1, keepdims=True)
    return tables, names, (f"c{where}", f"t{column}", "score", True) if world == "planted" else None


def scores(setting: Setting, world: str, shape: tuple[int, int], lower: Any, rng: np.random.Generator) -> Any:
    """Return the scores of answers, (prompts, terms), 0 to 100."""
    if world == "rare_failures":
        return np.where(rng.random(shape) < 0.05, 0.0, 95 + 5 * rng.random(shape))
    if not setting.noise:
        return rng.binomial(setting.samples, (setting.level - lower) / 100, shape) * 100.0 / setting.samples
    levels = np.clip(setting.level + rng.normal(0, 10, (shape[0], 1)), 25, 97) - lower
    share = levels / 100
    size = np.maximum(share * (1 - share) / (setting.noise / 100) ** 2 - 1, 0.05)
    return 100 * rng.beta(share * size, (1 - share) * size, (setting.samples, *shape)).mean(axis=0)


if __name__ == "__main__":
    sys.exit(main())
