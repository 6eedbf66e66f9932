"""Whole runs, killed, ended, stopped and gone on with: nothing is lost, changed or paid for twice.

A handful of kills, with quick stand-ins for training and answering; `benchmarks/kills.py` makes hundreds, of real runs.
"""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Iterator

import pytest
from killing import MUTANTS, Kill, Runs, caught, spread_out, stand, warm_up

POINTS = 6
TRIES = 12


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMADUO_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("OPENAI_API_KEY", raising=False)
        warm_up(quick=True)
        with stand(tmp_path_factory.mktemp("runs"), quick=True, latency_s=0.02) as made:
            yield made


def test_undisturbed_runs_agree(runs: Runs) -> None:
    found = runs.series([])
    assert not found.violations
    assert found.bought == len(runs.expected.bodies) > 30
    assert found.again == 0


def test_killed_at_points_and_resumed(runs: Runs) -> None:
    deaths = 0
    for point in itertools.islice(spread_out(runs.expected.points), POINTS):
        found = runs.series([Kill(point=point), Kill(point=1 + point % 40)])
        assert not found.violations
        deaths += len(found.deaths)
    assert deaths > POINTS


def test_killed_at_random_moments_and_resumed(runs: Runs) -> None:
    rng = random.Random(1)
    for _ in range(2):
        kills = [Kill(after_s=rng.uniform(0.1, 0.8) * runs.expected.seconds) for _ in range(4)]
        assert not runs.series(kills).violations


@pytest.mark.parametrize("by", [signal.SIGHUP, signal.SIGTERM])
def test_ended_in_peace_and_resumed_nothing_is_bought_again(by: signal.Signals, runs: Runs) -> None:
    found = runs.series([Kill(point=60, by=by), Kill(calls=5, by=by), Kill(after_s=0.3, by=by)])
    assert not found.violations
    assert found.deaths
    assert found.in_flight == found.again == 0


@pytest.mark.parametrize("then", [signal.SIGKILL, signal.SIGCONT])
def test_stopped_it_keeps_its_run_and_no_slot_and_goes_on(then: signal.Signals, runs: Runs) -> None:
    found = runs.series([Kill(point=60, by=signal.SIGTSTP, then=then)])  # while the first calls are in flight
    assert not found.violations
    assert len(found.deaths) + len(found.continued) == 1
    assert found.again <= found.in_flight


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str, runs: Runs) -> None:
    tries, violations = caught(runs, MUTANTS[name], TRIES)
    assert violations, f"{name}: nothing found in {tries} killed runs"
