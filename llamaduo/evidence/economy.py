"""Which judgements are still worth asking for: rounds of prompts, futility, and repeats only where they can matter.

    for part in rounds(ordered(prompt_ids, seed=1), repeats=10, size=16): ...   what is asked, in order
    enough(known, claims, done=1, repeats=10)                                   whether to stop after a round

An iteration is judged in rounds of prompts, in an order that is random and the same for all iterations of a run, each
answer once. It ends early only where the gate can't or won't be passed any more (`betting.hopeless`). When all prompts
are judged once, more repeats are bought only if the judges' own noise could change the decision: if the limit lies
within `_SURE` standard errors, by that noise, of the gate. How noisy the judges are is measured on the prompts of the
first round, which are judged twice.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamaduo.evidence.betting import LEVEL, hopeless

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_SURE = 3.0
"""Standard errors that count as far from the gate."""
_ROUNDING = 1e-4
"""The gate looks at numbers of four digits."""


@dataclass(frozen=True)
class Round:
    """What is asked in one go: these prompts, all answers and judges, these repeats."""

    prompts: tuple[str, ...]
    repeats: tuple[int, ...]


@dataclass(frozen=True)
class Claim:
    """One score that the gate asks for, and what has to reach it."""

    needed: float
    """What the number that the gate looks at has to reach."""
    error: float | None
    """One-sided level of Gaffke's limit, if it is that number; null for one of which only this is known: that it does
    not exceed the mean."""
    limit: Callable[[Floats, Floats], float]
    """That number, of (sums, sizes)."""
    low: float = 0.0
    """The lowest value of a score, or of a difference."""
    high: float = 100.0
    """The highest one."""


@dataclass(frozen=True)
class Known:
    """What is known of one score, by cluster of prompts, in the order of asking."""

    sums: Floats
    """(n,): what the values of each judged cluster add up to, what is missing at its worst."""
    sizes: Floats
    """(n,): how many values each has."""
    left: Floats
    """(m,): how many values those have that were not judged."""
    pairs: Floats
    """(k, 2): sums by the first and by the second repeat, of those that were judged twice."""
    best: Floats | None = None
    """(m,): the highest sums that those which are left can come to; None where that is `high` each."""


def ordered(groups: Mapping[str, str] | Sequence[str], seed: int) -> list[tuple[str, ...]]:
    """Return clusters of prompts in an order that is random by `seed`; `groups` tells each prompt's cluster."""
    by_group: dict[str, list[str]] = {}
    pairs = groups.items() if isinstance(groups, Mapping) else ((name, name) for name in groups)
    for prompt, group in pairs:
        by_group.setdefault(group, []).append(prompt)
    drawn = sorted(by_group.items(), key=lambda item: _draw(min(item[1]), seed))
    return [tuple(sorted(members)) for _, members in drawn]


def _draw(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def rounds(clusters: Sequence[tuple[str, ...]], *, repeats: int, size: int) -> list[Round]:
    """Return all there is to ask: rounds of about `size` prompts, then one more repeat of all of them at a time."""
    parts: list[list[str]] = [[]]
    for cluster in clusters:
        if len(parts[-1]) >= size:
            parts.append([])
        parts[-1] += cluster
    twice = (0, 1) if repeats > 1 else (0,)
    plan = [Round(tuple(parts[0]), twice), *(Round(tuple(prompts), (0,)) for prompts in parts[1:])]
    later = tuple(prompt for prompts in parts[1:] for prompt in prompts)
    everyone = (*parts[0], *later)
    if repeats > 1 and later:
        plan.append(Round(later, (1,)))
    return plan + [Round(everyone, (repeat,)) for repeat in range(2, repeats)]


def enough(known: Mapping[str, Known], claims: Mapping[str, Claim], *, done: int, repeats: int) -> bool:
    """Tell whether the decision stands; every score of `claims` has to reach its gate.

    `done` is how many repeats every judged prompt has at least, `repeats` how many it could have.
    """
    slack = {name: noise(known[name], done=done, repeats=repeats) for name in claims}
    level = LEVEL / max(1, len(claims))
    if any(_fails(known[name], claim, slack[name], level) for name, claim in claims.items()):
        return True
    if any(len(known[name].left) for name in claims):
        return False
    return all(_passes(known[name], claim, slack[name]) for name, claim in claims.items())


def _fails(known: Known, claim: Claim, slack: float, level: float) -> bool:
    """Tell whether a score can't, or won't, reach the gate, even if all other repeats were `slack` points better."""
    if not math.isfinite(slack):
        return False
    slack += _ROUNDING
    if not len(known.left):
        return claim.limit(known.sums, known.sizes) < claim.needed - slack
    return hopeless(
        known.sums, known.sizes, known.left, best=known.best, gate=claim.needed - slack, error=claim.error,
        level=level, low=claim.low, high=claim.high,
    )  # fmt: skip


def _passes(known: Known, claim: Claim, slack: float) -> bool:
    return claim.limit(known.sums, known.sizes) >= claim.needed + slack


def noise(known: Known, *, done: int, repeats: int) -> float:
    """Return by how many points the mean over all prompts may still move through the repeats that weren't asked for.

    `_SURE` standard errors; the variance of one repeat is that of the difference of two, halved, at the upper 95% limit
    of normal noise, since few prompts are judged twice.
    """
    import numpy as np
    from scipy.stats import chi2

    if done >= repeats:
        return 0.0
    twice = len(known.pairs)
    if not twice:
        return math.inf
    squares = float(((known.pairs[:, 0] - known.pairs[:, 1]) ** 2).sum()) / 2
    variance = squares / float(chi2.ppf(0.05, twice))
    sizes = np.append(known.sizes, known.left)
    return _SURE * math.sqrt(variance * len(sizes) * (1 / done - 1 / repeats)) / float(sizes.sum())
