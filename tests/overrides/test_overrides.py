"""Arguments as people write them: names with commas, brackets and accents, `~`, escapes; refusals that show the way.

A mended command that a refusal shows is taken as it is: split as a shell does it, it has to bring the text across.
"""

from __future__ import annotations

import os
import shlex
import string
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from llamaduo import cli
from llamaduo.compose import compose
from llamaduo.config import Experiment
from llamaduo.errors import ConfigError
from llamaduo.overrides.grammar import kind_of, read, refuse_sweeps
from llamaduo.stages.infer import odd_stops

OFFLINE = ("data=file", "judge=reference", "synthesis=none", "train=none")
NAMES = [
    "日本語.jsonl", "my data, v2.jsonl", "a=b.jsonl", "it's.jsonl", "x [final].jsonl", "[x].jsonl", "{x}.jsonl",
    "report (1).jsonl", "a#b.jsonl", "a;b.jsonl", 'say "hi".jsonl', "back\\slash\\\\es.jsonl", "~x.jsonl", "1e5.jsonl",
    "a${b}.jsonl", "${x.jsonl", " blank.jsonl", "a\u00a0b.jsonl", "100%.jsonl", "a\nb.jsonl", "a, b=c [d] 'é'.jsonl",
]  # fmt: skip


def composed(*argv: str) -> Experiment:
    found = compose(list(argv))
    assert found is not None
    return found.experiments[0]


def taken(argument: str) -> Any:
    """Return what Hydra makes of an argument that was read before."""
    arguments = read([argument], sweeps=False)
    refuse_sweeps(arguments)
    return OverridesParser.create().parse_override(arguments[0]).value()


