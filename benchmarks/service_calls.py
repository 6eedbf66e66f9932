"""Measure how close the client's calls to a service LLM come to what concurrency, waits and rate limits allow.

    python benchmarks/service_calls.py                  everything, about fifteen minutes
    python benchmarks/service_calls.py --quick          fewer and shorter calls, within a minute
    python benchmarks/service_calls.py --only faults    one part (may be repeated); saves nothing
    python benchmarks/service_calls.py --sigma 0.3      another spread of the latencies; saves nothing

The server is `tests/wire_double.py`, a process of its own, with log-normal latencies that every client meets alike;
our client and its peer are two more processes, which run in turns. At most 64 calls are in flight. Latencies have a
median of 1 s and sigma 0.4; a prompt's length tells a little about them (correlation of the logarithms 0.3, what it is
between prompts and responses in the 283 coding pairs of No Robots), as it does where longer answers take longer.

    fill      share of the limit, which is max(sum of latencies / 64, longest call), target at least 0.95. Beside it:
              what a scheduler without any overhead would reach on the same latencies in the order in which the calls
              came, and a bare litellm pool; and the same where lengths tell nothing.
    waves     time of the original llamaduo's scheme over ours, target at least 3: a gather of 64 calls waits for its
              slowest and is followed by a sleep of 60 / 64 s; beside it without the sleep; and among faults, where the
              original sends a failed call again at once.
    faults    share of the limit among 3% 429 (Retry-After 1) and 2% 5xx, target at least 0.90; a chain is a call's
              attempts and the waits it was told. No call lost, none billed twice, none back too early.
    rate      share of calls answered 429 under a limit of 50 calls a second that the client knows, target at most 1%.
    overhead  our processor time a call beyond that of bare litellm, target at most 1 ms.

The figure is the median share of `fill`.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import heapq
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import count as count_from
from pathlib import Path
from typing import Any

from measure import ROOT, Options, Result, conclude, folder, options, private, say, summary

sys.path.insert(0, str(ROOT / "tests"))

from wire_double import Double, Settings, latency, serving

CALLS_AT_ONCE = 64
SIGMA = 0.4
PAUSE_S = 60 / CALLS_AT_ONCE
"""The original sleeps so long after every wave."""
TELLING = 0.3
"""Correlation of the logarithms of a prompt's length and its latency: as between prompts and responses of No Robots."""
RETRY_AFTER_S = 1.0
FAULTS = {"429": 0.03, "500": 0.01, "503": 0.01}
RATE = 50
TARGET = (
    "fill >= 0.95 of the limit; >= 3 times faster than waves; faults >= 0.90 of the limit, none lost or doubled or "
    "early; rate <= 1% of calls answered 429; overhead <= 1 ms a call beyond litellm"
)
FILLER = "Here is an instruction, a reference and an answer to compare, one after the other. " * 10

Chain = list[tuple[float, float]]
"""A call's attempts: how long each took, and how long it was told to wait afterwards."""


@dataclass(frozen=True)
class Ran:
    """One round of a client."""

    wall: float
    cpu: float
    replies: int
    failures: Counter[str]
    bill: dict[str, Any]

    def chains(self) -> list[Chain]:
        """Return what the server did to every call, in the order of their first arrival."""
        found: dict[str, Chain] = defaultdict(list)
        for call in self.bill["calls"]:
            found[call["body"]].append((call["latency"], call.get("retry_after") or 0.0))
        return list(found.values())

    def share(self) -> float:
        """Return the limit over the time that it took."""
        return limit(self.chains()) / self.wall

    def reachable(self) -> float:
        """Return the share of a scheduler without overhead on the same chains in the same order."""
        return limit(self.chains()) / ideal(self.chains())


def limit(chains: Sequence[Chain]) -> float:
    """Return the shortest time in which the calls could be made."""
    busy = sum(taken for chain in chains for taken, _ in chain)
    return max([busy / CALLS_AT_ONCE, *(sum(taken + wait for taken, wait in chain) for chain in chains)])


