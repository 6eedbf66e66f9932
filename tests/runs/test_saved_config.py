"""A run's saved configuration comes back as the experiment that it was, whatever version has saved it."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llamaduo.config import Backend, DataSource, Experiment, Quantization, fingerprint, plain
from llamaduo.errors import InputError
from llamaduo.runs.record import read_runs
from llamaduo.runs.saved_config import typed
from llamaduo.verify.archive import NAME
from llamaduo.verify.members import write_members
from tests.made_runs import configuration, make_run

ARCHIVES = sorted((Path(__file__).parents[2] / "results").glob(f"*/{NAME}"))


@pytest.fixture(scope="module")
def saved() -> dict[str, Any]:
    return configuration("preset=service", "judge=paper_panel", "service.replay=true")


@pytest.mark.parametrize("archive", ARCHIVES, ids=[file.parent.name for file in ARCHIVES])
def test_committed_rehearsals_have_the_fingerprints_of_their_folders(archive: Path, tmp_path: Path) -> None:
    write_members(archive, tmp_path)
    runs = read_runs(tmp_path, compared=False)
    assert runs
    for run in runs:
        assert plain(run.experiment) == run.config
        assert fingerprint(run.experiment) == run.folder.name[-8:]


@pytest.mark.parametrize(
    "overrides", [(), ("infer=service_llm", "synthesis=none"), ("judge=paper_panel", "preset=service")]
)
def test_what_is_saved_comes_back_as_it_was(overrides: tuple[str, ...]) -> None:
    tree = configuration(*overrides, "service.replay=true")
    experiment = typed(Experiment, tree)
    assert plain(experiment) == tree
    assert isinstance(experiment.infer.backend, Backend)


def test_what_an_older_run_lacks_is_the_default_or_not_known(saved: dict[str, Any]) -> None:
    older = {name: {} for name in saved} | {"prices": {}, "judge": {"panel": {"gpt_4o": {}}}}
    made = typed(Experiment, older | {"study": None, "loop": None})
    assert (made.train.enabled, made.infer.served, made.infer.shots) == (True, False, 0)
    assert (made.judge.dear, made.loop.growth.volumes, made.loop.coverage_cut) == ([], [], 70.0)
    assert made.serving.utilisation == 0.3
    unknown = (made.data.source, made.data.seed, made.infer.samples, made.train.lora_r, made.loop.gate.similarity)
    assert {*unknown, made.study, made.task.name, made.judge.panel["gpt_4o"].provider} == {None}


def test_what_a_newer_run_says_besides_is_passed_over_or_left_as_it_is(saved: dict[str, Any]) -> None:
    newer = copy.deepcopy(saved) | {"thoughts": {"deep": True}}
    newer["infer"] |= {"backend": "sglang", "speculative": 3}
    made = typed(Experiment, newer)
    assert made.infer.backend == "sglang"
    assert not made.infer.served
    assert made.data.source is DataSource[saved["data"]["source"]]
    assert made.train.quantization is Quantization[saved["train"]["quantization"]]


@pytest.mark.parametrize("part", ["train", "judge", "loop"])
def test_another_shape_is_a_damaged_run(saved: dict[str, Any], part: str) -> None:
    folder = make_run(Path("results/study/run"), config=saved | {part: 5}, gains=(0.0,), prompts=2)
    with pytest.raises(InputError, match=r"results/study/run: damaged \(TypeError: "):
        read_runs(folder)


def test_runs_are_read_without_omegaconf(saved: dict[str, Any]) -> None:
    make_run(Path("results/study/run"), config=saved, gains=(0.0,), prompts=2)
    code = (
        "import pathlib, sys; from llamaduo.runs.record import read_runs\n"
        "print(read_runs(pathlib.Path('results'))[0].experiment.train.lora_r)\n"
        "print({'omegaconf', 'hydra', 'torch', 'litellm'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{saved['train']['lora_r']}\nset()\n", "")