def error_of(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(list(argv))
    assert "Exception" not in str(caught.value)
    assert "hydra.cc" not in str(caught.value)
    return str(caught.value)


def mended(told: str) -> str:
    """Return the argument that a refusal says to write."""
    shown = told[told.index(" write ") + len(" write ") :].removesuffix(".")
    (argument,) = shlex.split(shown)
    return argument


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_read_whatever_its_name(name: str) -> None:
    Path(name).touch()
    assert composed(*OFFLINE, f"data.path={name}").data.path == name


@pytest.mark.parametrize("mark", [*string.punctuation, *"é日\u00a0\n"])
@pytest.mark.parametrize("place", ["{}ab", "a{}b", "ab{}"])
def test_a_text_comes_across_or_the_message_says_how(mark: str, place: str) -> None:
    text = place.format(mark)
    argument, told = f"data.category={text}", ""
    try:
        taken(argument)
    except ConfigError as error:
        told = str(error)
        argument = mended(told)
    assert "Exception" not in told
    assert taken(argument) == text


@pytest.mark.parametrize("text", ["1e5", "true", "1_000", "[a]", "{a: b}", " a "])
def test_what_can_only_be_a_text_is_one(text: str) -> None:
    Path("pairs.jsonl").touch()
    assert composed(*OFFLINE, "data.path=pairs.jsonl", f"data.category={text}").data.category == text


def test_an_address_may_have_brackets() -> None:
    url = "http://[::1]:8000/v1"
    panel = "judge.panel.endpoint"
    found = composed("judge=endpoint", f"{panel}.base_url={url}", f"{panel}.model=a=b")
    assert (found.judge.panel["endpoint"].base_url, found.judge.panel["endpoint"].model) == (url, "a=b")


def test_a_comma_without_a_sweep_is_explained() -> None:
    assert mended(error_of("data.category=a,b")) == 'data.category="a,b"'
    told = error_of("infer.stop=a,b")
    assert "-m (--multirun)" in told
    assert "For a list write 'infer.stop=[a,b]'" in told


def test_a_number_is_not_told_how_to_be_a_text() -> None:
    assert error_of("train.lora_r=4,8").endswith("which needs -m (--multirun).")


def test_a_sweep_over_a_list_sweeps_over_lists() -> None:
    told = error_of("-m", "infer.stop=a,b")
    (several, one) = (argument for argument in shlex.split(told) if "infer.stop=[" in argument)
    found = compose(["-m", several.rstrip(";")])
    assert found is not None
    assert [experiment.infer.stop for experiment in found.experiments] == [["a"], ["b"]]
    assert composed(one.rstrip(".")).infer.stop == ["a", "b"]


@pytest.mark.parametrize("swept", ["study=glob(*)", "task=glob(x*)", "train.lora_r=range(8,4)"])
def test_a_sweep_of_nothing_is_refused(swept: str) -> None:
    assert error_of("-m", swept).startswith(f"-m {swept}: this comes to no run at all")


@pytest.mark.parametrize(
    "argv", [("-cp", "x"), ("-sc", "install=bash"), ("--experimental-rerun", "x"), ("--resolve",), ("-p", "task")]
)
def test_options_that_would_change_nothing_are_refused(argv: tuple[str, ...]) -> None:
    assert error_of(*argv).startswith("-")


def test_values_of_a_sweep_are_read_one_by_one() -> None:
    for name in ("é.jsonl", "b=c.jsonl"):
        Path(name).touch()
    found = compose(["-m", *OFFLINE, "data.path=é.jsonl,b=c.jsonl", "infer.samples=1,2"])
    assert found is not None
    paths = [experiment.data.path for experiment in found.experiments]
    assert paths == ["é.jsonl", "é.jsonl", "b=c.jsonl", "b=c.jsonl"]


@pytest.mark.parametrize(
    ("argument", "stop"),
    [
        (r'infer.stop=["\n"]', ["\n"]),
        (r"infer.stop=['\n\n','a\tb']", ["\n\n", "a\tb"]),
        (r"infer.stop=[\n]", ["\n"]),
        (r"infer.stop=\n", ["\n"]),
        (r'infer.stop=["\\n"]', [r"\n"]),
        ('infer.stop=["a,b",#]', ["a,b", "#"]),
        ("infer.stop=###", ["###"]),
        ("infer.stop=User: ", ["User: "]),
        ("infer.stop=true", ["true"]),
        ("infer.stop=1e400", ["1e400"]),
    ],
)
def test_escapes_in_stop_strings_are_what_they_mean(argument: str, stop: list[str]) -> None:
    assert composed(argument).infer.stop == stop


def test_escapes_in_parameters_are_what_they_mean() -> None:
    found = composed(r'+service_llm.parameters.stop=["\n"]', r"+service_llm.parameters.extra={end:'\t'}")
    assert found.service_llm.parameters["stop"] == ["\n"]
    assert found.service_llm.parameters["extra"] == {"end": "\t"}


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ('infer.stop=["a', ["brackets or quotes don't close", "A list looks like"]),
        ("+service_llm.parameters.x={a:b", ["brackets or quotes don't close"]),
        ("task=${x", ["`${` begins a reference"]),
        ("data.category=${x}", ["${x} refers to a key that there isn't", r"\${x}"]),
        ("ü=1", ["'ü' is no key"]),
        ("train epochs=1", ["'train epochs' is no key"]),
        ("data..path=1", ["data..path", "is no key"]),
        ("train.=3", ["'train.' is no key"]),
        ("=3", ["'' is no key"]),
        ("~", ["'~' is no key"]),
        ("infer.stop=", ["holds a list", "infer.stop=[]"]),
        ("infer.stop={a:b}", ["infer.stop", "holds a list"]),
        ("study=null", ["study: it can't be null"]),
        ("study=${x}", ["study: ${x} refers to a key that there isn't"]),
        ("train=3", ["train=3", "name of one of its options", "train.KEY=VALUE"]),
        ("train=[1]", ["train=[1]", "name of one of its options"]),
        ("hydra.sweeper.params={a:b}", ["hydra.sweeper.params={a:b}", "no place there"]),
        ("infer.server.model=x", ["infer.server.model=x", "no place there"]),
        ("service_llm.parameters.x=a,b", ["service_llm.parameters.x=a,b", "-m (--multirun)"]),
    ],
)
def test_what_can_not_be_read_is_refused_with_its_cause(argument: str, words: list[str]) -> None:
    told = error_of(argument)
    assert len(told.splitlines()) == 1
    assert all(word in told for word in words), told


def test_the_schema_tells_what_a_key_holds() -> None:
    assert kind_of("data.path") is str
    assert kind_of("judge.panel.any.base_url") is str
    assert kind_of("infer.server.model") is str
    assert kind_of("infer.stop") == list[str]
    assert kind_of("nothing.at.all") is None


def test_a_backslash_that_comes_from_a_file_is_noted() -> None:
    assert odd_stops(["\n", "###"]) == []
    (told,) = odd_stops([r"\n\n"])
    assert "no line break" in told