def ideal(chains: Sequence[Chain]) -> float:
    """Return the time of a list scheduler without overhead, which fills a free slot with whatever is due."""
    due: list[tuple[float, int, int]] = [(0.0, number, 0) for number in range(len(chains))]
    heapq.heapify(due)
    free = [0.0] * CALLS_AT_ONCE
    end = 0.0
    while due:
        ready, number, attempt = heapq.heappop(due)
        taken, wait = chains[number][attempt]
        done = max(ready, heapq.heappop(free)) + taken
        heapq.heappush(free, done)
        end = max(end, done)
        if attempt + 1 < len(chains[number]):
            heapq.heappush(due, (done + wait, number, attempt + 1))
    return end


def in_waves(taken: Sequence[float]) -> float:
    """Return the time of waves without overhead."""
    return sum(max(taken[begin : begin + CALLS_AT_ONCE]) for begin in range(0, len(taken), CALLS_AT_ONCE))


# The clients, each in a process of its own


class Worker:
    """A process that makes calls when it is told to."""

    def __init__(self, home: Path) -> None:
        keyless = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
        told = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True"}
        environment = keyless | private(home) | told
        command = [sys.executable, __file__, "--worker"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Do a job and return what came of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"service_calls: the process that made the calls ended with {self._process.wait()}.")
        return json.loads(line)

    def end(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()


def work() -> None:
    """Do the jobs that come in, one a line."""
    out, sys.stdout = sys.stdout, sys.stderr
    with asyncio.Runner() as runner:
        clients = {"ours": through_llamaduo, "waves": behind(runner, waves), "pool": behind(runner, pool)}
        for line in sys.stdin:
            job = json.loads(line)
            prompts(job["calls"], job["telling"], job["seed"])  # made before the clock starts, and kept
            with clients[job["how"]](job) as make:
                gc.collect()
                cpu, start = time.process_time(), time.perf_counter()
                replies, failures = make()
                told = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
            out.write(json.dumps(told | {"replies": replies, "failures": failures}) + "\n")
            out.flush()


Made = tuple[int, Counter[str]]
"""How many replies came, and why there were none."""


def behind(runner: asyncio.Runner, make: Callable[[dict[str, Any]], Any]) -> Any:
    """Return a client out of a coroutine function."""
    return lambda job: nullcontext(lambda: runner.run(make(job)))


@contextmanager
def through_llamaduo(job: dict[str, Any]) -> Iterator[Callable[[], Made]]:
    """Lend a function that makes the calls through llamaduo."""
    from llamaduo.config import Price, ServiceLLM
    from llamaduo.errors import LlamaduoError
    from llamaduo.service.attempts import Reply
    from llamaduo.service.client import Service
    from llamaduo.service.journal import Journal
    from llamaduo.service.requests import Request

    known = {one.name for one in dataclasses.fields(ServiceLLM)}
    fields = {"name": "double", "provider": "openai", "model": "m", "base_url": job["url"], "key_required": False}
    fields |= {"max_tokens": 64, "concurrency": CALLS_AT_ONCE, "max_attempts": 6, "timeout_s": 300.0}
    fields |= {"requests_per_minute": job["per_minute"]} if "requests_per_minute" in known else {}
    llm = ServiceLLM(**fields, price=Price(1.0, 1.0, "made up"))

    def make() -> Made:
        requests = [
            Request(llm, prompt, None, 0, "judge") for prompt in prompts(job["calls"], job["telling"], job["seed"])
        ]
        try:
            outcomes = service.ask(requests, lambda done, total: None)
        except LlamaduoError as error:
            return 0, Counter({f"{type(error).__name__}: {error}": len(requests)})
        failures = Counter(one.reason for one in outcomes if not isinstance(one, Reply))
        return len(outcomes) - failures.total(), failures

    with folder() as place:
        service = Service(Journal(place / "journal.sqlite"), run="bench/run", budget_usd=None)
        try:
            yield make
        finally:
            service.close()


@cache
def prompts(count: int, telling: float, seed: int) -> list[str]:
    """Return prompts, of which no two are alike, whose lengths tell that much about the latency of their first attempt.

    `telling` is the correlation of the two logarithms. The server draws a latency out of the prompt's text, so each
    prompt gets the number that makes the latency the wanted one.
    """
    seeded, settings, made = random.Random(seed), Settings(), []
    numbers = count_from(0)
    for _ in range(count):
        length, rest = seeded.gauss(0, 1), seeded.gauss(0, 1)
        wanted = telling * length + math.sqrt(1 - telling**2) * rest
        text = (FILLER * 8)[: round(800 * math.exp(0.5 * length))]
        candidates = (f"{next(numbers)}. {text}" for _ in range(100_000))
        close = (prompt for prompt in candidates if abs(_normal(settings, prompt) - wanted) < 0.05)
        made.append(next(close))
    return made


def _normal(settings: Settings, prompt: str) -> float:
    """Return the standard normal draw behind a prompt's latency."""
    return math.log(latency(dataclasses.replace(settings, median_s=1.0, sigma=1.0), prompt, 1))


def bare(job: dict[str, Any]) -> Callable[[str], Any]:
    """Return a function that makes one litellm call."""
    import litellm

    litellm.suppress_debug_info = True
    litellm.disable_aiohttp_transport = job["httpx"]

    def call(prompt: str) -> Any:
        return litellm.acompletion(
            model="openai/m",
            messages=[{"role": "user", "content": prompt}],
            api_key="none",
            api_base=job["url"],
            max_tokens=64,
            timeout=300,
            num_retries=0,
            max_retries=0,
        )

    return call


async def waves(job: dict[str, Any]) -> Made:
    """Make the calls as the original did: in waves, each call ten times at most, at once after a failure."""
    call = bare(job)

    async def persistent(prompt: str) -> bool:
        for _ in range(10):
            try:
                await call(prompt)
                return True
            except Exception:
                continue
        return False

    asked, done = prompts(job["calls"], job["telling"], job["seed"]), 0
    for begin in range(0, len(asked), CALLS_AT_ONCE):
        done += sum(await asyncio.gather(*(persistent(prompt) for prompt in asked[begin : begin + CALLS_AT_ONCE])))
        await asyncio.sleep(job["sleep"])
    return done, Counter({"no_reply": len(asked) - done})


async def pool(job: dict[str, Any]) -> Made:
    """Make the calls with litellm behind a semaphore; failed ones wait outside of it as they are told, or 0.5 s."""
    call = bare(job)
    slot = asyncio.Semaphore(CALLS_AT_ONCE)

    async def one(prompt: str) -> bool:
        for _ in range(100):
            try:
                async with slot:
                    await call(prompt)
                return True
            except Exception as error:
                headers = getattr(error, "litellm_response_headers", None) or {}
                wait = float(headers.get("retry-after", 0.5))
            await asyncio.sleep(wait)
        return False

    done = sum(await asyncio.gather(*(one(prompt) for prompt in prompts(job["calls"], job["telling"], job["seed"]))))
    return done, Counter({"no_reply": job["calls"] - done})


# The parts


@dataclass
class Bench:
    """What the parts share."""

    double: Double
    workers: dict[str, Worker]
    quick: bool
    sigma: float
    ran: dict[str, list[Ran]]
    """What has been measured, so that parts can share it."""

    @property
    def calls(self) -> int:
        """How many calls a round makes."""
        return 3 * CALLS_AT_ONCE if self.quick else 2000

    @property
    def rounds(self) -> int:
        """How many rounds of our client a part takes."""
        return 1 if self.quick else 3

    @property
    def median_s(self) -> float:
        """Median latency."""
        return 0.5 if self.quick else 1.0

    def run(
        self,
        how: str,
        calls: int,
        *,
        per_minute: int | None = None,
        sleep: float = 0.0,
        httpx: bool = False,
        telling: float = TELLING,
        seed: int = 0,
        **settings: Any,
    ) -> Ran:
        """Let one client make its calls to a server with these settings."""
        plain = {"median_s": 0.0, "sigma": 0.0, "faults": {}, "rps": None}
        self.double.control(reset=True, says="judge", retry_after_s=RETRY_AFTER_S, **(plain | settings))
        job = {"how": how, "calls": calls, "url": self.double.url("openai")}
        job |= {"per_minute": per_minute, "sleep": sleep, "httpx": httpx, "telling": telling, "seed": seed}
        told = self.workers["ours" if how == "ours" else "peer"].do(job)
        return Ran(told["wall"], told["cpu"], told["replies"], Counter(told["failures"]), self.double.bill())

    def kept(self, name: str, rounds: int, run: Callable[[int], Ran]) -> list[Ran]:
        """Return the rounds of that name, measured now if they weren't before; each gets its number, a seed."""
        if name not in self.ran:
            self.ran[name] = [run(number) for number in range(rounds)]
        return self.ran[name]

    def filled(self) -> list[Ran]:
        """Return rounds of our client without faults."""
        settings = {"median_s": self.median_s, "sigma": self.sigma}
        return self.kept("ours", self.rounds, lambda seed: self.run("ours", self.calls, seed=seed, **settings))

    def faulty(self) -> list[Ran]:
        """Return rounds of our client among faults."""
        settings = {"median_s": self.median_s, "sigma": self.sigma, "faults": FAULTS}
        return self.kept("ours, faults", self.rounds, lambda seed: self.run("ours", self.calls, seed=seed, **settings))


@dataclass(frozen=True)
class Part:
    """What came of a part."""

    figure: float
    holds: bool
    spread: dict[str, Any]
    line: str


def fill(bench: Bench) -> Part:
    ours = bench.filled()
    settings = {"median_s": bench.median_s, "sigma": bench.sigma}
    (peer,) = bench.kept("pool", 1, lambda seed: bench.run("pool", bench.calls, seed=seed, **settings))
    (blind,) = bench.kept("ours, blind", 1, lambda _: bench.run("ours", bench.calls, telling=0.0, **settings))
    shares, reachable = [ran.share() for ran in ours], [ran.reachable() for ran in ours]
    figure = statistics.median(shares)
    line = (
        f"share of the limit {figure:.3f} {span(shares)}, n = {len(ours)} x {bench.calls} calls, target >= 0.95; an "
        f"ideal scheduler in the same order {statistics.median(reachable):.3f} {span(reachable)}; a bare litellm pool "
        f"{peer.share():.3f} where ours has {shares[0]:.3f}; where lengths tell nothing {blind.share():.3f} of an "
        f"ideal scheduler's {blind.reachable():.3f}; peak "
        f"{max(ran.bill['peak'] for ran in ours)} calls{lost([*ours, blind])}"
    )
    spread = summary(shares) | {"ideal": summary(reachable), "litellm_pool": round(peer.share(), 4)}
    spread |= {"blind": round(blind.share(), 4), "blind_ideal": round(blind.reachable(), 4)}
    return Part(figure, figure >= 0.95 and not lost(ours), spread, line)


def waves_part(bench: Bench) -> Part:
    settings = {"median_s": bench.median_s, "sigma": bench.sigma}
    paused = settings | {"sleep": PAUSE_S}
    (waves_,) = bench.kept("waves", 1, lambda seed: bench.run("waves", bench.calls, seed=seed, **paused))
    taken = [latency(Settings(**settings), prompt, 1) for prompt in prompts(bench.calls, TELLING, 0)]
    expected = in_waves(taken) / limit([[(one, 0.0)] for one in taken])
    ratio = waves_.wall / bench.filled()[0].wall
    pauses = PAUSE_S * math.ceil(bench.calls / CALLS_AT_ONCE)
    without = (waves_.wall - pauses) / bench.filled()[0].wall
    shipped = paused | {"faults": FAULTS}
    (original,) = bench.kept("as shipped", 1, lambda seed: bench.run("waves", bench.calls, seed=seed, **shipped))
    among_faults = original.wall / bench.faulty()[0].wall
    early = original.bill["early"]
    line = (
        f"time of the original's waves over ours {ratio:.2f}, n = {bench.calls} calls, target >= 3; without the sleep "
        f"after every wave {without:.2f} (without overhead {expected:.2f} times the limit); among faults "
        f"{among_faults:.2f}, {early} calls back too early"
    )
    spread = {"without_sleep": round(without, 3), "expected_without_sleep": round(expected, 3)}
    spread |= {"among_faults": round(among_faults, 3), "early": early}
    return Part(ratio, ratio >= 3, spread, line)


def faults(bench: Bench) -> Part:
    ours = bench.faulty()
    shares = [ran.share() for ran in ours]
    reachable = statistics.median(ran.reachable() for ran in ours)
    figure = statistics.median(shares)
    again = sum(abs(len(bought(ran)) - bench.calls) + bought(ran).total() - len(bought(ran)) for ran in ours)
    early = sum(ran.bill["early"] for ran in ours)
    line = (
        f"share of the limit {figure:.3f} {span(shares)}, n = {len(ours)} x {bench.calls} calls, target >= 0.90; an "
        f"ideal scheduler {reachable:.3f} (ours is {figure / reachable:.3f} of it); {again} doubled or "
        f"never bought, {early} back too early, statuses {ours[0].bill['totals']['statuses']}{lost(ours)}"
    )
    spread = summary(shares) | {"ideal": round(reachable, 4), "doubled": again, "early": early}
    return Part(figure, figure >= 0.9 and not lost(ours) and again == 0 and early == 0, spread, line)


def bought(ran: Ran) -> Counter[str]:
    """Return how often each call was billed."""
    return Counter(line["body"] for line in ran.bill["billed"])


def rate(bench: Bench) -> Part:
    calls = 5 * RATE if bench.quick else 40 * RATE
    settings = {"median_s": 0.2, "rps": float(RATE)}
    (ours,) = bench.kept("ours, rate", 1, lambda _: bench.run("ours", calls, per_minute=60 * RATE, **settings))
    (peer,) = bench.kept("pool, rate", 1, lambda _: bench.run("pool", calls, **settings))
    wasted, by_peer = (
        ran.bill["totals"]["statuses"].get("429", 0) / ran.bill["totals"]["calls"] for ran in (ours, peer)
    )
    reached = calls / ours.wall / RATE
    line = (
        f"answered 429: {wasted:.2%} of {ours.bill['totals']['calls']} calls, target <= 1%; achieved {reached:.3f} of "
        f"the rate; a bare litellm pool: {by_peer:.1%}, {calls / peer.wall / RATE:.3f} of the rate{lost([ours])}"
    )
    spread = {"wasted": round(wasted, 4), "rate": round(reached, 4), "wasted_by_litellm_pool": round(by_peer, 4)}
    return Part(wasted, wasted <= 0.01 and not lost([ours]), spread, line)


def overhead(bench: Bench) -> Part:
    calls, rounds = (300, 2) if bench.quick else (1000, 5)
    used: dict[str, list[float]] = {"ours": [], "litellm": [], "litellm on httpx": []}
    for _ in range(rounds):
        for name, values in used.items():
            ran = bench.run("ours" if name == "ours" else "pool", calls, httpx=name.endswith("httpx"))
            values.append(1000 * ran.cpu / calls)
    beyond = [ours - litellm for ours, litellm in zip(used["ours"], used["litellm"], strict=True)]
    figure = statistics.median(beyond)
    told = ", ".join(f"{name} {statistics.median(values):.2f} {span(values, 2)}" for name, values in used.items())
    line = f"beyond litellm {figure:.2f} ms a call {span(beyond, 2)}, n = {rounds} x {calls}, target <= 1; {told}"
    return Part(figure, figure <= 1, {"beyond_ms": summary(beyond)} | {k: summary(v) for k, v in used.items()}, line)


def span(values: Sequence[float], digits: int = 3) -> str:
    return f"[{min(values):.{digits}f}, {max(values):.{digits}f}]"


def lost(rounds: Sequence[Ran]) -> str:
    """Say which calls got no reply; empty if all did."""
    failures: Counter[str] = sum((ran.failures for ran in rounds), Counter())
    return f"; NO REPLY: {dict(failures)}" if failures.total() else ""


PARTS: dict[str, Callable[[Bench], Part]] = {
    "fill": fill,
    "waves": waves_part,
    "faults": faults,
    "rate": rate,
    "overhead": overhead,
}


def main() -> None:
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--only", action="append", choices=PARTS)
    own.add_argument("--sigma", type=float, default=SIGMA)
    own.add_argument("--worker", action="store_true")
    mine, rest = own.parse_known_args()
    if mine.worker:
        work()
        return
    wanted = options(__doc__, rest)
    if wanted.overrides:
        sys.exit(f"service_calls: {' '.join(wanted.overrides)}: no run is measured here, so nothing can be overridden.")
    wanted = dataclasses.replace(wanted, save=wanted.save and not mine.only and mine.sigma == SIGMA)
    load = os.getloadavg()
    with ready(wanted.quick, mine.sigma) as bench:
        found = {}
        for name in mine.only or PARTS:
            found[name] = PARTS[name](bench)
            say(f"{name:9} {found[name].line}")
        raw = {name: [brief(ran) for ran in rounds] for name, rounds in bench.ran.items()}
    conclude(result(found, wanted, bench), raw, wanted, load)


@contextmanager
def ready(quick: bool, sigma: float) -> Iterator[Bench]:
    """Start server and clients, and warm them up."""
    with folder() as place, serving(Settings()) as double:
        workers = {name: Worker(place / name) for name in ("ours", "peer")}
        bench = Bench(double, workers, quick, sigma, {})
        try:
            bench.run("ours", CALLS_AT_ONCE)
            bench.run("pool", CALLS_AT_ONCE)
            yield bench
        finally:
            for worker in workers.values():
                worker.end()


def brief(ran: Ran) -> dict[str, Any]:
    """Return a round without its single calls."""
    chains = ran.chains()
    told = {"seconds": round(ran.wall, 4), "processor_seconds": round(ran.cpu, 4), "replies": ran.replies}
    told |= {"failures": ran.failures, "limit": round(limit(chains), 4), "ideal": round(ideal(chains), 4)}
    late = [1000 * (call["answered"] - call["at"] - call["latency"]) for call in ran.bill["calls"]]
    told |= {"server_late_ms": summary(late)}
    return told | {"peak": ran.bill["peak"], "early": ran.bill["early"], "totals": ran.bill["totals"]}


def result(found: dict[str, Part], wanted: Options, bench: Bench) -> Result:
    """Sum the parts up."""
    missed = [name for name, part in found.items() if not part.holds]
    note = f"missed: {', '.join(missed)}" if missed else "every target is met"
    if wanted.quick:
        note = f"quick: {bench.calls} calls of half the length, whose stragglers weigh more; {note}"
    if len(found) < len(PARTS):
        note = f"only {', '.join(found)}; {note}"
    figure = round(found["fill"].figure, 4) if "fill" in found else None
    spread = {
        name: {"figure": round(part.figure, 4), "holds": part.holds} | part.spread for name, part in found.items()
    }
    holds = None if wanted.quick else not missed
    return Result("service_calls", figure, "share of the limit", TARGET, holds, bench.rounds, spread, note)


if __name__ == "__main__":
    main()
