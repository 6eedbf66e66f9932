"""A YAML that somebody shares writes, runs and imports nothing through Hydra, and brings in nothing of the environment.

Each attack is a study's file; what it would do is what Hydra does with it when nobody refuses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llamaduo.cli import main
from llamaduo.compose import compose
from llamaduo.errors import ConfigError
from llamaduo.runs.state import RunState

CANARY = "canary-0123456789abcdef"
CALL = "{_target_: os.system, _args_: ['touch owned']}"
LOG = "version: 1, handlers: {f: {class: logging.FileHandler, filename: ours.txt, mode: w}}, root: {handlers: [f]}"
ATTACKS = {
    "job_logging empties a file": f"job_logging: {{{LOG}}}",
    "hydra_logging empties a file": f"hydra_logging: {{{LOG}}}",
    "logging calls something": "job_logging: {version: 1, handlers: {f: {'()': os.system, command: touch owned}}}",
    "another folder of a run": "run: {dir: ours}",
    "files into a folder": "output_subdir: .",
    "a folder of each job": "sweep: {subdir: ../../ours}",
    "another working folder": "job: {chdir: true}",
    "variables": "job: {env_set: {HTTPS_PROXY: 'http://theirs'}}",
    "a callback": f"callbacks: {{x: {CALL}}}",
    "verbose libraries": "verbose: true",
    "a launcher of theirs": "launcher: {_target_: os.system}",
    "a launcher's setting": f"launcher: {{x: {CALL}}}",
    "a launcher's setting in a list": f"launcher: {{x: [{CALL}]}}",
    "a launcher's setting from elsewhere": "launcher: {x: '${service_llm.parameters.x}'}",
    "a launcher's setting that is made": "launcher: {x: '${oc.create:{_target_:os.system}}'}",
    "a sweeper of theirs": "sweeper: {_target_: os.system}",
    "a sweeper's setting": f"sweeper: {{params: {CALL}}}",
    "a package": "searchpath: ['pkg://theirs_package']",
    "a module": "searchpath: ['structured://theirs_package']",
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that writes a study's YAML; `ours.txt` is a file that must not change."""
    (tmp_path / "ours.txt").write_text("ours")
    (tmp_path / "theirs_package").mkdir()
    (tmp_path / "theirs_package/__init__.py").write_text("import pathlib; pathlib.Path('owned').write_text('x')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setattr("llamaduo.sweeps.job.run_one", lambda *_, **__: RunState(status="done", stop_reason="passed"))
    (tmp_path / "theirs").mkdir()

    def write(text: str) -> None:
        head = "defaults:\n  - config\n  - _self_\nservice_llm: {parameters: {x: " + CALL + "}}\n"
        (tmp_path / "theirs/study.yaml").write_text(head + text + "\n")

    return write


def of(arguments: list[str]) -> list[str]:
    return ["-cd", "theirs", "-cn", "study", *arguments]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_shared_yaml_does_nothing_through_hydra(
    attack: str, study: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study(f"hydra: {{{ATTACKS[attack]}}}")
    assert main(["run", *of(["-m", "runtime.seed=1,2"])]) == 2
    told = capsys.readouterr().err
    assert "hydra" in told
    assert len(told.splitlines()) <= 2
    assert (tmp_path / "ours.txt").read_text() == "ours"
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "results").exists()
    assert "theirs_package" not in sys.modules


def test_what_a_study_needs_of_hydra_is_let_through(study: Callable[[str], None], tmp_path: Path) -> None:
    folder = (tmp_path / "more").as_uri()
    (tmp_path / "more").mkdir()
    study(f"hydra: {{mode: MULTIRUN, searchpath: ['{folder}'], sweeper: {{params: {{runtime.seed: '1,2'}}}}}}")
    found = compose(of([]))
    assert found is not None
    assert [experiment.runtime.seed for experiment in found.experiments] == [1, 2]
    for launch in ("joblib", "slurm"):
        assert compose(of([f"launch={launch}"])) is not None


FIELDS = (
    "study: VALUE", "name: VALUE", "tracking: {project: VALUE}", "service: {journal: VALUE}",
    "runtime: {results: VALUE}",
    "judge: {panel: {pocket_judge: {model: VALUE}}}", "service_llm: {base_url: VALUE}",
    "service_llm: {parameters: {extra_headers: {x: VALUE}}}", "hydra: {sweep: {dir: VALUE}}",
    "hydra: {launcher: {x: VALUE}}", "infer: {stop: [VALUE]}", "data: {path: VALUE}",
)  # fmt: skip
FORMS = (
    "${oc.env:OPENAI_API_KEY}", "${oc.env:OPENAI_API_KEY,none}", "${ oc.env : OPENAI_API_KEY }",
    "${oc.decode:\"${oc.env:OPENAI_API_KEY}\"}", "${oc.${a}:OPENAI_API_KEY}",
)  # fmt: skip


@pytest.mark.parametrize("at", range(len(FIELDS)))
def test_no_variable_of_the_environment_gets_into_what_is_written(
    at: int, study: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = "'" + FORMS[at % len(FORMS)].replace("'", "''") + "'"
    study(FIELDS[at].replace("VALUE", value))
    assert main(["run", *of(["-m", "runtime.seed=1,2"] if "hydra" in FIELDS[at] else [])]) == 2
    printed = "".join(capsys.readouterr())
    assert CANARY not in printed
    assert "OPENAI_API_KEY]" not in printed
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("field", ["name: VALUE", "study: VALUE", "service_llm: {model: VALUE}"])
def test_a_variable_that_holds_no_key_is_brought_in_as_little(
    field: str, study: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SOME_OTHER_VARIABLE", "the-canary-of-a-host")
    study(field.replace("VALUE", "'${oc.env:SOME_OTHER_VARIABLE}'"))
    code = main(["run", *of(["preset=smoke", "loop.max_iterations=1"])])
    printed = "".join(capsys.readouterr())
    written = [path for path in tmp_path.rglob("*") if "canary-of-a-host" in str(path)]
    written += [path for path in tmp_path.rglob("*") if path.is_file() and b"canary-of-a-host" in path.read_bytes()]
    assert (code, written) == (2, [])
    assert "canary-of-a-host" not in printed


def test_the_refusal_says_what_to_do(study: Callable[[str], None]) -> None:
    study("judge: {panel: {pocket_judge: {model: '${oc.env:OPENAI_API_KEY}'}}}")
    with pytest.raises(ConfigError, match=r"^judge.panel.pocket_judge.model: \$\{oc.env:OPENAI_API_KEY\} is not"):
        compose(of([]))


def test_a_machine_can_have_a_journal_of_its_own(study: Callable[[str], None]) -> None:
    import socket

    study("service: {journal: '/shared/${host:}.sqlite'}")
    found = compose(of([]))
    assert found is not None
    assert found.experiments[0].service.journal == f"/shared/{socket.gethostname()}.sqlite"


def test_a_yaml_nested_too_deeply_is_refused(study: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    study("study: " + "[" * 20_000)
    assert main(["run", *of([])]) == 2
    assert "nested too deeply" in capsys.readouterr().err


def _laughs(levels: int) -> str:
    """Return lists of nine of the one before, each."""
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]" for n in range(levels)]
    return "\n".join(lines)


TOO_MUCH = {
    "aliases of aliases": (_laughs(9), "its aliases come to more than"),
    "aliases of a long text": (f"a: &a {'x' * 200_000}\nb: [{'*a, ' * 10}]", "its aliases come to more than"),
    "merged": ("a: &a {x: 1}\nb: &b {<<: *a}\nc: &c [*c]", "the alias c stands for nothing before it"),
    "megabytes": ("a: " + "x" * (1 << 21), "more than 1,048,576 characters"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_small_yaml_does_not_fill_the_memory(
    name: str, study: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    text, told = TOO_MUCH[name]
    study(text)
    assert main(["run", *of([])]) == 2
    printed = capsys.readouterr().err
    assert "study.yaml: not read as a configuration" in printed
    assert told in printed


def test_a_yaml_may_have_aliases(study: Callable[[str], None]) -> None:
    study("infer: {stop: &end ['###']}\njudge: {panel: {pocket_judge: {parameters: {stop: *end}}}}")
    found = compose(of([]))
    assert found is not None
    assert found.experiments[0].judge.panel["pocket_judge"].parameters["stop"] == ["###"]
