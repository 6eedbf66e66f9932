"""`llamaduo export data RUN`: the rows and where they come from, the card, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamaduo.cli import main
from llamaduo.compose import compose
from llamaduo.config import Experiment, fingerprint, plain
from llamaduo.data.coverage import load_coverage
from llamaduo.data.formats import read_example, read_rows
from llamaduo.records import Example, to_json
from llamaduo.steps.growth import Provenance
from tests.made_runs import make_run

ROUND = {"requests": 4, "failed": 1, "dropped": 2, "parsed": 7, "kept": 5}


def experiment(*overrides: str) -> Experiment:
    composed = compose(["data.train_rows=12", "data.dev_rows=6", "data.test_rows=6", "judge=pocket_panel", *overrides])
    assert composed is not None
    return composed.experiments[0]


def pairs(count: int, **values: Any) -> list[Example]:
    rows = [
        Example(f"{n:016x}", ({"role": "user", "content": f"Prompt {n} | <b>"},), f"answer {n}", "teacher", "seed")
        for n in range(count)
    ]
    return [dataclasses.replace(row, **values) for row in rows]


def lines(path: Path, records: list[Any]) -> None:
    path.write_text("".join(to_json(record) + "\n" for record in records), encoding="utf-8")


def grown(folder: Path, *, told: bool = True) -> Path:
    """Put into a run's folder what iteration 0 has grown: five rows of seven, and where they come from if `told`."""
    place, rows = folder / "iterations" / "00", pairs(7)
    gone = [
        {
            "row": 1,
            "prompt_id": rows[1].prompt_id,
            "reason": "duplicate",
            "match": rows[0].prompt_id,
            "similarity": 0.9,
        },
        {"row": 4, "prompt_id": rows[4].prompt_id, "reason": "contamination", "match": "f" * 16, "similarity": 1.0},
    ]
    counts = {"wanted": 6, "requests": 4, "failed": 1, "dropped": 2, "cost_usd": 0.1, "parsed": 7, "kept": 5}
    rounds = {"rounds": [ROUND]} if told else {}
    (place / "curation.json").write_text(json.dumps({**counts, **rounds, "removed": gone}))
    (place / "synthesis.json").write_text(json.dumps({"examples": [plain(row) for row in rows]}))
    kept = [row for at, row in enumerate(rows) if at not in (1, 4)]
    lines(place / "synthetic.jsonl", kept)
    if told:
        origins = [
            Provenance(row.prompt_id, "teacher", "default", "k" * 8, ("seed", "other"), 0, ("near",)) for row in kept
        ]
        lines(place / "provenance.jsonl", origins)
    return folder


@pytest.fixture(scope="module")
def known() -> Experiment:
    return experiment()


@pytest.fixture
def make(known: Experiment, tmp_path: Path) -> Callable[..., Path]:
    def made(given: Experiment | None = None, *, told: bool = True, name: str = "", **settings: Any) -> Path:
        of = given or known
        folder = tmp_path / "runs" / (name or f"run-{fingerprint(of)}")
        make_run(folder, config=plain(of), prompts=4, samples=1, judges=("pocket_judge",), repeats=1, **settings)
        return grown(folder, told=told)

    return made


def exported(folder: Path, *options: str, to: str = "out") -> Path:
    assert main(["export", "data", str(folder), "-o", to, *options]) == 0
    return Path(to)


def table(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(folder / f"data/{split}-00000-of-00001.parquet").to_pylist()
    return rows


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["export", *arguments]) == 2
    return capsys.readouterr().err


def test_rows_say_where_they_come_from(make: Callable[..., Path], known: Experiment):
    rows = table(exported(make()))
    train = load_coverage(known).train
    assert [row["source"] for row in rows] == ["coverage"] * 12 + ["synthetic"] * 5
    turns = [*train[0].messages, {"role": "assistant", "content": train[0].response}]
    assert rows[0]["messages"] == turns
    assert (rows[0]["generator"], rows[0]["strategy"], rows[0]["seeds"], rows[0]["iteration"]) == (
        "coverage",
        None,
        [],
        0,
    )
    assert rows[13] == {
        "messages": [{"role": "user", "content": "Prompt 2 | <b>"}, {"role": "assistant", "content": "answer 2"}],
        "source": "synthetic", "generator": "teacher", "strategy": "default", "request": "k" * 8,
        "seeds": ["seed", "other"], "iteration": 1, "round": 0, "filters": ["near"],
    }  # fmt: skip


