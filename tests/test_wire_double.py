"""The wire double, seen through litellm and the OpenAI SDK: what tests of the client build on."""

from __future__ import annotations

import asyncio
import email.utils
import io
import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from wire_double import PROVIDERS, Double, Settings, fault, latency, serving

PROMPT = [{"role": "user", "content": "What is two and two?"}]
KEY = "sk-a-secret-of-the-test"


@pytest.fixture(scope="module")
def running() -> Iterator[Double]:
    with serving() as double:
        yield double


@pytest.fixture
def double(running: Double) -> Double:
    """Return the module's double as if it were new; `receipts` alone keeps what came before."""
    from dataclasses import asdict

    fresh = asdict(Settings())
    del fresh["bill_path"]
    running.control(reset=True, **fresh)
    return running


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Any:
    import litellm

    monkeypatch.setattr(litellm, "disable_aiohttp_transport", False)
    monkeypatch.setattr(litellm, "suppress_debug_info", True)
    litellm.in_memory_llm_clients_cache.flush_cache()
    yield litellm
    litellm.in_memory_llm_clients_cache.flush_cache()


def ask(litellm: Any, double: Double, provider: str, **fields: Any) -> Any:
    call = {"model": f"{provider}/m", "messages": PROMPT, "api_key": KEY, "api_base": double.url(provider)}
    call |= {"max_tokens": 64, "timeout": 10, "num_retries": 0, "max_retries": 0}
    return asyncio.run(litellm.acompletion(**(call | fields)))


