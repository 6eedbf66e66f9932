"""Training noise: its table shows the scatter that was planted between seeds, and nothing where there is one seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llamaduo.evidence.compare import Repeats
from llamaduo.studies.parts import Table
from llamaduo.studies.study import read_study
from llamaduo.studies.tables.cells import Scored
from llamaduo.studies.tables.seed_tables import seed_tables, spread
from tests.made_runs import configuration, make_run


def runs(levels: dict[str, list[float]]) -> list[Table]:
    """Return the tables of a study of so many seeds, each at its level, by task."""
    known = configuration("preset=service", "judge=paper_panel", "service.replay=true", "study=s")
    for task, found in levels.items():
        for seed, level in enumerate(found):
            config = json.loads(json.dumps(known))
            config["task"]["name"], config["runtime"]["seed"] = task, seed
            folder = Path("s") / f"{task}-{seed}"
            make_run(folder, config=config, level=level, gains=(0.0,), prompts=10, repeats=1, seed=7)
    study = read_study(Path("s"))
    return list(seed_tables(study, Scored(study)))


def test_the_scatter_of_seeds_is_shown_by_setting_and_pooled() -> None:
    """The same draws at another level: means differ by what the levels differ in, as far as scores aren't cut."""
    (table,) = runs({"coding": [50.0, 54.0, 58.0], "closed_qa": [50.0, 50.0]})
    assert table.header == ("task", "model", "precision, SD", "similarity, SD", "seeds", "prompts", "n")
    shown = {row[0].text: [cell.value for cell in row[2:]] for row in table.rows}
    assert list(shown) == ["all", "closed_qa", "coding"]
    assert shown["coding"][0] == pytest.approx(4.0, abs=0.3)
    assert shown["closed_qa"][:2] == [0.0, 0.0]
    assert shown["all"][0] == pytest.approx(np.sqrt(2 * 16 / 3), abs=0.3)  # two degrees of one, one of the other
    assert [shown["coding"][2:], shown["all"][2:]] == [[3.0, 10.0, 120.0], [5.0, 20.0, 200.0]]
    low, high = (float(part) for part in table.rows[2][2].text.split("[")[1].rstrip("]").split(", "))
    assert (low / 4, high / 4) == pytest.approx((0.521, 6.285), rel=0.1)  # chi-square with 2 degrees


def test_one_seed_shows_no_training_noise() -> None:
    assert runs({"coding": [50.0], "closed_qa": [60.0]}) == []


def test_the_interval_of_a_spread_holds() -> None:
    rng, missed = np.random.default_rng(3), 0
    for _ in range(400):
        settings = [Repeats(float(np.var(rng.normal(0, 2, 4)) * 4), 3) for _ in range(3)]
        found = spread(settings)
        assert found.low is not None
        assert found.high is not None
        assert found.n == 9
        missed += not found.low <= 2.0 <= found.high
    assert missed <= 0.08 * 400


def test_without_repeats_there_is_no_spread() -> None:
    assert spread([Repeats(), Repeats()]).value is None
