"""What `data.path` names: a file, a folder of shards, a pattern; nothing in it is passed over without a word."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llamaduo.config import Experiment, fingerprint
from llamaduo.data.coverage import load_coverage
from llamaduo.data.dataset import CoverageDataset
from llamaduo.data.formats import read_example, read_rows
from llamaduo.errors import ConfigError, InputError
from llamaduo.files.data_path import content_hash, named

Compose = Callable[..., Experiment]


def rows(numbers: Iterable[int]) -> list[dict[str, str]]:
    return [{"prompt": f"ticket {n * 7919} of week {n}", "response": f"answer {n}"} for n in numbers]


def write(path: str, numbers: Iterable[int]) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows(numbers)), file)
    elif file.suffix == ".csv":
        file.write_text("prompt,response\n" + "".join(f"{r['prompt']},{r['response']}\n" for r in rows(numbers)))
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows(numbers)))


def answers(path: str) -> list[str]:
    return [read_example(row, place).response for place, row in read_rows(Path(path))]


def data_of(compose: Compose, path: str, *more: str) -> CoverageDataset:
    own = ("judge=reference", "synthesis=none", "loop.gate.precision=null", "data.dev_rows=4")
    return load_coverage(compose("data=file", f"data.path={path}", *own, *more))


def splits(dataset: CoverageDataset) -> dict[str, list[int]]:
    return {
        name: sorted(int(row.response.split()[1]) for row in getattr(dataset, name))
        for name in ("train", "dev", "test")
    }


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_a_folder_of_shards_is_all_its_shards(kind: str, compose_experiment: Compose) -> None:
    for shard in range(3):
        write(f"shards/day={shard}/part-{shard}.{kind}", range(shard * 20, shard * 20 + 20))
    Path("shards/_SUCCESS").touch()
    Path("shards/.part-0.crc").write_text("x")
    Path("shards/README.md").write_text("Mine.")
    assert answers("shards") == [f"answer {n}" for n in range(60)] == answers(f"shards/*/*.{kind}")
    account = data_of(compose_experiment, "shards").account
    assert account is not None
    assert account.lines() == [
        "data: 60 rows of shards (3 files), all used.", "  files that are not read: 1 (README.md)."
    ]  # fmt: skip


def test_shards_behind_links_are_read_and_each_once() -> None:
    write("far/part-1.jsonl", range(20, 40))
    write("shards/part-0.jsonl", range(20))
    Path("shards/more").symlink_to("../far")
    Path("shards/again").symlink_to("../far")
    Path("shards/round").symlink_to(".")
    assert sorted(answers("shards")) == sorted(f"answer {n}" for n in range(40))


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", None)]
)
def test_packed_files_are_read(suffix: str, pack: Callable[[bytes], bytes] | None) -> None:
    content = "".join(json.dumps(row) + "\n" for row in rows(range(3))).encode()
    packed = pa.compress(content, codec="zstd", asbytes=True) if pack is None else pack(content)
    Path(f"rows.jsonl{suffix}").write_bytes(packed)
    assert answers(f"rows.jsonl{suffix}") == ["answer 0", "answer 1", "answer 2"]
    Path(f"cut.jsonl{suffix}").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match=rf"^cut\.jsonl{suffix}: not {suffix} .*pack the file again"):
        answers(f"cut.jsonl{suffix}")
    Path("rows.jsonl").write_bytes(packed)
    assert answers("rows.jsonl") == ["answer 0", "answer 1", "answer 2"]


class TestSavedDatasets:
    """Folders of `datasets`' save_to_disk."""

    def test_a_data_set_and_its_caches(self) -> None:
        from datasets import Dataset

        Dataset.from_list(rows(range(30))).save_to_disk("saved", num_shards=2)
        whole = next(Path("saved").glob("*.arrow"))
        Path("saved/cache-1f.arrow").write_bytes(whole.read_bytes())
        assert answers("saved") == [f"answer {n}" for n in range(30)]
        assert named("saved").passed_over == ("cache-1f.arrow",)
        whole.unlink()
        with pytest.raises(InputError, match=r"data-00000.*arrow: is missing, and state\.json beside it lists it"):
            answers("saved")

    def test_its_splits_stay_what_they_are(self, compose_experiment: Compose) -> None:
        from datasets import Dataset, DatasetDict

        parts = {"train": Dataset.from_list(rows(range(40))), "test": Dataset.from_list(rows(range(40, 50)))}
        DatasetDict(parts).save_to_disk("saved")
        found = splits(data_of(compose_experiment, "saved", "data.test_least=0"))
        assert found["test"] == list(range(40, 50))
        assert len(found["dev"]) == 4
        assert sorted(found["train"] + found["dev"]) == list(range(40))


