"""The budget, under random prices, faults, concurrency, kills and second processes: no more is billed than it allows.

A case is drawn from its number: one process, two on the same run, or two runs of a study; some are killed at a random
moment and started again, up to three times. The service LLM stands behind litellm in each process. It bills by one
`write` to a file that all of them append to, before it answers, often at the very most that a call can cost; some
answers are then lost, some calls fail unbilled. Every mutant of the ledger has to pass the budget in some case.

`LLAMADUO_BUDGET_CASES=200` is the whole proof; without it there are forty cases.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import multiprocessing
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asking import silent
from killing import forked, preload

from llamaduo.config import Price, ServiceLLM
from llamaduo.errors import BudgetError, ServiceError
from llamaduo.service import attempts, buying, loading
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal
from llamaduo.service.requests import Request

CASES = int(os.environ.get("LLAMADUO_BUDGET_CASES", "40"))
PROVIDER = "biller"
PATIENCE_S = 60.0
_FORK = multiprocessing.get_context("fork")
_DONE, _NO_MONEY, _OUT_OF_REACH, _BROKEN = 0, 3, 4, 1


@dataclass(frozen=True)
class Case:
    """What is drawn of a case."""

    seed: int
    llm: ServiceLLM
    runs: tuple[str, ...]
    """The run of each process."""
    prompts: tuple[tuple[str, ...], ...]
    """What each process asks."""
    budget_usd: float | None
    study_budget_usd: float | None
    kills: int
    """Rounds of processes that end by SIGKILL; one more follows."""
    lost: float
    """Share of calls that are billed and never answered."""
    failing: float
    """Share of calls that end with a 429 or a 500."""
    latency_s: float
    billed_at: float
    """Which share of a call's time has passed when it is billed."""

    @property
    def seconds(self) -> float:
        """About how long a process has calls in flight."""
        calls = max(len(prompts) for prompts in self.prompts)
        return calls * (self.latency_s / self.llm.concurrency + 0.005)

    @property
    def worst_usd(self) -> float:
        """The most that one call can cost."""
        price = self.llm.price
        assert price is not None
        longest = max(Request(self.llm, p, None, 0, "judge").longest_prompt for ps in self.prompts for p in ps)
        return (longest * price.input + self.llm.max_tokens * price.output) / 1e6


@dataclass
class Outcome:
    """What came of a case."""

    seed: int
    killed: int = 0
    billed: dict[str, float] = field(default_factory=dict)
    """US dollars by run."""
    spent: dict[str, float] = field(default_factory=dict)
    """What the journal accounts for, by run; the study under its own name."""
    share: float | None = None
    """Share of the budget that is billed, if there was more to ask."""
    wrong: list[str] = field(default_factory=list)


