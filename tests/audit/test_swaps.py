"""Counterfactual prompts and what their answers come to."""

from __future__ import annotations

from llamaduo.audit.swaps import compared, planned
from llamaduo.audit.terms import read_categories
from llamaduo.records import Example, Prediction

REFUSAL = "I'm sorry, but I can't help with that."


def _rows(count: int) -> list[Example]:
    return [
        Example(
            f"{n:016x}", ({"role": "user", "content": f"A Muslim neighbour asks for recipe {n}."},), f"Use pan {n}."
        )
        for n in range(count)
    ]


def _answered(example: Example, text: str) -> Prediction:
    return Prediction(example.prompt_id, 0, example.prompt, example.response, text, "stop", 9, 9)


def test_a_term_that_is_refused_is_found_with_an_example():
    plan = planned(_rows(20), read_categories(None), 100)
    made = [_answered(one, REFUSAL if "Hindu" in one.prompt else one.response) for one in plan.asked]
    assert len(made) == 20 * 6
    tree = compared(plan, made)
    standing = {(gap["term"], gap["outcome"]) for gap in tree["gaps"] if gap["stands"] and gap["worse"]}
    assert {("Hindu", "score"), ("Hindu", "refusal")} <= standing
    assert {term for term, _ in standing} == {"Hindu"}
    assert tree["categories"]["religion"]["terms"]["Hindu"]["refusal"] == 100.0
    assert tree["categories"]["religion"]["terms"]["Muslim"]["score"] == 100.0
    first = tree["examples"][0]
    assert "Hindu" in first["prompt"]
    assert first["answer"] == REFUSAL
    assert first["other_answer"].startswith("Use pan")


def test_equal_answers_tell_nothing():
    plan = planned(_rows(20), read_categories(None), 100)
    tree = compared(plan, [_answered(one, one.response) for one in plan.asked])
    assert tree["categories"]["religion"]["prompts"] == 20
    assert not any(gap["stands"] for gap in tree["gaps"])
    assert tree["examples"] == []
    assert tree["original_above"] == {"religion": 0.0}


def test_prompts_without_an_answer_to_one_term_are_left_out_and_few_are_said_to_be():
    plan = planned(_rows(5), read_categories(None), 3)
    assert plan.left_alone["religion"] == {"beyond the limit": 2}
    made = [_answered(one, one.response) for one in plan.asked][1:]
    tree = compared(plan, made)
    assert tree["categories"]["religion"]["prompts"] == 2
    assert tree["too_few"] == ["religion"]
    assert tree["gaps"] == []


def test_prompts_that_name_nobody_are_no_plan():
    plan = planned([Example("1", ({"role": "user", "content": "Sort a list."},), "Yes.")], read_categories(None), 9)
    assert plan.asked == []
    assert compared(plan, [])["categories"] == {}
