"""Redaction: a key of the environment appears nowhere, in no form, in no log; a literal one is refused unseen."""

from __future__ import annotations

import base64
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

import pytest

from llamaduo import redaction
from llamaduo.cli import main
from llamaduo.redaction import literal_key, name_secret, redact, redact_logs, redact_message, refusal

SECRET = "k/9+Zq.w-7_very=secret~0123456789"


@pytest.fixture(autouse=True)
def named_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_named", set())


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    return SECRET


# ---------------------------------------------------------------- which variables, which forms


KEY = "of-16-or-more-with-a-digit"


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "ANY_PROVIDER_API_KEY", "WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"]
)
def test_a_variable_that_services_read_their_keys_from_holds_a_secret(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, KEY)
    assert redact(f"a {KEY} b") == f"a [{name}] b"


@pytest.mark.parametrize("name", ["PARTITION_KEY", "CACHE_TOKEN", "DB_PASSWORD", "MY_GATEWAY", "SECRET_SANTA", "MYKEY"])
def test_another_variable_holds_none_whatever_its_name_and_value_look_like(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, KEY)
    assert redact(f"Bearer {KEY}") == f"Bearer {KEY}"
    assert literal_key(f"data.path={KEY}/pairs.jsonl") is None


def test_but_one_that_api_key_env_names_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (KEY, "some-words-and-no-digit-at-all"):
        monkeypatch.setenv("MY_GATEWAY", value)
        name_secret("MY_GATEWAY")
        assert redact(f"a {value} b") == "a [MY_GATEWAY] b"


