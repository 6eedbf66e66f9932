"""Measure how many judge calls are saved by asking only for what can change a decision, and that none is changed.

    python benchmarks/judge_economy.py             everything, about a quarter of an hour
    python benchmarks/judge_economy.py --quick     fewer draws, within a minute

Four parts. *Archived*: the verdicts of every iteration of the rehearsals kept in results/pocket_*/runs.tar.xz that
was judged in full are handed out in rounds, as a run would ask for them; saved is the share of verdicts that were never
asked for, changed is how often the gate decides otherwise than on all of them. Studies without a gate are given the
default one.
*Simulated*: runs of six iterations in worlds whose truth is known (worlds.py), with a judge who is asked once and one
who is asked ten times: rising models, and models that never reach the gate (truth 89), whose false acceptance has to
stay what it is. *Plateaus*: runs of models that stay at 80, or rise, which end once two iterations in a row have
gained less than 2 points; what is asked for afterwards, as a plateau is called on all prompts alone, counts. *Two
tiers*: a cheap judge on all answers and a dear one on a quarter of them: how often the limits miss the truth, how wide
they are beside those of a dear judge on all answers, how many dear calls equal width takes.

The figure is the share of calls saved on the archived iterations, in percent.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from measure import ROOT, Options, Result, conclude, options, say
from worlds import NOISE, WORLDS, Floats, answered, draw_run, judged

from llamaduo.config import Judge, Loop
from llamaduo.evidence.stop import SURE

Asked = np.ndarray[Any, np.dtype[np.bool_]]
"""Whether a prompt is judged, by repeat."""

TARGET = (
    ">= 50% saved on archived iterations and of each kind of simulated runs, no archived decision changed; "
    "false acceptance <= 5%; two tiers: >= 70% fewer dear calls at equal width, lower limit above the truth in <= 3%"
)
SIZE = Judge.round_prompts
"""Prompts in a round."""
GATE, ERROR, LOOKS = 90.0, 0.05, 6
RISING, NEVER = (62, 74, 82, 88, 93, 97), (89,) * LOOKS
FLAT, PATIENCE, MIN_GAIN = (80,) * 5, Loop.patience, Loop.min_gain
CHEAP_NOISE, CHEAP_BIAS = 6.0, 4.0


def main() -> None:
    wanted = options(__doc__)
    load = os.getloadavg()
    if wanted.overrides:
        sys.exit("judge_economy: there is no run here whose settings could be changed; leave them out.")
    raw = {
        "archived": archived(), "simulated": simulated(wanted.quick), "plateaus": plateaus(wanted.quick),
        "two_tiers": two_tiers(wanted.quick),
    }  # fmt: skip
    conclude(result(raw, wanted), raw, wanted, load)


@dataclass(frozen=True)
class Archived:
    """One judged iteration of a rehearsal."""

    name: str
    gate: Any
    error: float
    repeats: int
    seed: int
    predictions: list[Any]
    verdicts: list[Any]

    @property
    def complete(self) -> bool:
        """Whether every answer was judged by everybody, as often as they were to: runs judge in rounds themselves."""
        judges = {verdict.judge for verdict in self.verdicts}
        return len(self.verdicts) == len(self.predictions) * len(judges) * self.repeats


def archived() -> list[dict[str, Any]]:
    """Hand out what the rehearsals' judges said, with all their repeats and with one."""
    made = []
    for repeats in (None, 1):
        found = [handed_out(one, repeats) for one in iterations() if one.complete]
        asked, there = (sum(row[key] for row in found) for key in ("asked", "there"))
        made.append(
            {
                "repeats": repeats or "as archived", "iterations": len(found), "saved": round(1 - asked / there, 4),
                "passed": sum(row["passes"] for row in found), "changed": sum(row["changed"] for row in found),
            }
        )  # fmt: skip
        say(f"archived: {json.dumps(made[-1])}")
    return made


