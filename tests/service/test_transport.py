"""The transport: litellm's exceptions become ours by what they mean for the bill, and no key leaves it."""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import certifi
import httpx
import pytest
from litellm_faults import broken, fault, timeout
from plain_server import plain_server

from llamaduo.config import ServiceLLM
from llamaduo.errors import ConfigError, ServiceError, TransientError
from llamaduo.service import loading, transport
from llamaduo.service.exceptions import retry_after, translated
from llamaduo.service.refusals import PerhapsRefusedError, RefusedError, UnknownOutcomeError

LLM = ServiceLLM(name="the_llm", provider="openai", model="m", timeout_s=7.0)
OUR_OWN_AUTHORITY = """-----BEGIN CERTIFICATE-----
MIIBkDCCATWgAwIBAgIUGs7+PA5V0LMSrUEfwpdkujNXGuswCgYIKoZIzj0EAwIw
HDEaMBgGA1UECgwRT3VyIG93biBhdXRob3JpdHkwIBcNMjYxMTI4MTQ1MTE0WhgP
MjEyNjExMDQxNDUxMTRaMBwxGjAYBgNVBAoMEU91ciBvd24gYXV0aG9yaXR5MFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEWq2o0tp0bZgUNWfSUz5ivrFK56OpqMza
cIpmeC0F2jspKWd0BkAhsAwtsA5T19GxxmS3Kg8MyNZZSHDAueiuvKNTMFEwHQYD
VR0OBBYEFMiZTdu5EhTyiqq6qrgWYu35l+nEMB8GA1UdIwQYMBaAFMiZTdu5EhTy
iqq6qrgWYu35l+nEMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIh
AKDrRluyhF0cPPJXRJDgDB4LtcSw0jsC/1HucOfiDrzxAiEAzpwwV7losV6HFSC3
TpFuLk8PM/1V4jCHaZSTYtiF2wI=
-----END CERTIFICATE-----
"""
"""A certificate of nobody, valid for a hundred years."""
SECRET = "sk-secret-0123456789-abcdefghijklmnopqrstuvwxyz"


# ---------------------------------------------------------------- keys


