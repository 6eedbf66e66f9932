"""Every strategy in a whole run: it is derived again from what is stored, and no text of dev or test leaves by it.

Training, answering and weighing are stand-ins; the loop, the pocket teacher, the journal and the folder are real.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import JUDGED_BY_SCRIPT, SMALL, quick_stages, quiet, rows_of, script_judge, verdict

from llamaduo.cli import main
from llamaduo.config import Experiment, Strategy
from llamaduo.data.coverage import load_coverage
from llamaduo.loop import run
from llamaduo.quote.quote import quote
from llamaduo.records import Example
from llamaduo.runs.finished import run_folder
from llamaduo.service.attempts import Reply
from llamaduo.service.journal import default_path
from llamaduo.stages.weigh import RowLoss
from llamaduo.synthesis import label
from llamaduo.synthesis.strategies import named
from llamaduo.synthesis.strategy import Asked
from llamaduo.verify.archive import NAME, pack
from llamaduo.verify.verify import verify

__all__ = ["quick_stages"]

Compose = Callable[..., Experiment]
STRATEGIES = tuple(Strategy)


def quick_weigh(job: Any, examples: Sequence[Example], config: Any, *, progress: Any) -> list[RowLoss]:
    return [RowLoss(row.prompt_id, None if not number else number / 7) for number, row in enumerate(examples)]


@pytest.fixture(params=STRATEGIES)
def experiment(
    request: pytest.FixtureRequest, compose_experiment: Compose, quick_stages: None, monkeypatch: pytest.MonkeyPatch
) -> Experiment:
    monkeypatch.setattr("llamaduo.steps.steps.weigh", quick_weigh)
    scores = {0: 20, 16: 60, 32: 95}
    script_judge(lambda prompt, _: verdict(scores[max(rows for rows in scores if rows <= rows_of(prompt))]))
    others = load_coverage(compose_experiment("data.train_rows=60", "data.seed=7")).train
    rows = [{"prompt": row.prompt} for row in others]
    Path("traffic.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    overrides = ["data.unlabelled=traffic.jsonl"] if request.param is Strategy.label else []
    return compose_experiment(*SMALL, *JUDGED_BY_SCRIPT, f"synthesis={request.param}", *overrides)


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    paths = sorted(folder.glob(f"iterations/*/{name}"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def prompts_of(stage: str) -> list[str]:
    with sqlite3.connect(default_path()) as journal:
        found = journal.execute(
            "SELECT DISTINCT q.request FROM attempts JOIN requests q USING (key) WHERE stage = ?", (stage,)
        )
        return [request for (request,) in found]


def test_a_run_is_derived_again_and_no_text_of_dev_or_test_leaves(experiment: Experiment) -> None:
    quoted = next(line for line in quote([experiment], today=datetime.date(2026, 11, 28)).lines)
    run(experiment, display=quiet())
    folder, dataset = run_folder(experiment), load_coverage(experiment)
    asked = prompts_of("synthesize")
    assert quoted.stage == "synthesize"
    assert 0 < len(asked) <= 4 * quoted.calls[1]
    held_out = [json.dumps(row.prompt)[1:-1] for row in (*dataset.dev, *dataset.test)]
    assert not [text for text in held_out if any(text in request for request in asked)]

    made, origins = lines(folder, "synthetic.jsonl"), lines(folder, "provenance.jsonl")
    assert [row["prompt_id"] for row in made] == [one["prompt_id"] for one in origins]
    assert len(made) >= 24
    known = {row.prompt_id for row in (*dataset.train, *dataset.unlabelled)} | {row["prompt_id"] for row in made}
    assert {seed for one in origins for seed in one["seeds"]} <= known
    assert {one["strategy"] for one in origins} == {named(experiment.synthesis).value}

    found = verify(folder)
    assert found.differences == []
    assert found.counts["lines of provenance"] == len(origins)


def test_best_of_several_answers_is_derived_again_and_quoted(compose_experiment: Compose, quick_stages: None) -> None:
    script_judge(lambda prompt, _: verdict(20))
    experiment = compose_experiment(*SMALL, *JUDGED_BY_SCRIPT, "synthesis.candidates=3", "loop.max_iterations=2")
    (picking,) = (line for line in quote([experiment], today=datetime.date(2026, 11, 28)).lines if line.stage == "pick")
    run(experiment, display=quiet())
    folder = run_folder(experiment)
    (counts,) = (json.loads(path.read_text()) for path in folder.glob("iterations/*/curation.json"))
    assert counts["picking"] == 2 * counts["parsed"]
    assert len(prompts_of("pick")) == counts["picking"]
    assert counts["picking"] <= 3 * picking.calls[1]
    assert verify(folder).differences == []


def test_the_quote_of_the_best_of_several_counts_every_pair_that_is_asked_for(compose_experiment: Compose) -> None:
    made = compose_experiment(*SMALL, "synthesis.candidates=3", "loop.max_iterations=2")
    lines = {line.stage: line for line in quote([made], today=datetime.date(2026, 11, 28)).lines}
    assert lines["synthesize"].calls == [0, 2]
    assert lines["pick"].calls == [0, 2 * 2 * 8]


def test_nobody_is_corrected_before_the_first_training(compose_experiment: Compose) -> None:
    made = compose_experiment(*SMALL, "synthesis=correct", "loop.growth.volumes=[8]", "loop.max_iterations=1")
    line = next(line for line in quote([made], today=datetime.date(2026, 11, 28)).lines if line.stage == "synthesize")
    assert line.calls == [3, 3]  # 10 pairs, 4 a request


def test_prompts_that_bring_nothing_at_the_end_end_the_data_and_not_the_run(
    compose_experiment: Compose, quick_stages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_judge(lambda prompt, _: verdict(20))
    others = load_coverage(compose_experiment("data.train_rows=60", "data.seed=7")).train
    rows = [{"prompt": row.prompt} for row in others[:8]] + [{"prompt": "nothing to say"}]
    Path("traffic.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    label_all = ("synthesis=label", "data.unlabelled=traffic.jsonl", "synthesis.overdraw=1", "loop.max_iterations=3")
    made = compose_experiment(*SMALL, *JUDGED_BY_SCRIPT, *label_all)
    read = label.read

    def nothing_for_the_last(asked: Asked, reply: Reply) -> tuple[list[Example], int]:
        return ([], 1) if asked.seeds[0].prompt == "nothing to say" else read(asked, reply)

    monkeypatch.setattr(label, "read", nothing_for_the_last)
    state = run(made, display=quiet())
    assert (state.status, state.stop_reason) == ("done", "no_new_data")


def test_an_archive_of_a_run_on_real_prompts_opens_no_file_of_that_name(
    compose_experiment: Compose,
    quick_stages: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script_judge(lambda prompt, _: verdict(20))
    others = load_coverage(compose_experiment("data.train_rows=60", "data.seed=7")).train
    Path("traffic.jsonl").write_text("".join(f"{json.dumps({'prompt': row.prompt})}\n" for row in others))
    made = compose_experiment(
        *SMALL, *JUDGED_BY_SCRIPT, "synthesis=label", "data.unlabelled=traffic.jsonl", "loop.max_iterations=2"
    )
    run(made, display=quiet())
    folder = run_folder(made)
    found = verify(folder)
    assert found.differences == []
    pack(folder.parent, tmp_path / NAME, [folder], found.keys, found.journals)
    monkeypatch.setenv("LLAMADUO_HOME", str(tmp_path / "another home"))
    opened: list[object] = []
    monkeypatch.setattr("llamaduo.data.coverage.read_unlabelled", lambda path, *_: opened.append(path))
    monkeypatch.setattr("llamaduo.files.data_path.content_hash", opened.append)
    Path("traffic.jsonl").unlink()
    code = main(["verify", str(tmp_path / NAME)])
    printed = "".join(capsys.readouterr())
    assert (code, opened) == (0, []), printed
    assert "an archive's data file is not opened" in printed