def iterations() -> Iterator[Archived]:
    """Read the iterations out of the archives; each is judged at the gate of its run."""
    import yaml

    for path in sorted((ROOT / "results").glob("pocket_*/runs.tar.xz")):
        with tarfile.open(path) as archive:
            wanted = ("config.yaml", "predictions.jsonl", "verdicts.jsonl")
            files = {
                PurePosixPath(member.name): archive.extractfile(member).read()  # type: ignore[union-attr]
                for member in archive
                if member.name.endswith(wanted) and "/test/" not in member.name
            }
        for name in sorted(name for name in files if name.name == "verdicts.jsonl"):
            config = yaml.safe_load(files[PurePosixPath(name.parts[0]) / "config.yaml"])
            yield one_of(
                config, f"{path.parent.name}/{name.parent}", files[name.parent / "predictions.jsonl"], files[name]
            )


def one_of(config: dict[str, Any], name: str, predictions: bytes, verdicts: bytes) -> Archived:
    from llamaduo.config import Gate
    from llamaduo.records import Prediction, Verdict, from_json

    asked = {key: config["loop"]["gate"][key] for key in ("similarity", "precision")}
    gate = Gate(**{key: value if value is not None else GATE for key, value in asked.items()})
    looks = config["loop"]["max_iterations"] if config["synthesis"]["enabled"] else 1
    return Archived(
        name, gate, ERROR / looks, config["judge"]["repeats"], config["data"]["seed"],
        [from_json(Prediction, line) for line in predictions.decode().splitlines()],
        [from_json(Verdict, line) for line in verdicts.decode().splitlines()],
    )  # fmt: skip


def handed_out(one: Archived, repeats: int | None) -> dict[str, Any]:
    """Ask for an iteration's verdicts in rounds until that is enough."""
    from llamaduo.evidence.gate import look
    from llamaduo.evidence.scorecard import clusters
    from llamaduo.evidence.watch import Watch

    one = replace(one, repeats=repeats or one.repeats)
    there = [verdict for verdict in one.verdicts if verdict.repeat < one.repeats]
    watch = Watch(one.gate, one.error, one.predictions, repeats=one.repeats, size=SIZE, seed=one.seed)
    asked: list[Any] = []
    for part in watch.rounds:
        asked += [v for v in there if v.prompt_id in set(part.prompts) and v.repeat in part.repeats]
        if watch.enough(asked):
            break
    near = clusters(one.predictions)
    full = look(there, one.gate, error=one.error, clusters=near).passed
    whole = {v.prompt_id for v in asked} == {p.prompt_id for p in one.predictions}
    found = whole and look(asked, one.gate, error=one.error, clusters=near).passed
    return {"asked": len(asked), "there": len(there), "passes": full, "changed": full != found}


def simulated(quick: bool) -> list[dict[str, Any]]:
    """Run loops of six iterations in worlds of known truth, with all calls and with those that can matter."""
    n = 8 if quick else 200
    grid = list(product(WORLDS, (64, 100, 200), (0.0, 0.5, 0.9), (1, 10)))
    grid = [cell for cell in grid if cell[1:3] in ((64, 0.5),)] if quick else grid
    made = []
    for world, prompts, alike, repeats in grid:
        for kind, truths in (("rising", RISING), ("never", NEVER)):
            rng = np.random.default_rng([prompts, round(10 * alike), repeats, WORLDS.index(world), len(kind)])
            many = n if repeats == 1 else n // 2
            scores = draw_run(world, truths, n=many, prompts=prompts, answers=4, repeats=repeats, alike=alike, rng=rng)
            loops = [looped(run) for run in scores]
            made.append(
                {
                    "world": world, "prompts": prompts, "alike": alike, "repeats": repeats, "models": kind,
                    "runs": many, **{key: float(np.mean([loop[key] for loop in loops])) for key in loops[0]},
                }
            )  # fmt: skip
            say(f"simulated: {json.dumps(made[-1])}")
    return made


