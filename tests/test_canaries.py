"""Six canary keys through success, every fault, bad configuration, traceback and debug log: no trace anywhere.

A trace is a key as it is, in base64 (wherever it begins), URL-encoded or escaped as JSON does it, in anything that
was printed, logged or written: results, journal, home, W&B's folder, caches, temporary files. The wire double echoes
every key that it is sent in its errors. What it says under status 200 are its words, which are kept as they are.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from asking import silent
from wire_double import KINDS, PROVIDERS, Double, Settings, serving

from llamaduo import redaction
from llamaduo.cli import main
from llamaduo.config import Price, ServiceLLM
from llamaduo.redaction import redact_logs
from llamaduo.service import buying
from llamaduo.service.attempts import Reply
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal
from llamaduo.service.requests import Request

CANARIES = {
    "OPENAI_API_KEY": "sk-canary-0aG7+/q=Zk4TwE2x9Lm",
    "ANTHROPIC_API_KEY": "sk-ant-canary-1bH8%r+Yl5UvF3y",
    "GEMINI_API_KEY": "AIzaCanary2cI9_s-Xm6VuG4z_0KpQw7Rt5Yu3Iop",
    "WANDB_API_KEY": "3dca9a4703f1e5b86d2c9a4703f1e5b86d2cfeed",
    "HF_TOKEN": "hf_Canary4eK1uZo8XsI6b",
    "OUR_GATEWAY": "canary:5fL2v@An9\\YrJ7c/+&=?#",
}
KEY_OF = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}
UNKNOWN_KEY = "sk-proj-ofSomebodyElse0123456789"
"""A key that no variable holds: what it is shows in its form alone."""

Progress = Callable[[int, int], None]


@pytest.fixture(autouse=True)
def canaries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the canaries into the environment, and undo what the command line does to the process."""
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(redaction, "_named", set())
    before = logging.getLogRecordFactory(), sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    logging.setLogRecordFactory(before[0])
    sys.excepthook, threading.excepthook, sys.unraisablehook = before[1:]


@pytest.fixture(scope="module")
def double() -> Iterator[Double]:
    with serving(Settings(says="judge", echo_secrets=True, retry_after_s=0.01, hang_s=60.0)) as running:
        yield running


def forms(key: str) -> set[str]:
    """Return every form in which a key may show."""
    found = {key, json.dumps(key)[1:-1], repr(key)[1:-1], quote(key), quote(key, safe=""), quote_plus(key)}
    found |= {quote(key, safe="").lower()} | {quote(form, safe="") for form in list(found)}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            ends = (encode(fill * shift + key.encode() + fill * 3).decode() for fill in (b"\0", b"\xff"))
            found.add(_in_both(*ends))
    return found


def _in_both(one: str, other: str) -> str:
    """Return what two texts of one length have in common between their ends."""
    same = [a == b for a, b in zip(one, other, strict=True)]
    begin = same.index(True)
    return one[begin : begin + ([*same[begin:], False]).index(False)]


FORMS = {form.encode(): name for name, key in CANARIES.items() for form in forms(key)}


def traces(content: bytes) -> set[str]:
    """Return the names of the keys that show in some bytes."""
    return {name for form, name in FORMS.items() if form in content}


def traces_in(place: Path) -> dict[str, set[str]]:
    """Return the names of the keys that show in the files below a folder, in names and in what databases hold."""
    found = {}
    for path in sorted(place.rglob("*")):
        shown = traces(os.fsencode(path))
        if path.is_file():
            shown |= traces(path.read_bytes())
            if path.suffix == ".sqlite":
                shown |= traces(_dump(path).encode(errors="replace"))
        if shown:
            found[str(path.relative_to(place))] = shown
    return found


