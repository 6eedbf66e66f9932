"""Identity is content: what changed under the same name is another run, or refused; never old numbers or a mixture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import JUDGED_BY_SCRIPT, SMALL, quick_infer, quick_stages, quick_train, quiet, script_judge, verdict

from llamaduo.config import Experiment, fingerprint
from llamaduo.errors import InputError
from llamaduo.loop import run
from llamaduo.runs.finished import finished, run_folder
from llamaduo.runs.identity import identity
from llamaduo.runs.layout import IDENTITY
from llamaduo.verify.verify import verify

__all__ = ["quick_stages"]

Compose = Callable[..., Experiment]
OLD, NEW = "a" * 40, "b" * 40
OFFLINE = (*SMALL, *JUDGED_BY_SCRIPT, "synthesis=none", "loop.max_iterations=2")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"):
        (folder / name).write_text(f'"{name} of the first"')
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return what moves a branch in the Hub's cache: `hub("models--owner--name", commit)`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def moved(repository: str, commit: str) -> None:
        (tmp_path / "hub" / repository / "refs").mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub" / repository / "refs/main").write_text(commit)

    return moved


@pytest.fixture(autouse=True)
def judged(quick_stages: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all answers be as bad, and nothing be loaded."""
    script_judge(lambda prompt, _: verdict(20))
    monkeypatch.setattr("llamaduo.steps.opening.refuse_if_too_large", lambda experiment: None)
    monkeypatch.setattr("llamaduo.steps.opening.check", lambda dataset, account, **_: account)


def test_any_changed_file_of_a_models_folder_is_another_run(compose_experiment: Compose, mine: Path) -> None:
    experiment = compose_experiment(*OFFLINE, f"local_model.path={mine}")
    seen = {fingerprint(experiment)}
    for path in sorted(mine.iterdir()):
        path.write_text(path.read_text().replace("first", "other"))
        seen.add(fingerprint(experiment))
    assert len(seen) == 5


def test_a_copy_of_it_elsewhere_is_the_same_run(compose_experiment: Compose, mine: Path) -> None:
    shutil.copytree(mine, mine.with_name("theirs"))
    one, other = (
        compose_experiment(*OFFLINE, f"local_model.path={mine.with_name(name)}") for name in ("mine", "theirs")
    )
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (("local_model.tokenizer={}",), "tokenizer.json"),
        (("data=hub", "data.path={}", "data.revision=main"), "model.safetensors"),
        (("runtime.launch=accelerate", "runtime.accelerate={}/config.json"), "config.json"),
    ],
)
def test_so_it_is_for_whatever_else_lies_here(
    overrides: tuple[str, ...], part: str, compose_experiment: Compose, mine: Path
) -> None:
    experiment = compose_experiment(*OFFLINE, *(text.format(mine) for text in overrides))
    before = fingerprint(experiment)
    assert fingerprint(experiment) == before
    (mine / part).write_text('"another"')
    assert fingerprint(experiment) != before


def test_what_lies_behind_a_link_of_a_folder_of_data_counts(compose_experiment: Compose, mine: Path) -> None:
    shard = mine.with_name("disk") / "shard.jsonl"
    shard.parent.mkdir()
    shard.write_text("{}")
    (mine / "linked").symlink_to(shard.parent)
    experiment = compose_experiment(*OFFLINE, "data=hub", f"data.path={mine}", "data.revision=main")
    before = fingerprint(experiment)
    shard.write_text("[]")
    assert fingerprint(experiment) != before


def test_a_tokenizers_vocabulary_counts_whatever_its_ending(compose_experiment: Compose, mine: Path) -> None:
    experiment = compose_experiment(*OFFLINE, f"local_model.tokenizer={mine}")
    seen = {fingerprint(experiment)}
    for name in ("vocab.bpe", "source.spm", "spiece.vocab"):
        (mine / name).write_text("a")
        seen.add(fingerprint(experiment))
    assert len(seen) == 4


