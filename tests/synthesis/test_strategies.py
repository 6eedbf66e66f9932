"""Strategies: what each shows the service LLM, and what it takes from a reply."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_records import example

from llamaduo.config import ServiceLLM, Strategy, Synthesis, Task
from llamaduo.records import CORRECTION, Prediction
from llamaduo.service.attempts import Reply
from llamaduo.steps.student import failed_by
from llamaduo.synthesis import correct, default, label, self_instruct, targeted
from llamaduo.synthesis.strategies import STRATEGIES
from llamaduo.synthesis.strategy import Asked, Failed, Situation
from llamaduo.synthesis.targeted import wanted_as_seeds, weakness_by_cluster

TRAIN = [example(f"train prompt {number}", f"answer {number}") for number in range(8)]
POOL = [example(f"made up {number}", f"reply {number}", generator="teacher") for number in range(4)]
TASK = Task("custom", None, None, category="none", train_rows=1, test_rows=1)


def situation(**fields: Any) -> Situation:
    llm = ServiceLLM("teacher", "fake", "m")
    config = Synthesis(pairs_per_request=2)
    return Situation(**{"config": config, "llm": llm, "task": TASK, "seed": 1, "train": TRAIN, **fields})


def seeds(asked: list[Asked]) -> list[str]:
    return [one.seeds[0].prompt for one in asked]


def replied(text: str, finish_reason: str = "stop") -> Reply:
    return Reply("key", text, finish_reason, 1, 1, 0.0)


def test_every_strategy_that_is_named_has_a_file() -> None:
    assert set(STRATEGIES) == set(Strategy)


@pytest.mark.parametrize("name", Strategy)
def test_the_same_situation_gives_the_same_requests_and_later_ones_are_others(name: Strategy) -> None:
    known = situation(
        pool=POOL,
        weights=[1.0] * len(TRAIN),
        failed=[Failed(TRAIN[0], "wrong")],
        unlabelled=[replace(row, response="") for row in POOL],
    )
    plan = STRATEGIES[name].plan
    first = plan(known, 4, 0)
    assert [one.request.key for one in first] == [one.request.key for one in plan(known, 4, 0)]
    later = plan(replace(known, begun=len(first)), 4, len(first))
    assert not {one.request.key for one in first} & {one.request.key for one in later}


@pytest.mark.parametrize("name", [name for name in Strategy if name is not Strategy.label])
def test_own_words_stand_in_the_topics_place_and_without_either_none_does(name: Strategy) -> None:
    known = situation(failed=[Failed(TRAIN[0], "wrong")])

    def prompts(task: Task) -> str:
        return " ".join(one.request.prompt for one in STRATEGIES[name].plan(replace(known, task=task), 5, 0)[1:])

    own = prompts(replace(TASK, topic="Coding", description="Replies to guests\nof a $5 hotel"))
    assert "Replies to guests of a $5 hotel" in own
    assert "Coding" not in own
    assert "The topic is" not in prompts(TASK)
    assert "custom" not in prompts(TASK)
    assert "The topic is Coding" in prompts(replace(TASK, topic="Coding"))


@pytest.mark.parametrize("given", ["Replies to guests", "Replies to guests.", " Replies\n\nto guests. "])
def test_own_words_are_a_sentence_of_their_own(given: str) -> None:
    (asked, *_) = default.plan(situation(task=replace(TASK, description=given)), 2, 0)
    assert "describes it: Replies to guests. Keep to the kind" in asked.request.prompt
    (blank, *_) = default.plan(situation(task=replace(TASK, topic="Coding", description=" \n")), 2, 0)
    assert "describes it" not in blank.request.prompt
    assert "The topic is Coding." in blank.request.prompt


class TestTargeted:
    def test_before_any_student_it_is_the_default(self) -> None:
        known = situation()
        assert targeted.plan(known, 12, 3) == default.plan(known, 12, 3)

    @given(st.lists(st.integers(0, 3), min_size=4, max_size=40), st.floats(0.05, 1), st.randoms())
    def test_a_floor_keeps_every_cluster_alive(self, cluster: list[int], floor: float, rng: Any) -> None:
        losses = [rng.choice([None, rng.expovariate(1)]) for _ in cluster]
        weak = {where: rng.random() for where in set(cluster) if rng.random() < 0.7}
        weights = wanted_as_seeds(losses, cluster, weak, floor=floor)
        assert sum(weights) == pytest.approx(1)
        shares = Counter[int]()
        for where, weight in zip(cluster, weights, strict=True):
            assert weight > 0
            shares[where] += weight  # type: ignore[assignment]
        assert all(share >= floor / len(shares) - 1e-9 for share in shares.values())

    def test_hard_rows_and_weak_clusters_are_shown_more_often(self) -> None:
        cluster = [0, 0, 0, 0, 1, 1, 1, 1]
        losses = [0.1, 0.2, 0.3, 4.0, 0.1, 0.2, 0.3, 4.0]
        weights = wanted_as_seeds(losses, cluster, {0: 0.9, 1: 0.1}, floor=0.2)
        assert weights[3] == max(weights)
        assert sum(weights[:4]) > 3 * sum(weights[4:])
        shown = Counter(seeds(targeted.plan(situation(weights=weights), 2 * 400, 0)))
        for row, weight in zip(TRAIN, weights, strict=True):
            assert shown[row.prompt] == pytest.approx(400 * weight, abs=3)

    def test_a_row_without_a_loss_counts_as_one_in_the_middle(self) -> None:
        low, none, high = wanted_as_seeds([0.1, None, 9.0], [0, 0, 0], {}, floor=0)
        assert low <= none < high

    def test_where_the_student_misses_nothing_all_clusters_are_alike(self) -> None:
        assert wanted_as_seeds([1.0, 2.0, 3.0], [0, 0, 1], {0: 0.0, 1: 0.0}, floor=0.1) == [0.25, 0.25, 0.5]

    def test_few_answers_near_a_cluster_are_drawn_towards_the_mean(self) -> None:
        found = weakness_by_cluster([(0, 0.0)] + [(1, 100.0)] * 99)
        assert found[1] < 0.01
        assert found[0] == pytest.approx((1 + 0.01) / 2)


def test_self_instruct_shows_a_training_pair_in_every_second_request() -> None:
    shown = seeds(self_instruct.plan(situation(pool=POOL), 2 * 8, 0))
    assert all(prompt.startswith("train") for prompt in shown[::2])
    assert sorted(shown[1::2]) == [row.prompt for row in POOL]
    assert all(prompt.startswith("train") for prompt in seeds(self_instruct.plan(situation(), 12, 0)))


class TestLabel:
    ROWS = [replace(example(f"real {number}"), response="") for number in range(3)]

    def test_each_prompt_is_asked_once_as_the_product_asks_it(self) -> None:
        turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})
        known = situation(unlabelled=[replace(self.ROWS[0], messages=turns), *self.ROWS[1:]])
        first, second = label.plan(known, 2, 0), label.plan(known, 9, 2)
        assert (len(first), len(second)) == (2, 1)
        assert label.plan(known, 9, 3) == []
        assert first[0].request.prompt == "Hi"
        assert first[0].request.earlier == turns[:1]
        assert first[0].request.schema is None

    def test_the_answer_is_the_rows_response(self) -> None:
        (asked,) = label.plan(situation(unlabelled=self.ROWS), 1, 0)
        assert label.read(asked, replied(" Yes. ")) == (
            [replace(self.ROWS[0], response="Yes.", generator="teacher")],
            0,
        )

    @pytest.mark.parametrize("reply", [replied("Yes", "length"), replied("  "), replied("no", "content_filter")])
    def test_an_answer_that_is_not_whole_is_dropped(self, reply: Reply) -> None:
        (asked,) = label.plan(situation(unlabelled=self.ROWS), 1, 0)
        assert label.read(asked, reply) == ([], 1)


class TestCorrect:
    FAILED = [Failed(TRAIN[3], "a wrong answer"), Failed(TRAIN[5], "another")]

    def test_failed_answers_are_sent_and_then_more_like_them_is_asked_for(self) -> None:
        known = situation(failed=self.FAILED, begun=10)
        asked = correct.plan(known, 6, 10)
        assert seeds(asked[:2]) == [TRAIN[3].prompt, TRAIN[5].prompt]
        assert "a wrong answer" in asked[0].request.prompt
        assert set(seeds(asked[2:])) == {TRAIN[3].prompt, TRAIN[5].prompt}
        assert len(asked) == 2 + 2
        assert not any("wrong answer" in one.request.prompt for one in correct.plan(known, 4, 14))

    def test_a_correction_is_a_second_answer_to_a_training_prompt(self) -> None:
        asked = correct.plan(situation(failed=self.FAILED), 2, 0)[0]
        (row,), dropped = correct.read(asked, replied(json.dumps({"response": "the right one"})))
        assert (row.prompt, row.response, row.kind, dropped) == (TRAIN[3].prompt, "the right one", CORRECTION, 0)
        assert (row.seed_id, row.generator) == (TRAIN[3].prompt_id, "teacher")

    @pytest.mark.parametrize("text", ["", "the right one", '{"answer": "x"}', '{"response": 3}'])
    def test_what_is_no_response_is_dropped(self, text: str) -> None:
        asked = correct.plan(situation(failed=self.FAILED), 2, 0)[0]
        assert correct.read(asked, replied(text)) == ([], 1)

    def test_where_nothing_was_failed_training_pairs_are_shown(self) -> None:
        known = situation()
        assert [one.request.prompt for one in correct.plan(known, 8, 0)] == [
            one.request.prompt for one in default.plan(known, 8, 0)
        ]

    def test_the_turns_before_a_failed_answer_are_shown_too(self) -> None:
        turns = [("system", "Speak as a pirate."), ("user", "and in winter?")]
        row = replace(TRAIN[3], messages=tuple({"role": role, "content": text} for role, text in turns))
        (asked,) = correct.plan(situation(failed=[Failed(row, "wrong")]), 1, 0)
        assert "Speak as a pirate." in asked.request.prompt
        assert "and in winter?" in asked.request.prompt

    def test_of_several_answers_to_a_prompt_the_worst_is_sent_alone(self) -> None:
        texts = {0: ["answer 0 it is", "answer of none"], 1: ["no", "no"], 2: ["answer 2", "answer 2"]}
        answers = [
            Prediction(TRAIN[at].prompt_id, k, TRAIN[at].prompt, TRAIN[at].response, text, "stop", 1, 1)
            for at, both in texts.items()
            for k, text in enumerate(both)
        ]
        failed = failed_by(answers, TRAIN).failed
        assert [(one.row.prompt, one.answer) for one in failed] == [
            (TRAIN[1].prompt, "no"),
            (TRAIN[0].prompt, "answer of none"),
        ]
