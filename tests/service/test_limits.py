"""The limits: never passed by all processes together, each process has its share, what the dead held is free again.

Time is virtual: where nothing happens before the next timer, the clock jumps there. Several gates over one folder stand
for several processes; deaths are real.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llamaduo.config import ServiceLLM
from llamaduo.service import limits
from llamaduo.service.limits import Gate
from llamaduo.service.liveness import Owner

NOON = 1.8e9


class Clock:
    """A clock that is set by hand, or by an event loop that has nothing to do; also the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wall = NOON
        """What the wall clock shows when `now` is 0."""

    def time(self) -> float:
        return self.wall + self.now


class _Jump(selectors.DefaultSelector):
    """A selector that lets time pass instead of waiting."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise AssertionError("nothing will ever happen again")
        if not ready and timeout:
            self._clock.now += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose time is the clock's."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_Jump(clock))
        self._clock = clock

    def time(self) -> float:
        return self._clock.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(limits, "time", made)
    return made


@pytest.fixture(autouse=True)
def loop_factory(clock: Clock) -> Callable[[], asyncio.AbstractEventLoop]:
    """Let the tests happen in virtual time."""
    return lambda: _Loop(clock)


@pytest.fixture
def gate(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Gate]]:
    """Return a function that makes the gate of one more process."""
    made: list[tuple[Gate, Owner]] = []

    def one_more(**fields: Any) -> Gate:
        llm = ServiceLLM(**({"name": "n", "provider": "p", "model": "m", "concurrency": 4} | fields))
        owner = Owner(tmp_path / "live")
        made.append((Gate(llm, tmp_path / "limits", owner.name, tmp_path / "live"), owner))
        return made[-1][0]

    yield one_more
    for found, owner in made:
        found.close()
        owner.close()


Make = Callable[..., Gate]


def state_file(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "limits").glob("*.json")
    return path


class Traffic:
    """Calls through gates, and what they came to."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.now: Counter[int] = Counter()
        """Calls in flight, by gate."""
        self.most = 0
        self.served: Counter[int] = Counter()
        self.sent: list[float] = []
        """When each call was sent."""

    async def call(self, gate: Gate, seconds: float = 1.0, tokens: int = 1, tries: int = 1) -> None:
        async with gate.slot(tokens=tokens, tries=tries):
            self.sent.append(self.clock.now)
            self.now[id(gate)] += 1
            self.most = max(self.most, self.now.total())
            try:
                await asyncio.sleep(seconds)
                self.served[id(gate)] += 1
            finally:
                self.now[id(gate)] -= 1


@pytest.fixture
def traffic(clock: Clock) -> Traffic:
    return Traffic(clock)


# ---------------------------------------------------------------- calls in flight


@pytest.mark.parametrize("gates", [1, 2, 5])
@pytest.mark.parametrize("limit", [1, 3, 8])
async def test_the_limit_is_reached_and_never_passed(gates: int, limit: int, gate: Make, traffic: Traffic) -> None:
    processes = [gate(concurrency=limit) for _ in range(gates)]
    calls = [(processes[n % gates], 0.1 + (n * 7919 % 13) / 10) for n in range(120)]
    await asyncio.gather(*(traffic.call(*call) for call in calls))
    assert traffic.most == limit
    assert traffic.served.total() == 120


async def test_each_process_has_its_share_and_nobody_elses_when_it_waits_alone(gate: Make, traffic: Traffic) -> None:
    first, second = gate(concurrency=6), gate(concurrency=6)
    early = [asyncio.create_task(traffic.call(first)) for _ in range(60)]
    await asyncio.sleep(0.5)
    assert traffic.now == {id(first): 6}  # alone, it has all
    late = [asyncio.create_task(traffic.call(second)) for _ in range(9)]
    await asyncio.sleep(1.0)
    assert traffic.now == {id(first): 3, id(second): 3}
    await asyncio.gather(*late)
    await asyncio.sleep(1.5)
    assert traffic.now[id(first)] == 6  # and again
    await asyncio.gather(*early)


async def shares(limit: int, processes: int, gate: Make, traffic: Traffic) -> list[int]:
    """Return how many calls each process gets through while all of them want more than there is."""
    gates = [gate(concurrency=limit) for _ in range(processes)]
    calls = []
    for one in gates:
        calls += [asyncio.create_task(traffic.call(one, 0.1)) for _ in range(500)]
        await asyncio.sleep(0.35)
    traffic.served.clear()
    await asyncio.sleep(20)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    return [traffic.served[id(one)] for one in gates]


