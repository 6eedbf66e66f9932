"""Bold type: the claims of a table stand together, and no table claims more than its error allows."""

from __future__ import annotations

import numpy as np
import pytest

from llamaduo.evidence.compare import ByPrompt, by_prompt
from llamaduo.studies.tables import cells
from llamaduo.studies.tables.cells import Candidates, best, told_n

PROMPTS, SAMPLES = 20, 2
IDS = np.repeat([f"p{number:03d}" for number in range(PROMPTS)], SAMPLES)


def model(rng: np.random.Generator, hard: np.ndarray, gain: float = 0.0) -> ByPrompt:
    answers = np.repeat(hard + rng.normal(gain, 6, PROMPTS), SAMPLES) + rng.normal(0, 8, len(IDS))
    return by_prompt(IDS, np.clip(answers, 0, 100))


def table(rng: np.random.Generator, *, columns: int, models: int, gain: float = 0.0) -> dict[int, Candidates]:
    """Draw a table whose last model is `gain` points better than the others, which are equal."""
    made: dict[int, Candidates] = {}
    for column in range(columns):
        hard = rng.normal(70, 12, PROMPTS)
        found = [model(rng, hard, gain if at == models - 1 else 0.0) for at in range(models)]
        made[column] = [(float(one.sums.sum()) / one.n, one) for one in found]
    return made


def tables_with_bold(*, columns: int, models: int, times: int = 100) -> float:
    rng = np.random.default_rng(7)
    return sum(bool(best(table(rng, columns=columns, models=models))) for _ in range(times)) / times


@pytest.mark.parametrize(("columns", "models"), [(10, 2), (1, 20), (4, 5)])
def test_twenty_equal_models_give_a_bold_field_in_few_tables(columns: int, models: int) -> None:
    assert tables_with_bold(columns=columns, models=models) <= 0.1  # 5% and what 100 tables scatter


def test_without_holm_a_third_of_tables_would_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "holm", lambda chances: [chance <= 0.05 for chance in chances])
    assert tables_with_bold(columns=10, models=2) > 0.25


def test_a_better_model_is_bold_in_every_column() -> None:
    found = best(table(np.random.default_rng(3), columns=6, models=3, gain=25.0))
    assert found == dict.fromkeys(range(6), 2)


def test_the_claim_is_as_sure_as_its_least_sure_comparison() -> None:
    """Far better than one of two models and equal to the other: best of neither."""
    rng = np.random.default_rng(5)
    hard = rng.normal(70, 12, PROMPTS)
    found = [model(rng, hard, gain) for gain in (-30.0, 0.0, 0.0)]
    assert best({0: [(float(one.sums.sum()) / one.n, one) for one in found]}) == {}


def test_without_scores_or_a_second_model_nothing_is_claimed() -> None:
    one = model(np.random.default_rng(1), np.full(PROMPTS, 70.0))
    assert best({0: [(70.0, one)], 1: [(70.0, one), (20.0, None)], 2: [(70.0, None), (20.0, one)], 3: []}) == {}


def test_n_is_prompts_and_answers() -> None:
    assert told_n(128, 32) == "n = 32 prompts, 128 answers"
    assert told_n(1, 1) == "n = 1 prompt, 1 answer"
