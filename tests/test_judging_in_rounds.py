"""Judging in rounds, through loop, journal and folder: what isn't asked, and that nothing else changes by it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import JUDGED_BY_SCRIPT, quick_stages, quiet, rows_of, script_judge, verdict

from llamaduo.config import Experiment
from llamaduo.loop import run
from llamaduo.records import Verdict
from llamaduo.runs.finished import run_folder
from llamaduo.runs.folder import read_rows
from llamaduo.verify.compare import summary
from llamaduo.verify.verify import verify

__all__ = ["quick_stages"]

Compose = Callable[..., Experiment]
ROWS = ("data.train_rows=8", "data.dev_rows=64", "data.test_rows=46", "loop.growth.factor=2", "infer.samples=1")
IN_ROUNDS = (*ROWS, *JUDGED_BY_SCRIPT, "loop.max_iterations=3", "judge.repeats=2", "loop.beside=[]")

pytestmark = pytest.mark.usefixtures("quick_stages")


class Judge:
    """Scores by the rows trained on, and remembers what it was asked."""

    def __init__(self, scores: dict[int, float], fails_after: int | None = None) -> None:
        self.scores = scores
        self.fails_after = fails_after
        self.asked: Counter[str] = Counter()
        script_judge(self)

    def __call__(self, prompt: str, _: Any) -> str:
        if self.fails_after is not None and self.asked.total() >= self.fails_after:
            raise KeyboardInterrupt
        self.asked[prompt] += 1
        return verdict(self.scores[max(rows for rows in self.scores if rows <= rows_of(prompt))])


def files(experiment: Experiment) -> dict[str, str]:
    """Return the artifacts of a run that don't depend on time."""
    folder = run_folder(experiment) / "iterations"
    names = ("predictions.jsonl", "verdicts.jsonl", "rest.jsonl", "scorecard.json", "synthetic.jsonl")
    return {str(path.relative_to(folder)): path.read_text() for name in names for path in sorted(folder.rglob(name))}


def stored(experiment: Experiment, where: str, name: str = "verdicts.jsonl") -> list[Verdict]:
    return read_rows(run_folder(experiment) / "iterations" / where / name, Verdict)


def metrics(experiment: Experiment) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder(experiment) / "metrics.jsonl").read_text().splitlines()]


def test_a_poor_iteration_costs_one_round_and_a_good_one_no_repeats(compose_experiment: Compose) -> None:
    judge = Judge({0: 40, 16: 99})
    experiment = compose_experiment(*IN_ROUNDS)
    state = run(experiment, display=quiet())
    assert (state.stop_reason, state.accepted_iteration, state.confirmation) == ("passed", 1, "confirmed")
    assert [len(stored(experiment, where)) for where in ("00", "01", "test")] == [2 * 16, 64 + 16, 2 * 46]
    assert judge.asked.total() == 32 + 80 + 92
    first, second = metrics(experiment)
    assert (first["answers"], first["unjudged"], first["spared"], first["prompts"]) == (16, 48, 96, 16)
    assert (second["answers"], second["unjudged"], second["spared"]) == (64, 0, 48)
    assert first["gate"]["unjudged"] == 48
    assert not first["gate"]["passed"]
    told = [line for line in state.details if line.startswith("Judge economy: ")]
    assert told == [
        "Judge economy: 112 of 256 verdicts on the dev split were asked for (56% fewer): the others could not change "
        "what the gate decides (judge.economy=off asks for all)."
    ]


@pytest.mark.parametrize("scores", [{0: 40, 16: 99}, {0: 40, 16: 60, 32: 80}])
def test_decisions_are_those_of_asking_for_everything(compose_experiment: Compose, scores: dict[int, float]) -> None:
    Judge(scores)
    ends = []
    for economy in ("on", "off"):
        experiment = compose_experiment(*IN_ROUNDS, f"judge.economy={economy}")
        state = run(experiment, display=quiet())
        ends.append((state.stop_reason, state.accepted_iteration, state.best_iteration, state.decision))
        counts = [len(stored(experiment, f"{number:02d}")) for number in range(state.iterations)]
        assert (counts == [128] * state.iterations) is (economy == "off")
    assert ends[0] == ends[1]


