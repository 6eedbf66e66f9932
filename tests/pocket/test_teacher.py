"""The pocket service LLM: exact where it is told to be, wrong at the rate it is told to be, and honest otherwise.

Its judges know the truth and differ in strictness and noise. To prompts that it does not know it gives no
score. Its replies go through the same strict reading as any service LLM's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest

from llamaduo.config import Experiment
from llamaduo.pocket.tasks import TASKS, make_pairs, recognise
from llamaduo.pocket.teacher import reply
from llamaduo.service.prompts import judge_prompt, synthesis_prompt
from llamaduo.service.replies import UnreadableError, read_pairs, read_scores

NAMES = list(TASKS)
VARIANTS = ("blind", "paper")


def taught(
    task: str, parameters: Mapping[str, Any], requests: int = 25, variant: str = "default"
) -> list[tuple[str, str]]:
    """Return the pairs of many synthesis requests."""
    pairs = []
    for seed, (prompt, response) in enumerate(make_pairs(task, requests, seed=5)):
        asked = synthesis_prompt(variant, instruction=prompt, response=response, topic="t", count=8)
        found, dropped = read_pairs(reply(asked, {**parameters, "seed": seed}))
        assert dropped == 0
        pairs += found
    return pairs


def judged(
    prompt: str, reference: str, candidate: str, variant: str = "blind", **parameters: Any
) -> tuple[float, float]:
    text = reply(judge_prompt(variant, instruction=prompt, reference=reference, candidate=candidate), parameters)
    scores = read_scores(text, "stop")
    return scores.similarity, scores.precision


def wrong_share(pairs: list[tuple[str, str]]) -> float:
    wrong = 0
    for prompt, response in pairs:
        found = recognise(prompt)
        assert found is not None
        wrong += found[1] != response
    return wrong / len(pairs)


class TestTeaching:
    @pytest.mark.parametrize("variant", ["default", "paper"])
    @pytest.mark.parametrize("task", NAMES)
    def test_without_errors_every_pair_is_of_the_task_and_exact(self, task: str, variant: str) -> None:
        pairs = taught(task, {"error_rate": 0.0}, variant=variant)
        assert len(pairs) == 25 * (8 if variant == "default" else 5)
        assert wrong_share(pairs) == 0.0
        assert all(TASKS[task].solve(prompt) is not None for prompt, _ in pairs)

    @pytest.mark.parametrize("task", NAMES)
    @pytest.mark.parametrize("rate", [0.25, 0.75, 1.0])
    def test_it_errs_at_about_the_rate_that_is_set(self, task: str, rate: float) -> None:
        assert wrong_share(taught(task, {"error_rate": rate}, requests=50)) == pytest.approx(rate, abs=0.1)

    def test_a_wrong_response_is_well_formed(self) -> None:
        labels = {response for _, response in taught("classification", {"error_rate": 1.0})}
        assert labels == {"access", "billing", "delivery", "repair"}

    def test_it_writes_as_many_pairs_as_it_is_asked_for(self) -> None:
        ((prompt, response),) = make_pairs("coding", 1, seed=5)
        for count in (1, 8, 20):
            asked = synthesis_prompt("default", instruction=prompt, response=response, topic="t", count=count)
            assert len(read_pairs(reply(asked, {}))[0]) == count

    def test_another_seed_brings_other_pairs_and_the_same_one_the_same(self) -> None:
        ((prompt, response),) = make_pairs("closed_qa", 1, seed=5)
        asked = synthesis_prompt("default", instruction=prompt, response=response, topic="t", count=8)
        assert reply(asked, {"seed": 1}) == reply(asked, {"seed": 1}) != reply(asked, {"seed": 2})

    def test_many_requests_bring_mostly_new_pairs(self) -> None:
        pairs = taught("summarization", {}, requests=50)
        assert len(set(pairs)) > 0.95 * len(pairs)


class TestJudging:
    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("task", NAMES)
    def test_the_truth_scores_100_and_nonsense_little(self, task: str, variant: str) -> None:
        for prompt, truth in make_pairs(task, 20, seed=6):
            assert judged(prompt, truth, truth, variant) == (100.0, 100.0)
            similarity, precision = judged(prompt, truth, "????", variant)
            assert similarity < 20
            assert precision == 0.0

    def test_precision_is_by_the_truth_and_similarity_by_the_reference(self) -> None:
        ((prompt, truth),) = make_pairs("coding", 1, seed=6)
        similarity, precision = judged(prompt, "a reference that is wrong", truth)
        assert similarity < 60
        assert precision == 100.0

    def test_a_half_right_answer_lies_between(self) -> None:
        ((prompt, truth),) = make_pairs("coding", 1, seed=6)
        half = truth.replace("return", "return 1 +")
        assert judged(prompt, truth, half)[1] == pytest.approx(66.7)

    def test_judges_differ_in_strictness(self) -> None:
        ((prompt, truth),) = make_pairs("coding", 1, seed=6)
        half = truth.replace("return", "return 1 +")
        lenient, middle, strict = (judged(prompt, truth, half, strictness=power)[1] for power in (0.5, 1.0, 2.0))
        assert lenient > middle > strict
        assert (lenient, strict) == (pytest.approx(81.6, abs=0.1), pytest.approx(44.4, abs=0.1))
        for power in (0.5, 1.0, 2.0):
            assert judged(prompt, truth, truth, strictness=power) == (100.0, 100.0)

    def test_noise_wanders_between_repeats_by_as_much_as_is_set(self) -> None:
        ((prompt, truth),) = make_pairs("coding", 1, seed=6)
        half = truth.replace("return", "return 1 +")
        spreads = {}
        for noise in (0.0, 2.0, 10.0):
            scores = [judged(prompt, truth, half, noise=noise, seed=seed)[1] for seed in range(200)]
            assert max(abs(score - 66.7) for score in scores) <= noise + 0.1
            assert fmean(scores) == pytest.approx(66.7, abs=0.1 + noise / 5)
            spreads[noise] = pstdev(scores)
        assert spreads[0.0] == 0.0
        assert 0.0 < spreads[2.0] < spreads[10.0]

    def test_noise_stays_within_the_scale(self) -> None:
        ((prompt, truth),) = make_pairs("classification", 1, seed=6)
        scores = [judged(prompt, truth, answer, noise=50, seed=s) for s in range(50) for answer in (truth, "????")]
        assert all(0 <= value <= 100 for pair in scores for value in pair)

    def test_the_shipped_judges_are_three_different_ones(self, compose_experiment: Callable[..., Experiment]) -> None:
        panel = compose_experiment("judge=pocket_panel").judge.panel
        ((prompt, truth),) = make_pairs("coding", 1, seed=6)
        half = truth.replace("return", "return 1 +")
        means = {
            name: fmean(judged(prompt, truth, half, **member.parameters, seed=seed)[1] for seed in range(50))
            for name, member in panel.items()
        }
        assert means["pocket_lenient"] > means["pocket_judge"] + 5 > means["pocket_strict"] + 10
        assert len({member.parameters["noise"] for member in panel.values()}) == 3

    @pytest.mark.parametrize("candidate", ["", "\n", "\n```\n", "<<abc candidate\nx\nabc>>", "{}", '"', "日本語"])
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_any_answer_gets_a_readable_verdict(self, candidate: str, variant: str) -> None:
        ((prompt, truth),) = make_pairs("coding", 1, seed=6)
        assert judged(prompt, truth, candidate, variant)[1] == 0.0

    def test_hostile_code_is_judged_and_never_executed(self) -> None:
        ((prompt, truth),) = make_pairs("coding", 1, seed=6)
        for attack in ("open('owned', 'w')", f"{truth}\nopen('owned', 'w')", "__import__('os').system('touch owned')"):
            assert judged(prompt, truth, attack)[1] == 0.0
        assert not Path("owned").exists()


UNKNOWN = [
    "Hello!",
    "",
    "Summarize this ticket in one line.",
    judge_prompt("blind", instruction="What is the capital of France?", reference="Paris", candidate="Paris"),
    judge_prompt("paper", instruction="What is the capital of France?", reference="Paris", candidate="Paris"),
    synthesis_prompt("default", instruction="Name a colour.", response="red", topic="t", count=3),
    synthesis_prompt("paper", instruction="Name a colour.", response="red", topic="t", count=3),
]


@pytest.mark.parametrize("prompt", UNKNOWN, ids=range(len(UNKNOWN)))
def test_what_it_does_not_know_gets_no_score_and_no_pair(prompt: str) -> None:
    text = reply(prompt, {"noise": 2, "seed": 1})
    assert "can't help" in text
    with pytest.raises(UnreadableError, match="not_json"):
        read_scores(text, "stop")
    assert read_pairs(text) == ([], 1)


def test_replies_are_plain_json_in_the_shape_that_each_prompt_asks_for() -> None:
    ((prompt, truth),) = make_pairs("coding", 1, seed=6)
    blind = json.loads(reply(judge_prompt("blind", instruction=prompt, reference=truth, candidate=truth), {}))
    paper = json.loads(reply(judge_prompt("paper", instruction=prompt, reference=truth, candidate=truth), {}))
    assert set(blind) == {"similarity", "precision"}
    assert set(paper) == {"similarity_assessment", "precision_assessment"}
    assert all(set(scores) == {"score", "reason"} for scores in (*blind.values(), *paper.values()))


@pytest.mark.parametrize("task", NAMES)
def test_asked_like_a_student_it_answers_and_errs_at_its_rate(task: str) -> None:
    items = make_pairs(task, 200, seed=3)
    assert [reply(prompt, {"seed": 1}) for prompt, _ in items] == [response for _, response in items]
    wrong = sum(reply(prompt, {"error_rate": 0.3, "seed": 1}) != response for prompt, response in items)
    assert 35 <= wrong <= 85  # 60 of 200 are expected, four standard deviations are 26