def looped(models: Floats) -> dict[str, float]:
    """Go through (iterations, prompts, answers, repeats) until one passes, by both ways of asking."""
    asked = there = 0.0
    ends: dict[str, int | None] = {"all": None, "economy": None}
    for number, scores in enumerate(models):
        if None not in ends.values():
            break
        have = economical(scores)
        used, ended = int(have.sum()) * scores.shape[1], accepted(scores, have)
        full = passes(scores.mean(1))
        if ends["all"] is None and ends["economy"] is None:
            asked, there = asked + used, there + scores.size
        if ends["all"] is None and full:
            ends["all"] = number
        if ends["economy"] is None and ended:
            ends["economy"] = number
    return {
        "saved": 1 - asked / there, "changed": float(ends["all"] != ends["economy"]),
        "accepted_all": float(ends["all"] is not None), "accepted": float(ends["economy"] is not None),
    }  # fmt: skip


def passes(by_repeat: Floats) -> bool:
    """Tell whether the limit that the gate looks at, of (prompts, repeats), reaches it."""
    from llamaduo.evidence.bounded import log_chances

    sums = by_repeat.mean(1)[None]
    return bool(log_chances(sums, np.ones_like(sums), GATE)[0] <= np.log(ERROR / LOOKS))


def accepted(scores: Floats, have: Asked) -> bool:
    """Tell whether the model passes by what was asked for."""
    return bool(have[:, 0].all() and passes((scores.mean(1) * have).sum(1, keepdims=True) / have.sum(1, keepdims=True)))


def economical(scores: Floats) -> Asked:
    """Return which of (prompts, repeats) are asked for, of scores by (prompts, answers, repeats)."""
    from llamaduo.evidence.bounded import lower_limit
    from llamaduo.evidence.economy import Claim, Known, enough, rounds

    prompts, _, repeats = scores.shape
    error = ERROR / LOOKS
    claim = Claim(GATE, error, lambda sums, sizes: lower_limit(sums, sizes, error))
    have = np.zeros((prompts, repeats), dtype=bool)
    means = scores.mean(1)
    for part in rounds([(str(at),) for at in range(prompts)], repeats=repeats, size=SIZE):
        have[np.ix_([int(name) for name in part.prompts], part.repeats)] = True
        known = have[:, 0]
        sums = (means * have).sum(1)[known] / have.sum(1)[known]
        pairs = means[have[:, 1], :2] if repeats > 1 else np.empty((0, 2))
        found = Known(sums, np.ones(len(sums)), np.ones(int((~known).sum())), pairs)
        if enough({"precision": found}, {"precision": claim}, done=int(have[known].sum(1).min()), repeats=repeats):
            break
    return have


def plateaus(quick: bool) -> list[dict[str, Any]]:
    """Run loops of models that gain nothing, or much, until two iterations in a row have gained less than 2 points."""
    n = 8 if quick else 100
    made = []
    for world, prompts, repeats in product(WORLDS, (64,) if quick else (64, 200), (1, 10)):
        for kind, truths in (("flat", FLAT), ("rising", RISING[: len(FLAT)])):
            rng = np.random.default_rng([prompts, repeats, WORLDS.index(world), len(kind)])
            scores = draw_run(world, truths, n=n, prompts=prompts, answers=4, repeats=repeats, alike=0.5, rng=rng)
            loops = [until_plateau(run) for run in scores]
            row = {"world": world, "prompts": prompts, "repeats": repeats, "models": kind, "runs": n}
            made.append(row | {key: float(np.mean([loop[key] for loop in loops])) for key in loops[0]})
            say(f"plateaus: {json.dumps(made[-1])}")
    return made


