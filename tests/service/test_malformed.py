"""Thousands of malformed and hostile replies: no exception, no wrong score, no silent zero.

What a reply says is decided by a second, slow reader (`slow_reader.py`); `audit` holds a reader to it, case by case
(`malformed.py`). Broken readers of the kinds that are met in the wild are kept here: each reads valid replies
right, and the audit has to catch every one of them.
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from asking import LLM, Open, silent
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed import NAUGHTY, NOT_STOP, Case, corpus, edited, lists, storable, valid
from sample_records import prediction
from slow_reader import Number, Pair, Said, exactly, slow_items, slow_pair, slow_scores, whole_pairs

from llamaduo.config import Judge
from llamaduo.records import UNSCORED_REASONS
from llamaduo.service import last_value, replies
from llamaduo.service.replies import Scores, UnreadableError, read_pairs, read_scores
from llamaduo.stages.judge import judge

Read = Callable[[str, str], Scores]
ZERO = re.compile(r"(?<![\d.])0(\.0+)?(?![\d.])")


def audit(read: Read, judged: Iterable[tuple[Case, Said | None]]) -> Counter[str]:
    """Hold a reader to what replies say; returns how often each reason came up."""
    reasons: Counter[str] = Counter()
    for case, said in judged:
        shown = case.kind, case.text[:300], case.finish_reason
        found, reason = outcome(read, case)
        assert reason is None or reason in UNSCORED_REASONS, (*shown, reason)
        assert found == said, shown
        assert 0 not in (found or ()) or ZERO.search(case.text), shown
        reasons.update([reason] if reason else [])
    return reasons


def outcome(read: Read, case: Case) -> tuple[Said | None, str | None]:
    """Return the scores that a reader finds, or its reason; no other exception and no odd words are let through."""
    try:
        found = read(case.text, case.finish_reason)
        json.dumps(found.reasons, ensure_ascii=False).encode()
        return (found.similarity, found.precision), None
    except UnreadableError as error:
        return None, error.reason
    except Exception as error:
        raise AssertionError(case.text[:300]) from error


def of_valid() -> list[tuple[Case, Said | None]]:
    return [(Case("valid", text), slow_scores(text, "stop")) for text in valid()]


def test_the_second_reader_agrees_with_what_valid_replies_were_made_of() -> None:
    assert len(set(valid())) == 50
    assert all(slow_scores(text, "stop") for text in valid())
    assert slow_scores('{"similarity": {"score": 88}, "precision": 92.5}', "stop") == (88.0, 92.5)
    assert slow_scores('```json\n{"precision_assessment": {"score": 1e2}, "similarity": 0}\n```', "stop") == (
        0.0,
        100.0,
    )


@pytest.mark.parametrize(
    "literal", ["0", "-0.0", "100", "1e2", "0.1", "33.333333333333333333", "5e-324", "99.9999999999"]
)
def test_the_second_reader_finds_the_nearest_float(literal: str) -> None:
    assert exactly(Number(literal)) == float(literal)


def test_no_malformed_reply_has_a_score() -> None:
    malformed = [case for case, said in corpus() if said is None]
    kinds = Counter(case.kind for case in malformed)
    assert len(malformed) >= 2_000
    assert kinds["prefix"] >= 2_000
    assert min(kinds.values()) >= 1
    assert {case.kind for case, said in corpus() if said} >= {"edited", "naughty", "number", "fragment", "deep", "long"}
    reasons = audit(read_scores, corpus())
    assert sum(reasons.values()) == len(malformed)
    assert set(reasons) == set(UNSCORED_REASONS) - {"prompt_too_long"}


def test_valid_replies_have_their_scores() -> None:
    assert audit(read_scores, of_valid()) == {}


TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-20, 120) | st.floats() | st.sampled_from(NAUGHTY) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["similarity", "precision", "score", "similarity_assessment"]), inner)
        | st.fixed_dictionaries({"similarity": inner, "precision": inner})
        | st.fixed_dictionaries({"score": inner, "reason": inner})
    ),
    max_leaves=8,
)


def nearly(texts: Sequence[str], *signs: str) -> st.SearchStrategy[str]:
    """Return texts of which up to three signs are gone, and another one or other text stands there."""
    return st.builds(
        lambda text, at, cut, new: text[: at % len(text)] + new + text[at % len(text) + cut :],
        *(st.sampled_from(texts), st.integers(0, 10_000), st.integers(0, 3)),
        st.sampled_from(['"', "{", "}", ",", ":", "```", "\\", "null", "", *signs]) | st.text(max_size=2),
    )


FINISH = st.sampled_from(["stop"] * 9 + NOT_STOP)
TEXTS = {
    "text": st.text(),
    "signs of JSON": st.text(alphabet='{}[]",:`\\ \nsimlartypecon_0123456789.eE+-NaInfty', max_size=200),
    "trees": TREES.map(json.dumps),
    "trees behind a fence": TREES.map(lambda tree: f"```json\n{json.dumps(tree, ensure_ascii=False)}\n```"),
    "nearly valid": nearly(valid(), "0", "9", "-", ".", "e", "NaN", "", "\n"),
}


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_whatever_comes_is_read_as_the_second_reader_does(texts: st.SearchStrategy[str]) -> None:
    @settings(max_examples=250, deadline=None)
    @given(texts, FINISH)
    def holds(text: str, finish_reason: str) -> None:
        audit(read_scores, [(Case("found", text, finish_reason), slow_scores(text, finish_reason))])

    holds()


# Broken readers, which the audit has to catch ----------------------------------------------------------------------

NUMBER = replies._number
Broken = Callable[[pytest.MonkeyPatch], Read]


def exchange(monkeypatch: pytest.MonkeyPatch, changed: Mapping[str, Any]) -> None:
    """Exchange some of the reader's functions, wherever they are."""
    for name, part in changed.items():
        monkeypatch.setattr(replies if hasattr(replies, name) else last_value, name, part)


