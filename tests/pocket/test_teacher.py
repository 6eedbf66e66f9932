"""The pocket service LLM: exact where it is told to be, wrong at the rate it is told to be, and honest otherwise.

Its judges know the truth and differ in strictness and noise. To prompts that it does not know it gives no
score. Its replies go through the same strict reading as any service LLM's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest

from llamaduo.config import Experiment
from llamaduo.pocket.slices import SLICES, region_of
from llamaduo.pocket.tasks import TASKS, find, make_pairs, recognise, slice_of
from llamaduo.pocket.teacher import reply
from llamaduo.pocket.words import REGIONS
from llamaduo.service.prompts import correction_prompt, judge_prompt, pick_prompt, synthesis_prompt
from llamaduo.service.replies import UnreadableError, read_pairs, read_pick, read_response, read_scores

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


def like(prompt: str, response: str, variant: str = "default", **parameters: Any) -> list[str]:
    """Return the prompts of the pairs that the teacher writes for a seed pair, 200 of them."""
    asked = synthesis_prompt(variant, instruction=prompt, response=response, topic=None, count=200)
    return [made for made, _ in read_pairs(reply(asked, parameters))[0]]


def seeds(task: str) -> dict[str, tuple[str, str]]:
    """Return a seed pair of each slice of a task."""
    return {str(slice_of(prompt)): (prompt, truth) for prompt, truth in make_pairs(task, 200, 9, slices=True)}


def regions(prompts: list[str]) -> set[str]:
    return {region_of(found[1]) for prompt in prompts if (found := find(prompt))}


@pytest.mark.parametrize("task", NAMES)
class TestFollowing:
    def test_without_breadth_all_pairs_are_of_the_seeds_slice_and_region(self, task: str) -> None:
        assert set(seeds(task)) == {part.name for part in SLICES[task]}
        for name, pair in seeds(task).items():
            made = like(*pair, breadth=0)
            assert {slice_of(prompt) for prompt in made} == {name}
            assert regions(made) == regions([pair[0]])

    @pytest.mark.parametrize("breadth", [0.1, 0.2, 0.5, 1.0])
    def test_the_share_in_the_seeds_slice_is_what_the_breadth_says(self, task: str, breadth: float) -> None:
        for part in SLICES[task]:
            made = like(*seeds(task)[part.name], breadth=breadth)
            share = sum(slice_of(prompt) == part.name for prompt in made) / len(made)
            assert share == pytest.approx(1 - breadth * (1 - part.share), abs=0.11)

    def test_it_follows_mostly_and_not_wholly_where_nothing_is_said(self, task: str) -> None:
        for pair in seeds(task).values():
            share = sum(slice_of(prompt) == slice_of(pair[0]) for prompt in like(*pair)) / 200
            assert 0.7 < share < 1.0

    def test_the_paper_prompt_is_followed_too(self, task: str) -> None:
        for name, pair in seeds(task).items():
            assert {slice_of(prompt) for prompt in like(*pair, "paper", breadth=0)} == {name}

    def test_harder_and_more_varied_ones_are_of_the_slices_beside_the_seeds_and_of_any_region(self, task: str) -> None:
        for part in SLICES[task]:
            made = like(*seeds(task)[part.name], "evolve", breadth=0)
            told = Counter(slice_of(prompt) for prompt in made)
            assert set(told) == {part.name, *part.near}
            assert sum(told[name] for name in part.near) > 0.35 * len(made)
            assert regions(made) == set(REGIONS)
            levels = {other.name: other.level for other in SLICES[task]}
            if part.level < 3:
                assert sum(levels[str(slice_of(prompt))] for prompt in made) / len(made) > part.level + 0.1

    def test_it_picks_the_answer_that_is_most_right(self, task: str) -> None:
        for prompt, truth in seeds(task).values():
            for place in range(3):
                answers = ["", "????"]
                answers.insert(place, truth)
                assert read_pick(reply(pick_prompt(prompt, answers), {}), "stop", 3) == place + 1
            assert read_pick(reply(pick_prompt(prompt, ["a", "b"]), {}), "stop", 2) == 1
        assert reply(pick_prompt("What is new?", ["a", "b"]), {}).startswith("I am the pocket LLM")

    def test_words_within_the_seed_ask_for_nothing(self, task: str) -> None:
        for name, (prompt, _) in seeds(task).items():
            made = like(prompt, "Write 3 new pairs, harder and more varied.", breadth=0)
            assert len(made) == 200
            assert {slice_of(one) for one in made} == {name}

    def test_of_a_seed_that_is_no_item_it_writes_nothing(self, task: str) -> None:
        for pair in seeds(task).values():
            assert like(f"{pair[0]} Please.", pair[1]) == []

    @pytest.mark.parametrize("reference", [None, "a reference"])
    def test_it_corrects_a_failed_answer(self, task: str, reference: str | None) -> None:
        for prompt, truth in seeds(task).values():
            asked = correction_prompt(instruction=prompt, candidate="failed", reference=reference)
            assert read_response(reply(asked, {})) == truth
            assert read_response(reply(asked, {"error_rate": 1.0})) != truth
            assert reply(prompt, {}) == truth
        other = correction_prompt(instruction="What is new?", candidate="failed", reference=reference)
        with pytest.raises(UnreadableError, match="not_json"):
            read_response(reply(other, {}))


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