@pytest.mark.parametrize(("limit", "processes"), [(4, 2), (6, 3), (4, 4)])
async def test_processes_share_alike(limit: int, processes: int, gate: Make, traffic: Traffic) -> None:
    found = await shares(limit, processes, gate, traffic)
    assert min(found) > 0.8 * max(found)
    assert sum(found) > 0.75 * limit * 200


@pytest.mark.parametrize(("limit", "processes"), [(1, 2), (2, 3), (5, 4), (6, 4)])
async def test_no_process_starves_where_the_limit_can_not_be_shared_alike(
    limit: int, processes: int, gate: Make, traffic: Traffic
) -> None:
    found = await shares(limit, processes, gate, traffic)
    assert min(found) > 0.3 * max(found)


async def test_who_has_tried_more_often_goes_first_and_else_who_came_first(gate: Make, traffic: Traffic) -> None:
    order: list[str] = []

    async def call(one: Gate, name: str, tries: int) -> None:
        async with one.slot(tokens=1, tries=tries):
            order.append(name)
            await asyncio.sleep(1)

    one = gate(concurrency=1)
    tries = {"a": 1, "b": 1, "c": 3, "d": 2, "e": 3}
    await asyncio.gather(*(call(one, name, number) for name, number in tries.items()))
    assert order == ["a", "c", "e", "d", "b"]


async def test_a_call_that_is_cancelled_leaves_its_place(gate: Make, traffic: Traffic) -> None:
    one = gate(concurrency=2)
    calls = [asyncio.create_task(traffic.call(one, 10)) for _ in range(6)]
    await asyncio.sleep(1)
    for call in (calls[0], calls[2], calls[4]):  # in flight, and waiting
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert traffic.served[id(one)] == 3
    assert traffic.sent == [0.0, 0.0, 1.0, 10.0]
    just_admitted = asyncio.create_task(traffic.call(one))
    just_admitted.cancel()
    await asyncio.gather(just_admitted, return_exceptions=True)
    await asyncio.gather(traffic.call(one), traffic.call(one))
    assert traffic.most == 2


async def test_a_call_cancelled_at_the_moment_of_its_admission_holds_no_slot(gate: Make) -> None:
    one = gate(concurrency=1)

    async def call() -> None:
        async with one.slot(tokens=1, tries=1):
            await asyncio.sleep(1)

    first, second = asyncio.create_task(call()), asyncio.create_task(call())
    await asyncio.sleep(0)
    await first
    second.cancel()  # it is admitted by now, and doesn't know
    await asyncio.gather(second, return_exceptions=True)
    async with asyncio.timeout(5):
        await call()


async def test_an_error_inside_gives_the_slot_back(gate: Make, traffic: Traffic) -> None:
    async def fail(one: Gate) -> None:
        async with one.slot(tokens=1, tries=1):
            raise ZeroDivisionError

    one = gate(concurrency=1)
    found = await asyncio.gather(*(fail(one) for _ in range(5)), return_exceptions=True)
    assert [type(error) for error in found] == [ZeroDivisionError] * 5
    await traffic.call(one)


async def test_service_llms_have_limits_of_their_own(gate: Make, traffic: Traffic) -> None:
    gates = [gate(concurrency=1), gate(concurrency=1, model="other"), gate(concurrency=1, base_url="http://x")]
    gates += [gate(concurrency=1, name="the same under another name")]
    await asyncio.gather(*(traffic.call(one) for one in gates))
    assert sorted(traffic.sent) == [0.0, 0.0, 0.0, pytest.approx(1.0, abs=0.05)]


# ---------------------------------------------------------------- requests and tokens a minute


@pytest.mark.parametrize("gates", [1, 3])
async def test_requests_are_spaced_evenly_over_all_processes(gates: int, gate: Make, traffic: Traffic) -> None:
    processes = [gate(concurrency=50, requests_per_minute=120) for _ in range(gates)]
    await asyncio.gather(*(traffic.call(processes[n % gates], 0.1) for n in range(60)))
    gaps = [after - before for before, after in pairwise(traffic.sent)]
    assert min(gaps) >= 0.5
    assert max(gaps) <= 0.55
    assert 0.9 * 120 < 60 * 59 / (traffic.sent[-1] - traffic.sent[0]) <= 120


async def test_tokens_are_spaced_by_what_each_request_may_take(gate: Make, traffic: Traffic) -> None:
    one, two = (gate(concurrency=50, tokens_per_minute=60_000) for _ in range(2))
    await asyncio.gather(*(traffic.call((one, two)[n % 2], 0.1, tokens=500 + 50 * n) for n in range(20)))
    gaps = [after - before for before, after in pairwise(traffic.sent)]
    assert min(gaps) >= 0.5
    total = sum(500 + 50 * n for n in range(20))
    took = traffic.sent[-1] - traffic.sent[0]
    assert (total - 1450) / 1000 <= took <= 1.1 * total / 1000


