"""An event loop whose clock stands still while its process does: what waits doesn't time out because it was stopped.

    asyncio.Runner(loop_factory=StandingClock)

A process that Ctrl-Z has stopped finds, when it goes on, the replies to its calls in its sockets, and every timeout
passed. Timeouts would win, and calls that are paid for would be made again. So time that the loop was not there to see
doesn't count; while it waits it looks at the clock several times a second.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import Any

_LOOKS_S = 0.25
_STOOD_S = 2.0
"""Who has not looked for this long was stopped."""


class _Looking(selectors.DefaultSelector):
    """Waits for a short while only; a loop goes on waiting by itself."""

    def select(self, timeout: float | None = None) -> Any:
        """Return what is ready, nothing before its time."""
        return super().select(_LOOKS_S if timeout is None else min(timeout, _LOOKS_S))


class StandingClock(asyncio.SelectorEventLoop):
    """A loop to which a stop takes no time."""

    def __init__(self) -> None:
        self._stood = 0.0
        self._looked = time.monotonic()
        super().__init__(_Looking())

    def run_forever(self) -> None:
        """Run; the time since the loop ran last counts."""
        self._looked = time.monotonic()
        super().run_forever()

    def time(self) -> float:
        """Return the seconds that the loop has seen."""
        now = time.monotonic()
        if now - self._looked > _STOOD_S:
            self._stood += now - self._looked
        self._looked = now
        return now - self._stood