def failure(litellm: Any, double: Double, provider: str, **fields: Any) -> Exception:
    with pytest.raises(litellm.exceptions.openai.OpenAIError) as caught:
        ask(litellm, double, provider, **fields)
    return caught.value


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def answered_status(error: Exception) -> int | None:
    """Return the status that came over the wire, which litellm's own `status_code` is not always."""
    found = (getattr(one, "response", None) for one in chain(error) if isinstance(one, httpx.HTTPStatusError))
    return next((response.status_code for response in found if response is not None), None)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_answers_with_text_usage_and_finish_reason(litellm: Any, double: Double, provider: str) -> None:
    double.control(says="text:four")
    reply = ask(litellm, double, provider)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("four", "stop")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (5, 1)
    double.control(finish_reason="length")
    reply = ask(litellm, double, provider)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("fo", "length")
    (line, _) = double.bill()["billed"]
    assert line | {"body": ""} == {
        "body": "",
        "model": "m",
        "prompt_tokens": 5,
        "completion_tokens": 1,
        "kind": "ok",
        "batch": None,
    }
    assert double.receipts()[-2:] == double.bill()["billed"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_statuses_reach_the_client_once_and_cost_nothing(litellm: Any, double: Double, provider: str) -> None:
    for status in (400, 401, 403, 404, 408, 429, 500, 503, 529):
        double.control(reset=True, script=[str(status)])
        assert answered_status(failure(litellm, double, provider)) == status
        assert double.bill()["totals"]["statuses"] == {str(status): 1}
        assert double.bill()["billed"] == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_cut_answers_are_billed_and_requests_dropped_on_arrival_are_not(
    litellm: Any, double: Double, provider: str
) -> None:
    for kind in ("drop_on_arrival", "drop_before_headers", "drop_after_headers", "cut_body"):
        double.control(reset=True, script=[kind])
        error = failure(litellm, double, provider)
        assert any(isinstance(one, httpx.TransportError) for one in chain(error))
        assert answered_status(error) is None
        bill = double.bill()
        assert (len(bill["calls"]), len(bill["billed"])) == (1, int(kind != "drop_on_arrival"))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_answer_that_comes_too_late_is_billed(litellm: Any, double: Double, provider: str) -> None:
    double.control(script=["hang"], hang_s=30)
    assert type(failure(litellm, double, provider, timeout=0.3)).__name__ == "Timeout"
    assert double.bill()["totals"]["kinds"] == {"hang": 1}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_errors_under_status_200_and_empty_answers(litellm: Any, double: Double, provider: str) -> None:
    double.control(script=["error_200", "empty"])
    assert answered_status(failure(litellm, double, provider)) is None
    assert not ask(litellm, double, provider).choices[0].message.content
    assert double.bill()["totals"]["kinds"] == {"error_200": 1, "empty": 1}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_retry_after_lies_in_the_headers_that_litellm_keeps(litellm: Any, double: Double, provider: str) -> None:
    double.control(script=["429"] * 9, retry_after_s=2.5)
    headers = failure(litellm, double, provider).litellm_response_headers
    assert headers["retry-after"] == "2.5"
    double.control(retry_after_form="date")
    date = failure(litellm, double, provider).litellm_response_headers["retry-after"]
    assert 2.4 < email.utils.parsedate_to_datetime(date).timestamp() - time.time() < 3.6
    double.control(retry_after_form="body")
    error = failure(litellm, double, provider)
    assert "retry-after" not in error.litellm_response_headers
    assert ('"retryDelay": "2.5s"' in str(error)) == (provider == "gemini")


def test_the_bill_tells_when_a_call_came_back(litellm: Any, double: Double) -> None:
    double.control(script=["429"], retry_after_s=0.2)
    failure(litellm, double, "openai")
    ask(litellm, double, "openai")
    failure(litellm, double, "openai", messages=[{"role": "user", "content": "another"}])
    time.sleep(0.2)
    ask(litellm, double, "openai", messages=[{"role": "user", "content": "another"}])
    bill = double.bill()
    soon, late = bill["returns"]
    assert soon["waited"] < 0.2 <= late["waited"]
    assert bill["early"] == 1
    assert [call["again"] for call in bill["calls"]] == [0, 1, 0, 1]
    assert [call["status"] for call in bill["calls"]] == [429, 200, 429, 200]


def test_draws_depend_on_prompt_and_attempt_alone(litellm: Any, double: Double) -> None:
    settings = Settings(median_s=0.01, sigma=0.5, faults={"500": 0.3, "empty": 0.2})
    prompts = [f"prompt {n}" for n in range(400)]
    kinds = Counter(fault(settings, prompt, 1) for prompt in prompts)
    assert 80 < kinds["500"] < 160
    assert 50 < kinds["empty"] < 110
    assert len({latency(settings, prompt, attempt) for prompt in prompts for attempt in (1, 2)}) == 800
    double.control(median_s=0.01, sigma=0.5, faults={"empty": 0.5})
    chosen = prompts[:12]

    async def together(order: list[str]) -> None:
        calls = [
            litellm.acompletion(
                "openai/m", [{"role": "user", "content": p}], api_key=KEY, api_base=double.url("openai")
            )
            for p in order
        ]
        await asyncio.gather(*calls)

    found = []
    for order in (chosen, chosen[::-1]):
        double.control(reset=True)
        asyncio.run(together(order))
        bill = double.bill()
        found.append({call["body"]: (call["latency"], call["fault"]) for call in bill["calls"]})
        assert 2 <= bill["peak"] <= 12
    assert found[0] == found[1]
    assert {lag for lag, _ in found[0].values()} == {latency(settings, prompt, 1) for prompt in chosen}


def test_the_rate_limit_is_exact(litellm: Any, double: Double) -> None:
    double.control(rps=5)

    async def burst() -> list[Any]:
        calls = [
            litellm.acompletion("openai/m", PROMPT, api_key=KEY, api_base=double.url("openai"), max_retries=0)
            for _ in range(12)
        ]
        return await asyncio.gather(*calls, return_exceptions=True)

    refused = sum(isinstance(one, Exception) for one in asyncio.run(burst()))
    statuses = double.bill()["totals"]["statuses"]
    assert statuses == {"200": 12 - refused, "429": refused}
    assert 5 <= statuses["200"] <= 7


@pytest.mark.parametrize("provider", PROVIDERS)
def test_secrets_are_echoed_on_request(litellm: Any, double: Double, provider: str) -> None:
    double.control(echo_secrets=True, echo_in_replies=True, script=["ok", "400"])
    assert KEY in ask(litellm, double, provider).choices[0].message.content
    wires = [one.response for one in chain(failure(litellm, double, provider)) if hasattr(one, "response")]
    assert any(KEY in getattr(wire, "text", "") for wire in wires)


def test_it_judges_and_teaches(litellm: Any, double: Double) -> None:
    double.control(says="judge")
    texts = {ask(litellm, double, provider).choices[0].message.content for provider in PROVIDERS}
    (verdict,) = (json.loads(text) for text in texts)
    assert all(0 <= verdict[name]["score"] <= 100 for name in ("similarity", "precision"))
    double.control(says="pocket")
    assert "pocket LLM" in ask(litellm, double, "openai").choices[0].message.content


def client(double: Double) -> Any:
    import openai

    return openai.OpenAI(api_key=KEY, base_url=double.url("openai"), max_retries=0)


def rows(count: int, **changes: Any) -> bytes:
    body = {"model": "m", "max_tokens": 9}
    lines = [
        {"custom_id": f"row-{n}", "method": "POST", "url": "/v1/chat/completions"}
        | {"body": body | {"messages": [{"role": "user", "content": f"row {n}"}]}}
        | changes
        for n in range(count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def batch(openai: Any, content: bytes) -> Any:
    uploaded = openai.files.create(file=("rows.jsonl", io.BytesIO(content)), purpose="batch")
    assert openai.files.retrieve(uploaded.id).bytes == len(content)
    return openai.batches.create(
        input_file_id=uploaded.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"run": "a"},
    )


def lines(openai: Any, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in openai.files.content(name).text.splitlines()]


def test_a_batch_completes_with_answers_and_errors(double: Double) -> None:
    double.control(batch_polls=3, batch_error_share=0.3)
    openai = client(double)
    made = batch(openai, rows(20))
    assert made.status == "validating"
    assert [openai.batches.retrieve(made.id).status for _ in range(3)] == ["in_progress", "in_progress", "completed"]
    ended = openai.batches.retrieve(made.id)
    good, bad = lines(openai, ended.output_file_id), lines(openai, ended.error_file_id)
    assert {line["custom_id"] for line in good + bad} == {f"row-{n}" for n in range(20)}
    assert (ended.request_counts.completed, ended.request_counts.failed) == (len(good), len(bad))
    assert all(line["response"]["body"]["choices"][0]["message"]["content"].startswith("echo: row") for line in good)
    assert {line["response"]["status_code"] for line in bad} == {400}
    assert Counter(line["batch"] for line in double.bill()["billed"]) == {made.id: len(good)}
    assert [one.metadata for one in openai.batches.list(limit=1).data] == [{"run": "a"}]


def test_a_batch_expires_fails_or_is_cancelled(double: Double) -> None:
    double.control(batch_outcome="expired", batch_share=0.25)
    openai = client(double)
    made = batch(openai, rows(8))
    ended = openai.batches.retrieve(made.id)
    assert (ended.status, ended.request_counts.completed) == ("expired", 2)
    assert {line["error"]["code"] for line in lines(openai, ended.error_file_id)} == {"batch_expired"}

    double.control(batch_outcome="completed", batch_polls=9)
    made = batch(openai, rows(8))
    assert openai.batches.cancel(made.id).status == "cancelling"
    ended = openai.batches.retrieve(made.id)
    assert (ended.status, len(lines(openai, ended.output_file_id))) == ("cancelled", 2)

    wrong = openai.batches.retrieve(batch(openai, rows(2, custom_id="same")).id)
    assert (wrong.status, wrong.errors.data[0].code) == ("failed", "duplicate_custom_id")
    double.control(batch_outcome="failed")
    assert openai.batches.retrieve(batch(openai, rows(2)).id).status == "failed"


def test_a_batch_may_exist_though_its_creation_was_not_answered(double: Double) -> None:
    import openai as sdk

    double.control(endpoint_scripts={"POST /v1/batches": ["503", "drop_before_headers"]})
    openai = client(double)
    known = len(openai.batches.list().data)
    for came, error in ((0, sdk.InternalServerError), (1, sdk.APIConnectionError)):
        with pytest.raises(error):
            batch(openai, rows(1))
        assert len(openai.batches.list().data) == known + came