def test_splits_in_the_names_of_files_stay_what_they_are(compose_experiment: Compose) -> None:
    for name, numbers in {"train": range(30), "validation": range(30, 34), "test": range(34, 40)}.items():
        write(f"mine/{name}-00000-of-00001.jsonl", numbers)
    found = splits(data_of(compose_experiment, "mine"))
    assert found == {"train": list(range(30)), "dev": list(range(30, 34)), "test": list(range(34, 40))}
    write("mine/more.jsonl", range(40, 50))
    with pytest.raises(
        InputError, match=r"test-00000-of-00001\.jsonl tells its split by its name, more\.jsonl doesn't"
    ):
        data_of(compose_experiment, "mine")


REFUSED = {
    "no such file": ("nothing.jsonl", ["a/x.jsonl"], "nothing.jsonl: no such file"),
    "no match": ("a/*.csv", ["a/x.jsonl"], "a/*.csv: no file matches"),
    "two kinds": ("a", ["a/x.jsonl", "a/x.parquet"], "a: holds .jsonl and .parquet files; name those of one kind"),
    "no kind": ("a", ["a/x.txt"], "a: a folder without data files (it has x.txt); it needs .jsonl"),
    "a lost shard": (
        "a", ["a/t-00000-of-00003.jsonl", "a/t-00002-of-00003.jsonl"],
        "1 of the 3 shards of t are missing (t-00001-of-00003)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_read_is_said_before_anything_else(name: str, compose_experiment: Compose) -> None:
    path, files, told = REFUSED[name]
    for file in files:
        write(file, range(3))
    with pytest.raises(ConfigError) as refusal:
        compose_experiment("data=file", f"data.path={path}", "judge=reference", "synthesis=none")
    assert f"data.path={told}" in str(refusal.value) or told in str(refusal.value)


@pytest.mark.parametrize("path", ["a", "a/*.jsonl"])
def test_a_link_to_nothing_and_a_pipe_are_no_shards(path: str) -> None:
    write("a/x-0.jsonl", range(2))
    Path("a/x-1.jsonl").symlink_to("gone.jsonl")
    with pytest.raises(InputError, match=r"^a/x-1\.jsonl: is a link to nothing; mend or remove it"):
        answers(path)
    Path("a/x-1.jsonl").unlink()
    os.mkfifo("a/x-1.jsonl")
    with pytest.raises(InputError, match=r"^a/x-1\.jsonl: is no plain file"):
        answers(path)


def test_one_empty_shard_is_none_and_all_empty_ones_are_refused() -> None:
    write("a/x-0.jsonl", range(2))
    Path("a/x-1.jsonl").touch()
    assert answers("a") == ["answer 0", "answer 1"]
    Path("a/x-0.jsonl").write_text("")
    with pytest.raises(InputError, match=r"^a: its 2 files have no rows"):
        answers("a")


def test_a_folders_identity_is_its_content(compose_experiment: Compose) -> None:
    write("a/x-0.jsonl", range(20))
    write("a/x-1.jsonl", range(20, 40))
    write("b.jsonl", range(20))

    def identity(path: str) -> str:
        return fingerprint(compose_experiment("data=file", f"data.path={path}", "judge=reference", "synthesis=none"))

    before = identity("a")
    assert before != identity("b.jsonl")
    assert content_hash("b.jsonl") == content_hash("a/x-0.jsonl")
    Path("a").rename("elsewhere")
    assert identity("elsewhere") == before
    write("elsewhere/x-1.jsonl", range(20, 41))
    assert identity("elsewhere") != before
