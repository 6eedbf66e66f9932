"""Measure how far the pocket teacher follows its seed: the share of new pairs in the seed's slice, by breadth.

    python benchmarks/teacher_follows.py             400 pairs for a seed of each slice, breadths 0 to 1
    python benchmarks/teacher_follows.py --quick     40 pairs

Nothing is trained. The claim: the share lies within 0.05 of what the breadth says, 1 - breadth x (1 - the slice's
share), on the average of all slices at each breadth. The figure is the mean share at the default breadth.
"""

from __future__ import annotations

import os
from typing import Any

from measure import Result, conclude, options, say, summary

BREADTHS = (0.0, 0.1, 0.2, 0.5, 1.0)
TARGET = "at every breadth within 0.05 of 1 - breadth x (1 - the slice's share)"


def main() -> None:
    from llamaduo.pocket.teacher import BREADTH

    wanted = options(__doc__)
    load = os.getloadavg()
    raw = [row for breadth in BREADTHS for row in shares(breadth, 40 if wanted.quick else 400)]
    off = {}
    for breadth in BREADTHS:
        here = [row for row in raw if row["breadth"] == breadth]
        mean, told = (sum(row[name] for row in here) / len(here) for name in ("share", "told"))
        evolved = sum(row["harder"] for row in here) / len(here)
        off[breadth] = abs(mean - told)
        say(f"breadth {breadth}: {mean:.3f} in the seed's slice (told: {told:.3f}), of harder ones {evolved:.3f}")
    default = [row["share"] for row in raw if row["breadth"] == BREADTH]
    holds = None if wanted.quick else max(off.values()) <= 0.05
    figure = round(sum(default) / len(default), 3)
    conclude(
        Result("teacher_follows", figure, "share", TARGET, holds, len(default), summary(default), ""), raw, wanted, load
    )


def shares(breadth: float, count: int) -> list[dict[str, Any]]:
    """Return for each slice the shares of new pairs that are of it, asked for as usual and for harder ones."""
    from llamaduo.pocket.slices import SLICES
    from llamaduo.pocket.tasks import make_pairs, slice_of
    from llamaduo.pocket.teacher import reply
    from llamaduo.service.prompts import synthesis_prompt
    from llamaduo.service.replies import read_pairs

    rows = []
    for task, parts in SLICES.items():
        seeds = {slice_of(prompt): (prompt, truth) for prompt, truth in make_pairs(task, 200, 9, slices=True)}
        for part in parts:
            prompt, truth = seeds[part.name]
            row = {"task": task, "slice": part.name, "breadth": breadth, "told": 1 - breadth * (1 - part.share)}
            for name, variant in (("share", "default"), ("harder", "evolve")):
                asked = synthesis_prompt(variant, instruction=prompt, response=truth, topic=None, count=count)
                made = read_pairs(reply(asked, {"breadth": breadth}))[0]
                row[name] = sum(slice_of(new) == part.name for new, _ in made) / len(made)
            rows.append(row)
    return rows


if __name__ == "__main__":
    main()