@pytest.mark.parametrize(
    "made_up", ["lm-studio", "not-needed", "placeholder", "customer_support_eu", "EMPTY", "sk-1234", "x", "none"]
)
def test_a_made_up_key_is_an_ordinary_word_except_where_a_key_stands(
    made_up: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", made_up)
    for text in (f"git clone {made_up}", f"no model {made_up!r} at http://{made_up}:1/v1", f"the key {made_up}"):
        assert redact_message(text) == text
        assert literal_key(text) is None
    for before in ("Authorization: Bearer ", "'api_key': '", '"x-api-key":"', "Incorrect API key provided: ", "?key="):
        assert redact(f"401: {before}{made_up}, is it?") == f"401: {before}[OPENAI_API_KEY], is it?"


def test_it_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("the-first-value-of-16-or-more", "the-second-value-of-16-or-more"):
        monkeypatch.setenv("SOME_API_KEY", value)
        assert redact(f"<{value}>") == "<[SOME_API_KEY]>"
    monkeypatch.delenv("SOME_API_KEY")
    assert redact("<the-second-value-of-16-or-more>") == "<the-second-value-of-16-or-more>"


def test_the_longer_of_two_secrets_is_taken_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_API_KEY", "common-start-1234")
    monkeypatch.setenv("B_API_KEY", "common-start-1234-and-more")
    assert redact("common-start-1234-and-more common-start-1234") == "[B_API_KEY] [A_API_KEY]"


def test_every_occurrence_goes_and_nothing_else(secret: str) -> None:
    text = f"{secret}{secret} and {secret[:-1]} and\n\t{secret}"
    assert redact(text) == f"[SOME_API_KEY][SOME_API_KEY] and {secret[:-1]} and\n\t[SOME_API_KEY]"
    assert redact("") == ""


@pytest.mark.parametrize(
    "form",
    [
        lambda value: value,
        quote,
        lambda value: quote(value, safe=""),
        quote_plus,
        lambda value: json.dumps({"authorization": f"Bearer {value}"}),
        lambda value: repr({"api_key": value}),
    ],
)
def test_it_is_found_in_every_form(form: Callable[[str], str], secret: str) -> None:
    found = redact(f"before {form(secret)} after")
    assert "[SOME_API_KEY]" in found
    assert "secret" not in found


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", range(7))
@pytest.mark.parametrize("after", range(4))
def test_in_base64_it_is_found_wherever_it_begins(
    encode: Callable[[bytes], bytes], before: int, after: int, secret: str
) -> None:
    encoded = encode(b"user:xx"[:before] + secret.encode() + b"\xff" * after).decode()
    found = redact(f"Basic {encoded}")
    assert "[SOME_API_KEY]" in found
    left = found.replace("[SOME_API_KEY]", "").removeprefix("Basic ")
    assert len(left) <= -(-(before + after) * 4 // 3) + 8
    for at in range(len(secret) - 4):  # nowhere are five characters in a row left
        for shift in range(3):
            part = encode(b"\0" * shift + secret[at : at + 5].encode()).decode()
            assert part[(0, 2, 3)[shift] : (shift + 5) // 3 * 4] not in left


@pytest.mark.parametrize("value", ['quo"ted\\password-1', "päss-wörd-ünd-0815", "日本語のパスワード日本語のパス123"])
def test_one_that_json_or_an_address_writes_otherwise_is_found_too(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_API_KEY", value)
    for written in (value, json.dumps(value), json.dumps(value, ensure_ascii=False), quote(value)):
        assert "[DB_API_KEY]" in redact(f"x{written}y"), written


def test_bytes_that_are_no_text_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "half \udcff a key of 16")
    assert redact("half \udcff a key of 16 \ud800") == "[SOME_API_KEY] \ud800"


# ---------------------------------------------------------------- literal keys


LITERAL = {
    "sk-proj-0123456789abcdefABCDEF_-": "OPENAI_API_KEY",
    "sk-ant-api03-0123456789abcdefghij": "ANTHROPIC_API_KEY",
    "AIzaSyA0123456789-abcdefghijklmnopqrstuv": "GEMINI_API_KEY",
    "hf_abcdefghijklmnopqrstuvwxyz0123": "HF_TOKEN",
    "gsk_abcdefghijklmnopqrstuvwx": "the provider's variable",
    "r8_abcdefghijklmnopqrstuvwx": "the provider's variable",
    "xai-abcdefghijklmnopqrstuvwx": "the provider's variable",
    "AKIAABCDEFGHIJKLMNOP": "the provider's variable",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6.eyJzdWIiOiIxMjM0": "the provider's variable",
}


@pytest.mark.parametrize(("key", "variable"), LITERAL.items())
def test_a_literal_key_is_known_by_its_looks(key: str, variable: str) -> None:
    for text in (key, f"judge.panel.x.parameters.a={key}", f"{{h: 'Bearer {key}'}}", f"http://host/{key}/v1"):
        assert literal_key(text) == variable
        assert redact_message(text) == text.replace(key, "[key]")
    assert key not in refusal("here", variable)


@pytest.mark.parametrize(
    "text",
    [
        "", "task=coding", "sk-1", "sk-learn", "service_llm.model=gpt-4o-2024-08-06", "hf_hub",
        "risk-averse-models-are-fine", "google/gemma-2-9b-it", "0123456789abcdef0123456789abcdef01234567",
        "results/runs/pocket_llama-coding-1a2b3c4d", "data.path=sk-learn-pipelines-of-2024-and-before/pairs.jsonl",
        "sk-no-key-required", "sk-questions_and_answers_2024_v2", "eyJ", "xoxo-hugs-and-kisses-2024", "a PRIVATE KEY",
        "/home/me/task-specific-sketches-of-something", "api_key_env=OPENAI_API_KEY",
    ],
)  # fmt: skip
def test_what_is_no_key_is_let_through(text: str) -> None:
    assert literal_key(text) is None
    assert redact_message(text) == text


def test_a_key_of_the_environment_is_known_by_its_value(secret: str) -> None:
    assert literal_key(f"x={secret}") == "SOME_API_KEY"
    assert redact_message(f"x={secret}") == "x=[SOME_API_KEY]"


@pytest.mark.parametrize("key", LITERAL)
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "service_llm.model={}"),
        ("run", "+service_llm.parameters.user={}"),
        ("run", "{}"),
        ("quote", "-m", "task=coding,{}"),
        ("run", "+{}=1"),
        ("report", "{}"),
        ("{}",),
    ],
)
def test_the_command_line_refuses_it_and_does_not_repeat_it(
    arguments: tuple[str, ...], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make = logging.getLogRecordFactory()
    hook = sys.excepthook
    try:
        assert main([argument.format(key) for argument in arguments]) == 2
    finally:
        logging.setLogRecordFactory(make)
        sys.excepthook = hook
    shown = capsys.readouterr()
    assert key not in shown.out + shown.err
    assert "keys come from the environment alone" in shown.err
    assert LITERAL[key] in shown.err
    assert len(shown.err.splitlines()) == 1


# ---------------------------------------------------------------- logs


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Redact logs as the command line does, and return what a handler writes; all is undone afterwards."""
    make, hook, disabled = logging.getLogRecordFactory(), sys.excepthook, logging.root.manager.disable
    logging.disable(logging.NOTSET)
    redact_logs()
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("some.library")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.disabled = False
    yield text
    logger.removeHandler(handler)
    logging.disable(disabled)
    logging.setLogRecordFactory(make)
    sys.excepthook = hook


LOGGER = logging.getLogger("some.library")


def test_every_record_of_every_logger_is_redacted(secret: str, log: io.StringIO) -> None:
    LOGGER.debug(f"the key {secret}")
    LOGGER.warning("the key %s of %d", secret, 1)
    LOGGER.error("headers %(a)s", {"a": secret})
    LOGGER.info({"api_key": secret})
    assert log.getvalue().splitlines() == [
        "DEBUG some.library the key [SOME_API_KEY]",
        "WARNING some.library the key [SOME_API_KEY] of 1",
        "ERROR some.library headers [SOME_API_KEY]",
        "INFO some.library {'api_key': '[SOME_API_KEY]'}",
    ]


def fail(inner: str, outer: str) -> None:
    raise ValueError(outer) from OSError(inner)


def test_so_are_the_tracebacks_in_it(secret: str, log: io.StringIO) -> None:
    try:
        fail(f"inner {secret}", f"outer {secret}")
    except ValueError:
        LOGGER.exception("it failed")
        LOGGER.error("again", exc_info=True)
    written = log.getvalue()
    assert secret not in written
    assert written.count("inner [SOME_API_KEY]") == written.count("outer [SOME_API_KEY]") == 2
    assert "Traceback" in written
    LOGGER.error("no exception at hand", exc_info=True)


@pytest.mark.parametrize("arguments", [("%d items", "no number"), ("%s %s", 1), ("100 %", 1)])
def test_a_mistake_in_a_log_call_ends_nothing(arguments: tuple[object, ...], secret: str, log: io.StringIO) -> None:
    LOGGER.warning(*arguments)
    LOGGER.warning(*arguments, secret)
    assert str(arguments[0]) in log.getvalue()
    assert secret not in log.getvalue()


def test_redacting_twice_is_redacting_once(log: io.StringIO) -> None:
    make = logging.getLogRecordFactory()
    redact_logs()
    assert logging.getLogRecordFactory() is make


def test_the_traceback_that_ends_the_program_is_redacted(
    secret: str, log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        fail(f"the key {secret}", f"the key {secret}")
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    written = capsys.readouterr().err
    assert "ValueError: the key [SOME_API_KEY]" in written
    assert secret not in written