def _dump(path: Path) -> str:
    """Return all that a database holds: in its file a key may lie on two pages."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return "\n".join(db.iterdump())


def test_a_trace_would_be_found(tmp_path: Path) -> None:
    assert len(FORMS) > 40
    for name, key in CANARIES.items():
        for shift in range(6):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                assert traces(encode(b"user:x"[:shift] + key.encode() + b"@host")) == {name}
        for text in (f"?key={quote(key, safe='')}&a=b", f"?key={quote_plus(key)}", json.dumps({"a": f" {key} "})):
            assert traces(text.encode()) == {name}
        (tmp_path / "deep").mkdir(exist_ok=True)
        (tmp_path / "deep" / "file.bin").write_bytes(b"\0\xff" + key.encode() + b"\xff")
        assert traces_in(tmp_path) == {"deep/file.bin": {name}}
    (tmp_path / "deep" / "file.bin").unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / "a.sqlite")) as db:
        db.execute("CREATE TABLE t (text TEXT)")
        db.execute("INSERT INTO t VALUES (?)", ("x" * 4050 + CANARIES["HF_TOKEN"] + "x" * 9000,))
        db.commit()
    assert traces_in(tmp_path) == {"a.sqlite": {"HF_TOKEN"}}


# ---------------------------------------------------------------- every fault, through the client


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_fault_leaves_a_trace(
    double: Double,
    provider: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    redact_logs()
    for logger in ("", "httpx", "httpcore", "openai", "LiteLLM"):
        caplog.set_level(logging.DEBUG, logger or None)
    monkeypatch.setattr(buying, "_LONGEST_WAIT", 0.0)
    double.control(reset=True, scripts={f"prompt {kind}": [kind] * 9 for kind in KINDS})
    known = {"provider": provider, "model": "m", "base_url": double.url(provider), "price": Price(1.0, 1.0, "x")}
    llm = ServiceLLM(name=provider, timeout_s=1.0, max_attempts=1, json_schema=False, concurrency=1, **known)
    gateway = ServiceLLM(**{**vars(llm), "name": "gateway", "api_key_env": "OUR_GATEWAY"})
    said = []
    asked = [(llm, kind) for kind in ("ok", *KINDS)] + [(gateway, kind) for kind in ("ok", "401", "503", "error_200")]
    for one, kind in asked:
        service = Service(Journal(tmp_path / "journal.sqlite"), run="study/run", budget_usd=None)
        try:
            (outcome,) = service.ask([Request(one, f"prompt {kind}, {one.name}", None, 0, "judge")], silent)
            said.append(outcome.text if isinstance(outcome, Reply) else outcome.message)
            assert isinstance(outcome, Reply) or kind not in ("ok", "length")
        except Exception as error:
            said.append(str(error))
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            service.close()
    printed = capsys.readouterr()
    assert traces("\n".join(said).encode()) == set()
    assert traces(caplog.text.encode()) == set()
    assert traces((printed.out + printed.err).encode()) == set()
    assert traces_in(tmp_path) == {}
    assert f"[{KEY_OF[provider]}]" in "\n".join(said)  # it was echoed, and taken out
    assert "Traceback" in printed.err


@pytest.mark.parametrize("key", [CANARIES["OPENAI_API_KEY"], "lm-studio"])
def test_a_servers_words_are_kept_whatever_is_in_them(
    double: Double, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("PARTITION_KEY", "similarity-of-2024-eu")
    double.control(reset=True, echo_in_replies=True)
    known = {"provider": "openai", "model": "m", "base_url": double.url("openai"), "price": Price(1.0, 1.0, "x")}
    llm = ServiceLLM(name="similarity-of-2024-eu", **known)
    service = Service(Journal(tmp_path / "journal.sqlite"), run="study/run", budget_usd=None)
    try:
        (reply,) = service.ask([Request(llm, "a prompt", None, 0, "judge")], silent)
    finally:
        service.close()
        double.control(reset=True, echo_secrets=True, echo_in_replies=False)
    assert isinstance(reply, Reply)
    assert f"authorization=Bearer {key};" in reply.text
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite")) as db:
        ((raw,),) = db.execute("SELECT raw FROM replies")
    assert f"Bearer {key};" in (raw if isinstance(raw, str) else raw.decode())


# ---------------------------------------------------------------- bad configuration

AT = "judge.panel.endpoint"
ENDPOINT = ("preset=smoke", "judge=endpoint", "synthesis=none", f"{AT}.model=m", f"{AT}.base_url=http://127.0.0.1:9/v1")
PLACES = {
    "a key of its own": f"+{AT}.api_key={{}}",
    "api_key_env": f"{AT}.api_key_env={{}}",
    "a parameter": f"+{AT}.parameters.user={{}}",
    "a deep parameter": f"+{AT}.parameters.metadata.list=[a,{{}}]",
    "a parameter's name": f"+{AT}.parameters={{{{{{}}: 1}}}}",
    "the address": f"{AT}.base_url=http://127.0.0.1:9/{{}}/v1",
    "the address's user": f"{AT}.base_url=http://user:{{}}@127.0.0.1:9/v1",
    "the model": f"{AT}.model={{}}",
    "a number": "judge.repeats={}",
    "the study": "study={}",
    "W&B's project": "tracking.project={}",
    "no such key": "{}=1",
    "no such option": "judge={}",
    "the journal": "service.journal={}.sqlite",
    "a price": "+prices.{}.input=1",
    "no override": "{}",
    "an option": "--config-name={}",
}
COMMON = {"OPENAI_API_KEY": CANARIES["OPENAI_API_KEY"], "HF_TOKEN": CANARIES["HF_TOKEN"], "unknown": UNKNOWN_KEY}


def run(arguments: list[str], capsys: pytest.CaptureFixture[str], *, debug: bool = False) -> tuple[int, str]:
    """Call the command line as the console script does; return exit code and all that is printed."""
    try:
        code = main([*arguments, "--debug"] if debug else arguments)
    except Exception as error:
        assert debug
        sys.excepthook(type(error), error, error.__traceback__)
        code = getattr(error, "exit_code", 1)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def clean(text: str, place: Path) -> None:
    """Check that neither a canary nor the unknown key shows in a text or in a file."""
    assert traces(text.encode()) == set(), text
    assert UNKNOWN_KEY not in text, text
    assert traces_in(place) == {}
    assert not [path for path in place.rglob("*") if path.is_file() and UNKNOWN_KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("name", COMMON)
@pytest.mark.parametrize("place", PLACES)
def test_a_literal_key_on_the_command_line_is_refused_unseen(
    place: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for debug in (False, True):
        code, printed = run(["run", *ENDPOINT, PLACES[place].format(COMMON[name])], capsys, debug=debug)
        assert code == 2, printed
        assert "literal key" in printed
        clean(printed, tmp_path)


@pytest.mark.parametrize("command", ["run", "quote", "report", "journal", "doctor", ""])
def test_a_key_in_the_place_of_anything_else_is_refused_unseen(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in COMMON.values():
        code, printed = run([*([command] if command else []), key], capsys)
        assert (code, "literal key" in printed) == (2, True)
        clean(printed, tmp_path)


YAML = """\
# @package _global_
defaults: [config, _self_]
judge:
  panel:
    pocket_judge:
      {where}