def parts(**changed: Any) -> Broken:
    """Return the reader with some of its functions exchanged."""

    def broken(monkeypatch: pytest.MonkeyPatch) -> Read:
        exchange(monkeypatch, changed)
        return read_scores

    return broken


def number(lenient: Callable[[Any], Any]) -> Broken:
    """Return the reader with another idea of what a number is."""
    return parts(_number=lambda value: NUMBER(lenient(value)))


def else_zero(*reasons: str) -> Broken:
    """Return the reader that turns some reasons into zeros."""

    def read(text: str, finish_reason: str) -> Scores:
        try:
            return read_scores(text, finish_reason)
        except UnreadableError as error:
            if error.reason not in reasons:
                raise
            return Scores(0.0, 0.0)

    return lambda _: read


def or_else(mend: Callable[[str], Any]) -> Broken:
    """Return the reader that mends what it can't read, and reads that: a text, or a tree."""

    def read(text: str, finish_reason: str) -> Scores:
        try:
            return read_scores(text, finish_reason)
        except UnreadableError:
            with suppress(Exception):
                mended = mend(text)
                return read_scores(mended if isinstance(mended, str) else json.dumps(mended), finish_reason)
            raise

    return lambda _: read


def closed(text: str) -> str:
    """Return a cut text with its strings and brackets closed, as repairers do."""
    waiting, quoted = [], False
    for before, sign in zip(" " + text, text, strict=False):
        if sign == '"' and before != "\\":
            quoted = not quoted
        elif not quoted and sign in "{[":
            waiting.append("}" if sign == "{" else "]")
        elif not quoted and sign in "}]" and waiting:
            waiting.pop()
    return text.rstrip(" ,\n") + '"' * quoted + "".join(reversed(waiting))


def by_pattern(text: str) -> Any:
    return {name: float(re.findall(rf"{name}\D*?([\d.]+)", text)[0]) for name in ("similarity", "precision")}


def any_two_numbers(text: str) -> Any:
    first, second = re.findall(r"\d+(?:\.\d+)?", text)[:2]
    return {"similarity": float(first), "precision": float(second)}


def first_name(text: str) -> Any:
    tree = json.loads(text)
    return {name: tree.get(name, tree.get(f"{name}_assessment")) for name in ("similarity", "precision")}


def first(text: str) -> Any:
    (value,) = json.loads(text).values()
    return value


def clamped(value: Any) -> Any:
    return min(max(value, Decimal(0)), Decimal(100)) if isinstance(value, Decimal) and value.is_finite() else value


def lenient_float(value: Any) -> float:
    return value if isinstance(value, float) else NUMBER(value)


def rounded(value: Any) -> float:
    if not isinstance(value, float):
        raise UnreadableError("not_a_number")
    if not 0 <= value <= 100:
        raise UnreadableError("out_of_range")
    return value


