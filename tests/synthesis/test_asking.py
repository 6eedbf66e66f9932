"""Synthesis: seeds come from the rows that are given and from nowhere else, each once before any comes again.

Whole pairs are taken, everything else is dropped and counted; if no request was answered, that is an error.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from asking import LLM, Open, silent
from sample_records import example

from llamaduo.config import Price, ServiceLLM, Synthesis, SynthesisPrompt, Task
from llamaduo.errors import ServiceError
from llamaduo.records import Example
from llamaduo.service import buying, transport
from llamaduo.service.attempts import Reply
from llamaduo.service.client import Service
from llamaduo.synthesis import default
from llamaduo.synthesis.asking import Batch, synthesize
from llamaduo.synthesis.strategies import STRATEGIES, named
from llamaduo.synthesis.strategy import Situation

Synthesized = Callable[..., Batch]
SEEDS = [example(f"seed {letter}", f"answer {letter}") for letter in "abcde"]


def pairs(*names: str) -> str:
    return json.dumps({"contents": [{"instruction": f"new {name}", "response": f"reply {name}"} for name in names]})


def known(llm: ServiceLLM, seeds: Sequence[Example] = SEEDS, **fields: Any) -> Situation:
    """Return a situation of seeds alone."""
    task = Task("coding", "Coding", category="Coding", train_rows=1, test_rows=1)
    return Situation(
        **{"config": Synthesis(pairs_per_request=2), "llm": llm, "task": task, "seed": 1, "train": seeds, **fields}
    )


class Teacher:
    """A service LLM that notes which seed it was shown and returns pairs that nobody has seen."""

    def __init__(self, reply: Callable[[int], str] | None = None) -> None:
        self.prompts: list[str] = []
        self._reply = reply or (lambda number: pairs(f"{number}.0", f"{number}.1"))

    def __call__(self, prompt: str, _: Mapping[str, Any]) -> str:
        self.prompts.append(prompt)
        return self._reply(len(self.prompts) - 1)

    @property
    def shown(self) -> list[str]:
        return [re.findall(r"\nseed (\w)\n", prompt)[0] for prompt in self.prompts]


@pytest.fixture
def synthesized(open_service: Open) -> Synthesized:
    def batch(
        llm: ServiceLLM,
        wanted: int,
        seeds: list[Example] = SEEDS,
        first_request: int = 0,
        seed: int = 1,
        config: Synthesis | None = None,
        before: int = 0,
    ) -> Batch:
        situation = known(llm, seeds, seed=seed, config=config or Synthesis(pairs_per_request=2))
        strategy = STRATEGIES[named(situation.config)]
        asked = strategy.plan(situation, wanted, first_request)
        return synthesize(asked, strategy, open_service(), silent, before=before)

    return batch


def test_pairs_carry_who_wrote_them_and_for_which_seed(llm: LLM, synthesized: Synthesized) -> None:
    teacher = Teacher()
    found = synthesized(llm(teacher, name="the_teacher", concurrency=1), 2)
    assert [(e.prompt, e.response) for e in found.examples] == [("new 0.0", "reply 0.0"), ("new 0.1", "reply 0.1")]
    (shown,) = teacher.shown
    owner = next(seed for seed in SEEDS if seed.prompt == f"seed {shown}")
    assert all((e.generator, e.seed_id) == ("the_teacher", owner.prompt_id) for e in found.examples)
    assert found.examples[0] == example("new 0.0", "reply 0.0", generator="the_teacher", seed_id=owner.prompt_id)


@pytest.mark.parametrize(("wanted", "count"), [(1, 1), (2, 1), (3, 2), (10, 5), (11, 6)])
def test_as_many_requests_as_the_wanted_pairs_need(wanted: int, count: int, llm: LLM, synthesized: Synthesized) -> None:
    teacher = Teacher()
    assert synthesized(llm(teacher), wanted).requests == count
    assert len(teacher.prompts) == count


def test_every_seed_comes_once_before_any_comes_twice(llm: LLM, synthesized: Synthesized) -> None:
    teacher = Teacher()
    synthesized(llm(teacher), 2 * 12)
    counts = Counter(teacher.shown)
    assert set(counts) == set("abcde")
    assert sorted(counts.values()) == [2, 2, 2, 3, 3]


def test_seeds_come_from_the_given_rows_only(llm: LLM, synthesized: Synthesized) -> None:
    teacher = Teacher()
    synthesized(llm(teacher), 20, seeds=SEEDS[:2])
    assert Counter(teacher.shown) == {"a": 5, "b": 5}


def test_later_rounds_go_on_where_earlier_ones_ended(llm: LLM, synthesized: Synthesized) -> None:
    teacher = Teacher()
    member = llm(teacher)
    synthesized(member, 6)
    synthesized(member, 4, first_request=3)
    assert sorted(teacher.shown) == list("abcde")
    synthesized(member, 10, first_request=5)
    assert sorted(teacher.shown) == sorted("abcde" * 2)
    assert len(teacher.prompts) == 10  # the same seed again is another purchase


def test_the_same_round_again_buys_nothing_and_brings_the_same(llm: LLM, synthesized: Synthesized) -> None:
    teacher = Teacher()
    member = llm(teacher)
    first = synthesized(member, 8)
    assert synthesized(member, 8) == first
    assert len(teacher.prompts) == 4


def test_the_order_of_seeds_depends_on_the_seed(llm: LLM, synthesized: Synthesized) -> None:
    def order(seed: int) -> list[str]:
        batch = synthesized(llm(Teacher()), 10, seed=seed)
        return [e.seed_id or "" for e in batch.examples[::2]]

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(6)}) > 1


def test_what_is_no_whole_pair_is_dropped_and_counted(llm: LLM, synthesized: Synthesized) -> None:
    replies = [
        pairs("a", "b"),
        json.dumps({"contents": [{"instruction": "q"}, {"instruction": "new c", "response": "reply c"}, None]}),
        pairs("d", "e")[:-20],
        "I can't help with this.",
    ]
    found = synthesized(llm(Teacher(replies.__getitem__), concurrency=1), 8)
    assert sorted(e.prompt for e in found.examples) == ["new a", "new b", "new c", "new d"]
    assert (found.requests, found.failed, found.dropped) == (4, 0, 2 + 1 + 1)


@pytest.mark.parametrize(
    ("finish_reason", "kept", "dropped"),
    [("stop", 2, 0), ("length", 2, 1), ("tool_calls", 2, 1), ("content_filter", 0, 1)],
)
def test_of_a_reply_that_was_not_finished_whole_pairs_count_and_of_a_refused_one_none(
    finish_reason: str, kept: int, dropped: int, llm: LLM, synthesized: Synthesized, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = transport.call

    async def cut(*args: Any, **options: Any) -> Any:
        dump = json.loads(await send(*args, **options))
        dump["choices"][0]["finish_reason"] = finish_reason
        return json.dumps(dump)

    monkeypatch.setattr(buying, "call", cut)
    found = synthesized(llm(Teacher(lambda _: pairs("a", "b"))), 2, before=1)
    assert (len(found.examples), found.dropped, found.failed) == (kept, dropped, 0)


def test_what_is_asked_can_be_known_before_it_is_asked(llm: LLM, synthesized: Synthesized) -> None:
    teacher = Teacher()
    member = llm(teacher)
    planned = default.plan(known(member), 7, 3)
    synthesized(member, 7, first_request=3)
    assert sorted(teacher.prompts) == sorted(one.request.prompt for one in planned)
    assert [one.request.repeat for one in planned] == [3, 4, 5, 6]


def test_replies_are_paid_for_whatever_they_bring(llm: LLM, synthesized: Synthesized) -> None:
    member = llm(Teacher(lambda _: "four words of nothing"), price=Price(0.0, 1e6, "a dollar a word"))
    found = synthesized(member, 4, before=1)
    assert found.examples == ()
    assert (found.dropped, found.cost_usd) == (2, pytest.approx(8.0))


def test_requests_without_a_reply_are_counted(llm: LLM, synthesized: Synthesized, waits: list[float]) -> None:
    def reply(number: int) -> str:
        import litellm

        if number == 1:
            raise litellm.ContentPolicyViolationError("not this", model="m", llm_provider="fake")
        return pairs(str(number))

    found = synthesized(llm(Teacher(reply), concurrency=1), 6)
    assert (found.requests, found.failed, len(found.examples)) == (3, 1, 2)
    assert waits == []


def test_no_answer_at_all_is_a_service_error(llm: LLM, synthesized: Synthesized, waits: list[float]) -> None:
    def reply(_: int) -> str:
        import litellm

        raise litellm.InternalServerError(message="down", model="m", llm_provider="fake")

    with pytest.raises(ServiceError, match=r"^the_teacher answered none of 3 synthesis requests"):
        synthesized(llm(Teacher(reply), name="the_teacher", max_attempts=1), 6)
    assert waits == []


FRUITLESS = {
    "prose": ("Here are 2 pairs: first, the new a.", "stop", "not_json 2", "reasoning parser"),
    "nothing": ("", "stop", "empty 2", "service_llm.max_tokens"),
    "cut before the first pair's end": (pairs("a")[:29], "length", "truncated 2", "synthesis.pairs_per_request"),
    "held back": ("I must not.", "content_filter", "refused 2", "take another service_llm"),
}


@pytest.mark.parametrize(("text", "finish_reason", "reasons", "mend"), FRUITLESS.values(), ids=FRUITLESS)
def test_replies_without_any_pair_are_an_error_that_quotes_one_and_says_what_to_set(
    text: str,
    finish_reason: str,
    reasons: str,
    mend: str,
    llm: LLM,
    open_service: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = Service._outcome

    async def ended(self: Service, request: Any) -> Any:
        outcome = await find(self, request)
        assert isinstance(outcome, Reply)
        return replace(outcome, finish_reason=finish_reason)

    monkeypatch.setattr(Service, "_outcome", ended)
    member = llm(Teacher(lambda _: text), name="the_teacher")
    asked = default.plan(known(member), 4, 0)
    with pytest.raises(ServiceError, match=r"^the_teacher: none of 2 replies") as caught:
        synthesize(asked, default, open_service(), silent)
    assert f"({reasons})" in str(caught.value)
    assert (f'"{text}"' if text else "nothing") in str(caught.value)
    assert mend in str(caught.value)
    assert "service.reasks=1" in str(caught.value)
    assert synthesize(asked, default, open_service(), silent, before=3).examples == ()


def test_service_reasks_asks_once_more_for_what_brought_no_pair(llm: LLM, open_service: Open) -> None:
    teacher = Teacher(lambda number: pairs(str(number)) if number >= 3 else "I can't.")
    member = llm(teacher, concurrency=1, price=Price(0.0, 1e6, "a dollar a word"))
    asked = default.plan(known(member), 4, 0)
    with pytest.raises(ServiceError, match="none of 2"):
        synthesize(asked, default, open_service(), silent)
    found = synthesize(asked, default, open_service(reasks=2), silent)
    assert sorted(e.prompt for e in found.examples) == ["new 3", "new 4"]
    assert len(teacher.prompts) == 5
    assert found.cost_usd == pytest.approx(3 * 2 + 2 * len(pairs("3").split()))
    assert synthesize(asked, default, open_service(reasks=2), silent) == found
    assert len(teacher.prompts) == 5


@pytest.mark.parametrize("prompt", list(SynthesisPrompt))
def test_the_chosen_prompt_is_sent(prompt: SynthesisPrompt, llm: LLM, synthesized: Synthesized) -> None:
    seen: list[Mapping[str, Any]] = []

    def program(text: str, parameters: Mapping[str, Any]) -> str:
        seen.append({"prompt": text, **parameters})
        return pairs("a")

    config = Synthesis(prompt=prompt, pairs_per_request=7)
    synthesized(llm(program), 1, config=config)
    (sent,) = seen
    assert "The topic is Coding" in sent["prompt"]
    assert ("Write 7 new pairs" in sent["prompt"]) == (prompt is not SynthesisPrompt.paper)
    assert ("response_format" in sent) == (prompt is not SynthesisPrompt.paper)


def test_progress_reaches_the_number_of_requests(llm: LLM, open_service: Open) -> None:
    seen: list[tuple[int, int]] = []
    asked = default.plan(known(llm(Teacher())), 6, 0)
    synthesize(asked, default, open_service(), lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_where_pairs_came_before_a_refusal_of_the_last_prompts_is_no_end_of_the_run(
    llm: LLM, synthesized: Synthesized
) -> None:
    def reply(_: int) -> str:
        import litellm

        raise litellm.ContentPolicyViolationError("not this", model="m", llm_provider="fake")

    member = llm(Teacher(reply), concurrency=1)
    with pytest.raises(ServiceError, match="none of 1 replies"):
        synthesized(member, 2)
    found = synthesized(member, 2, before=3)
    assert (found.requests, found.failed, found.examples) == (1, 1, ())
