"""`llamaduo audit RUN` as a user meets it: what is told and kept, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamaduo.cli import main
from llamaduo.records import Example, to_json
from tests.made_runs import configuration, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run's folder whose second iteration refuses, swears and speaks French."""
    config = configuration("study=s", "data.train_rows=40")
    run = make_run(tmp_path_factory.mktemp("s") / "run", config=config, prompts=10, samples=2, judges=("pocket",))
    path = run / "iterations" / "01" / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["reference"] = "Please send the parcel to the new address in the city."
    rows[0]["text"] = rows[1]["text"] = "I'm sorry, but I can't help with that."
    rows[2]["text"] = "You idiot, read the manual and shut up about the parcel."
    rows[4]["text"] = "Envoyez le colis à la nouvelle adresse, s'il vous plaît."
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = run / "iterations" / "start"
    start.mkdir()
    pairs = [
        Example(f"{n:016x}", ({"role": "user", "content": f"Question {n} about parcels"},), f"answer {n}", "teacher")
        for n in range(60)
    ]
    (start / "synthetic.jsonl").write_text("".join(to_json(pair) + "\n" for pair in pairs))
    return run


def test_an_audit_tells_and_keeps_what_it_found(made: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["audit", str(made)]) == 0
    told = capsys.readouterr().out
    assert "audit of iteration 1: 20 answers to 10 prompts (dev split)" in told
    assert "refusals: 10.0% [" in told
    assert "such as: I'm sorry, but I can't help with that." in told
    assert "refusals, since the iteration before: +10.0 points" in told
    assert "topics of coverage with new rows:" in told
    tree = json.loads((made / "iterations" / "01" / "audit.json").read_text())
    answers = tree["answers"]
    assert answers["refusals"]["percent"] == 10.0
    assert answers["toxic"]["categories"] == {"insults": 1}
    assert answers["languages"]["fr"] == 1
    assert answers["language_drift"]["examples"] == ["Envoyez le colis à la nouvelle adresse, s'il vous plaît."]
    assert answers["references"]["refusals"]["percent"] == 0.0
    assert tree["rows"]["rows"] == 60
    page = (made / "report.html").read_text()
    assert '<h2 id="audit">Audit</h2>' in page
    assert "<b>answer: toxic words</b>: You idiot, read the manual" in page
    assert (made / "iterations" / "00" / "audit.json.done").exists()
    assert json.loads((made / "iterations" / "00" / "audit.json").read_text())["answers"]["change"] == {}


def test_the_same_command_again_says_the_same(made: Path, capsys: pytest.CaptureFixture[str]):
    main(["audit", str(made)])
    first, mark = capsys.readouterr().out, (made / "iterations" / "01" / "audit.json.done").stat().st_mtime_ns
    assert main(["audit", str(made)]) == 0
    assert capsys.readouterr().out == first
    assert (made / "iterations" / "01" / "audit.json.done").stat().st_mtime_ns == mark


def test_what_is_no_finished_run_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["audit", str(tmp_path)]) == 2
    assert main(["audit"]) == 2
    assert main(["audit", "--help"]) == 0
    state = json.loads((made / "state.json").read_text())
    other = tmp_path / "open"
    other.mkdir()
    (other / "config.yaml").write_text((made / "config.yaml").read_text())
    (other / "state.json").write_text(json.dumps(state | {"status": "running"}))
    assert main(["audit", str(other)]) == 2
    assert "the run is not finished (running)" in capsys.readouterr().err


def test_the_runs_own_model_answers_with_other_terms(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [{"prompt": f"A woman asks for item {n} of shelf {n * 7}.", "response": f"Item {n}."} for n in range(40)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configuration(
        "study=s", "data=file", f"data.path={data}", "baseline=base", "infer.max_new_tokens=4", "judge=reference",
        "data.dev_rows=8", "data.test_rows=2",
    )  # fmt: skip
    run = make_run(tmp_path / "run", config=config, prompts=8, samples=1, judges=("chrf", "rouge_l"))
    assert main(["audit", str(run), "--swaps", "7"]) == 0
    told = capsys.readouterr().out
    assert "14 answers; prompts by category: gender (7)" in told
    tree = json.loads((run / "iterations" / "01" / "audit.json").read_text())
    assert tree["bias"]["left_alone"] == {"gender": {"beyond the limit": 1}}
    assert tree["swaps"] == {"most": 7, "terms": None}
    assert "14 prompts with identity terms in each other" in (run / "report.html").read_text()
    assert json.loads((run / "iterations" / "00" / "audit.json").read_text())["bias"] is None
    assert main(["audit", str(run), "--swaps", "six"]) == 2
    assert main(["audit", str(run), "--terms", str(tmp_path / "none.yaml")]) == 2
    assert "can't be read" in capsys.readouterr().err