def reason_of_its_own(text: str, finish_reason: str) -> Scores:
    try:
        return read_scores(text, finish_reason)
    except UnreadableError:
        raise UnreadableError("could not parse") from None


def unguarded(text: str) -> Any:
    inner = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)```\s*", text, re.DOTALL | re.IGNORECASE)
    return json.loads(inner[1] if inner else text, parse_int=Decimal, parse_float=Decimal)


def raw_words(text: str, finish_reason: str) -> Scores:
    found = read_scores(text, finish_reason)
    words = {name: part.get("reason") for name, part in unguarded(text).items() if isinstance(part, dict)}
    return Scores(
        found.similarity, found.precision, {name: word for name, word in words.items() if isinstance(word, str)}
    )


def only_truncation(text: str, finish_reason: str) -> Scores:
    return read_scores(text, "length" if finish_reason == "length" else "stop")


BROKEN: dict[str, Broken] = {
    "a reply without a score is 0": else_zero("missing_score"),
    "a score that is missing is 0": or_else(lambda text: {"similarity": 0, "precision": 0} | json.loads(text)),
    "a score that is missing is like the other": or_else(lambda text: json.loads(text) | {"precision": first(text)}),
    "what is unreadable is 0": else_zero("not_json"),
    "what is out of range is 0": else_zero("out_of_range"),
    "no reply, a refusal and an empty reply are 0": else_zero("no_reply", "refused", "empty"),
    "null is 0": number(lambda value: Decimal(0) if value is None else value),
    "true is 1": number(lambda value: Decimal(int(value)) if isinstance(value, bool) else value),
    "text that looks like a number is one": number(lambda v: Decimal(v) if isinstance(v, str) and v.isdecimal() else v),
    "a list of one is its item": number(lambda v: v[0] if isinstance(v, list) and len(v) == 1 else v),
    "NaN and infinity are numbers": parts(_no_constant=float, _number=lenient_float),
    "clamped to the scale": number(clamped),
    "rounded before the range is checked": parts(_decimal=float, _number=rounded),
    "of two equal keys the last counts": parts(_no_duplicates=dict),
    "of two names the first counts": or_else(first_name),
    "as deep as the stack allows": parts(_too_deep=lambda tree: False),
    "as long as it likes": parts(LARGEST_REPLY=10**9),
    "other exceptions come through": parts(_object=unguarded),
    "a reason of its own": lambda _: reason_of_its_own,
    "finish_reason ignored": lambda _: lambda text, _: read_scores(text, "stop"),
    "of finish reasons only length counts": lambda _: only_truncation,
    "what is cut is closed": or_else(closed),
    "the number behind each name, by a pattern": or_else(by_pattern),
    "the first two numbers": or_else(any_two_numbers),
    "the object at the beginning, whatever follows": or_else(lambda text: json.JSONDecoder().raw_decode(text)[0]),
    "an object looked for in prose": or_else(lambda text: text[text.index("{") : text.rindex("}") + 1]),
    "the last of several objects": or_else(lambda text: text[text.rindex('{"similarity"') :]),
    "the scores of an object within": or_else(lambda text: next(iter(json.loads(text).values()))),
    "the object in a list": or_else(lambda text: json.loads(text)[0]),
    "Python for JSON": or_else(lambda text: ast.literal_eval(text[:1000])),
    "single quotes for double ones": or_else(lambda text: text.replace("'", '"')),
    "commas too many": or_else(lambda text: re.sub(r",\s*([,}\]])", r"\1", text)),
    "comments left out": or_else(lambda text: re.sub(r"//.*|/\*.*?\*/", "", text)),
    "percent signs and fractions": or_else(lambda text: re.sub(r"(\d)\s*(%|/\s*100|points)", r"\1", text)),
    "keys in any case": or_else(str.lower),
    "other names for the scores": or_else(lambda text: text.replace("_score", "")),
    "odd white space and marks left out": or_else(lambda text: text.strip("\ufeff\u00a0\u3000\0\v\f\x1a")),
    "any language on a fence": or_else(lambda text: re.sub(r"```\s*\w*", "", text)),
    "words that can't be stored": lambda _: raw_words,
    "control characters in strings": or_else(lambda text: json.loads(text, strict=False)),
    "leading zeros and plus signs": or_else(lambda text: re.sub(r"([:\s])[+0]+(\d)", r"\1\2", text)),
}