async def test_the_tighter_of_both_limits_holds(gate: Make, traffic: Traffic) -> None:
    one = gate(concurrency=50, requests_per_minute=60, tokens_per_minute=6000)
    await asyncio.gather(*(traffic.call(one, 0.1, tokens=tokens) for tokens in (10, 10, 200, 10, 10)))
    gaps = [after - before for before, after in pairwise(traffic.sent)]
    assert gaps == [pytest.approx(gap, abs=0.01) for gap in (1.02, 1.02, 2.04, 1.02)]


async def test_calls_in_flight_are_limited_beside_the_rate(gate: Make, traffic: Traffic) -> None:
    one = gate(concurrency=2, requests_per_minute=600)
    await asyncio.gather(*(traffic.call(one, 5.0) for _ in range(6)))
    assert traffic.most == 2
    assert traffic.sent == [pytest.approx(at, abs=0.11) for at in (0, 0.1, 5.0, 5.1, 10.0, 10.1)]


async def test_a_pause_saves_up_no_burst(gate: Make, traffic: Traffic) -> None:
    one = gate(concurrency=50, requests_per_minute=60)
    await traffic.call(one, 0.1)
    await asyncio.sleep(300)
    await asyncio.gather(*(traffic.call(one, 0.1) for _ in range(5)))
    later = traffic.sent[1:]
    assert min(after - before for before, after in pairwise(later)) >= 1.0


# ---------------------------------------------------------------- clocks and files


async def test_a_clock_that_is_set_back_stops_nothing(gate: Make, traffic: Traffic, clock: Clock) -> None:
    one = gate(concurrency=4, requests_per_minute=60)
    await traffic.call(one, 0.1)
    clock.wall -= 3600
    began = clock.now
    async with asyncio.timeout(30):
        await asyncio.gather(*(traffic.call(one, 0.1) for _ in range(3)))
    assert clock.now - began < 5


async def test_a_clock_that_is_set_back_frees_no_slot_of_others(gate: Make, traffic: Traffic, clock: Clock) -> None:
    one, two = gate(concurrency=4), gate(concurrency=4)
    calls = [asyncio.create_task(traffic.call(one, 10.0)) for _ in range(4)]
    await asyncio.sleep(1)
    clock.wall -= 3600
    await asyncio.gather(*calls, *(traffic.call(two, 1.0) for _ in range(4)))
    assert traffic.most == 4


async def test_who_is_stopped_holds_no_slot_longer_than_a_call_may_take(
    gate: Make, traffic: Traffic, clock: Clock
) -> None:
    one, two = gate(concurrency=2, timeout_s=30.0), gate(concurrency=2, timeout_s=30.0)
    held = [asyncio.create_task(traffic.call(one, 10_000.0)) for _ in range(2)]
    await asyncio.sleep(1)
    assert one._timer
    one._timer.cancel()  # stopped: it no longer says until when it holds them
    async with asyncio.timeout(40):
        await traffic.call(two, 1.0)
    for call in held:
        call.cancel()
    assert 25 < traffic.sent[-1] < 35


async def test_who_is_not_stopped_holds_its_slots_as_long_as_its_calls_take(gate: Make, traffic: Traffic) -> None:
    one, two = gate(concurrency=2, timeout_s=30.0), gate(concurrency=2, timeout_s=30.0)
    held = [asyncio.create_task(traffic.call(one, 100.0)) for _ in range(2)]
    await asyncio.sleep(1)
    await asyncio.gather(*held, traffic.call(two, 1.0))
    assert traffic.most == 2


async def test_a_clock_that_is_set_forward_lets_no_burst_through(gate: Make, traffic: Traffic, clock: Clock) -> None:
    one = gate(concurrency=4, requests_per_minute=60)
    await traffic.call(one, 0.1)
    clock.wall += 3600
    await asyncio.gather(*(traffic.call(one, 0.1) for _ in range(4)))
    later = traffic.sent[1:]
    assert min(after - before for before, after in pairwise(later)) >= 1.0