class TestHome:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        made = tmp_path / "me"
        made.mkdir()
        (made / "pairs.jsonl").touch()
        (made / "rubric.txt").write_text("$instruction $reference $candidate")
        monkeypatch.setenv("HOME", str(made))
        return made

    def test_every_path_may_begin_with_it(self, home: Path) -> None:
        found = composed(
            *OFFLINE, "data.path=~/pairs.jsonl", "runtime.results=~/results", "runtime.cache=~/rows",
            "service.journal=~/j.sqlite", "infer.vllm=~/vllm",
        )  # fmt: skip
        paths = (found.data.path, found.runtime.results, found.runtime.cache, found.service.journal, found.infer.vllm)
        assert paths == tuple(str(home / n) for n in ("pairs.jsonl", "results", "rows", "j.sqlite", "vllm"))

    def test_so_in_a_study_and_its_sweeps_folder(self, home: Path, tmp_path: Path) -> None:
        text = "defaults: [config, _self_]\nruntime: {results: ~/results}\nlocal_model: {path: ~/model}\n"
        (tmp_path / "mine.yaml").write_text(text)
        (home / "model").mkdir()
        (home / "model" / "config.json").write_text("{}")
        for sweep in ((), ("-m", "infer.samples=1,2")):
            found = compose([*sweep, "-cd", str(tmp_path), "-cn", "mine"])
            assert found is not None
            assert found.experiments[0].runtime.results == str(home / "results")
            assert found.experiments[0].local_model.path == str(home / "model")
        assert found.sweep is not None
        found.sweep.launch(lambda _: None, [0, 1])
        assert not Path("~").exists()

    def test_so_in_the_variable_of_the_shared_folder(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from llamaduo.service.journal import default_path

        monkeypatch.setenv("LLAMADUO_HOME", "~/duo")
        assert default_path() == home / "duo" / "journal.sqlite"

    def test_without_a_home_folder_it_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
        assert "no home folder" in error_of("runtime.results=~/results")

    @pytest.mark.parametrize("arguments", [["report", "~/nothing"], ["verify", "~/nothing"], ["status", "~/nothing"]])
    def test_so_in_the_arguments_of_commands(
        self, arguments: list[str], home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(arguments) == 2
        assert f"{home}/nothing: no such folder" in capsys.readouterr().err

    def test_so_in_an_option_that_the_shell_leaves_alone(self, home: Path) -> None:
        assert cli._at_home("--archive=~/x.tar.xz") == f"--archive={home}/x.tar.xz"
        assert cli._at_home("~judge.panel") == "~judge.panel"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "a.jsonl"], ["this is a file", "folder"]),
        (["status", "a.jsonl"], ["this is a file", "folder"]),
        (["track", "--offline", "a.jsonl"], ["this is a file", "folder"]),
        (["journal", "import", "folder"], ["this is a folder", "file"]),
        (["journal", "service.journal=folder"], ["this is a folder", "file"]),
        (["run", "judge.prompt=folder"], ["a folder; name a text file"]),
        (["run", "local_model.path=a.jsonl"], ["this is a file", "folder"]),
        (["run", "-cd", "a.jsonl", "-cn", "x"], ["is a file", "folder"]),
    ],
)
def test_a_folder_where_a_file_is_wanted_is_called_one(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.jsonl").touch()
    Path("folder").mkdir()
    assert cli.main(arguments) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert all(word in told for word in words), told


class TestTopic:
    def prompt(self, *argv: str) -> str | None:
        return composed("preset=service", *argv).task.topic

    def test_own_data_have_no_topic_of_the_papers(self) -> None:
        Path("pairs.jsonl").touch()
        assert self.prompt("data=file", "data.path=pairs.jsonl") is None
        assert self.prompt("data=file", "data.path=pairs.jsonl", "task=coding") is None
        assert self.prompt("data=pocket", "data.source=file", "data.path=pairs.jsonl") is None
        assert self.prompt("data=hub", "data.path=owner/name", "data.revision=abc") is None

    def test_another_category_of_the_papers_data_has_another_topic(self) -> None:
        assert self.prompt("data=no_robots", "data.category=Chat") is None
        assert self.prompt("data=no_robots", "data.category=Classify") == "Classification"

    def test_a_topic_of_ones_own_is_named(self) -> None:
        Path("pairs.jsonl").touch()
        assert self.prompt("data=file", "data.path=pairs.jsonl", "task.topic=Support tickets") == "Support tickets"

    def test_the_papers_data_and_the_pocket_tasks_keep_theirs(self) -> None:
        assert self.prompt("task=coding") == "Coding"
        assert composed("task=closed_qa").task.topic == "Closed QA"