def until_plateau(models: Floats) -> dict[str, float]:
    """Go through (iterations, prompts, answers, repeats) until a plateau, by both ways of asking.

    `at_first` is the share that is left out before the rest is asked for, once each, where there may be a plateau.
    """
    means = models.mean(2)
    everything = [np.ones(part.shape, dtype=bool) for part in means]
    full = next((n for n in range(len(means)) if flat(means, everything, n)), None)
    have: list[Asked] = []
    ended, first = None, 0
    while ended is None and len(have) < len(models):
        number = len(have)
        have.append(economical(models[number]))
        first += int(have[-1].sum())
        if flat(means, have, number):
            for late in (best_before(means, have, number), *range(number + 1 - PATIENCE, number + 1)):
                have[late][:, 0] = True
            ended = number if flat(means, have, number) else None
    asked, there = sum(int(part.sum()) for part in have), len(have) * have[0].size
    return {"saved": 1 - asked / there, "at_first": 1 - first / there, "changed": float(full != ended)}


def flat(means: Floats, have: Sequence[Asked], number: int) -> bool:
    """Tell whether the iterations up to a number may end at a plateau, by what is asked of (prompts, repeats)."""
    if number < PATIENCE:
        return False
    before = best_before(means, have, number)
    lately = [gains(means, have, late, before) for late in range(number + 1 - PATIENCE, number + 1)]
    return all(found.mean() - doubt(found, means.shape[1]) < MIN_GAIN for found in lately)


def doubt(found: Floats, prompts: int) -> float:
    """Return by how much a mean of gains may be less over all prompts."""
    if len(found) == prompts:
        return 0.0
    return float(SURE * found.std(ddof=1) / np.sqrt(len(found)))


def best_before(means: Floats, have: Sequence[Asked], number: int) -> int:
    """Return the best of the iterations before the last ones, the earliest of equals."""
    chosen = 0
    for earlier in range(1, number + 1 - PATIENCE):
        chosen = earlier if gains(means, have, earlier, chosen).mean() > 0 else chosen
    return chosen


def gains(means: Floats, have: Sequence[Asked], later: int, earlier: int) -> Floats:
    """Return the gains between two iterations of the prompts that are judged in both."""
    both = have[later][:, 0] & have[earlier][:, 0]
    known = [(means[at] * have[at]).sum(1)[both] / have[at].sum(1)[both] for at in (later, earlier)]
    return known[0] - known[1]


def two_tiers(quick: bool) -> list[dict[str, Any]]:
    """Compare a dear judge on one of four answers, and a cheap one on all, with a dear judge on all."""
    n, few = (300, 6) if quick else (4000, 60)
    sizes, truths = ((25,), (90,)) if quick else ((8, 15, 25, 64, 100), (80, 90, 95, 98))
    made = []
    for world, prompts, truth in product(WORLDS, sizes, truths):
        rng = np.random.default_rng([prompts, truth, WORLDS.index(world)])
        quality = answered(world, [truth], n=n, prompts=prompts, answers=4, alike=0, rng=rng)[:, 0]
        dear = judged(quality, NOISE[world], rng)[..., 0]
        cheap = judged(quality, CHEAP_NOISE, rng, bias=CHEAP_BIAS)[..., 0]
        made.append({"world": world, "prompts": prompts, "truth": truth} | measured(dear, cheap, truth, few))
        say(f"two tiers: {json.dumps(made[-1])}")
    return made