@pytest.mark.parametrize(
    "garbage",
    [
        b"", b"{", b"null", b"[1]", b"7", b"\xff\xfe\x00", b"{}", b'{"written": 0}', b"[" * 100_000,
        b'{"requests": 0, "tokens": 0, "owners": {}, "written": "yesterday"}',
        b'{"requests": 0, "tokens": 0, "owners": {}, "written": 1e999}',
        b'{"requests": 0, "tokens": 0, "owners": {}, "written": NaN}',
        b'{"requests": Infinity, "tokens": 0, "owners": {}, "written": 0}',
        b'{"requests": "soon", "tokens": 0, "owners": {}, "written": 0}',
        b'{"requests": 0, "tokens": 0, "owners": [], "written": 0}',
        b'{"requests": 0, "tokens": 0, "owners": {"a": 7}, "written": 0}',
        b'{"requests": 0, "tokens": 0, "owners": {"a": ["x", 1]}, "written": 0}',
        b'{"requests": 0, "tokens": 0, "owners": {"a": [9, 9]}, "written": 0}',
    ],
    ids=range(18),
)  # fmt: skip
async def test_a_state_file_that_makes_no_sense_counts_as_none(
    garbage: bytes, gate: Make, traffic: Traffic, tmp_path: Path
) -> None:
    one = gate(concurrency=2, requests_per_minute=600)
    state_file(tmp_path).write_bytes(garbage)
    async with asyncio.timeout(60):
        await asyncio.gather(*(traffic.call(one, 0.5) for _ in range(6)))
    assert traffic.most == 2
    assert json.loads(state_file(tmp_path).read_text())["owners"] == {}


async def test_who_is_through_leaves_no_trace_in_the_state(gate: Make, traffic: Traffic, tmp_path: Path) -> None:
    gates = [gate() for _ in range(3)]
    await asyncio.gather(*(traffic.call(gates[n % 3]) for n in range(20)))
    state = json.loads(state_file(tmp_path).read_text())
    assert state["owners"] == {}
    assert state_file(tmp_path).stat().st_size < 200


# ---------------------------------------------------------------- deaths


def _child(tmp_path: Path, holds: int, waits: int, **fields: Any) -> int:
    """Start a process that holds slots and waits for more until it is killed; return its id when it does so."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        assert os.read(read, 1) == b"!"
        os.close(read)
        return child
    try:
        owner = Owner(tmp_path / "live")
        llm = ServiceLLM(name="n", provider="p", model="m", concurrency=4, **fields)
        gate = Gate(llm, tmp_path / "limits", owner.name, tmp_path / "live")

        async def hold() -> None:
            async def one() -> None:
                async with gate.slot(tokens=1, tries=1):
                    await asyncio.sleep(600)

            calls = [asyncio.create_task(one()) for _ in range(holds + waits)]
            await asyncio.sleep(0)
            os.write(write, b"!")
            await asyncio.gather(*calls)

        with asyncio.Runner() as runner:
            runner.run(hold())
    finally:
        os._exit(1)


@pytest.mark.parametrize(("holds", "waits"), [(4, 0), (4, 20), (1, 0)])
def test_what_a_dead_process_held_is_free_again(
    holds: int, waits: int, gate: Make, loop_factory: Any, traffic: Traffic, tmp_path: Path
) -> None:
    child = _child(tmp_path, holds, waits)

    async def all_calls() -> None:
        one = gate(concurrency=4)
        calls = [asyncio.create_task(traffic.call(one, 1.0)) for _ in range(8)]
        await asyncio.sleep(30)
        assert traffic.now[id(one)] == 0 if holds == 4 else traffic.served[id(one)] == 8
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        await asyncio.gather(*calls)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(all_calls())
    assert traffic.served.total() == 8
    assert traffic.most == (4 if holds == 4 else 3)


@pytest.mark.parametrize("waits", [0, 3])
def test_what_a_stopped_process_held_is_free_once_its_calls_have_timed_out(
    waits: int, gate: Make, loop_factory: Any, traffic: Traffic, tmp_path: Path
) -> None:
    child = _child(tmp_path, 4, waits, timeout_s=30.0)
    os.kill(child, signal.SIGSTOP)
    os.waitpid(child, os.WUNTRACED)

    async def all_calls() -> None:
        one = gate(concurrency=4, timeout_s=30.0)
        async with asyncio.timeout(90):
            await asyncio.gather(*(traffic.call(one, 1.0) for _ in range(8)))

    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(all_calls())
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert traffic.served.total() == 8
    assert 25 < min(traffic.sent) < 35


async def test_a_gate_that_is_closed_while_it_holds_slots_frees_them(
    gate: Make, traffic: Traffic, tmp_path: Path
) -> None:
    owner = Owner(tmp_path / "live")
    llm = ServiceLLM(name="n", provider="p", model="m", concurrency=4)
    closed = Gate(llm, tmp_path / "limits", owner.name, tmp_path / "live")
    slots = [closed.slot(tokens=1, tries=1) for _ in range(4)]
    for slot in slots:
        await slot.__aenter__()
    closed.close()
    async with asyncio.timeout(60):
        await traffic.call(gate(concurrency=4))
    owner.close()