def test_calls_of_tools_and_what_was_offered_go_along_and_can_be_imported(make: Callable[..., Path], tmp_path: Path):
    offered = [{"type": "function", "function": {"name": "look", "description": "", "parameters": {"type": "object"}}}]
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"a":  1}'}}
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Prompt {n}: item {n * 7919}?"},
                {"role": "assistant", "content": f"text {n}", "tool_calls": [call]},
            ],
            "tools": offered,
        }
        for n in range(40)
    ]
    source = tmp_path / "calls.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = experiment("data=file", f"data.path={source}", "judge=reference", "synthesis=none")
    folder = exported(make(given), "--split")
    for split in ("train", "dev", "test"):
        read = [row for row in table(folder, split) if row["source"] == "coverage"]
        assert {json.dumps(json.loads(row["tools"])) for row in read} == {json.dumps(offered)}
        for row, example in zip(read, getattr(load_coverage(given), split), strict=True):
            turn = row["messages"][-1]
            assert turn["content"] == example.answer["content"]
            assert json.loads(turn["tool_calls"]) == [call]
    path = folder / "data/train-00000-of-00001.parquet"
    found = [read_example(row, place) for place, row in read_rows(path)]
    assert found[:12] == list(load_coverage(given).train)


def test_the_hub_s_own_library_loads_it_and_its_card(make: Callable[..., Path]):
    from datasets import load_dataset
    from huggingface_hub import DatasetCard

    folder = exported(make(), "--split", "data.license=Apache-2.0")
    found = load_dataset(str(folder.resolve()), cache_dir=str(Path("cache").resolve()))
    assert {name: len(rows) for name, rows in found.items()} == {"train": 17, "dev": 6, "test": 6}
    assert found["train"][16]["messages"][1]["content"] == "answer 6"
    card = DatasetCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.size_categories == ["n<1K"]
    assert {"llamaduo", "synthetic"} <= set(card.data.tags)
    assert [split["num_examples"] for split in card.data.to_dict()["dataset_info"]["splits"]] == [17, 6, 6]


def test_the_card_says_what_went_where_and_what_became_of_it(make: Callable[..., Path]):
    folder = make()
    counts = {"rows": {"mail": {"values": 12, "rows": 9}}, "requests": {"a": [{"mail": 2}, {"mail": 1}, {}]}}
    (folder / "privacy.json").write_text(json.dumps(counts))
    text = (exported(folder) / "README.md").read_text()
    assert "| 1 | 4 | 3 | 7 | 5 | 1,002 |" in text  # trained: as the made-up metrics say
    assert "- 1: duplicate of a training row" in text
    assert "To `pocket_teacher`, a program on the same machine: 4 requests for new pairs (strategy `default`)" in text
    assert "made up by the pocket profile): unknown; `data.license` was not given." in text
    assert "| mail | 12 | 9 | 2 | 1 | 0 |" in text
    assert "hold the original values" in text
    assert "Not passed: plateau." in text
    assert f"fingerprint `{folder.name[-8:]}`" in text
    assert "license:" not in text.split("---")[1]


@pytest.mark.parametrize(
    ("told", "front"),
    [("CC-BY-4.0", "license: cc-by-4.0\n"), ("Ours, ask: <Ann>", "license: other\nlicense_name: ours-ask-ann\n")],
)
def test_a_licence_is_the_user_s(make: Callable[..., Path], told: str, front: str):
    text = (exported(make(), f"data.license={told}") / "README.md").read_text()
    assert front in text.split("---")[1]
    assert "as the owner of the run says" in text


def test_a_real_provider_is_named_without_claims(make: Callable[..., Path]):
    given = experiment("service_llm=gpt_4o", "service.replay=true", "data.license=mit")
    text = (exported(make(given)) / "README.md").read_text()
    assert "see the provider's terms on training on outputs (openai, gpt-4o" in text
    assert "To `gpt_4o` (provider openai, model `gpt-4o" in text
    assert "license: mit\n" in text


