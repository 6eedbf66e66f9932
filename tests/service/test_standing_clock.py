"""A process that was stopped and goes on: what has come meanwhile comes first, then what is due."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from llamaduo.service import standing_clock
from llamaduo.service.standing_clock import StandingClock


class Clock:
    """A clock that jumps, as it does for a process that is stopped for a while."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (standing_clock, asyncio.base_events):
        monkeypatch.setattr(module, "time", made)
    return made


def test_what_came_while_the_process_was_stopped_is_read_before_anything_times_out(clock: Clock) -> None:
    async def read() -> bytes:
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            asyncio.get_running_loop().call_soon(stop, there)
            async with asyncio.timeout(300):
                return await asyncio.get_running_loop().sock_recv(here, 10)

    def stop(there: socket.socket) -> None:
        there.send(b"paid for")
        clock.ahead = 3600.0

    with asyncio.Runner(loop_factory=StandingClock) as runner:
        assert runner.run(read()) == b"paid for"


def test_timeouts_end_by_themselves_and_the_time_between_two_stages_counts(clock: Clock) -> None:
    async def out_of_time() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.6)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=StandingClock) as runner:
        before = runner.run(out_of_time())
        clock.ahead = 3600.0
        assert runner.run(out_of_time()) - before > 3600
