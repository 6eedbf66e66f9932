"""Break-even: from how many requests on, and after how many months, a migration has paid for itself.

    moved = Migration(service_spent_usd=40, gpu_hours=6, service_usd=0.002, completion_tokens=180,
                      tokens_per_second=900, gpu_usd_per_hour=2, utilisation=0.3)
    moved.months(300_000)                 0.10: months until the 52 dollars that were spent are saved
    moved.months(300_000, whole=True)     None: a GPU rented round the clock costs more than is saved

Two ways to pay for a GPU are told apart. Shared: only the time that requests need, at the utilisation that is
reached. Whole: as many GPUs as the load needs at that utilisation, one at least, rented round the clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HOURS_A_MONTH = 8760 / 12


@dataclass(frozen=True)
class Migration:
    """What a migration took, and what a request costs on both sides."""

    service_spent_usd: float
    """Paid to service LLMs for synthesis and judging, once."""
    gpu_hours: float
    """Hours of training and answering, once."""
    service_usd: float
    """What the service LLM takes for a request."""
    completion_tokens: float
    """Tokens of the local model's answer to a request."""
    tokens_per_second: float
    """Tokens of answers that a busy GPU brings forth, above 0."""
    gpu_usd_per_hour: float
    utilisation: float
    """Share of its time that the GPU is busy, above 0."""

    @property
    def spent_usd(self) -> float:
        """What the migration cost, once."""
        return self.service_spent_usd + self.gpu_hours * self.gpu_usd_per_hour

    @property
    def local_usd(self) -> float:
        """What a request costs on a shared GPU."""
        seconds = self.completion_tokens / self.tokens_per_second / self.utilisation
        return seconds / 3600 * self.gpu_usd_per_hour

    @property
    def capacity(self) -> float:
        """Requests that one GPU answers in a month; infinite where answers are empty."""
        tokens = self.tokens_per_second * self.utilisation * 3600 * HOURS_A_MONTH
        return tokens / self.completion_tokens if self.completion_tokens else math.inf

    def gpus(self, requests: float) -> int:
        """Return how many whole GPUs a month's requests need."""
        return max(1, math.ceil(requests / self.capacity))

    def month_usd(self, requests: float, *, whole: bool = False) -> float:
        """Return what a month of the local model costs."""
        if whole:
            return self.gpus(requests) * HOURS_A_MONTH * self.gpu_usd_per_hour
        return requests * self.local_usd

    def months(self, requests: float, *, whole: bool = False) -> float | None:
        """Return the months until what was spent is saved, at so many requests a month; None if it never is."""
        saved = requests * self.service_usd - self.month_usd(requests, whole=whole)
        return self.spent_usd / saved if saved > 0 else None

    def requests(self, months: float, *, whole: bool = False) -> float | None:
        """Return the fewest requests a month that pay back within so many months; None if no number does.

        Of whole GPUs, each saves at most what it answers when full; so many are needed that their savings make up
        for what was spent.
        """
        due = self.spent_usd / months
        if not whole:
            saved = self.service_usd - self.local_usd
            return due / saved if saved > 0 else None
        rent = HOURS_A_MONTH * self.gpu_usd_per_hour
        full = self.capacity * self.service_usd - rent if self.service_usd else -rent
        if full <= 0:
            return None
        gpus = max(1, math.ceil(due / full))
        return (due + gpus * rent) / self.service_usd