@pytest.mark.filterwarnings("ignore")  # of Python that a broken reader takes replies for
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_the_audit_catches_a_broken_reader(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = corpus()
    read = broken(monkeypatch)
    audit(read, of_valid())  # it is right about these: only malformed replies give it away
    with pytest.raises(AssertionError):
        audit(read, judged)


# Through the stage -------------------------------------------------------------------------------------------------


def test_the_stage_gives_malformed_replies_no_score(llm: LLM, open_service: Open) -> None:
    rng = random.Random(3)
    by_kind: dict[str, list[str]] = {}
    for case, said in corpus():
        if said is None and case.finish_reason == "stop" and storable(case.text) and len(case.text) < 200_000:
            by_kind.setdefault(case.kind, []).append(case.text)
    bad = [text for kind in by_kind.values() for text in rng.sample(kind, min(8, len(kind)))] + ["", " \n", "\0"]
    told = [*bad, *valid()[:10]]
    assert len(bad) >= 60

    def program(prompt: str, _: Mapping[str, Any]) -> str:
        (number,) = re.findall(r"the answer no\. (\d+)!", prompt)
        return told[int(number)]

    answers = [prediction(f"question {number}", f"the answer no. {number}!") for number in range(len(told))]
    config = Judge(panel={"j": llm(program, max_tokens=100_000)}, reasks=0)
    verdicts = judge(answers, config=config, service=open_service(), progress=silent)
    for verdict in verdicts[: len(bad)]:
        assert (verdict.similarity, verdict.precision, verdict.reasons) == (None, None, {})
        assert verdict.unscored in UNSCORED_REASONS
    for text, verdict in zip(valid(), verdicts[len(bad) :], strict=False):
        assert ((verdict.similarity, verdict.precision), verdict.unscored) == (slow_scores(text, "stop"), None)


# Lists of pairs ----------------------------------------------------------------------------------------------------

ReadPairs = Callable[[str, str], tuple[list[Pair], int]]
NOTHING = ("content_filter", "refusal", "no_choices", "no_content")


class Reply(NamedTuple):
    """A synthesis reply and, where it is known for sure, what it brings."""

    text: str
    finish_reason: str = "stop"
    brings: tuple[list[Pair], int] | None = None


def synthesis_replies() -> Iterator[Reply]:
    rng = random.Random(5)
    for text, items, end in lists():
        pairs = [pair for _, pair in items if pair]
        dropped = len(items) - len(pairs)
        whole = max(text.rfind("}", 0, end), text.rfind("]", 0, end)) + 1
        for cut in range(end):
            before = [pair for at, pair in items if at <= cut]
            kept = [pair for pair in before if pair]
            broken = cut < whole or text[whole:cut].strip() not in ("", "```")
            yield Reply(text[:cut], "stop", (kept, len(before) - len(kept) + broken))
        yield from (Reply(whole, "stop", (pairs, dropped)) for whole in (text, text[:end], f" {text}\n"))
        for word in NOT_STOP:
            yield Reply(text, word, ([], 1) if word in NOTHING else (pairs, dropped + 1))
        yield from (Reply(edited(text, rng)) for _ in range(60))
        yield from (Reply(edited(text, rng), rng.choice(NOT_STOP)) for _ in range(10))
    for word in NAUGHTY:
        yield Reply(word, "stop", None if word in "[]" else ([], 1))
        yield Reply(f"{word}\n{lists()[0].text}")
        yield Reply(f"{lists()[0].text}\n{word}")
        item = json.dumps({"instruction": word, "response": "a"})
        yield Reply(f'{{"contents": [{item}]}}')
        yield Reply(f'{{"contents": [{item.replace(json.dumps(word), chr(34) + word + chr(34))}, {item}]}}')
    yield from (Reply(opening * 20_000, "stop") for opening in ("[", '{"contents": [', "{", '[{"instruction":', "[1,"))


def audit_pairs(read: ReadPairs, given: Iterable[Reply]) -> None:
    """Hold a reader of lists to it: whole pairs alone, in order, none lost out of a whole list, the rest counted."""
    for text, finish_reason, brings in given:
        shown = text[:500], finish_reason
        try:
            pairs, dropped = read(text, finish_reason)
        except Exception as error:
            raise AssertionError(shown) from error
        assert brings is None or (pairs, dropped) == brings, shown
        assert finish_reason not in NOTHING or (pairs, dropped) == ([], 1), shown
        items = slow_items(text) if finish_reason == "stop" else None
        if items is None:
            standing = iter(whole_pairs(text) if pairs else [])
            assert all(pair in standing for pair in pairs), shown
            assert dropped >= 1, shown
        else:
            assert pairs == [pair for pair in map(slow_pair, items) if pair], shown
            assert dropped == len(items) - len(pairs), shown


def test_only_whole_pairs_are_taken_and_the_rest_is_counted() -> None:
    given = list(dict.fromkeys((text, word) for text, word, _ in synthesis_replies()))
    assert len(given) >= 2_000
    audit_pairs(read_pairs, synthesis_replies())


@settings(max_examples=250, deadline=None)
@given(nearly([listed.text for listed in lists()], "[", "]", '"contents": [') | st.text(), FINISH)
def test_whatever_comes_brings_whole_pairs_or_none(text: str, finish_reason: str) -> None:
    audit_pairs(read_pairs, [Reply(text, finish_reason)])


PAIR = replies._pair
BrokenPairs = Callable[[pytest.MonkeyPatch], ReadPairs]


def other(**changed: Any) -> BrokenPairs:
    """Return the reader of lists with some of its functions exchanged."""

    def broken(monkeypatch: pytest.MonkeyPatch) -> ReadPairs:
        exchange(monkeypatch, changed)
        return read_pairs

    return broken


def filled(item: Any) -> Pair | None:
    return PAIR({"response": "(none)", **item}) if isinstance(item, dict) else None


def as_text(item: Any) -> Pair | None:
    return PAIR({key: str(value) for key, value in item.items()}) if isinstance(item, dict) else None


def blank_too(item: Any) -> Pair | None:
    texts = [item.get(key) for key in ("instruction", "response")] if isinstance(item, dict) else [None]
    return (texts[0], texts[1]) if all(isinstance(text, str) for text in texts) else None


def unrecounted(text: str, finish_reason: str) -> tuple[list[Pair], int]:
    return read_pairs(text, finish_reason)[0], 0


def whole_or_nothing(text: str, finish_reason: str) -> tuple[list[Pair], int]:
    pairs, dropped = read_pairs(text, finish_reason)
    return ([], 1) if slow_items(text) is None else (pairs, dropped)


def cut_item_closed(text: str, finish_reason: str) -> tuple[list[Pair], int]:
    return read_pairs(text if slow_items(text) is not None else closed(text), finish_reason)


def by_words(text: str, finish_reason: str) -> tuple[list[Pair], int]:
    found = re.findall(r'"instruction": ("(?:[^"\\]|\\.)*"), "response": ("(?:[^"\\]|\\.)*")', text)
    pairs, dropped = read_pairs(text, finish_reason)
    return ([(json.loads(a), json.loads(b)) for a, b in found], dropped) if dropped else (pairs, dropped)


BROKEN_PAIRS: dict[str, BrokenPairs] = {
    "a missing response is made up": other(_pair=filled),
    "whatever is no text becomes one": other(_pair=as_text),
    "blank texts count": other(_pair=blank_too),
    "of two equal keys the last counts": other(_no_duplicates=dict),
    "NaN is let through": other(_no_constant=float),
    "what is dropped is not counted": lambda _: unrecounted,
    "finish_reason ignored": lambda _: lambda text, _: read_pairs(text, "stop"),
    "a refused reply has pairs": lambda _: lambda text, word: read_pairs(text, "length" if word in NOTHING else word),
    "a cut list has no pair": lambda _: whole_or_nothing,
    "the cut item is closed": lambda _: cut_item_closed,
    "pairs by a pattern": lambda _: by_words,
    "exceptions come through": other(_items_before_the_break=json.loads),
}


@pytest.mark.parametrize("broken", BROKEN_PAIRS.values(), ids=BROKEN_PAIRS)
def test_the_audit_catches_a_broken_reader_of_lists(broken: BrokenPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"contents": [{"instruction": "q", "response": "a"}, {"instruction": "p", "response": "b", "n": 1}]}
    read = broken(monkeypatch)
    audit_pairs(read, [Reply(json.dumps(good), "stop", ([("q", "a"), ("p", "b")], 0))])
    with pytest.raises(AssertionError):
        audit_pairs(read, synthesis_replies())