def case(seed: int) -> Case:
    rng = random.Random(f"budget {seed}")
    price = Price(rng.choice([0.0, rng.uniform(0.1, 20)]), 10 ** rng.uniform(0, 6), "drawn")
    llm = ServiceLLM(
        name="biller", provider=PROVIDER, model="m", price=price, max_tokens=rng.randint(1, 200),
        concurrency=rng.randint(1, 8), max_attempts=3, json_schema=False,
    )  # fmt: skip
    kind = rng.choice(["alone", "two on a run", "two of a study"])
    runs = {"alone": ("study/a",), "two on a run": ("study/a", "study/a"), "two of a study": ("study/a", "study/b")}
    words = rng.randint(1, 60)
    prompts = [f"{number}: " + "word " * rng.randint(words // 2, words) for number in range(rng.randint(5, 30))]
    asked = tuple(tuple(rng.sample(prompts, rng.randint(5, len(prompts)))) for _ in runs[kind])
    drawn = Case(
        seed, llm, runs[kind], asked, None, None,
        kills=rng.choice([0, 1, 2, 3]), lost=rng.choice([0.0, 0.1, 0.3]), failing=rng.choice([0.0, 0.1]),
        latency_s=rng.choice([0.001, 0.01, 0.03]), billed_at=rng.choice([0.0, 0.0, 0.5]),
    )  # fmt: skip
    budget = drawn.worst_usd * rng.uniform(1.5, max(3.0, 0.8 * len(prompts)))
    study = kind == "two of a study"
    run_budget = budget * rng.uniform(0.5, 1.5) if study and rng.random() < 0.5 else None if study else budget
    return Case(**{**drawn.__dict__, "budget_usd": run_budget, "study_budget_usd": budget if study else None})


# One process


def _behind_litellm(given: Case, run: str, rng: random.Random, bill: int) -> Any:
    import litellm

    price = given.llm.price
    assert price is not None

    class Biller(litellm.CustomLLM):  # type: ignore[misc]
        async def acompletion(self, **call: Any) -> Any:
            seconds, luck = rng.expovariate(1 / given.latency_s), rng.random()
            await asyncio.sleep(given.billed_at * seconds)
            if luck < given.failing:
                error = rng.choice([litellm.RateLimitError, litellm.InternalServerError])
                raise error("not now", llm_provider=PROVIDER, model="m")
            prompt = call["messages"][-1]["content"]
            longest = Request(given.llm, prompt, None, 0, "judge").longest_prompt
            tokens = [max(1, _much(rng, longest)), _much(rng, given.llm.max_tokens)]
            cost = (tokens[0] * price.input + tokens[1] * price.output) / 1e6
            os.write(bill, json.dumps([run, cost]).encode() + b"\n")
            await asyncio.sleep((1 - given.billed_at) * seconds)
            if luck > 1 - given.lost:
                raise litellm.Timeout("too late", llm_provider=PROVIDER, model="m")
            response = call["model_response"]
            response.choices[0].message.content = "said"
            response.usage = litellm.Usage(prompt_tokens=tokens[0], completion_tokens=tokens[1])
            return response

    return Biller()


def _much(rng: random.Random, most: int) -> int:
    """Draw how many tokens a side of a call has: often as many as it can."""
    return most if rng.random() < 0.4 else rng.randint(0, most)


async def _sleep(seconds: float) -> None:
    """Wait between tries for a short while."""
    await asyncio.sleep(max(0.02, seconds / 50))


def _work(given: Case, place: Path, process: int, life: int) -> int:
    """Ask all that a process has to ask; return how it ended."""
    run, rng = given.runs[process], random.Random(f"{given.seed} {process} {life}")
    bill = os.open(place / "bill", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    litellm = loading.load_litellm()
    loading.register(PROVIDER, lambda *_: "")  # needs no key
    litellm.custom_provider_map = [{"provider": PROVIDER, "custom_handler": _behind_litellm(given, run, rng, bill)}]
    buying.asyncio = SimpleNamespace(**{**vars(asyncio), "sleep": _sleep})  # type: ignore[attr-defined]
    buying._LOOK_AGAIN_S = 0.02  # type: ignore[misc]
    service = Service(
        Journal(place / "journal.sqlite"), run=run, budget_usd=given.budget_usd, study_budget_usd=given.study_budget_usd
    )
    try:
        service.ask([Request(given.llm, prompt, None, 0, "judge") for prompt in given.prompts[process]], silent)
    except BudgetError:
        return _NO_MONEY
    except ServiceError:
        return _OUT_OF_REACH
    finally:
        service.close()
    return _DONE


# A case


def _wait_for_calls(bill: Path, process: Any) -> None:
    """Wait until something is billed from now on, but not for long."""
    before = bill.stat().st_size if bill.exists() else 0
    for _ in range(50):
        if not process.is_alive() or (bill.exists() and bill.stat().st_size > before):
            return
        time.sleep(0.01)


def tried(given: Case, place: Path, mutant: Callable[[], None] | None) -> Outcome:
    """Run a case with all its kills, and look at the bill."""
    place.mkdir()
    rng = random.Random(f"kills {given.seed}")
    found, error = Outcome(given.seed), place / "error"
    codes: list[int | None] = []
    for life in range(given.kills + 1):

        def work(process: int, life: int = life) -> int:
            if mutant:
                mutant()
            return _work(given, place, process, life)

        processes = [forked(lambda at=at: work(at), error) for at in range(len(given.runs))]
        doomed = rng.sample(processes, rng.randint(1, len(processes))) if life < given.kills else []
        for process in doomed:
            _wait_for_calls(place / "bill", process)
            time.sleep(rng.uniform(0.0, 0.8 * given.seconds))
            process.kill()
        for process in processes:
            process.join(PATIENCE_S)
            if process.exitcode is None:
                found.wrong.append("a process hangs")
                process.kill()
                process.join()
        found.killed += sum(process.exitcode == -signal.SIGKILL for process in processes)
        codes = [process.exitcode for process in processes]
        if _BROKEN in codes:
            found.wrong.append(f"a process broke: {error.read_text(encoding='utf-8').strip().splitlines()[-1]}")
    _looked_at(given, place, found, codes)
    return found


def _looked_at(given: Case, place: Path, found: Outcome, codes: Sequence[int | None]) -> None:
    """Compare bill, budget and journal."""
    bill = place / "bill"
    lines = [json.loads(line) for line in bill.read_text(encoding="utf-8").splitlines()] if bill.exists() else []
    found.billed = {run: math.fsum(cost for who, cost in lines if who == run) for run in given.runs}
    total = math.fsum(found.billed.values())
    slack = 1e-9 * max(1.0, total)
    for run, billed in found.billed.items():
        if given.budget_usd is not None and billed > given.budget_usd + slack:
            found.wrong.append(f"{run}: ${billed} billed, the budget is ${given.budget_usd}")
    if given.study_budget_usd is not None and total > given.study_budget_usd + slack:
        found.wrong.append(f"study: ${total} billed, the budget is ${given.study_budget_usd}")
    ledger = Journal(place / "journal.sqlite", read_only=True)
    found.spent = {scope: ledger.spent(scope) for scope in {*given.runs, "study"}}
    ledger.close()
    for scope, billed in {**found.billed, "study": total}.items():
        if found.spent[scope] < billed - slack:
            found.wrong.append(f"{scope}: ${billed} billed, the journal has ${found.spent[scope]}")
    if _NO_MONEY in codes:
        caps = {"study": given.study_budget_usd} | dict.fromkeys(given.runs, given.budget_usd)
        full = [scope for scope, cap in caps.items() if cap is not None and found.spent[scope] + given.worst_usd > cap]
        if not full:
            found.wrong.append(f"stopped with ${found.spent} spent, though the next call would have fitted in")
        found.share = max(
            ({"study": total} | found.billed)[scope] / (caps[scope] or 1.0) for scope in full or ["study"]
        )


def all_tried(seeds: Sequence[int], place: Path, mutant: Callable[[], None] | None = None) -> Iterator[Outcome]:
    """Yield the outcomes of cases, made side by side in forked processes; whoever stops reading ends them."""
    loading.load_litellm()
    (place / "first").mkdir()
    preload(lambda: _work(case(0), place / "first", 0, 0), place)
    lanes = 4
    ends: list[Connection] = []
    processes = []
    for lane in range(lanes):
        receiving, sending = _FORK.Pipe(duplex=False)

        def work(lane: int = lane, sending: Connection = sending) -> int:
            for seed in seeds[lane::lanes]:
                sending.send(tried(case(seed), place / str(seed), mutant))
            return 0

        processes.append(forked(work, place / f"error{lane}"))
        sending.close()
        ends.append(receiving)
    try:
        while ends:
            for end in wait(ends):
                assert isinstance(end, Connection)
                with suppress(EOFError):
                    yield end.recv()
                    continue
                ends.remove(end)
    finally:
        for process in processes:
            process.kill()
            process.join()
    failed = [path.read_text(encoding="utf-8") for path in place.glob("error*")]
    assert not failed, failed


def test_never_more_is_billed_than_the_budget_allows(tmp_path: Path) -> None:
    found = list(all_tried(range(CASES), tmp_path))
    assert len(found) == CASES
    wrong = {outcome.seed: outcome.wrong for outcome in found if outcome.wrong}
    assert not wrong
    shares = [outcome.share for outcome in found if outcome.share is not None]
    killed = sum(outcome.killed for outcome in found)
    told = f"{CASES} cases, {killed} processes killed; {len(shares)} cases spent a budget, "
    print(f"{told}median share billed {statistics.median(shares):.2f}")
    assert killed > CASES / 4
    assert len(shares) > CASES / 4
    assert statistics.median(shares) > 0.3


# Mutants


def nothing_reserved() -> None:
    """Take the worst case as nothing when a call begins."""
    begin = Journal.begin

    async def unreserved(self: Journal, attempt: Any, caps: Any) -> Any:
        return await begin(self, attempts.Attempt(**{**attempt.__dict__, "worst_usd": 0.0}), caps)

    Journal.begin = unreserved  # type: ignore[method-assign]


def unknown_outcomes_are_free() -> None:
    """Take a lost answer as unbilled."""
    fail = Journal.fail

    async def free(self: Journal, attempt: int, *, cost_usd: float, outcome: str) -> None:
        await fail(self, attempt, cost_usd=0.0, outcome=outcome)

    Journal.fail = free  # type: ignore[method-assign]


def nothing_spent_on_resume() -> None:
    """Begin each process at nothing."""
    opened = Journal._open

    def forgetful(self: Journal) -> None:
        opened(self)
        self._commit([lambda db: db.execute("DELETE FROM spent")])

    Journal._open = forgetful  # type: ignore[method-assign]


def the_dead_are_forgotten() -> None:
    """Drop what a dead process had in flight."""

    def bury(db: Any, live: Path) -> int:
        query = "SELECT id, owner FROM attempts WHERE outcome IS NULL"
        dead = [number for number, owner in db.execute(query).fetchall() if not attempts.alive(live, owner)]
        for number in dead:
            attempts.end(db, number, "unknown", 0.0)
        return len(dead)

    attempts.bury = bury


@pytest.mark.parametrize(
    "mutant", [nothing_reserved, unknown_outcomes_are_free, nothing_spent_on_resume, the_dead_are_forgotten]
)
def test_a_broken_ledger_is_caught(mutant: Callable[[], None], tmp_path: Path) -> None:
    passed = (w for found in all_tried(range(CASES), tmp_path, mutant) for w in found.wrong if "the budget is" in w)
    caught = list(itertools.islice(passed, 1))
    assert caught, f"{mutant.__name__}: no case of {CASES} passed its budget"
