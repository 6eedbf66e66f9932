"""Prefills: prompts that are read in batches of like length, when the first of them is needed, until the last use.

    prefills = Prefills(network, prompts, uses=[2, 2, 0, 1], note=print)
    prefills.take(2)                 # reads prompt 2, and 0 and 1 with it if they are nearly as long and few enough

One batch of at most `PREFILL_TOKENS` tokens is held at a time, as long as its prompts are used up before the next.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from llamaduo.local.memory import is_out_of_memory
from llamaduo.local.model import give_back
from llamaduo.local.slots import PREFILL_TOKENS, Prefilled, prefill


class Prefills:
    """The prompts, prefilled in batches of like length when the first of them is needed, kept until the last use."""

    def __init__(
        self, network: Any, prompts: Sequence[Sequence[int]], uses: Sequence[int], note: Callable[[str], None]
    ) -> None:
        """`uses` names a prompt for each of its uses, in the order in which they will come."""
        self._network, self._prompts, self._note = network, prompts, note
        self._limit = PREFILL_TOKENS
        self._left = Counter(uses)
        self._ahead = deque(self._left)
        self._ready: dict[int, Prefilled] = {}

    def holds(self, prompt: int) -> bool:
        """Tell whether a prompt is there already."""
        return prompt in self._ready

    def take(self, prompt: int) -> Prefilled:
        """Return a prompt's prefill, for one of its uses."""
        if prompt not in self._ready:
            self._compute()
        self._left[prompt] -= 1
        return self._ready[prompt] if self._left[prompt] else self._ready.pop(prompt)

    def _compute(self) -> None:
        """Prefill the next prompts; where memory runs out, half as many, down to one."""
        while True:
            batch = self._next()
            prompts = [self._prompts[at] for at in batch]
            try:
                made = prefill(self._network, prompts)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error) or len(batch) == 1:
                    raise
            give_back()  # behind the block: the error holds on to what was allocated
            self._limit = len(prompts[0]) * (len(batch) // 2)
            self._note(f"out of memory: from here on prompts are read {self._limit:,} tokens at a time.")
        for _ in batch:
            self._ahead.popleft()
        self._ready.update(zip(batch, made, strict=True))

    def _next(self) -> list[int]:
        """Return the next prompts: the longest of them first, and others as long as little of it is padding."""
        width = len(self._prompts[self._ahead[0]])
        batch: list[int] = []
        for at in islice(self._ahead, max(1, self._limit // width)):
            if 2 * len(self._prompts[at]) < width:
                break
            batch.append(at)
        return batch
