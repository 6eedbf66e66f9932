"""Answers of a server: everything asked is sent, no answer stands for another one, and no failure looks like one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from asking import Open, Wired, silent
from sample_records import example
from wire_double import Double

from llamaduo.config import Backend, Infer, LocalModel, Runtime
from llamaduo.errors import ServiceError
from llamaduo.local.job import AnswerJob
from llamaduo.records import Example, Prediction, prompt_id
from llamaduo.service.answers import repeat_number
from llamaduo.stages.infer import infer

Answered = Callable[..., list[Prediction]]


@pytest.fixture
def answered(wired: Wired, open_service: Open) -> Answered:
    """Return a function that lets the server behind the double answer."""

    def found(
        rows: list[Example],
        seed: int = 1,
        llm: dict[str, Any] | None = None,
        pool: list[Example] | None = None,
        **fields: Any,
    ) -> list[Prediction]:
        server = wired("openai", **({"send_seed": True, "max_attempts": 2} | (llm or {})))
        config = Infer(**({"samples": 2, "max_new_tokens": 40} | fields), backend=Backend.endpoint, server=server)
        return infer(
            AnswerJob(LocalModel(name="not loaded", path="nowhere", context=8), config, Runtime(seed=seed)),
            rows,
            progress=silent,
            pool=pool or [],
            service=open_service(),
        )

    return found


def bodies(double: Double) -> list[dict[str, Any]]:
    return [call["request"]["body"] for call in double.bill()["calls"]]


def test_all_that_decides_an_answer_is_sent(double: Double, answered: Answered) -> None:
    double.control(keep_requests=True)
    turns = (
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    )
    rows = [Example(prompt_id(turns), turns, "the reference"), example("alone")]
    found = answered(rows, stop=["###", "\n\n"], temperature=0.7, llm={"parameters": {"top_p": 1}})
    assert [(p.prompt_id, p.sample) for p in found] == [(row.prompt_id, k) for row in rows for k in range(2)]
    assert [p.text for p in found[:2]] == ["echo: be brief\none\ntwo\nthree"] * 2
    assert [(p.finish_reason, p.reference) for p in found[1:3]] == [("stop", "the reference"), ("stop", "a response")]
    sent = {body["seed"]: body for body in bodies(double)}
    assert sent.keys() == {repeat_number(1, row.prompt_id, k) for row in rows for k in range(2)}
    body = sent[repeat_number(1, rows[0].prompt_id, 1)]
    assert body["messages"] == list(turns)
    assert (body["max_tokens"], body["temperature"], body["top_p"]) == (40, 0.7, 1)
    assert body["stop"] == ["###", "\n\n"]
    counted = double.bill()["billed"][0]
    assert {(p.prompt_tokens, p.completion_tokens) for p in found} >= {
        (counted["prompt_tokens"], counted["completion_tokens"])
    }


def test_pairs_before_a_prompt_are_sent_and_are_no_part_of_it(double: Double, answered: Answered) -> None:
    double.control(keep_requests=True)
    pool = [example("red apples", "yes"), example("green pears", "no")]
    (found,) = answered([example("red apples or not")], pool=pool, shots=1, samples=1)
    assert found.prompt == "red apples or not"
    turns = [("user", "red apples"), ("assistant", "yes"), ("user", "red apples or not")]
    assert [(turn["role"], turn["content"]) for turn in bodies(double)[0]["messages"]] == turns
    (alone,) = answered([example("red apples or not")], samples=1)
    assert alone.text != found.text


@pytest.mark.parametrize("send_seed", [True, False])
def test_a_run_with_another_seed_asks_again_and_one_with_the_same_does_not(
    double: Double, answered: Answered, send_seed: bool
) -> None:
    rows = [example("a"), example("b")]
    first = answered(rows, seed=1, llm={"send_seed": send_seed})
    assert answered(rows, seed=1, llm={"send_seed": send_seed}) == first
    assert len(double.bill()["calls"]) == 4
    answered(rows, seed=2, llm={"send_seed": send_seed})
    assert len(double.bill()["calls"]) == 8
    answered(rows, seed=1, llm={"send_seed": send_seed, "model": "another"})
    assert len(double.bill()["calls"]) == 12


def test_numbers_are_seeds_for_any_server_and_rarely_meet() -> None:
    numbers = {repeat_number(seed, f"p{n}", k) for seed in range(5) for n in range(200) for k in range(4)}
    assert len(numbers) == 4000
    assert all(0 <= number < 2**31 for number in numbers)


@pytest.mark.usefixtures("waits")
def test_what_is_no_answer_has_no_text_and_says_why(double: Double, answered: Answered) -> None:
    scripts = {"down": ["500"] * 9, "rude": ["policy"] * 9, "long": ["context"] * 9, "cut": ["length"] * 9}
    double.control(scripts=scripts | {"mute": ["empty"] * 9})
    prompts = ["down", "rude", "long", "cut", "mute", "fine"]
    found = {p.prompt: p for p in answered([example(prompt) for prompt in prompts], samples=1)}
    reasons = [found[prompt].finish_reason for prompt in prompts]
    assert reasons == ["no_reply", "refused", "prompt_too_long", "length", "stop", "stop"]
    assert [found[prompt].answered for prompt in prompts] == [False, False, False, True, True, True]
    assert {found[prompt].text for prompt in ("down", "rude", "long", "mute")} == {""}
    assert found["fine"].text == "echo: fine"


@pytest.mark.usefixtures("waits")
def test_answers_and_missing_ones_keep_the_cluster_of_their_prompt(double: Double, answered: Answered) -> None:
    rows = [example("one", cluster="c0ffee"), example("two")]
    assert [p.cluster for p in answered(rows)] == ["c0ffee", "c0ffee", None, None]
    double.control(scripts={row.prompt: ["context"] * 9 for row in rows})
    missing = answered(rows, seed=2)
    assert [(p.cluster, p.text) for p in missing] == [("c0ffee", ""), ("c0ffee", ""), (None, ""), (None, "")]


def replying(monkeypatch: pytest.MonkeyPatch, message: dict[str, Any] | None, word: str | None) -> None:
    """Let every call bring this message and this finish reason."""
    body = {"choices": [{"message": message, "finish_reason": word}]}
    raw = json.dumps({"format": "openai", "status": 200, "headers": {}, "body": json.dumps(body)})

    async def reply(*_: Any, **__: Any) -> str:
        return raw

    monkeypatch.setattr("llamaduo.service.buying.call", reply)


@pytest.mark.parametrize(
    ("message", "word", "reason"),
    [
        ({"content": "half a sen"}, "content_filter", "refused"),
        ({"content": "half a sen"}, "abort", "unfinished"),
        ({"content": None, "tool_calls": []}, "tool_calls", "unfinished"),
        ({"content": None, "reasoning_content": "so the label is billing"}, "stop", "no_content"),
        ({"content": "", "reasoning_content": "so the la"}, "length", "no_content"),
        ({"content": "<think>so the label is billing"}, "stop", "no_content"),
        (None, "stop", "no_content"),
    ],
)
def test_what_the_server_did_not_finish_or_only_thought_is_no_answer(
    message: Any, word: str, reason: str, answered: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    replying(monkeypatch, message, word)
    (found,) = answered([example("a")], samples=1)
    assert (found.finish_reason, found.text, found.answered) == (reason, "", False)


@pytest.mark.parametrize("word", [None, "", "model_context_window_exceeded", "a word that nobody knows"])
def test_an_answer_that_is_not_known_to_be_finished_counts_as_cut(
    word: str | None, answered: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    replying(monkeypatch, {"content": "half a sen"}, word)
    (found,) = answered([example("a")], samples=1)
    assert (found.finish_reason, found.text) == ("length", "half a sen")


def test_thoughts_before_an_answer_are_no_part_of_it(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    replying(monkeypatch, {"content": "<think>so the label is</think>\n\nbilling"}, "stop")
    (found,) = answered([example("a")], samples=1)
    assert found.text == "billing"


@pytest.mark.usefixtures("waits")
def test_a_server_that_is_down_is_named(double: Double, answered: Answered) -> None:
    double.control(faults={"503": 1.0})
    with pytest.raises(ServiceError, match="openai is out of reach"):
        answered([example(f"prompt {n}") for n in range(20)], llm={"concurrency": 4})
