"""Limits of a service LLM: calls in flight, requests a minute, tokens a minute, for all processes of a machine.

    async with gate.slot(tokens=900, tries=1):
        ...send...

The state is one small file a service LLM, changed under a lock. Requests are spaced evenly, without bursts,
2% slower than the limit, so that what arrives late at the server doesn't pass it. A request counts at its prompt
plus `max_tokens`, as providers count it. Where several processes want more than there is, each gets its share of
the calls in flight; those of a process that has died are free again, and those of one that is stopped (Ctrl-Z) once
they have timed out: whoever runs says anew, while it holds any, until when it holds them. The lock itself is waited
for seconds only: who holds it then was stopped (SIGSTOP), and a limit may be missed by a call.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import heapq
import json
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from llamaduo.config import ServiceLLM
from llamaduo.service.liveness import alive, stopped
from llamaduo.service.stops import unstopped

_SLACK = 1.02
_LATE_S = 0.05
"""A timer that comes less than this much late is made up for."""
_LOOK_AGAIN_S = 0.02
_LOOKS_S = 0.25
"""How exactly it is noted when a process last looked."""
_CLOCK_MAY_STEP_S = 5.0
_TRY_S, _TRIES = 0.002, 1500
"""How often the lock, which is held for less than a millisecond, is tried for."""
_Waiting = tuple[int, int, asyncio.Future[None], int]


class Gate:
    """Admission to one service LLM; one event loop uses it."""

    def __init__(
        self, llm: ServiceLLM, folder: Path, owner: str, owners: Path, says: Callable[[str], None] = lambda _: None
    ) -> None:
        self._llm, self._owner, self._owners, self._says = llm, owner, owners, says
        folder.mkdir(parents=True, exist_ok=True)
        named = json.dumps([llm.provider, llm.base_url or llm.base_url_env, llm.model])
        path = folder / f"{hashlib.sha256(named.encode()).hexdigest()[:16]}.json"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._held = 0
        self._admitted = 0.0
        self._waiting: list[_Waiting] = []
        self._numbers = count()
        self._tries = _TRIES
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Give up what is held."""
        if self._timer:
            self._timer.cancel()
        with self._state() as state:
            state["owners"].pop(self._owner, None)
        os.close(self._file)

    @asynccontextmanager
    async def slot(self, *, tokens: int, tries: int) -> AsyncIterator[None]:
        """Wait for admission and hold a slot; who has tried more often goes first, so that long chains end early."""
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (-tries, next(self._numbers), admitted, tokens))
        self._admit()
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self._leave()
            raise
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        self._held -= 1
        self._admit()

    def _admit(self) -> None:
        """Let in as many as the limits allow, and come back when they may allow more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        with self._state() as state:
            self._sign(state)
            wait = math.inf
            while self._waiting:
                *_, admitted, tokens = self._waiting[0]
                if not admitted.done():
                    wait = self._wait(state, tokens)
                    if wait > 0:
                        break
                    self._held += 1
                    self._admitted = time.time()
                    admitted.set_result(None)
                heapq.heappop(self._waiting)
                self._sign(state)
                wait = math.inf
        if self._held:
            wait = min(wait, self._llm.timeout_s / 2)
        if 0 < wait < math.inf:
            self._timer = asyncio.get_running_loop().call_later(wait, self._admit)

    def _sign(self, state: dict[str, Any]) -> None:
        if self._held or self._waiting:
            looked = math.floor(time.time() / _LOOKS_S) * _LOOKS_S
            until = looked + _LOOKS_S + self._llm.timeout_s
            state["owners"][self._owner] = [self._held, len(self._waiting), self._admitted, looked, until]
        else:
            state["owners"].pop(self._owner, None)

    def _wait(self, state: dict[str, Any], tokens: int) -> float:
        """Return 0 and count the request as sent, or the seconds until it is worth asking again."""
        if not self._free(state["owners"]):
            alone = len(state["owners"]) == 1
            return math.inf if alone and self._held else _LOOK_AGAIN_S
        now = time.time()
        due: float = max(state["requests"], state["tokens"])
        if due > now:
            return due - now
        on_time = due if now - due < _LATE_S else now
        llm = self._llm
        if llm.requests_per_minute:
            state["requests"] = on_time + 60 / llm.requests_per_minute * _SLACK
        if llm.tokens_per_minute:
            state["tokens"] = on_time + 60 * tokens / llm.tokens_per_minute * _SLACK
        return 0.0

    def _free(self, owners: dict[str, list[float]]) -> bool:
        """Tell whether one more call may be in flight, and whether it is this process's turn."""
        limit = self._llm.concurrency
        if self._within(owners, limit):
            return True
        dead = [name for name in owners if name != self._owner and not alive(self._owners, name)]
        for name in dead:
            del owners[name]
        return bool(dead) and self._within(owners, limit)

    def _within(self, owners: dict[str, list[float]], limit: int) -> bool:
        """Tell whether there is room, and no other waits that holds less, or as much and was admitted longer ago."""
        now, mine = time.time(), (self._held, self._admitted)
        others = sum(held for name, (held, *_, until) in owners.items() if name != self._owner and until > now)
        if self._held + others >= limit:
            return False
        return not any(
            waiting and (held, admitted) < mine and abs(now - looked) < 5 * _LOOKS_S  # not one that was stopped
            for name, (held, waiting, admitted, looked, _) in owners.items()
            if name != self._owner
        )

    @contextmanager
    def _state(self) -> Iterator[dict[str, Any]]:
        """Hold the lock, yield the state, write it back."""
        with unstopped():
            self._lock()
            try:
                state = _read(os.pread(self._file, 1 << 20, 0))
                before = json.dumps(state)
                yield state
                if json.dumps(state) != before:
                    text = json.dumps(state | {"written": time.time()}).encode()
                    os.pwrite(self._file, text, 0)
                    os.ftruncate(self._file, len(text))
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _lock(self) -> None:
        """Take the lock; go on without it if it is not to be had, and from then on until it is."""
        for _ in range(self._tries):
            with suppress(BlockingIOError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._tries = _TRIES
                return
            time.sleep(_TRY_S)
        if self._tries > 1:
            for one in stopped(self._owners):
                self._says(f"{one}: it holds a lock of {self._llm.name}'s limits, which are counted without it.")
        self._tries = 1


def _read(text: bytes) -> dict[str, Any]:
    """Return the state; one that can't be read counts as none, and what is due after a step back is due at once."""
    try:
        state: dict[str, Any] = json.loads(text)
        numbers = [state[name] for name in ("requests", "tokens", "written")]
        numbers += [number for one in state["owners"].values() for _, number in zip(range(5), one, strict=True)]
        if all(math.isfinite(number) for number in numbers):
            later = state["written"] > time.time() + _CLOCK_MAY_STEP_S
            return state | ({"requests": 0.0, "tokens": 0.0} if later else {})
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        pass
    return {"requests": 0.0, "tokens": 0.0, "owners": {}, "written": 0.0}
