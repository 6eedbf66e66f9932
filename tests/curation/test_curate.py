"""Curation: nothing like dev or test survives, one of a group of near-duplicates does, and all of it is logged.

What is alike is what comparing everything with everything says, and what most coverage rows share makes nothing alike.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_records import example

from llamaduo.config import Curation, DuplicateText
from llamaduo.curation.curate import Curated, Curator, Removal, curate
from llamaduo.curation.leaks import plain
from llamaduo.curation.order import REASONS
from llamaduo.data.alike import Bag, bag, shared, without, words
from llamaduo.pocket.tasks import TASKS, make_pairs
from llamaduo.records import Example, prompt_id

CONFIG = Curation(duplicate_jaccard=0.9, contamination_jaccard=0.8)


def curated(
    new: list[Example],
    known: list[Example] | None = None,
    held_out: list[Example] | None = None,
    config: Curation = CONFIG,
) -> Curated:
    return curate(new, known=known or [], held_out=held_out or [], config=config)


def jaccard(a: Bag, b: Bag) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


def numbered(first: int, last: int) -> str:
    """Return a text of the words `w<first>` to `w<last>`, the last one not included."""
    return " ".join(f"w{n}" for n in range(first, last))


TEXTS = st.lists(st.lists(st.sampled_from("abcdefghijkl"), max_size=8).map(" ".join) | st.text(max_size=6), max_size=14)


def holds(text: str, short: str, common: Bag) -> bool:
    """Tell whether a text has all words of a shorter one in a row, three or more and not all of them common."""
    inner = words(short)
    while inner and not inner[0][0].isalnum():
        inner = inner[1:]
    while inner and not inner[-1][0].isalnum():
        inner = inner[:-1]
    outer = words(text)
    runs = (outer[start : start + len(inner)] for start in range(len(outer)))
    told = sum(word[0].isalnum() for word in inner) >= 3 and not common.issuperset(inner)
    # signs around it say nothing: if these are all that isn't common, nor does the text
    return told and any(run == inner for run in runs)


def letters(row: Example) -> str:
    return plain(row.prompt).letters


def spells(row: Example, test: Example) -> bool:
    """Tell whether words of a row have the letters of a test prompt in a row."""
    outer = plain(row.prompt).pieces
    spans = combinations(range(len(outer) + 1), 2)
    return any("".join(outer[begin:end]) == letters(test) for begin, end in spans)


def but_for_one(row: Example, test: Example, usual: set[str]) -> bool:
    """Tell whether words of a row in a row are those of a test prompt of six or more with one edit at most."""
    inner, outer = ([word for word in plain(one.prompt).words if word not in usual] for one in (test, row))
    spans = combinations(range(len(outer) + 1), 2)
    return len(inner) >= 6 and any(edits(inner, outer[begin:end]) <= 1 for begin, end in spans)


def templated(row: Example, test: Example, usual: set[str]) -> bool:
    """Tell whether a prompt has all words of a test prompt of at most twelve but two, and at most two others."""
    inner, outer = (set(plain(one.prompt).words) - usual for one in (test, row))
    length = sum(word not in usual for word in plain(test.prompt).words)
    return length <= 12 and len(inner & outer) >= max(1, len(inner) - 2) and len(outer) <= len(inner) + 2


def edits(a: list[str], b: list[str]) -> int:
    """Return Levenshtein's distance."""
    row = list(range(len(b) + 1))
    for number, one in enumerate(a, 1):
        last, row[0] = row[0], number
        for at, other in enumerate(b, 1):
            last, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, last + (one != other))
    return row[-1]


