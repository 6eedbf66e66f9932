"""The budget: money is reserved by the worst case before a call is sent, and settled when it is known."""

from __future__ import annotations

import asyncio

from llamaduo.errors import BudgetError


class Budget:
    """What a run may still spend; `cap_usd` of None has no limit."""

    def __init__(self, cap_usd: float | None, spent_usd: float) -> None:
        self.cap_usd = cap_usd
        self.spent_usd = spent_usd
        self._reserved = 0.0
        self._changed = asyncio.Condition()

    async def reserve(self, worst_usd: float) -> None:
        """Wait until the worst case fits beside all calls in flight; raises BudgetError if it never will."""
        async with self._changed:
            while self.cap_usd is not None and self.spent_usd + self._reserved + worst_usd > self.cap_usd:
                if self._reserved <= 1e-12:
                    raise BudgetError(
                        f"loop.budget_usd={self.cap_usd:g}: ${self.spent_usd:.4f} are spent, the next call could cost "
                        f"${worst_usd:.4f}. Raise the budget and run again: nothing is bought twice."
                    )
                await self._changed.wait()
            self._reserved += worst_usd

    async def settle(self, worst_usd: float, paid_usd: float) -> None:
        """Replace a reservation by what the call really cost."""
        async with self._changed:
            self._reserved -= worst_usd
            self.spent_usd += paid_usd
            self._changed.notify_all()