def test_twice_gives_the_same_bytes(make: Callable[..., Path]):
    folder = make()
    first, second = exported(folder, to="a"), exported(folder, to="b")
    names = ["README.md", "data/train-00000-of-00001.parquet"]
    assert [(first / name).read_bytes() for name in names] == [(second / name).read_bytes() for name in names]
    exported(folder, to="a")
    assert [(first / name).read_bytes() for name in names] == [(second / name).read_bytes() for name in names]


def test_the_paper_s_columns(make: Callable[..., Path], known: Experiment, capsys: pytest.CaptureFixture[str]):
    rows = table(exported(make(), "--format", "paper"))
    assert list(rows[-1]) == ["generator", "seed_prompt", "messages", "category"]
    assert (rows[-1]["generator"], rows[-1]["seed_prompt"]) == ("teacher", None)
    assert {row["category"] for row in rows} == {known.task.topic}
    assert "1 of 1 requests are not in the journal" in capsys.readouterr().out


def test_a_run_of_an_earlier_version_has_nulls(make: Callable[..., Path]):
    row = table(exported(make(told=False)))[-1]
    assert (row["strategy"], row["request"], row["round"], row["filters"]) == (None, None, None, None)
    assert (row["seeds"], row["iteration"], row["generator"]) == (["seed"], 1, "teacher")


@pytest.mark.parametrize("gone", [True, False])
def test_without_its_data_the_synthetic_rows_go_alone(
    make: Callable[..., Path], tmp_path: Path, gone: bool, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "pairs.jsonl"
    content = "".join(json.dumps({"prompt": f"say {n}", "response": f"it is {n}"}) + "\n" for n in range(40))
    file.write_text(content)
    folder = make(experiment("data=file", f"data.path={file}", "judge=reference", "service_llm=gpt_4o"))
    assert [row["source"] for row in table(exported(folder))].count("coverage") == 12
    file.unlink() if gone else file.write_text(content.replace("it is 3", "it was 3"))
    capsys.readouterr()
    found = exported(folder, to="later")
    assert {row["source"] for row in table(found)} == {"synthetic"}
    assert "Coverage rows are left out" in capsys.readouterr().out
    assert "Coverage rows are left out" in (found / "README.md").read_text()


def test_a_stopped_run_gives_what_it_has(make: Callable[..., Path]):
    folder = make()
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"status": "running", "stop_reason": None}))
    found = exported(folder)
    assert len(table(found)) == 17
    assert "The run is not finished (running)" in (found / "README.md").read_text()


def test_a_damaged_run_is_refused(make: Callable[..., Path], capsys: pytest.CaptureFixture[str]):
    folder = make()
    (folder / "iterations/00/synthetic.jsonl.done").write_text(
        json.dumps({"bytes": 1, "sha256": "0" * 64, "seconds": 1})
    )
    assert "damaged" in refused(capsys, "data", str(folder), "-o", "out")
    assert not Path("out").exists()


def test_what_lies_there_is_never_written_over(make: Callable[..., Path], capsys: pytest.CaptureFixture[str]):
    folder = make()
    out = exported(folder, "--split")
    exported(folder)  # ours, as it was written
    assert not (out / "data/dev-00000-of-00001.parquet").exists()
    (out / "README.md").write_text((out / "README.md").read_text().replace("How it came out", "My own words"))
    before = (out / "README.md").read_bytes()
    assert "something else" in refused(capsys, "data", str(folder), "-o", "out")
    assert (out / "README.md").read_bytes() == before
    Path("file").write_text("x")
    assert "this is a file" in refused(capsys, "data", str(folder), "-o", "file")
    Path("other").mkdir()
    Path("other/notes.txt").write_text("x")
    assert "something else" in refused(capsys, "data", str(folder), "-o", "other")
    Path("empty").mkdir()
    assert len(table(exported(folder, to="empty"))) == 17


def test_what_is_no_export_is_refused(make: Callable[..., Path], capsys: pytest.CaptureFixture[str]):
    folder = str(make())
    assert "usage" in refused(capsys)
    assert "what can be exported is data" in refused(capsys, "model", folder)
    assert "there is no such format" in refused(capsys, "data", folder, "--format=csv")
    assert "no such folder" in refused(capsys, "data", "nowhere")
    assert "usage" in refused(capsys, "data", folder, "--spilt")
    assert main(["export", "--help"]) == 0