def test_a_program_needs_no_key_and_one_that_is_not_required_may_be_missing(llm: LLM) -> None:
    assert transport.api_key(llm(lambda *_: "x")) is None
    assert transport.api_key(ServiceLLM(name="n", provider="openai", model="m", key_required=False)) is None


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini", "mistral", "deepseek"])
def test_a_key_comes_from_the_providers_usual_variable(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"{provider.upper()}_API_KEY"
    known = ServiceLLM(name="n", provider=provider, model="m")
    with pytest.raises(ConfigError, match=variable):
        transport.api_key(known)
    monkeypatch.setenv(variable, "k")
    assert transport.api_key(known) == "k"


@pytest.mark.parametrize("provider", ["bedrock", "vertex_ai", "sagemaker_chat"])
def test_a_clouds_own_credentials_are_no_key_of_ours(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = ServiceLLM(name="n", provider=provider, model="m")
    assert transport.api_key(known) is None
    assert "api_key" not in transport.connection(known)
    monkeypatch.setenv("OUR_KEY", "k")
    assert transport.api_key(dataclasses.replace(known, api_key_env="OUR_KEY")) == "k"


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("beside", [True, False])
def test_the_usual_variables_of_certificates_are_heeded_beside_ssl_cert_file(
    variable: str, beside: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from litellm.llms.custom_httpx import http_handler

    own = tmp_path / "own.pem"
    own.write_text(OUR_OWN_AUTHORITY)
    monkeypatch.setattr(http_handler, "_ssl_context_cache", {})
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    if beside:
        monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    before = loading.trusted().cert_store_stats()["x509_ca"]
    monkeypatch.setenv(variable, str(tmp_path / "gone.pem"))
    assert loading.trusted().cert_store_stats()["x509_ca"] == before
    monkeypatch.setenv(variable, str(own))
    assert loading.trusted().cert_store_stats()["x509_ca"] == before + 1


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[str]:
    """Return the address of a TLS server whose certificate is `own.pem`, and signed by nobody else."""
    program = shutil.which("openssl") or pytest.skip("there is no openssl")
    key, own = str(tmp_path / "key.pem"), str(tmp_path / "own.pem")
    made = [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", own]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*made, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    with plain_server("from behind TLS", context) as (place, _):
        yield f"{place}/v1"


ASKS = """
import asyncio, sys
from llamaduo.config import ServiceLLM
from llamaduo.service import transport
for provider in ("openai", "hosted_vllm"):
    llm = ServiceLLM("m", provider, "m", base_url=sys.argv[1], key_required=False, timeout_s=20.0)
    print(asyncio.run(transport.call(llm, "a prompt", schema=None, seed=0)))
"""


def test_a_server_whose_certificate_requests_ca_bundle_names_is_trusted(encrypted: str, tmp_path: Path) -> None:
    others = ("CURL_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy")
    environment = {name: value for name, value in os.environ.items() if name not in others}
    environment["REQUESTS_CA_BUNDLE"] = str(tmp_path / "own.pem")
    command = [sys.executable, "-c", ASKS, encrypted]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
    assert done.stdout.count("from behind TLS") == 2, done.stderr


@pytest.mark.parametrize("status", [401, 429])
def test_the_key_reaches_no_message(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_GATEWAY_API_KEY", SECRET)
    gateway = ServiceLLM(name="gateway", provider="openai", model="m", api_key_env="MY_GATEWAY_API_KEY")
    message = str(translated(fault(status, f"the key {SECRET} is wrong, {SECRET}!"), gateway))
    assert "the key [MY_GATEWAY_API_KEY] is wrong, [MY_GATEWAY_API_KEY]!" in message
    assert "secret" not in message


def test_a_variable_that_api_key_env_names_is_a_secret_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_GATEWAY", "words-that-look-like-none")
    gateway = ServiceLLM(name="gateway", provider="openai", model="m", api_key_env="MY_GATEWAY")
    assert transport.api_key(gateway) == "words-that-look-like-none"
    message = str(translated(fault(401, "wrong key: words-that-look-like-none"), gateway))
    assert message.endswith("wrong key: [MY_GATEWAY]")


def test_no_part_of_the_key_reaches_a_message_that_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    for before in range(200, 300):
        message = str(translated(fault(401, "x" * before + SECRET), LLM))
        assert "sk-secret" not in message, before


# ---------------------------------------------------------------- what an exception means


@pytest.mark.parametrize("status", [429, 503])
def test_what_a_server_answers_with_in_trouble_was_not_billed_and_is_tried_again(status: int) -> None:
    found = translated(fault(status), LLM)
    assert type(found) is TransientError
    assert str(found).startswith("the_llm: ")


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_a_server_refuses_is_final(status: int) -> None:
    found = translated(fault(status, "no\nsuch\tthing"), LLM)
    assert type(found) is (PerhapsRefusedError if status == 400 else ServiceError)
    assert str(found).startswith(f"the_llm refused the call ({HTTPStatus(status).phrase}, {status}): ")
    assert "no such thing" in str(found)


def test_a_timeout_says_after_how_many_seconds_and_half_a_surrogate_becomes_a_question_mark() -> None:
    assert str(translated(fault(503, "half an emoji: \ud83d"), LLM)).endswith("half an emoji: ?")
    assert str(translated(timeout(), LLM)) == "the_llm: timed out after 7 s"


def caused(outer: Exception, cause: BaseException) -> Exception:
    outer.__cause__ = cause
    return outer


NEVER_MADE = httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), httpx.PoolTimeout("p")
BROKE = httpx.ReadError("reset"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("half a body")


def test_what_an_exception_means_for_the_bill() -> None:
    import litellm

    made: dict[type, list[Exception]] = {
        TransientError: [caused(broken(), cause) for cause in NEVER_MADE],
        UnknownOutcomeError: [
            *(timeout(), broken(), ZeroDivisionError("nobody foresaw it, somewhere in litellm")),
            *(caused(broken(), cause) for cause in BROKE),
            *(caused(fault(500), cause) for cause in BROKE),  # litellm makes the 500 up
        ],
        RefusedError: [
            getattr(litellm, name)(message="not this", model="m", llm_provider="openai")
            for name in ("ContentPolicyViolationError", "ContextWindowExceededError")
        ],
    }
    for kind, errors in made.items():
        assert [type(translated(error, LLM)) for error in errors] == [kind] * len(errors)


def test_what_a_provider_lacks_on_this_machine_ends_the_run_and_was_never_sent() -> None:
    class NoCredentialsError(Exception):
        """As botocore's."""

    package = caused(broken(), ImportError("No module named 'google.auth'"))
    found = translated(package, LLM)
    assert type(found) is ServiceError
    assert "the Python package that has google.auth" in str(found)
    found = translated(caused(broken(), NoCredentialsError("Unable to locate credentials")), LLM)
    assert type(found) is ServiceError
    assert str(found) == "the_llm: no credentials were found: Unable to locate credentials; nothing was sent."


# ---------------------------------------------------------------- Retry-After


NONSENSE = ["-5", "nan", "soon", "", "0 0 0 0 0", "Fri, 31 Dec 2027 23:59:59 +99999999999999", "(", "1;2"]


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), ("0.5", 0.5), ("0", 0.0), *((text, 0.0) for text in NONSENSE)]
)
def test_retry_after_in_seconds_and_none_that_makes_no_sense(value: str, seconds: float) -> None:
    assert retry_after(fault(429, **{"retry-after": value})) == seconds
    assert retry_after(fault(429, **{"Retry-After": value})) == seconds


def test_retry_after_as_a_date_of_any_time_zone() -> None:
    for zone in (datetime.UTC, datetime.timezone(datetime.timedelta(hours=9))):
        when = datetime.datetime.now(zone) + datetime.timedelta(seconds=40)
        told = email.utils.format_datetime(when, usegmt=zone is datetime.UTC)
        assert 30 < retry_after(fault(429, **{"retry-after": told})) <= 40
    assert retry_after(fault(429, **{"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"})) == 0.0


def test_geminis_retry_delay_is_in_the_body() -> None:
    body = {"error": {"code": 429, "details": [{"@type": "RetryInfo", "retryDelay": "38.5s"}]}}
    assert retry_after(fault(429, json.dumps(body))) == 38.5
    assert retry_after(fault(429, f"litellm: {json.dumps(json.dumps(body))}")) == 38.5
    assert retry_after(fault(429, '{"retryDelay": "soon"}')) == 0.0
    assert retry_after(fault(429, '{"retryDelay": "1.2.3s", "retryDelay": "٣s"}')) == 0.0


def test_the_longest_of_several_waits_counts() -> None:
    inner = fault(429, '{"retryDelay": "20s"}', **{"retry-after": "3"})
    assert retry_after(caused(fault(429, "outer", **{"retry-after": "5"}), inner)) == 20.0


def test_the_wait_goes_with_the_exception_and_one_of_hours_ends_the_stage() -> None:
    found = translated(fault(503, **{"retry-after": "900"}), LLM)
    assert isinstance(found, TransientError)
    assert found.retry_after == 900.0
    found = translated(fault(503, **{"retry-after": "901"}), LLM)
    assert type(found) is ServiceError
    assert str(found).startswith("the_llm asks to come back in 901 s: ")


# ---------------------------------------------------------------- what goes out


def test_what_is_switched_off_is_not_among_the_options() -> None:
    quiet = ServiceLLM(name="n", provider="openai", model="m", max_tokens=9, json_schema=False)
    assert transport.options(quiet, schema={"type": "object"}, seed=3) == {"max_tokens": 9}


def test_everything_that_is_set_is_among_the_options() -> None:
    loud = ServiceLLM(
        name="n", provider="openai", model="m", max_tokens=9, temperature=0.0, send_seed=True, parameters={"top_p": 0.5}
    )
    found = transport.options(loud, schema={"type": "object"}, seed=3)
    assert found.pop("response_format")["json_schema"]["schema"] == {"type": "object"}
    assert found == {"max_tokens": 9, "temperature": 0.0, "seed": 3, "top_p": 0.5}
