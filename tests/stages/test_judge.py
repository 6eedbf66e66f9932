"""Judging: every member scores every answer M times, through the real client and journal.

A reply that can't be read is asked for again a bounded number of times and then unscored with its reason; an
answer that does not exist is never asked about.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from asking import LLM, Open, silent
from sample_records import prediction

from llamaduo.config import Judge, JudgeKind, JudgePrompt, Price, ServiceLLM
from llamaduo.evidence.economy import Round
from llamaduo.records import UNSCORED_REASONS, Prediction, Verdict, from_json, to_json
from llamaduo.service import buying, transport
from llamaduo.service.prompts import template_hash
from llamaduo.stages.judge import judge

READABLE = json.dumps({"similarity": {"reason": "close", "score": 80}, "precision": {"reason": "ok", "score": 70.5}})


class Script:
    """A judge that gives replies in order and then a readable one."""

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.prompts: list[str] = []
        self.seeds: list[int] = []

    def __call__(self, prompt: str, parameters: Mapping[str, Any]) -> str:
        self.prompts.append(prompt)
        self.seeds.append(parameters["seed"])
        return self.replies.pop(0) if self.replies else READABLE


@pytest.fixture
def judged(open_service: Open) -> Callable[..., list[Verdict]]:
    def verdicts(predictions: list[Prediction], panel: dict[str, ServiceLLM], **config: Any) -> list[Verdict]:
        return judge(predictions, config=Judge(panel=panel, **config), service=open_service(), progress=silent)

    return verdicts


Judged = Callable[..., list[Verdict]]


def test_every_member_judges_every_answer_m_times_in_order(llm: LLM, judged: Judged) -> None:
    scripts = {"kind": Script(), "stern": Script()}
    panel = {name: llm(script, name=name, send_seed=True) for name, script in scripts.items()}
    answers = [prediction("p", "one", 0), prediction("p", "two", 1), prediction("q", "three", 0)]
    found = judged(answers, panel, repeats=3)
    assert [(v.prompt_id, v.sample, v.judge, v.repeat) for v in found] == [
        (answer.prompt_id, answer.sample, name, repeat)
        for answer in answers
        for name in ("kind", "stern")
        for repeat in range(3)
    ]
    assert all((v.similarity, v.precision, v.unscored) == (80.0, 70.5, None) for v in found)
    assert found[0].reasons == {"similarity": "close", "precision": "ok"}
    for script in scripts.values():
        assert Counter(script.prompts).most_common() == [(prompt, 3) for prompt in dict.fromkeys(script.prompts)]
        assert sorted(script.seeds) == sorted([0, 1, 2] * 3)


def test_a_verdict_names_its_prompt_its_request_and_its_price(llm: LLM, judged: Judged, tmp_path: Path) -> None:
    member = llm(Script(), send_seed=True, price=Price(0.0, 1e6, "a dollar a word"))
    (found,) = judged([prediction()], {"j": member})
    assert found.prompt_hash == template_hash("judge_blind")
    ((key, text),) = sqlite3.connect(tmp_path / "journal.sqlite").execute("SELECT key, text FROM replies")
    assert (found.request, text) == (key, READABLE)
    assert found.cost_usd == pytest.approx(len(READABLE.split()))


@pytest.mark.parametrize("prompt", list(JudgePrompt))
def test_the_chosen_prompt_is_sent_with_the_three_texts(prompt: JudgePrompt, llm: LLM, judged: Judged) -> None:
    script = Script()
    (found,) = judged([prediction("the question", "the candidate")], {"j": llm(script, send_seed=True)}, prompt=prompt)
    (sent,) = script.prompts
    assert all(text in sent for text in ("the question", "the reference", "the candidate"))
    assert ("quality assessor" in sent) == (prompt is JudgePrompt.paper)
    assert found.prompt_hash == template_hash(f"judge_{prompt.value}")


def test_the_local_model_is_not_named_to_the_judge(llm: LLM, judged: Judged) -> None:
    script = Script()
    judged([prediction()], {"secret_member": llm(script, name="secret_name", send_seed=True)})
    assert not any(word in script.prompts[0] for word in ("secret", "pocket", "local model"))


def test_an_unreadable_reply_is_asked_for_again_as_another_repeat(llm: LLM, judged: Judged) -> None:
    script = Script("I would say 80 of 100.")
    (found,) = judged([prediction()], {"j": llm(script, send_seed=True)}, repeats=1, reasks=1)
    assert (found.repeat, found.similarity, found.unscored) == (0, 80.0, None)
    assert script.seeds == [0, 1]
    assert script.prompts[0] == script.prompts[1]


@pytest.mark.parametrize("reasks", [0, 1, 3])
def test_asking_again_is_bounded_and_ends_unscored_with_the_last_reason(reasks: int, llm: LLM, judged: Judged) -> None:
    script = Script(*["no JSON"] * reasks, '{"similarity": 101, "precision": 1}', READABLE)
    (found,) = judged([prediction()], {"j": llm(script, send_seed=True)}, reasks=reasks)
    assert (found.similarity, found.precision, found.reasons) == (None, None, {})
    assert found.unscored == "out_of_range"
    assert len(script.prompts) == reasks + 1
    assert found.request is not None


def test_asking_again_never_meets_another_repeats_number(llm: LLM, judged: Judged) -> None:
    script = Script(*["no JSON"] * 6)
    judged([prediction()], {"j": llm(script, send_seed=True)}, repeats=3, reasks=2)
    assert sorted(script.seeds) == list(range(9))


def test_only_what_was_unreadable_is_asked_again(llm: LLM, judged: Judged) -> None:
    def program(prompt: str, parameters: Mapping[str, Any]) -> str:
        asked.append((("bad" in prompt), parameters["seed"]))
        return "?" if "bad" in prompt and parameters["seed"] < 2 else READABLE

    asked: list[tuple[bool, int]] = []
    answers = [prediction("p", "good"), prediction("q", "bad"), prediction("r", "fine")]
    found = judged(answers, {"j": llm(program, send_seed=True)}, repeats=2)
    assert [v.unscored for v in found] == [None] * 6
    assert sorted(asked) == [(False, 0), (False, 0), (False, 1), (False, 1), (True, 0), (True, 1), (True, 2), (True, 3)]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("prose", "not_json"),
        ('{"similarity": "88", "precision": 1}', "not_a_number"),
        ('{"similarity": 88}', "missing_score"),
        ('{"similarity": 1, "similarity": 1, "precision": 1}', "duplicate_key"),
        ('{"similarity": -3, "precision": 1}', "out_of_range"),
        ("", "empty"),
        (" \n", "empty"),
    ],
)
def test_unscored_verdicts_carry_no_number(reply: str, reason: str, llm: LLM, judged: Judged) -> None:
    (found,) = judged([prediction()], {"j": llm(lambda *_: reply)}, reasks=0)
    assert (found.similarity, found.precision, found.unscored) == (None, None, reason)
    assert reason in UNSCORED_REASONS


@pytest.mark.parametrize(
    ("finish_reason", "reason"),
    [("length", "truncated"), ("content_filter", "refused"), ("tool_calls", "unfinished")],
)
def test_a_reply_that_was_not_finished_has_no_score_however_readable_it_is(
    finish_reason: str, reason: str, llm: LLM, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, script = transport.call, Script()

    async def cut(*args: Any, **options: Any) -> Any:
        dump = json.loads(await send(*args, **options))
        dump["choices"][0]["finish_reason"] = finish_reason
        return json.dumps(dump)

    monkeypatch.setattr(buying, "call", cut)
    (found,) = judged([prediction()], {"j": llm(script, send_seed=True)}, reasks=1)
    assert (found.similarity, found.precision, found.unscored) == (None, None, reason)
    assert reason in UNSCORED_REASONS
    assert script.seeds == [0, 1]  # asked once more, as any reply that can't be read


def test_each_call_is_asked_again_for_itself_and_does_not_wait_for_the_others(
    llm: LLM, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, asked_again = transport.call, asyncio.Event()

    async def slow(called: ServiceLLM, prompt: str, **options: Any) -> Any:
        if "slow" in prompt:
            await asyncio.wait_for(asked_again.wait(), 10)
        elif options["seed"] == 1:
            asked_again.set()
        return await send(called, prompt, **options)

    monkeypatch.setattr(buying, "call", slow)
    script = Script("unreadable")
    found = judged([prediction("p", "slow"), prediction("q", "quick")], {"j": llm(script, send_seed=True)})
    assert [v.unscored for v in found] == [None, None]


def test_the_same_answer_twice_is_judged_once_and_has_two_verdicts(llm: LLM, judged: Judged) -> None:
    script = Script("unreadable")
    found = judged([prediction("p", "same", 0), prediction("p", "same", 1)], {"j": llm(script, send_seed=True)})
    assert [(v.sample, v.similarity) for v in found] == [(0, 80.0), (1, 80.0)]
    assert found[0].request == found[1].request
    assert len(script.prompts) == 2


def test_progress_counts_distinct_calls_whatever_is_asked_again(llm: LLM, open_service: Open) -> None:
    seen: list[tuple[int, int]] = []
    config = Judge(panel={"j": llm(Script("?", "?"), send_seed=True)})
    answers = [prediction("p", "a"), prediction("p", "a", 1), prediction("q", "b")]
    judge(answers, config=config, service=open_service(), progress=lambda *at: seen.append(at))
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_every_paid_reply_is_on_the_bill_the_unreadable_ones_too(llm: LLM, judged: Judged) -> None:
    member = llm(Script("two words", "and three words"), send_seed=True, price=Price(0.0, 1e6, "a dollar a word"))
    (found,) = judged([prediction()], {"j": member}, reasks=1)
    assert found.unscored == "not_json"
    assert found.cost_usd == pytest.approx(5.0)


def test_what_was_paid_before_a_failure_is_on_the_bill(llm: LLM, judged: Judged, waits: list[float]) -> None:
    def program(_: str, parameters: Mapping[str, Any]) -> str:
        import litellm

        if parameters["seed"]:
            raise litellm.InternalServerError(message="down", model="m", llm_provider="fake")
        return "three unreadable words"

    member = llm(program, send_seed=True, max_attempts=2, price=Price(0.0, 1e6, "a dollar a word"))
    (found,) = judged([prediction()], {"j": member}, reasks=1)
    assert (found.unscored, found.cost_usd) == ("no_reply", pytest.approx(3.0))


def test_no_reply_and_refusal_are_not_asked_again(llm: LLM, judged: Judged, waits: list[float]) -> None:
    def program(prompt: str, _: Mapping[str, Any]) -> str:
        import litellm

        asked.append(prompt)
        if "no such" in prompt:
            raise litellm.InternalServerError(message="down", model="m", llm_provider="fake")
        raise litellm.ContentPolicyViolationError("not this", model="m", llm_provider="fake")

    asked: list[str] = []
    found = judged([prediction("p", "no such"), prediction("q", "bad")], {"j": llm(program, max_attempts=2)}, reasks=3)
    assert [v.unscored for v in found] == ["no_reply", "refused"]
    assert [v.cost_usd for v in found] == [0.0, 0.0]
    assert len(asked) == 3
    assert len(waits) == 1


MISSING = ["prompt_too_long", "no_reply", "refused", "unfinished"]


@pytest.mark.parametrize("reason", MISSING)
def test_an_answer_that_does_not_exist_is_never_asked_about(reason: str, llm: LLM, judged: Judged) -> None:
    script = Script()
    answers = [prediction("p", "", finish_reason=reason), prediction("q", "text")]
    found = judged(answers, {"j": llm(script, send_seed=True)}, repeats=2)
    assert [v.unscored for v in found] == [reason, reason, None, None]
    assert found[0].request is None
    assert len(script.prompts) == 2
    only = judged(answers[:1], {"j": llm(script, send_seed=True)})
    assert [v.unscored for v in only] == [reason]
    assert len(script.prompts) == 2


def test_an_empty_or_cut_answer_is_judged_as_it_is(llm: LLM, judged: Judged) -> None:
    script = Script()
    judged([prediction("p", ""), prediction("q", "cut", finish_reason="length")], {"j": llm(script, send_seed=True)})
    assert len(script.prompts) == 2


def test_judging_again_buys_nothing_and_says_the_same(llm: LLM, judged: Judged) -> None:
    script = Script("unreadable")
    panel = {"j": llm(script, send_seed=True)}
    first = judged([prediction()], panel, repeats=2)
    assert judged([prediction()], panel, repeats=2) == first
    assert len(script.prompts) == 3
    assert all(from_json(Verdict, to_json(verdict)) == verdict for verdict in first)


class TestReferenceJudge:
    def test_metrics_score_closeness_and_leave_precision_out(self) -> None:
        answers = [prediction("p", "the reference"), prediction("q", "zzz 123")]
        found = judge(answers, config=Judge(kind=JudgeKind.reference), service=None, progress=silent)
        assert [(v.prompt_id, v.judge) for v in found] == [
            (a.prompt_id, m) for a in answers for m in ("chrf", "rouge_l")
        ]
        assert [v.similarity for v in found] == [100.0, 100.0, 0.0, 0.0]
        assert all(v.precision is None and v.unscored is None and v.cost_usd == 0 for v in found)
        assert all(v.request is None and v.prompt_hash is None for v in found)

    @pytest.mark.parametrize("reason", MISSING)
    def test_an_answer_that_does_not_exist_is_unscored(self, reason: str) -> None:
        missing = [prediction("p", "", finish_reason=reason)]
        found = judge(missing, config=Judge(kind=JudgeKind.reference), service=None, progress=silent)
        assert [(v.similarity, v.unscored) for v in found] == [(None, reason)] * 2

    def test_an_empty_answer_scores_zero(self) -> None:
        found = judge([prediction("p", "")], config=Judge(kind=JudgeKind.reference), service=None, progress=silent)
        assert [(v.similarity, v.unscored) for v in found] == [(0.0, None)] * 2

    def test_progress_reaches_the_number_of_answers(self) -> None:
        seen: list[tuple[int, int]] = []
        config = Judge(kind=JudgeKind.reference)
        judge([prediction("p"), prediction("q")], config=config, service=None, progress=lambda *at: seen.append(at))
        assert seen == [(1, 2), (2, 2)]


def test_rounds_end_where_it_is_enough_and_ask_for_nothing_more(llm: LLM, open_service: Open, tmp_path: Path) -> None:
    script = Script()
    panel = {"j": llm(script, send_seed=True)}
    answers = [prediction(name, f"to {name}") for name in "abcd"]
    ids = [answer.prompt_id for answer in answers]
    rounds = [Round((ids[2], ids[0]), (0, 1)), Round((ids[3],), (0,)), Round((ids[1],), (0,))]
    shown: list[tuple[int, int]] = []
    told: list[int] = []

    def enough(so_far: Sequence[Verdict]) -> bool:
        told.append(len(so_far))
        return len(so_far) >= 5

    found = judge(
        answers,
        config=Judge(panel=panel, repeats=2),
        service=open_service(),
        progress=lambda done, total: shown.append((done, total)),
        rounds=rounds,
        enough=enough,
    )
    assert [(v.prompt_id, v.repeat) for v in found] == [(ids[0], 0), (ids[0], 1), (ids[2], 0), (ids[2], 1), (ids[3], 0)]
    assert (told, len(script.prompts)) == ([4, 5], 5)
    assert shown[-1] == (5, 5)
    everything = judge(answers, config=Judge(panel=panel, repeats=2), service=open_service(), progress=lambda *_: None)
    assert len(script.prompts) == 8, "what was asked in rounds is in the journal under the same keys"
    assert [v.request for v in everything if v in found] == [v.request for v in found]