@given(TEXTS, TEXTS, TEXTS, st.sampled_from([0.9, 0.5]), st.sampled_from([0.8, 0.4]), st.booleans())
@settings(max_examples=200, deadline=None)
def test_curation_is_what_comparing_everything_gives(
    new: list[str], known: list[str], held_out: list[str], duplicate: float, contamination: float, thorough: bool
) -> None:
    config = Curation(duplicate_jaccard=duplicate, contamination_jaccard=contamination, dressed=thorough)
    rows, seen, tests = ([example(text) for text in texts] for texts in (new, known, held_out))
    found = curated(rows, seen, tests, config)
    common = shared([bag([row.prompt]) for row in (*seen, *tests)])
    common_pairs = shared([bag([row.prompt, row.response]) for row in (*seen, *tests)])

    def prompt(row: Example) -> Bag:
        return without(bag([row.prompt]), common)

    def pair(row: Example) -> Bag:
        return without(bag([row.prompt, row.response]), common_pairs)

    often = Counter(word for row in (*seen, *tests) for word in set(plain(row.prompt).words))
    usual = {word for word, count in often.items() if count >= max(3, (len(seen) + len(tests)) // 2 + 1)}

    def leaks(row: Example, test: Example) -> bool:
        held = holds(row.prompt, test.prompt, common) and not any(holds(s.prompt, test.prompt, common) for s in seen)
        return held or jaccard(prompt(row), prompt(test)) >= contamination or (thorough and dressed(row, test))

    def dressed(row: Example, test: Example) -> bool:
        """Tell whether a row has the letters of a test prompt, or holds them, or all but a word."""
        same = letters(row) == letters(test) != "" and all(letters(s) != letters(test) for s in seen)
        told = len(plain(test.prompt).words) >= 3 and not usual.issuperset(plain(test.prompt).words)
        within = told and spells(row, test) and not any(spells(s, test) for s in seen)
        others = (*seen, *(other for other in tests if other is not test))
        near = but_for_one(row, test, usual) and not any(
            but_for_one(s, test, usual) or templated(s, test, usual) for s in others
        )
        return same or within or near

    survivors: list[Example] = []
    for row in rows:
        fresh = all(
            row.prompt_id != other.prompt_id and jaccard(pair(row), pair(other)) < duplicate
            for other in (*seen, *survivors)
        )
        if fresh and not any(leaks(row, test) for test in tests):
            survivors.append(row)
    assert list(found.kept) == survivors
    assert len(found.kept) + len(found.removed) == len(rows)
    assert [removal.row for removal in found.removed] == sorted({removal.row for removal in found.removed})


@given(TEXTS, TEXTS, TEXTS, st.integers(1, 4), st.sampled_from(list(DuplicateText)))
@settings(max_examples=100, deadline=None)
def test_rows_that_come_in_rounds_are_curated_as_if_they_came_at_once(
    new: list[str], known: list[str], held_out: list[str], size: int, text: DuplicateText
) -> None:
    config = Curation(duplicate_jaccard=0.5, contamination_jaccard=0.4, duplicate_text=text)
    rows, seen, tests = ([example(text) for text in texts] for texts in (new, known, held_out))
    curator, found = Curator(known=seen, held_out=tests, config=config), Curated()
    for begin in range(0, len(rows), size):
        found += curator.take(rows[begin : begin + size])
    assert found == curated(rows, seen, tests, config)
    assert {removal.reason for removal in found.removed} <= {reason.name for reason in REASONS}


def test_order_is_kept_and_the_first_of_a_group_survives() -> None:
    new = [example(text) for text in ("z one", numbered(0, 30), "a two", numbered(0, 29), numbered(1, 30), "m three")]
    found = curated(new)
    assert list(found.kept) == [new[0], new[1], new[2], new[5]]
    assert [(removal.row, removal.reason, removal.match) for removal in found.removed] == [
        (3, "duplicate", new[1].prompt_id),
        (4, "duplicate", new[1].prompt_id),
    ]


def test_a_removed_row_takes_no_other_with_it() -> None:
    config = Curation(duplicate_jaccard=0.75, contamination_jaccard=0.8)
    chain = [example(numbered(n, n + 12), "r") for n in range(4)]  # each one is like the next and like no other
    found = curated(chain, config=config)
    assert list(found.kept) == [chain[0], chain[2]]
    assert [removal.match for removal in found.removed] == [chain[0].prompt_id, chain[2].prompt_id]


def test_the_same_prompt_with_another_response_is_a_duplicate() -> None:
    known, new = example("the prompt", "one response"), example("the  prompt", "something quite different")
    assert curated([new], [known]).removed == (Removal(0, new.prompt_id, "duplicate", known.prompt_id, 1.0),)
    other = example("the prompt", "and a third")
    assert curated([new, other]).kept == (new,)


def test_rows_trained_on_already_are_not_taken_again() -> None:
    known = [example(numbered(0, 40), "same response")]
    found = curated([example(numbered(0, 39) + " new", "same response")], known)
    assert found.kept == ()
    assert found.removed[0].match == known[0].prompt_id
    assert found.removed[0].similarity == pytest.approx(80 / 84, abs=1e-4)  # 41 words and 39 pairs, of 43 and 41


def test_contamination_is_by_prompt_whatever_the_response_says() -> None:
    held_out = [example("something else entirely"), example(numbered(0, 10), "the true response")]
    leak = example(numbered(0, 9), "nothing like the response of the test row at all")
    found = curated([leak], held_out=held_out)
    assert found.kept == ()
    assert found.removed == (Removal(0, leak.prompt_id, "contamination", held_out[1].prompt_id, 0.8947),)  # 17 of 19


def test_the_closest_held_out_prompt_is_the_one_that_is_logged() -> None:
    held_out = [example(numbered(0, 9)), example(numbered(0, 10))]
    (removal,) = curated([example(numbered(0, 10))], held_out=held_out).removed
    assert (removal.match, removal.similarity) == (held_out[1].prompt_id, 1.0)


def test_just_below_a_threshold_survives_and_just_at_it_does_not() -> None:
    held_out = [example(numbered(0, 10))]
    assert curated([example(numbered(0, 8))], held_out=held_out).kept == ()  # 8 of 10 words
    assert len(curated([example(numbered(0, 7))], held_out=held_out).kept) == 1


def test_nothing_of_dev_or_test_survives_in_whatever_case_or_spacing() -> None:
    held_out = [
        example(f"Please fix the {thing} of order number {n}!") for n, thing in enumerate(("bill", "map", "door"))
    ]
    copies = [
        example(variant(e.prompt)) for e in held_out for variant in (str, str.upper, lambda t: t.replace(" ", "\n "))
    ]
    found = curated(copies, held_out=held_out)
    assert found.kept == ()
    assert {removal.reason for removal in found.removed} == {"contamination"}
    assert {removal.match for removal in found.removed} == {row.prompt_id for row in held_out}


def test_words_of_any_script_and_single_signs_count() -> None:
    held_out = [example("東京の天気は晴れですか")]
    assert curated([example("東京の天気は晴れですか?")], held_out=held_out).kept == ()
    other = example("大阪の料理は好きですか")
    assert curated([other], held_out=held_out).kept == (other,)


def test_order_matters() -> None:
    asked = [example("Is A taller than B?", "yes"), example("Is B taller than A?", "no")]
    assert curated(asked).kept == tuple(asked)
    assert curated(asked[1:], held_out=asked[:1]).kept == (asked[1],)


def conversation(*texts: str, system: str | None = None, response: str = "Done.") -> Example:
    """Return a pair whose prompt has turns of the user and the assistant in turn."""
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    messages = (*([{"role": "system", "content": system}] if system else []), *turns)
    return Example(prompt_id(messages), messages, response)


def test_all_turns_count_and_not_the_last_alone() -> None:
    held_out = [conversation("Cancel my order", "Shall I send the money back?", "Yes, please do that.")]
    other = conversation("What is a hinge?", "Do you want a picture?", "Yes, please do that.")
    assert curated([other], [held_out[0]]).kept == (other,)
    assert curated([other], held_out=held_out).kept == (other,)
    same = conversation("Cancel my order!", "Shall I send the money back?", "Yes, please, do that.")
    assert curated([same], held_out=held_out).kept == ()


def test_a_system_prompt_common_to_all_makes_nothing_alike() -> None:
    rows = [conversation(numbered(n * 9, n * 9 + 5), system=numbered(1000, 1100)) for n in range(30)]
    found = curated(rows[20:], rows[:10], rows[10:20])
    assert list(found.kept) == rows[20:]


INSTRUCTION = " ".join(f"rule{n}" for n in range(200))


def tickets(first: int, last: int, response: str = "billing") -> list[Example]:
    """Return rows of six words of their own behind an instruction of 200, which all share."""
    prompts = (f"{INSTRUCTION}\n\n{numbered(n * 20, n * 20 + 6)}" for n in range(first, last))
    return [example(prompt, response) for prompt in prompts]


def test_a_fixed_instruction_takes_no_rows_and_hides_no_leak() -> None:
    known, held_out, new = tickets(0, 60), tickets(60, 100), tickets(100, 599)
    leak = example(held_out[7].prompt + ", please", "billing")
    found = curated([*new[:200], leak, *new[200:]], known, held_out)
    assert len(found.kept) >= 495
    assert [(removal.row, removal.match) for removal in found.removed] == [(200, held_out[7].prompt_id)]


def test_a_leak_under_another_instruction_is_found() -> None:
    known, held_out = tickets(0, 60), tickets(60, 100)
    leak = example("I have got a ticket that says: " + held_out[7].prompt.removeprefix(INSTRUCTION).strip())
    assert [removal.match for removal in curated([leak], known, held_out).removed] == [held_out[7].prompt_id]


def test_prompts_of_shared_words_alone_match_no_others() -> None:
    known, held_out = tickets(0, 10), [*tickets(10, 20), example(INSTRUCTION)]
    assert len(curated(tickets(20, 40), known, held_out).kept) == 20
    assert curated([example(INSTRUCTION.upper())], known, held_out).kept == ()


@pytest.mark.parametrize("task", TASKS)
def test_different_pocket_tickets_survive(task: str) -> None:
    rows = [example(prompt, response) for prompt, response in make_pairs(task, 1192, seed=5)]
    found = curated(rows[192:], rows[:64], rows[64:192], Curation())
    assert len(found.kept) >= 995


class TestWhatHoldsAHeldOutText:
    LONG = "Where in Lima can I buy the blue shoes that I saw on Monday in the shop next to the old station?"

    def removed(self, new: Example, held_out: Example, known: list[Example] | None = None) -> list[tuple[str, float]]:
        found = curated([new], known, [example("Another prompt of dev."), held_out])
        assert all(removal.match == held_out.prompt_id for removal in found.removed)
        return [(removal.reason, removal.similarity) for removal in found.removed]

    @pytest.mark.parametrize(
        "leak",
        [
            example(f"{numbered(0, 60)}. {LONG} {numbered(60, 90)}"),
            example(f"Translate this: {LONG.lower()} And then tell me how far it is from here, since I am on foot."),
            example("Write me ten questions that a tourist might ask.", f"{numbered(0, 40)}\n{LONG}"),
            conversation(LONG, "In the old town.", "And what is the way to this shop, if I come by the night bus?"),
        ],
        ids=["between other words", "in another case", "in a response", "in an earlier turn"],
    )
    def test_a_prompt_within_a_longer_text_is_found(self, leak: Example) -> None:
        assert self.removed(leak, example(self.LONG)) == [("contamination", 1.0)]

    def test_most_of_it_is_enough_and_a_part_is_not(self) -> None:
        cut = self.LONG.split()
        most = example(f"{numbered(0, 60)} {' '.join(cut[:18])} {numbered(60, 90)}")
        assert self.removed(most, example(self.LONG)) == [("contamination", 0.8182)]  # 18 of 22 words
        part = example(f"{numbered(0, 60)} {' '.join(cut[:12])} {numbered(60, 90)}")
        assert self.removed(part, example(self.LONG)) == []

    @pytest.mark.parametrize("short", ["Who wrote Faust?", "¿Quién escribió Fausto?", "谁写了浮士德？"])  # noqa: RUF001
    def test_a_short_prompt_has_to_be_there_word_for_word(self, short: str) -> None:
        longer = example(f"Please answer in one word, and in capital letters, without a sign: {short} Thank you, Ann.")
        assert self.removed(longer, example(short)) == [("contamination", 1.0)]
        other = example(longer.prompt.replace("Faust", "Hamlet").replace("Fausto", "Don").replace("浮士德", "哈姆雷"))
        assert self.removed(other, example(short)) == []

    @pytest.mark.parametrize("short", ["Hello", "Thank you", "yes?!", "?"])
    def test_one_or_two_words_are_not_enough(self, short: str) -> None:
        assert self.removed(example(f"{short} {numbered(0, 20)}, thank you"), example(short)) == []

    @pytest.mark.parametrize("response", ["billing", "I don't know.", "not enough information is given there"])
    def test_a_short_response_is_no_leak(self, response: str) -> None:
        new = example(numbered(0, 20), response)
        assert self.removed(new, example(self.LONG, response)) == []
        assert (
            self.removed(example(f"{numbered(0, 9)} {response} {numbered(9, 20)}"), example(self.LONG, response)) == []
        )

    def test_a_long_response_is_found_in_responses_and_prompts(self) -> None:
        response = "You find them in the second street behind the market, where the old cinema was."
        held_out = example(self.LONG, response)
        assert self.removed(example(numbered(0, 20), f"{numbered(30, 40)} {response}"), held_out) != []
        assert self.removed(example(f"{numbered(0, 20)} {response}"), held_out) != []

    def test_what_training_rows_hold_anyway_tells_nothing(self) -> None:
        boilerplate = "I am sorry, but I can not help you with a question of this kind, please call us."
        held_out = example(self.LONG, boilerplate)
        new = example(numbered(0, 20), boilerplate)
        assert self.removed(new, held_out) != []
        assert self.removed(new, held_out, [example(numbered(50, 70), boilerplate)]) == []
        short = example("Who wrote Faust?")
        within = "This is a list of questions: Who wrote Faust? Who wrote Hamlet?"
        assert self.removed(example(f"{numbered(0, 20)} {short.prompt}"), short, [example(within)]) == []

    def test_a_pool_of_synthetic_rows_hides_nothing(self) -> None:
        pool = [example(f"{numbered(100, 160)} {self.LONG}", generator="teacher")]
        assert self.removed(example(f"{numbered(0, 60)} {self.LONG}"), example(self.LONG), pool) != []


def test_the_paper_compares_responses_and_asks_rouge_l_to_confirm() -> None:
    config = Curation(DuplicateText.response, 0.9, 0.7, 0.8)
    first = example("first prompt", numbered(0, 20))
    same_words_reversed = example("second prompt", " ".join(reversed(numbered(0, 20).split())))
    same_words = example("third prompt", numbered(0, 20))
    found = curated([first, same_words_reversed, same_words], config=config)
    assert list(found.kept) == [first, same_words_reversed]
    assert found.removed == (Removal(2, same_words.prompt_id, "duplicate", first.prompt_id, 1.0),)
    without = Curation(DuplicateText.response, 0.9, None, 0.8)
    assert list(curated([first, same_words_reversed, same_words], config=without).kept) == [first]


def test_prompts_do_not_make_duplicates_where_responses_are_compared() -> None:
    config = Curation(DuplicateText.response, 0.9, None, 0.8)
    rows = [example(f"{numbered(0, 30)} {n}", f"response of its own {n}") for n in range(4)]
    assert len(curated(rows, config=config).kept) == 4


def test_nothing_new_is_nothing_removed() -> None:
    assert curated([], [example("a")], [example("b")]) == Curated((), ())