"""
IN_YAML = {
    "a parameter": 'parameters: {{user: "{}"}}',
    "a parameter's name": 'parameters: {{"{}": 1}}',
    "a list": 'parameters: {{stop: [a, "b {} c"]}}',
    "the address": 'base_url: "https://host/{}"',
    "a key of its own": 'api_key: "{}"',
    "the variable's name": 'api_key_env: "{}"',
    "a number": 'max_tokens: "{}"',
    "no YAML": 'model: "{}',
    "no such key": '"{}": 1',
}


@pytest.fixture
def with_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Return a function that asks for the cost of a study with a line in its file; no call is made for that."""
    study = tmp_path.parent / f"{tmp_path.name}-study"

    def quote_of(line: str, **options: bool) -> tuple[int, str]:
        study.mkdir(exist_ok=True)
        (study / "ours.yaml").write_text(YAML.format(where=line))
        return run(["quote", "-cd", str(study), "-cn", "ours"], capsys, **options)

    return quote_of


def test_the_study_itself_is_one_that_works(with_study: Callable[..., tuple[int, str]]) -> None:
    for where in ("a parameter's name", "the address"):
        code, printed = with_study(IN_YAML[where].format("HARMLESS"))
        assert code == 0, printed


@pytest.mark.parametrize("key", [CANARIES["ANTHROPIC_API_KEY"], UNKNOWN_KEY])
@pytest.mark.parametrize("where", IN_YAML)
def test_a_literal_key_in_a_studys_file_is_refused_unseen(
    where: str, key: str, tmp_path: Path, with_study: Callable[..., tuple[int, str]]
) -> None:
    code, printed = with_study(IN_YAML[where].format(key), debug=key == UNKNOWN_KEY)
    assert (code, "literal key" in printed) == (
        2,
        where not in ("a number", "no YAML", "no such key", "a key of its own"),
    )
    clean(printed, tmp_path)


@pytest.mark.parametrize("where", ["a parameter", "the address"])
def test_a_key_in_another_form_is_refused_too(
    where: str, tmp_path: Path, with_study: Callable[..., tuple[int, str]]
) -> None:
    key = CANARIES["ANTHROPIC_API_KEY"]
    for form in (quote(key, safe=""), base64.b64encode(b"me:" + key.encode()).decode()):
        code, printed = with_study(IN_YAML[where].format(form))
        assert (code, "literal key" in printed) == (2, True), printed
        clean(printed, tmp_path)


