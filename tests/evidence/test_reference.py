"""Metrics of closeness: identical texts score 100 in every script, texts with nothing in common about 0."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaduo.evidence.reference import METRICS, chrf, rouge_l

Metric = Callable[[str, str], float]
TEXTS = [
    "Roma (Taveno): bako late, wants refund",
    "def bako(rimu): return rimu + 3",
    "billing",
    "日本語のテキストです。",
    "Привет, мир!",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "გამარჯობა, მსოფლიო",
    "안녕하세요 세계",
    "😀 👍🏽",
    "12.5",
    "?!",
    "a\n\n\tb  c",
]


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("text", TEXTS)
def test_identical_text_scores_100(metric: Metric, text: str) -> None:
    assert metric(text, text) == 100.0


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize(
    ("reference", "text"), [("alpha beta gamma", "xyz 123 !"), ("日本語", "мир"), ("billing", "7")]
)
def test_disjoint_text_scores_about_0(metric: Metric, reference: str, text: str) -> None:
    assert metric(reference, text) < 1.0


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_no_answer_scores_0(metric: Metric) -> None:
    assert metric("a reference", "") == 0.0
    assert metric("a reference", " \n") == 0.0


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_closer_scores_higher(metric: Metric) -> None:
    reference = "the parcel came late and the customer wants a refund"
    close = "the parcel came late and the customer wants money"
    far = "a customer called about something"
    assert 100 > metric(reference, close) > metric(reference, far) > 0


def test_rouge_l_is_an_f1_over_the_longest_common_subsequence() -> None:
    assert rouge_l("a b c d", "a c d x") == 75.0  # a, c, d of four words each
    assert rouge_l("a b c d", "d c b a") == 25.0
    assert rouge_l("a b", "a b c d") == pytest.approx(100 * 2 * 1.0 * 0.5 / 1.5, abs=1e-3)


def test_rouge_l_folds_case_and_keeps_signs() -> None:
    assert rouge_l("Billing", "billing") == 100.0
    assert rouge_l("rimu + 3", "rimu - 3") < 100.0


def test_chrf_takes_the_reference_as_the_reference() -> None:
    long, short = "the parcel came late and broken", "the parcel"
    assert chrf(long, short) < chrf(short, long)  # F2: what is missing costs more than what is too much


@given(st.text(max_size=60), st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_scores_lie_between_0_and_100(reference: str, text: str) -> None:
    for metric in METRICS.values():
        assert 0.0 <= metric(reference, text) <= 100.0
