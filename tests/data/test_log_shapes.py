"""Each shape of logs, 1,000 rows of which 5% are broken: all kept or listed with a reason, order and text exact."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from llamaduo.cli import main
from llamaduo.config import Data, DataSource, Experiment, GateSplit
from llamaduo.data.coverage import load_coverage, taken_rows
from llamaduo.data.formats import Read
from llamaduo.data.splits import SPLITS
from llamaduo.data.tally import Tally
from llamaduo.errors import InputError

ROWS, EVERY = 1000, 20
ODD = ("", " ", "\r\n", "\u2028", "e\u0301\u00e9", "日本語", "\u200b\ufeff", "\t", "{}", '"quoted"', "\\n", "👩‍👩‍👧")


def text(number: int, what: str) -> str:
    """Return a text that nothing may strip or normalise."""
    odd = ODD[number % len(ODD)]
    return f"{odd}{what} {number}: {odd}invoice {number * 7919}{odd}\n"


def asked(number: int) -> str:
    return text(number, "What about it,")


def told(number: int) -> str:
    return text(number, "It was paid,")


def chat(number: int) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "Be brief. "}, {"role": "user", "content": asked(number)}]


def answer(number: int) -> dict[str, Any]:
    return {"role": "assistant", "content": told(number)}


def completion(number: int) -> dict[str, Any]:
    return {
        "id": f"c{number}",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": answer(number), "finish_reason": "stop"}],
        "usage": {"total_tokens": 9},
    }


def langchain(kind: str, content: str) -> dict[str, Any]:
    names = ["langchain", "schema", "messages", kind]
    return {"lc": 1, "type": "constructor", "id": names, "kwargs": {"content": content, "additional_kwargs": {}}}


def langsmith(number: int) -> dict[str, Any]:
    generation = {
        "text": told(number),
        "message": langchain("AIMessage", told(number)),
        "generation_info": {"finish_reason": "stop"},
    }
    turns = [langchain("SystemMessage", "Be brief. "), langchain("HumanMessage", asked(number))]
    return {
        "id": f"{number}", "run_type": "llm", "name": "ChatOpenAI", "error": None, "status": "success",
        "inputs": {"messages": [turns]}, "outputs": {"generations": [[generation]], "llm_output": {}},
        "extra": {"invocation_params": {"model": "m"}},
    }  # fmt: skip


def parts(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": content}], **more}


def otlp(attributes: dict[str, str]) -> dict[str, Any]:
    told = [{"key": name, "value": {"stringValue": value}} for name, value in attributes.items()]
    span = {"traceId": "1", "spanId": "2", "name": "chat m", "attributes": told, "status": {}}
    return {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"spans": [span]}]}]}


def older_span(number: int) -> dict[str, Any]:
    return otlp(
        {
            "gen_ai.prompt.0.role": "system",
            "gen_ai.prompt.0.content": "Be brief. ",
            "gen_ai.prompt.1.role": "user",
            "gen_ai.prompt.1.content": asked(number),
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.content": told(number),
            "gen_ai.completion.0.finish_reason": "stop",
            "llm.request.type": "chat",
        }
    )


def newer_span(number: int) -> dict[str, Any]:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be brief. "}]),
        "gen_ai.input.messages": json.dumps([parts("user", asked(number))]),
        "gen_ai.output.messages": json.dumps([parts("assistant", told(number), finish_reason="stop")]),
    }
    return otlp(attributes)


def langfuse_export(number: int) -> dict[str, Any]:
    return {
        "id": f"{number}", "trace_id": "t", "type": "GENERATION", "level": "DEFAULT", "status_message": None,
        "input": json.dumps(chat(number)), "output": json.dumps(answer(number)), "provided_model_name": "m",
    }  # fmt: skip


SHAPES: dict[str, Callable[[int], dict[str, Any]]] = {
    "messages": lambda n: {"messages": [*chat(n), answer(n)]},
    "messages, parts": lambda n: {
        "messages": [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in [*chat(n), answer(n)]]
    },
    "prompt and response": lambda n: {"prompt": asked(n), "response": told(n)},
    "Alpaca": lambda n: {"instruction": asked(n), "input": "", "output": told(n)},
    "ShareGPT": lambda n: {
        "system": "Be brief. ",
        "conversations": [{"from": "human", "value": asked(n)}, {"from": "gpt", "value": told(n)}],
    },
    "OpenAI": lambda n: {"request": {"model": "m", "messages": chat(n)}, "response": completion(n)},
    "OpenAI's stored completions": lambda n: {"messages": chat(n), **completion(n)},
    "Anthropic": lambda n: {
        "request": {"model": "m", "system": "Be brief. ", "messages": chat(n)[1:]},
        "response": {"type": "message", "role": "assistant", "stop_reason": "end_turn",
                     "content": [{"type": "text", "text": told(n)}]},
    },
    "litellm": lambda n: {
        "id": "1", "call_type": "acompletion", "status": "success", "error_str": None, "messages": chat(n),
        "response": completion(n), "model_parameters": {},
    },
    "Langfuse": lambda n: {
        "id": "1", "traceId": "t", "type": "GENERATION", "level": "DEFAULT", "statusMessage": None,
        "input": chat(n), "output": answer(n),
    },
    "Langfuse, exported": langfuse_export,
    "LangSmith": langsmith,
    "Helicone": lambda n: {
        "request_id": "1", "request_body": {"model": "m", "messages": chat(n)}, "response_body": completion(n),
        "response_status": 200,
    },
    "OpenTelemetry": newer_span,
    "OpenTelemetry, older": older_span,
}  # fmt: skip
BROKEN = (
    (b'{"messages": [{"role": "user", "con', "not JSON"),
    (b'{"prompt": "caf\xe9", "response": "r"}', "not UTF-8"),
    (b"null", "a row must be an object with named fields"),
    (b"[" * 5000, "not JSON"),
    (b'{"messages": {"role": ["user"]}}', "`messages` must be a list of turns"),
    (b'{"prompt": null, "response": 7}', "`prompt` and `response` must be text"),
    (b'{"request": {"input": "x"}, "response": {"object": "list", "data": [{"object": "embedding"}]}}',
     "a log of another endpoint (embedding)"),
    (b'{"request": {"messages": []}, "response": {"object": "chat.completion.chunk", "choices": [{"delta": {}}]}}',
     "a chunk of a stream, no whole answer"),
    (b'{"request": {"messages": [{"role": "user", "content": "p"}]}, "response": {"error": {"code": 429}}}',
     "the log says that the call failed (error)"),
    (b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, '
     b'{"role": "assistant", "content": "r"}]}', "a turn holds more than text (image_url)"),
)  # fmt: skip


def lines(shape: str) -> list[bytes]:
    """Return the lines of a log, every twentieth of them broken."""
    made = []
    for number in range(ROWS):
        if number % EVERY == EVERY - 1:
            made.append(BROKEN[number // EVERY % len(BROKEN)][0])
        else:
            made.append(json.dumps(SHAPES[shape](number), ensure_ascii=number % 2 == 0).encode())
    return made


KEPT = [number for number in range(ROWS) if number % EVERY != EVERY - 1]


def expected(shape: str) -> list[tuple[list[dict[str, str]], str]]:
    begin = 1 if shape in ("prompt and response", "Alpaca") else 0
    return [(chat(number)[begin:], told(number)) for number in KEPT]


def read(path: str) -> tuple[list[Read], list[str], Tally]:
    tally = Tally(path)
    found = list(taken_rows(Data(DataSource.file, path=path), tally))
    return [one for _, one, _ in found], [place for place, _, _ in found], tally


@pytest.mark.parametrize("shape", SHAPES)
def test_all_rows_are_kept_or_listed_and_order_and_text_are_exact(shape: str) -> None:
    Path("log.jsonl").write_bytes(b"\n".join(lines(shape)) + b"\n")
    rows, places, tally = read("log.jsonl")
    assert [(list(row.example.messages), row.example.response) for row in rows] == expected(shape)
    assert {row.shape for row in rows} == {shape.split(",", maxsplit=1)[0]}
    assert places == [f"log.jsonl:{number + 1}" for number in KEPT]
    reasons = [BROKEN[at % len(BROKEN)][1] for at in range(ROWS // EVERY)]
    listed = [(one.place, one.reason) for one in tally.unused]
    assert listed == [(f"log.jsonl:{EVERY * (at + 1)}", reason) for at, reason in enumerate(reasons)]
    with pytest.raises(InputError, match=r"^log\.jsonl:20: not JSON"):
        list(taken_rows(Data(DataSource.file, path="log.jsonl", strict=True), Tally("")))


@pytest.mark.parametrize("suffix", [".gz", ".zst", ""])
def test_packed_logs_are_read_whatever_they_are_called(suffix: str) -> None:
    whole = b"\n".join(lines("OpenAI")) + b"\n"
    halves = (whole[: len(whole) // 3], whole[len(whole) // 3 :])
    pack = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
    Path(f"log.jsonl{suffix}").write_bytes(b"".join(map(pack, halves)))
    rows, _, tally = read(f"log.jsonl{suffix}")
    assert [(list(row.example.messages), row.example.response) for row in rows] == expected("OpenAI")
    assert len(tally.unused) == ROWS // EVERY


def test_a_packed_log_that_is_cut_short_is_read_as_far_as_it_goes() -> None:
    whole = b"\n".join(lines("OpenAI")) + b"\n"
    packed = zstandard.ZstdCompressor().compress(whole[:100_000]) + zstandard.ZstdCompressor().compress(whole)[:-100]
    Path("log.jsonl.zst").write_bytes(packed)
    rows, _, tally = read("log.jsonl.zst")
    assert rows[0].example.response == told(0)
    assert tally.unused[-1].reason == "not .zst from here to its end"


def test_a_bomb_is_refused_before_it_fills_the_memory() -> None:
    for name, packed in {
        "bomb.jsonl.gz": gzip.compress(bytes(200 << 20), 9),
        "bomb.jsonl.zst": zstandard.ZstdCompressor().compress(bytes(200 << 20)),
    }.items():
        Path(name).write_bytes(packed)
        with pytest.raises(InputError, match=rf"{name}.*(comes to more than|UTF-16, or binary)"):
            read(name)
    Path("bomb.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(b"x" * (300 << 20)))
    with pytest.raises(InputError, match=r"comes to more than 64 MiB, 1,000 times its size"):
        read("bomb.jsonl.zst")


def test_tables_of_a_bulk_export_are_read() -> None:
    rows = [langsmith(number) for number in range(50)]
    rows[7]["run_type"], rows[9]["outputs"], rows[11]["error"] = "chain", None, "RateLimitError"
    texts = [
        {name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()} for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(texts), "runs.parquet")
    found, _, tally = read("runs.parquet")
    assert [row.example.response for row in found] == [told(n) for n in range(50) if n not in (7, 9, 11)]
    assert [(one.place, one.reason) for one in tally.unused] == [
        ("runs.parquet row 7", "a run that is no call of an LLM (chain)"),
        ("runs.parquet row 9", "the log holds no response"),
        ("runs.parquet row 11", "the log says that the call failed (error)"),
    ]


def test_pages_of_an_api_and_spans_in_one_object_are_many_rows() -> None:
    page = {"data": [SHAPES["Langfuse"](n) for n in range(3)], "meta": {"page": 1}}
    Path("page.json").write_text(json.dumps(page, indent=1))
    Path("list.jsonl").write_text(json.dumps({"object": "list", "data": [SHAPES["OpenAI's stored completions"](9)]}))
    spans = [older_span(n)["resourceSpans"][0]["scopeSpans"][0]["spans"][0] for n in range(3)]
    spans.insert(1, {"name": "GET /", "attributes": [{"key": "http.method", "value": {"stringValue": "GET"}}]})
    Path("trace.json").write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}))
    assert [row.example.response for row in read("page.json")[0]] == [told(n) for n in range(3)]
    assert [row.example.response for row in read("list.jsonl")[0]] == [told(9)]
    rows, places, tally = read("trace.json")
    assert [row.example.response for row in rows] == [told(n) for n in range(3)]
    assert [one.reason for one in tally.unused] == ["a span that is no call of an LLM"]
    assert places[0] == "trace.json span 0"


def test_a_row_of_a_hundred_megabytes_ends_nothing() -> None:
    with Path("log.jsonl").open("wb") as file:
        file.write(json.dumps(SHAPES["messages"](0)).encode() + b"\n")
        file.write(b'{"prompt": "' + b"x" * (100 << 20) + b'", "response": "r"}\n')
        file.write(json.dumps(SHAPES["messages"](1)).encode())
    _, places, tally = read("log.jsonl")
    assert places == ["log.jsonl:1", "log.jsonl:3"]
    assert [one.reason for one in tally.unused] == ["a row of more than 64 MiB"]


def test_broken_rows_of_lists_and_tables_are_listed_and_the_others_read() -> None:
    good = [json.dumps(SHAPES["prompt and response"](n)) for n in range(4)]
    bad = ('{"prompt": "p" "response": 1}', '{"a": [1, }', "5")
    Path("a.json").write_text(f"[{good[0]}, {bad[0]},\n {good[1]}, {bad[1]}, {good[2]}, {bad[2]}, {good[3]}]")
    rows, places, tally = read("a.json")
    assert [row.example.response for row in rows] == [told(n) for n in range(4)]
    assert places == ["a.json[0]", "a.json[2]", "a.json[4]", "a.json[6]"]
    assert [one.place for one in tally.unused] == ["a.json[1]", "a.json[3]", "a.json[5]"]
    Path("a.csv").write_text('prompt,response\none,r\n"two,r\nthree,r\nfour" x,r\nfive,r,more\nsix,"r\nr"\n')
    rows, places, tally = read("a.csv")
    assert [(row.example.prompt, place) for row, place in zip(rows, places, strict=True)] == [
        ("one", "a.csv:2"),
        ("three", "a.csv:4"),
        ('four" x', "a.csv:5"),
        ("six", "a.csv:8"),
    ]
    assert [one.place for one in tally.unused] == ["a.csv:3", "a.csv:6"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_what_is_imported_is_what_a_run_reads_directly(
    name: str, experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [json.dumps(SHAPES[shape](n)).encode() for n, shape in enumerate([*SHAPES] * 6)]
    made[5] = b"{"
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"a":  1}'}}
    turns = [*chat(500), {"role": "assistant", "content": None, "tool_calls": [call]}]
    offered = [{"type": "function", "function": {"name": "look", "description": "", "parameters": {}}}]
    made.append(json.dumps({"messages": turns, "tools": offered, "split": None, "category": "x"}).encode())
    Path("log.txt").write_bytes(b"\n".join(made))
    assert main(["import", "log.txt", "-o", name]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{len(made) - 1:,} rows: {name}"
    assert "1 left out: out.left_out.jsonl" in said
    assert json.loads(Path("out.left_out.jsonl").read_text())["line"] == 6

    def loaded(path: str) -> dict[str, list[Any]]:
        experiment.data = Data(DataSource.file, path=path)
        experiment.protocol.gate_split = GateSplit.dev
        dataset = load_coverage(experiment)
        return {split: list(getattr(dataset, split)) for split in SPLITS}

    assert loaded(name) == loaded("log.txt")
    assert main(["import", "log.txt", "-o", name]) == 2
    assert "is there already" in capsys.readouterr().err


def test_an_import_of_nothing_usable_is_refused_and_leaves_nothing() -> None:
    Path("log.jsonl").write_text('{"text": 1}\n')
    assert main(["import", "log.jsonl", "-o", "out.jsonl"]) == 2
    assert sorted(path.name for path in Path().iterdir()) == ["log.jsonl"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_odd_values_beside_the_texts_end_no_import(name: str) -> None:
    called = {"id": "7", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    replied = [
        [
            {"role": "user", "content": f"q{n}"},
            {"role": "assistant", "content": None, "tool_calls": [called]},
            {"role": "tool", "tool_call_id": known, "name": known, "content": "r"},
            {"role": "assistant", "content": "a"},
        ]
        for n, known in enumerate((7, {"x": 1}, "c"))
    ]
    tools = [{"type": "function", "function": {"name": "look", "description": "\udc00"}}]
    rows: list[dict[str, Any]] = [{"messages": turns} for turns in replied]
    rows.append({"prompt": "p", "response": "r", "category": "\ud800"})
    rows.append({"messages": [*replied[0][:1], answer(1)], "tools": tools})
    Path("log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["import", "log.jsonl", "-o", name]) == 0
    used, _, _ = read(name)
    assert [row.example.messages[2:] for row in used[:3]] == [
        ({"role": "tool", "content": "r", "tool_call_id": "7", "name": "7"},),
        ({"role": "tool", "content": "r"},),
        ({"role": "tool", "content": "r", "tool_call_id": "c", "name": "c"},),
    ]
    assert len(used) == 4
    left = json.loads(Path("out.left_out.jsonl").read_text())
    assert (left["line"], left["reason"]) == (5, "half of a surrogate pair in the text")


def test_an_import_of_one_object_with_a_row_in_it_has_no_line() -> None:
    page = {"data": [{"request_body": {"messages": chat(1)}, "response_body": completion(1)}]}
    Path("page.json").write_text(json.dumps(page))
    assert main(["import", "page.json", "-o", "out.parquet"]) == 0
    assert [row.example.response for row in read("out.parquet")[0]] == [told(1)]


def test_strict_is_true_or_false_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    Path("log.jsonl").write_text(json.dumps({"prompt": "p", "response": "r"}) + "\n{\n")
    assert main(["import", "log.jsonl", "data.strict=yes"]) == 2
    assert "data.strict=yes: must be true or false" in capsys.readouterr().err
    assert main(["import", "log.jsonl", "data.strict=True"]) == 2
    assert sorted(path.name for path in Path().iterdir()) == ["log.jsonl"]