@pytest.mark.parametrize(
    "override",
    [
        "tracking.project=${oc.env:WANDB_API_KEY}",
        f"{AT}.model=${{oc.env:OPENAI_API_KEY}}",
        f"{AT}.base_url=http://h/${{oc.env:OUR_GATEWAY}}",
        f"+{AT}.parameters.a.b=${{oc.env:HF_TOKEN}}",
        "study=${oc.env:GEMINI_API_KEY}",
        "judge.repeats=${oc.env:ANTHROPIC_API_KEY}",
    ],
)
@pytest.mark.parametrize("option", [[], ["--cfg", "all", "--resolve"], ["-m"]])
def test_a_key_that_an_interpolation_brings_in_leaves_no_trace(
    override: str, option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = f"{AT}.api_key_env=OUR_GATEWAY"
    code, printed = run(["run", *option, *ENDPOINT, named, override], capsys, debug=not option)
    assert code == 2 or "--cfg" in option
    clean(printed, tmp_path)


def test_the_value_of_the_variable_that_the_configuration_names_is_refused_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "canary-of-no-common-name"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUR_GATEWAY", key)
        for override in (f"{AT}.base_url=http://h/{key}", f"+{AT}.parameters.user={key}", f"{AT}.model={key}"):
            code, printed = run(["run", *ENDPOINT, f"{AT}.api_key_env=OUR_GATEWAY", override], capsys)
            assert (code, "literal key" in printed) == (2, True), printed
            assert key not in printed
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize("end", ["\n", "\r", " "])
def test_a_key_that_no_header_can_carry_leaves_no_trace(
    end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARIES["OPENAI_API_KEY"] + end)
    code, printed = run(["run", *ENDPOINT], capsys)
    assert code == 2
    assert "OPENAI_API_KEY holds what no key does" in printed
    clean(printed, tmp_path)


# ---------------------------------------------------------------- whole runs, as processes of their own

QUICK = """
import sys
from fakes import quick_infer, quick_train
from llamaduo.steps import steps
from llamaduo.service import buying
steps.train, steps.infer = quick_train, quick_infer
buying._LONGEST_WAIT = 0.0
from llamaduo.cli import main
sys.exit(main())
"""
LOUD = "import logging\nlogging.basicConfig(level=logging.DEBUG)\n"


def panel(double: Double) -> list[str]:
    """Return a panel that uses four of the keys."""
    members = {"endpoint": ("openai", "OPENAI_API_KEY"), "gateway": ("openai", "OUR_GATEWAY")}
    members |= {"claude": ("anthropic", "ANTHROPIC_API_KEY"), "gem": ("gemini", "GEMINI_API_KEY")}
    found = ["preset=smoke", "judge=endpoint", "synthesis=none", "judge.max_unscored=1.0"]
    for name, (provider, variable) in members.items():
        at = f"judge.panel.{name}"
        found += [] if name == "endpoint" else [f"+service_llm@{at}=endpoint"]
        found += [f"{at}.name={name}", f"{at}.provider={provider}", f"{at}.model={name}", f"{at}.send_seed=false"]
        found += [f"{at}.base_url={double.url(provider)}", f"{at}.api_key_env={variable}", f"{at}.json_schema=false"]
        found += [f"{at}.max_attempts=9", f"{at}.timeout_s=1.0", f"{at}.concurrency=4"]
    return found


class Started:
    """A llamaduo process with everything that it writes below one folder, and all that can be loud being loud."""

    def __init__(self, place: Path, arguments: list[str], *, quick: bool) -> None:
        home, loud = place / "user", place.parent / f"{place.name}-loud"
        for folder in (home, place / "tmp", loud):
            folder.mkdir(parents=True)
        (loud / "sitecustomize.py").write_text(LOUD)
        paths = [str(loud), str(Path(__file__).parent), str(Path(__file__).parents[1])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HOME": str(home), "LITELLM_LOG": "DEBUG"}
        environment |= {"OPENAI_LOG": "debug", "TMPDIR": str(place / "tmp"), "LLAMADUO_HOME": str(place / "home")}
        environment |= {"WANDB_DEBUG": "true", "HYDRA_FULL_ERROR": "1"}
        start = ["-c", QUICK] if quick else ["-m", "llamaduo"]
        self._process = subprocess.Popen(
            [sys.executable, *start, "run", *arguments],
            cwd=place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.commands: set[bytes] = set()
        """The command lines of the process and all that came of it."""

    def ended(self) -> tuple[int, bytes]:
        """Look at command lines until it ends; return exit code and output."""
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(over,))
        watch.start()
        try:
            output, _ = self._process.communicate(timeout=110)
        finally:
            self._process.kill()
            over.set()
            watch.join()
        return self._process.returncode, output

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(0.02):
            family = {self._process.pid}
            for _ in range(4):
                family |= {int(child) for pid in family for child in _children(pid)}
            for pid in family:
                with contextlib.suppress(OSError):
                    self.commands.add(Path(f"/proc/{pid}/cmdline").read_bytes())


def _children(pid: int) -> list[str]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            found += (task / "children").read_text().split()
    return found


@pytest.mark.slow
def test_a_whole_run_with_wandb_and_every_debug_log_leaves_no_trace(double: Double, tmp_path: Path) -> None:
    double.control(reset=True, scripts={}, script=["429", "ok"])
    started = Started(tmp_path, [*panel(double), "tracking=wandb", "tracking.wandb=offline", "--debug"], quick=False)
    code, output = started.ended()
    assert code == 0, output[-3000:].decode()
    assert traces(output) == set()
    assert traces(b"\n".join(started.commands)) == set()
    assert traces_in(tmp_path) == {}
    assert len(started.commands) > 1  # W&B's process among them
    assert b"DEBUG" in output
    assert list(tmp_path.rglob("*.wandb"))


def test_a_run_through_faults_to_a_traceback_leaves_no_trace(double: Double, tmp_path: Path) -> None:
    faults = ["429", "500", "503", "529", "408", "drop_before_headers", "cut_body", "error_200"]
    double.control(reset=True, scripts={}, script=[*faults, "401"])
    code, output = Started(tmp_path, [*panel(double), "--debug"], quick=True).ended()
    assert code == 4
    assert b"Traceback" in output
    assert b"refused the call (" in output
    assert traces(output) == set()
    assert traces_in(tmp_path) == {}
    (state,) = tmp_path.rglob("state.json")
    assert "refused the call (" in json.loads(state.read_text())["error"]


def test_a_sweep_whose_jobs_fail_leaves_no_trace(double: Double, tmp_path: Path) -> None:
    double.control(reset=True, scripts={}, script=["401"] * 9)
    code, output = Started(tmp_path, ["-m", *panel(double), "judge.repeats=1,2"], quick=True).ended()
    assert code == 4
    assert b"2 of 2 runs did not finish" in output
    assert list(tmp_path.rglob("grid.json"))
    assert traces(output) == set()
    assert traces_in(tmp_path) == {}


MORE = {
    "a row of data": "sk-proj-rowCanary7fL2vAn9YrJ7c0000",
    "the command line": "ghp_" + "cmdCanary8gM3wBo0ZsK8d" * 2,
    "a study's file": "AKIACANARY9HN4XCP1A9",
    "an address": "sk-proj-urlCanary0iO5yDq2BuM0f000",
    "a header": "xoxb-1234567890-hdrCanary1jP6zEr3CvN1g",
    "a private key": "-----BEGIN PRIVATE KEY-----\nMIIcanary2kQ7aFs4DwO2h\n-----END PRIVATE KEY-----",
}
"""Six more keys, which no variable holds, and where they are put."""


def test_none_of_twelve_canaries_is_written_or_printed(
    double: Double, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    double.control(reset=True, scripts={}, script=["429", "401"])
    code, output = Started(tmp_path / "run", [*panel(double), "--debug"], quick=True).ended()
    assert code == 4
    assert b"Traceback" in output
    assert b"refused the call (" in output

    given = tmp_path_factory.mktemp("given")
    rows = [{"prompt": f"prompt {n}", "response": f"response {n}"} for n in range(40)]
    told = output.decode()
    for name in ("a row of data", "a private key"):
        path = given / f"{len(name)}.jsonl"
        row = {"prompt": f"what is {MORE[name]}", "response": MORE[name]}
        path.write_text("".join(json.dumps(one) + "\n" for one in [*rows, row]))
        code, printed = run(["run", "data=file", f"data.path={path}", "judge=reference", "synthesis=none"], capsys)
        assert (code, f"{path}:41: " in printed) == (2, True), printed
        told += printed
    (given / "ours.yaml").write_text(YAML.format(where=IN_YAML["a parameter"].format(MORE["a study's file"])))
    for arguments in (
        ["run", f"service_llm.model={MORE['the command line']}"],
        ["quote", "-cd", str(given), "-cn", "ours"],
        ["run", *ENDPOINT, PLACES["the address's user"].format(MORE["an address"])],
        ["run", *ENDPOINT, f"+{AT}.parameters.extra_headers={{x-slack: {MORE['a header']}}}"],
    ):
        code, printed = run(arguments, capsys, debug=True)
        assert (code, "literal key" in printed) == (2, True), printed
        told += printed
    assert len({*CANARIES.values(), *MORE.values()}) == 12
    assert traces(told.encode()) == set()
    assert traces_in(tmp_path) == {}
    lines = [key.split("\n")[-2 if "\n" in key else 0] for key in MORE.values()]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [line for line in lines if line in told or any(line.encode() in content for content in files)]