def test_a_model_of_the_package_and_a_name_of_the_hub_stay_names(
    compose_experiment: Compose, hub: Callable[[str, str], None]
) -> None:
    assert identity(compose_experiment(*OFFLINE)) == {}
    experiment = compose_experiment(*OFFLINE, "local_model.path=owner/name")
    before = fingerprint(experiment)
    hub("models--owner--name", OLD)
    assert fingerprint(experiment) == before
    assert identity(experiment) == {"local_model.path": f"commit {OLD}"}


def test_other_weights_in_the_same_folder_do_not_get_the_old_numbers(compose_experiment: Compose, mine: Path) -> None:
    experiment = compose_experiment(*OFFLINE, f"local_model.path={mine}")
    run(experiment, display=quiet())
    assert finished(experiment)
    (mine / "model.safetensors").write_text('"model.safetensors of the fifth"')
    assert finished(experiment) is None


def test_weights_that_change_while_the_run_goes_on_are_refused(
    compose_experiment: Compose, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = compose_experiment(*OFFLINE, f"local_model.path={mine}")
    folder, old = run_folder(experiment), (mine / "model.safetensors").read_text()

    def changed(*args: object, **kwargs: object) -> object:
        (mine / "model.safetensors").write_text('"others"')
        return quick_infer(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("llamaduo.steps.steps.infer", changed)
        with pytest.raises(
            InputError, match=r"local_model\.path=.*mine is not what .* was begun with \(sha256 .* then"
        ):
            run(experiment, display=quiet())
    assert not list(folder.rglob("predictions.jsonl"))
    (mine / "model.safetensors").write_text(old)
    assert run(experiment, display=quiet()).status == "done"


class TestHub:
    @pytest.fixture
    def experiment(self, compose_experiment: Compose) -> Experiment:
        return compose_experiment(*OFFLINE, "local_model.path=owner/name")

    def test_a_branch_that_moved_gets_no_old_numbers(
        self, experiment: Experiment, hub: Callable[[str, str], None]
    ) -> None:
        hub("models--owner--name", OLD)
        run(experiment, display=quiet())
        assert finished(experiment)
        hub("models--owner--name", NEW)
        with pytest.raises(InputError, match=rf"local_model\.revision={NEW}, or ={OLD}") as caught:
            finished(experiment)
        assert f"local_model.path=owner/name is not what {run_folder(experiment)} was begun with" in str(caught.value)

    def test_nor_does_a_broken_off_run_go_on_with_another_commit(
        self, experiment: Experiment, hub: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub("models--owner--name", OLD)
        with monkeypatch.context() as patch:
            patch.setattr("llamaduo.steps.steps.infer", lambda *args, **kwargs: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run(experiment, display=quiet())
        hub("models--owner--name", NEW)
        with pytest.raises(InputError, match=r"commit aaaaaaaaaaaa then, commit bbbbbbbbbbbb now"):
            run(experiment, display=quiet())

    def test_a_commit_that_is_known_only_once_it_was_loaded_is_kept_from_then_on(
        self, experiment: Experiment, hub: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def loaded(*args: object, **kwargs: object) -> object:
            hub("models--owner--name", OLD)
            return quick_train(*args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr("llamaduo.steps.steps.train", loaded)
        run(experiment, display=quiet())
        told = json.loads((run_folder(experiment) / IDENTITY).read_text())
        assert told == {"local_model.path": f"commit {OLD}"}

    def test_a_pinned_commit_can_not_move(self, compose_experiment: Compose, hub: Callable[[str, str], None]) -> None:
        hub("models--owner--name", NEW)
        pinned = compose_experiment(*OFFLINE, "local_model.path=owner/name", f"local_model.revision={OLD}")
        assert identity(pinned) == {}


def test_verify_takes_the_models_content_as_the_run_recorded_it(compose_experiment: Compose, mine: Path) -> None:
    experiment = compose_experiment(*OFFLINE, f"local_model.path={mine}")
    run(experiment, display=quiet())
    folder = run_folder(experiment)
    shutil.rmtree(mine)
    found = verify(folder)
    assert (found.differences, found.counts["fingerprints"]) == ([], 1)
