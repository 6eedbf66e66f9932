"""The slices of the pocket tasks: each is named, comes as often as it says, can be read back, and keeps to its region.

Coverage data without slices are, to the letter, those that stored runs were made of.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter

import pytest

from llamaduo.pocket import tasks
from llamaduo.pocket.slices import REGION_SHARES, SLICES, Slice, draw, read, region_of
from llamaduo.pocket.tasks import TASKS, make_pairs, recognise, slice_of
from llamaduo.pocket.words import CITIES, GOODS, IDENTIFIERS, NAMES, REGIONS, of_region

EVERY = [(task, part) for task, parts in SLICES.items() for part in parts]
each = pytest.mark.parametrize(("task", "part"), EVERY, ids=lambda value: getattr(value, "name", value))


def drawn(part: Slice, count: int = 100) -> list[tuple[str, str]]:
    """Return items of a slice with their regions."""
    rng = random.Random(part.name)
    return [(draw(rng, part, region), region) for region in REGIONS for _ in range(count)]


@each
def test_an_item_of_a_slice_is_read_as_one_and_of_its_region(task: str, part: Slice) -> None:
    for prompt, region in drawn(part):
        item = read(SLICES[task], prompt)
        assert item is not None
        assert (item.slice, region_of(item), slice_of(prompt)) == (part, region, part.name)
        assert len(set(item.slots.values())) == len(item.slots)
        found = recognise(f"  {prompt}\n")
        assert found is not None
        assert (found[0].name, found[1]) == (task, item.answer)
        assert [other.name for other in TASKS.values() if other.solve(prompt) is not None] == [task]
        assert TASKS[task].correctness(item.answer, item.answer) == 1.0
        assert slice_of(f"{prompt} Please.") is None


@pytest.mark.parametrize("task", TASKS)
def test_a_tasks_slices_are_whole_and_the_last_two_rare_and_hard(task: str) -> None:
    parts = SLICES[task]
    assert len({part.name for part in parts}) == len(parts)
    assert sum(part.share for part in parts) == pytest.approx(1.0)
    assert all(part.share < 0.1 < other.share for part in parts[-2:] for other in parts[:-2])
    assert all(part.level > other.level for part in parts[-2:] for other in parts[:-2])
    levels = {part.name: part.level for part in parts}
    for part in parts:
        assert part.near
        assert part.name not in part.near
        assert max(levels[name] for name in part.near) >= min(part.level + 1, parts[-2].level)


@pytest.mark.parametrize("task", TASKS)
def test_slices_and_regions_come_as_often_as_they_say(task: str) -> None:
    prompts = [prompt for prompt, _ in make_pairs(task, 2000, 3, slices=True)]
    told = Counter(slice_of(prompt) for prompt in prompts)
    assert {part.name: told[part.name] / 2000 for part in SLICES[task]} == pytest.approx(
        {part.name: part.share for part in SLICES[task]}, abs=0.04
    )
    regions = Counter(region_of(item) for prompt in prompts if (item := read(SLICES[task], prompt)))
    assert {name: regions[name] / 2000 for name in REGIONS} == pytest.approx(REGION_SHARES, abs=0.04)


def test_the_description_names_each_slice_with_its_share_and_level_and_an_item_of_it() -> None:
    told = re.findall(r"^    (\w+) +(\d+)% (\d)  (.+(?:\n {20,}.+)*)", str(tasks.__doc__), re.MULTILINE)
    assert [(name, int(share), int(level)) for name, share, level, _ in told] == [
        (part.name, round(100 * part.share), part.level) for _, part in EVERY
    ]
    heads = {
        "classification": "Classify this ticket as access, billing, delivery or repair.\n\n",
        "summarization": "Summarize this ticket in one line.\n\n",
    }
    for (task, part), (*_, shown) in zip(EVERY, told, strict=True):
        text, _, answer = " ".join(shown.split()).partition(" -> ")
        if task == "closed_qa":
            text = re.sub(r"\. (?=[WO])", ".\n\n", text)
        prompt = heads.get(task, "") + text
        assert slice_of(prompt) == part.name
        assert not answer or TASKS[task].solve(prompt) == answer


def test_what_two_faults_and_an_offer_come_to() -> None:
    head, truth = (
        "Summarize this ticket in one line.\n\nRoma from Taveno ",
        "Roma (Taveno): bako late and wet, wants call",
    )
    two = f"{head}called: the bako came late and wet. Roma wants a call back."
    assert TASKS["summarization"].solve(two) == truth
    correct = TASKS["summarization"].correctness
    assert correct(truth, truth.replace(" and wet", "")) == pytest.approx(5 / 6)
    assert correct(truth, "Roma of Taveno: bako came wet and late, wants a call") == pytest.approx(5 / 6)
    offered = f"{head}was offered a refund for the bako that came wet, but wants a call back."
    assert TASKS["summarization"].solve(offered) == "Roma (Taveno): bako wet, wants call"


def test_regions_share_no_word_and_are_of_one_size() -> None:
    for words in (NAMES, CITIES, GOODS, IDENTIFIERS):
        parts = [of_region(words, region) for region in REGIONS]
        assert [len(part) for part in parts] == [100, 100, 100]
        assert set().union(*parts) == set(words)


def test_without_slices_the_items_are_those_of_stored_runs() -> None:
    made = json.dumps([make_pairs(task, 500, seed) for task in TASKS for seed in (1, 5, 42)])
    assert hashlib.sha256(made.encode()).hexdigest()[:16] == "52e36020050471dd"


@pytest.mark.parametrize("task", TASKS)
def test_an_item_without_slices_is_one_of_a_frequent_slice(task: str) -> None:
    told = {slice_of(prompt) for prompt, _ in make_pairs(task, 500, 3)}
    assert told == {part.name for part in SLICES[task][:-2]}
