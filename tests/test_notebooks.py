"""Each notebook runs from its first cell to its last on summaries alone, and leaves pictures behind.

One kernel serves all of them; it is emptied before each, so that no notebook lives on another's imports.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_runs import configuration, make_run

from llamaduo.errors import InputError
from llamaduo.studies.notebook import Summaries, open_study
from llamaduo.studies.plots.figures import make_figures
from llamaduo.studies.study import read_study
from llamaduo.studies.tidy import as_csv, write

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
PICTURES = {
    "main_table": {"forest_precision", "forest_similarity"},
    "volume_scaling": {"learning_precision", "learning_similarity"},
    "ranks": {"ranks_precision", "ranks_similarity"},
    "judges": {"agreement_precision", "density", "forest_precision"},
    "cost": {"pareto_precision"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a study of two models with four ranks and alphas each."""
    folder = tmp_path_factory.mktemp("made") / "results" / "pocket"
    known = configuration("preset=service", "judge=paper_panel", "service.replay=true", "study=pocket")
    for number, (model, r, alpha) in enumerate(
        (m, r, a) for m in ("gemma_2b", "llama3_8b") for r in (8, 16) for a in (16, 32)
    ):
        config = json.loads(json.dumps(known))
        config["local_model"]["name"] = model
        config["train"] |= {"lora_r": r, "lora_alpha": alpha}
        gains = (0.0, 4.0) if r == 8 else (0.0, 4.0, 6.0)
        make_run(folder / f"run{number}", level=60 + 3 * number, gains=gains, prompts=6, samples=2, repeats=1,
                 seed=number, config=config)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def summaries(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the study's summaries and no run folders."""
    folder = tmp_path_factory.mktemp("summed") / "pocket"
    (folder / "figures").mkdir(parents=True)
    study = read_study(runs)
    write(study.rows, folder)
    for figure in make_figures(study):
        (folder / "figures" / f"{figure.name}.svg").write_text(figure.svg, encoding="utf-8")
        (folder / "figures" / f"{figure.name}.png").write_bytes(figure.png)
        (folder / "figures" / f"{figure.name}.csv").write_text(as_csv(figure.data), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def execute(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path, Path], Any]]:
    """Return a function that executes a notebook on a study's folder and returns it with its outputs."""
    import jupytext
    from jupyter_client.manager import KernelManager
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell

    home = tmp_path_factory.mktemp("jupyter")
    env = os.environ | {name: str(home) for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR")}
    env["PYTHONPATH"] = str(ROOT)
    manager = KernelManager(kernel_name="python3", connection_file=str(home / "kernel.json"))
    manager.start_kernel(env=env, cwd=str(home))

    def executed(notebook: Path, study: Path) -> Any:
        cells = jupytext.read(notebook)
        first = f"%reset -f\nimport os\nos.environ['LLAMADUO_STUDY'] = {str(study)!r}\ndel os"
        cells.cells.insert(0, new_code_cell(first))
        return NotebookClient(cells, km=manager, timeout=120).execute()

    yield executed
    manager.shutdown_kernel(now=True)


def pictures(folder: Path) -> set[str]:
    found = list((folder / "notebooks").glob("*.png"))
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.with_suffix(".svg").exists() for path in found)
    return {path.stem for path in found}


def test_every_notebook_has_its_pictures_named_here() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(PICTURES)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_draws_from_summaries_alone(
    notebook: Path, summaries: Path, execute: Callable[[Path, Path], Any], tmp_path: Path
) -> None:
    folder = shutil.copytree(summaries, tmp_path / "study")
    done = execute(notebook, folder)
    assert pictures(folder) >= PICTURES[notebook.stem]
    shown = [out for cell in done.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert len(shown) >= len(PICTURES[notebook.stem])
    said = "".join(str(out.get("text", "")) + str(out.get("data", "")) for out in done.cells[-1]["outputs"])
    assert any(letter.isdigit() for letter in said), "the last cell says nothing"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_draws_the_committed_rehearsal(
    notebook: Path, execute: Callable[[Path, Path], Any], tmp_path: Path
) -> None:
    (named,) = re.findall(r'^STUDY = "(\w+)"', notebook.read_text(encoding="utf-8"), re.MULTILINE)
    committed = ROOT / "results" / named
    if not (committed / "runs.parquet").exists():
        pytest.skip(f"results/{committed.name} holds no rehearsal")
    keep = shutil.ignore_patterns("iterations", "notebooks")
    folder = shutil.copytree(committed, tmp_path / committed.name, ignore=keep)
    execute(notebook, folder)
    assert pictures(folder)


def test_run_folders_give_the_same_rows_and_figures_as_summaries(runs: Path, summaries: Path) -> None:
    from_runs, from_files = Summaries(runs), Summaries(summaries)
    assert from_runs.rows == from_files.rows
    drawn, read = from_runs.figure("density"), from_files.figure("density")
    assert drawn is not None
    assert read is not None
    assert (drawn.svg, drawn.png, drawn.data) == (read.svg, read.png, read.data)


def test_a_study_is_found_from_a_folder_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results" / "mine").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert open_study("mine").folder == tmp_path / "results" / "mine"
    monkeypatch.setenv("LLAMADUO_STUDY", str(tmp_path / "none"))
    with pytest.raises(InputError, match="none: no such folder; run the study"):
        open_study("mine")


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    study = Summaries(tmp_path)
    assert "llamaduo report" in study.table("main_precision")
    assert study.figure("density") is None