def test_a_plateau_is_called_on_all_prompts_only(compose_experiment: Compose) -> None:
    judge = Judge({0: 40, 16: 41, 32: 41.5, 64: 99})
    experiment = compose_experiment(*IN_ROUNDS, "loop.max_iterations=4")
    state = run(experiment, display=quiet())
    assert (state.stop_reason, state.iterations) == ("plateau", 3)
    for where in ("00", "01", "02"):
        first, rest = stored(experiment, where), stored(experiment, where, "rest.jsonl")
        assert len({v.prompt_id for v in first}) == 16
        assert len({v.prompt_id for v in (*first, *rest)}) == len(first) / 2 + len(rest) == 64
    assert judge.asked.total() == 3 * (32 + 48) + 92
    assert verified(experiment) == []


def test_what_looks_like_a_plateau_in_the_first_round_may_be_none(compose_experiment: Compose) -> None:
    """The prompts of the first round stay as they were, the others get better: only all of them tell."""
    experiment = compose_experiment(*IN_ROUNDS, "loop.max_iterations=4", "loop.min_gain=5")
    easy: set[str] = set()
    seen: set[int] = set()

    def judged(prompt: str, _: Any) -> str:
        number = {8: 0, 16: 1, 32: 2}.get(rows_of(prompt), 3)
        seen.add(number)
        text = re.sub("[0-9a-f]{8,}", "", prompt.split("rows=", maxsplit=1)[0])  # without the fences' marks
        if seen == {0}:
            easy.add(text)  # what the first iteration is asked is the first round
        return verdict(40.0 if text in easy else 40.0 + 20 * number)

    script_judge(judged)
    state = run(experiment, display=quiet())
    assert state.iterations == 4
    assert (run_folder(experiment) / "iterations/02/rest.jsonl").exists()


def test_a_run_that_is_broken_off_in_a_round_comes_out_the_same(compose_experiment: Compose) -> None:
    Judge({0: 40, 16: 99})
    whole = compose_experiment(*IN_ROUNDS, "study=whole")
    run(whole, display=quiet())
    judge = Judge({0: 40, 16: 99}, fails_after=32 + 20)
    broken = compose_experiment(*IN_ROUNDS, "study=broken", "service.journal=broken.sqlite")
    with pytest.raises(KeyboardInterrupt):
        run(broken, display=quiet())
    judge.fails_after = None
    run(broken, display=quiet())
    assert files(broken) == files(whole)
    twice = sum(max(0, count - 2) for count in judge.asked.values())
    assert twice <= 4, "nothing is bought twice but the four calls that may have been in flight"


def test_verify_comes_to_the_same_rounds(compose_experiment: Compose) -> None:
    Judge({0: 40, 16: 70, 32: 99})
    experiment = compose_experiment(*IN_ROUNDS)
    run(experiment, display=quiet())
    assert verified(experiment) == []
    path = run_folder(experiment) / "iterations/00/verdicts.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[2:]))
    assert verified(experiment) != []


def verified(experiment: Experiment) -> list[str]:
    found = verify(run_folder(experiment))
    return [line for line in summary(found) if line.startswith("DIFFERENT")]


@pytest.mark.parametrize("changed", [("judge.economy=off",), ("loop=scaling", "loop.growth.volumes=[5,10]")])
def test_everything_is_asked_where_that_is_wanted_or_no_gate_looks(
    compose_experiment: Compose, changed: tuple[str, ...]
) -> None:
    Judge({0: 40})
    experiment = compose_experiment(*IN_ROUNDS, *changed, "loop.max_iterations=2", "loop.patience=0")
    run(experiment, display=quiet())
    assert {len(stored(experiment, where)) for where in ("00", "01")} == {128}
    assert not any(line["spared"] for line in metrics(experiment))


def test_the_papers_protocol_asks_for_everything(compose_experiment: Compose, tmp_path: Path) -> None:
    Judge({0: 40})
    paper = ("protocol.gate_split=test", "loop.gate.rule=mean", "loop.max_iterations=1")
    experiment = compose_experiment(*IN_ROUNDS, *paper)
    run(experiment, display=quiet())
    assert len(stored(experiment, "00")) == 2 * 46
