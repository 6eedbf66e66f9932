"""Break-even: months and requests, worked out by hand and against a month-by-month count."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaduo.evidence.break_even import HOURS_A_MONTH, Migration

MOVED = Migration(
    service_spent_usd=40.0, gpu_hours=6.0, service_usd=0.002, completion_tokens=180.0, tokens_per_second=900.0,
    gpu_usd_per_hour=2.0, utilisation=0.5,
)  # fmt: skip


class TestByHand:
    def test_what_was_spent_is_replies_and_hours(self) -> None:
        assert MOVED.spent_usd == 52.0

    def test_a_request_takes_its_tokens_time_at_the_utilisation(self) -> None:
        assert MOVED.local_usd == pytest.approx(180 / 900 / 0.5 / 3600 * 2)

    def test_a_gpu_answers_so_many_requests_in_a_month(self) -> None:
        assert MOVED.capacity == pytest.approx(900 * 0.5 * 3600 * 730 / 180)

    def test_a_gpu_more_is_rented_from_the_first_request_above_the_last_ones_capacity(self) -> None:
        assert [MOVED.gpus(n) for n in (0, 1, MOVED.capacity, MOVED.capacity + 1)] == [1, 1, 1, 2]

    def test_months_are_what_was_spent_over_what_is_saved(self) -> None:
        saved = 100_000 * (0.002 - MOVED.local_usd)
        assert MOVED.months(100_000) == pytest.approx(52 / saved)
        assert MOVED.months(1_000_000, whole=True) == pytest.approx(52 / (2000 - 730 * 2))

    def test_a_whole_gpu_never_pays_under_a_load_that_costs_less_than_its_rent(self) -> None:
        assert MOVED.months(100_000) is not None
        assert MOVED.months(100_000, whole=True) is None

    @pytest.mark.parametrize("whole", [False, True])
    def test_a_service_that_is_free_is_never_beaten(self, whole: bool) -> None:
        free = replace(MOVED, service_usd=0.0)
        assert (free.months(1e9, whole=whole), free.requests(12, whole=whole)) == (None, None)

    def test_where_a_full_gpu_saves_little_several_are_needed(self) -> None:
        rent = 730 * 2.0
        close = replace(MOVED, service_usd=(rent + 10) / MOVED.capacity)
        fewest = close.requests(1, whole=True)
        assert fewest == pytest.approx((52 + 6 * rent) / close.service_usd)
        assert close.gpus(fewest) == 6
        assert close.months(fewest, whole=True) == pytest.approx(1)

    def test_no_requests_save_nothing(self) -> None:
        assert MOVED.months(0) is None


def paid_back(moved: Migration, requests: float, months: float, *, whole: bool) -> bool:
    """Return whether it has paid back by then, without a formula of the module's."""
    rate = moved.tokens_per_second * moved.utilisation * 3600
    hours = requests * moved.completion_tokens / rate
    if whole:
        hours = HOURS_A_MONTH * next(n for n in count(1) if n * HOURS_A_MONTH * (1 + 1e-9) >= hours)
    local = hours * moved.gpu_usd_per_hour
    return months * (requests * moved.service_usd - local) >= moved.spent_usd * (1 - 1e-9)


POSITIVE = st.floats(0.1, 1000)
MIGRATIONS = st.builds(
    Migration, service_spent_usd=POSITIVE, gpu_hours=POSITIVE, service_usd=st.floats(1e-5, 0.05),
    completion_tokens=st.floats(1, 500), tokens_per_second=st.floats(50, 2000), gpu_usd_per_hour=st.floats(0.1, 5),
    utilisation=st.floats(0.1, 1),
)  # fmt: skip


@given(MIGRATIONS, st.integers(1, 36), st.booleans())
def test_the_fewest_requests_pay_back_just_in_time_and_fewer_do_not(moved: Migration, months: int, whole: bool) -> None:
    fewest = moved.requests(months, whole=whole)
    if fewest is None:
        assert not any(paid_back(moved, 10.0**power, months, whole=whole) for power in range(3, 8))
    elif fewest < 50 * moved.capacity:
        assert paid_back(moved, fewest * (1 + 1e-6), months, whole=whole)
        assert not any(paid_back(moved, fewest * share, months, whole=whole) for share in (0.3, 0.6, 0.9, 0.999))


@given(MIGRATIONS, st.floats(1, 1e7), st.booleans())
def test_months_are_the_first_at_which_it_has_paid_back(moved: Migration, requests: float, whole: bool) -> None:
    months = moved.months(requests, whole=whole)
    if months is not None:
        assert paid_back(moved, requests, months * (1 + 1e-6), whole=whole)
        assert not paid_back(moved, requests, months * 0.99, whole=whole)