def measured(dear: Floats, cheap: Floats, truth: float, few: int) -> dict[str, float]:
    """Return errors and widths over (n, prompts, answers); the answers are exchangeable: the first is the drawn one."""
    from llamaduo.evidence import bounded, two_tier

    values = np.array([two_tier.rectified(c.mean(1), c[:, 0], d[:, 0])[0] for c, d in zip(cheap, dear, strict=True)])
    below = np.minimum(values, 100.0), np.minimum(values.min(1), 0.0)
    above = 100 - np.maximum(values, 0.0), np.minimum(100 - values.max(1), 0.0)
    ones = np.ones(values.shape[1])

    def width(limits: Sequence[Sequence[float]]) -> float:
        return float(np.mean([high - low for low, high in limits]))

    tiers = width([two_tier.limits(row, ones, bounded.ERROR) for row in values[:few]])
    all_dear = width([bounded.limits(row.mean(1), ones) for row in dear[:few]])
    one_dear = width([bounded.limits(row[:, 0], ones) for row in dear[:few]])
    return {
        "low_above_truth": share_beyond(*below, truth), "high_below_truth": share_beyond(*above, 100 - truth),
        "width": round(tiers, 3), "width_all_dear": round(all_dear, 3), "width_one_dear": round(one_dear, 3),
        # a width falls at best with the root of the number of prompts: so many more would make up for the difference
        "fewer_dear_calls": round(1 - (tiers / all_dear) ** 2 / dear.shape[2], 4),
    }  # fmt: skip


def share_beyond(values: Floats, lowest: Floats, truth: float) -> float:
    """Return how often Gaffke's lower limit (at 2.5%) of (n, prompts) values lies above the truth."""
    from llamaduo.evidence.bounded import log_chances

    raised = values - lowest[:, None]  # of 200 points at most, the lowest of which is now 0
    return float((log_chances(raised, np.ones_like(raised), truth - lowest, high=200.0) < np.log(0.025)).mean())


def result(raw: dict[str, list[dict[str, Any]]], wanted: Options) -> Result:
    """Sum the parts up."""
    first, once = raw["archived"]
    rising = [row for row in raw["simulated"] if row["models"] == "rising"]
    never = [row for row in raw["simulated"] if row["models"] == "never"]
    tiers, ended = raw["two_tiers"], raw["plateaus"]
    saved = {
        f"{kind}, M={repeats}": round(100 * float(np.mean([r["saved"] for r in rows if r["repeats"] == repeats])), 1)
        for kind, rows in (("rising", rising), ("never", never))
        for repeats in (1, 10)
    }
    fewer = {
        world: round(100 * float(np.mean([row["fewer_dear_calls"] for row in tiers if row["world"] == world])), 1)
        for world in WORLDS
    }
    plateaus_saved = {
        f"{kind}, M={repeats}": round(
            100 * float(np.mean([r["saved"] for r in ended if (r["models"], r["repeats"]) == (kind, repeats)])), 1
        )
        for kind in ("flat", "rising")
        for repeats in (1, 10)
    }
    spread = {
        "archived_saved_once": round(100 * once["saved"], 1), "archived_changed": first["changed"] + once["changed"],
        "simulated_saved": saved, "simulated_changed": round(float(np.mean([r["changed"] for r in rising + never])), 5),
        "plateaus_saved": plateaus_saved, "plateaus_changed": round(float(np.mean([r["changed"] for r in ended])), 5),
        "false_acceptance": max(row["accepted"] for row in never),
        "false_acceptance_all": max(row["accepted_all"] for row in never),
        "fewer_dear_calls": fewer, "fewest_fewer_dear_calls": min(row["fewer_dear_calls"] for row in tiers),
        "low_above_truth": max(row["low_above_truth"] for row in tiers),
        "high_below_truth": max(row["high_below_truth"] for row in tiers),
    }  # fmt: skip
    holds = (
        min(first["saved"], once["saved"]) >= 0.5
        and not spread["archived_changed"]
        and min(saved.values()) >= 50
        and spread["false_acceptance"] <= ERROR
        and min(fewer.values()) >= 70
        and spread["low_above_truth"] <= 0.03
    )
    note = (
        f"{first['iterations']} archived iterations, {len(rising + never)} simulated cells, {len(tiers)} of two tiers"
    )
    if wanted.quick:
        note = f"quick: {note}; too few draws to tell"
    return Result(
        "judge_economy", round(100 * first["saved"], 1), "% of calls", TARGET, None if wanted.quick else holds,
        first["iterations"], spread, note,
    )  # fmt: skip


if __name__ == "__main__":
    main()
