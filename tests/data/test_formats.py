"""Reading pairs: four formats and three kinds of row give the same example, or an error that names the place.

No row is skipped silently, and none is repaired.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaduo.data.formats import read_example, read_rows
from llamaduo.errors import InputError
from llamaduo.records import Example, prompt_id

PROMPT, RESPONSE = 'Fix "this", please:\nline two, ünïcode 日本語', "Done.\r\n- one\n- two"
TURNS = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": RESPONSE}]
CHAT = [{"role": "user", "content": PROMPT}]
ANSWER = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": RESPONSE}}],
    "usage": {"total_tokens": 9},
}

KINDS: dict[str, dict[str, Any]] = {
    "messages": {"messages": TURNS},
    "pair": {"prompt": PROMPT, "response": RESPONSE},
    "log": {"request": {"model": "gpt-4o", "messages": CHAT}, "response": ANSWER},
    "batch log": {
        "custom_id": "1",
        "request": {"method": "POST", "body": {"model": "gpt-4o", "messages": CHAT}},
        "response": {"status_code": 200, "body": ANSWER},
    },
}
MESSAGES = ({"role": "user", "content": PROMPT},)
EXPECTED = Example(prompt_id(MESSAGES), MESSAGES, RESPONSE)


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    for row in rows:
        writer.writerow({key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()})
    path.write_bytes(out.getvalue().encode())


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], Any]] = {
    ".jsonl": lambda path, rows: path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"),
    ".ndjson": lambda path, rows: path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)),
    ".json": lambda path, rows: path.write_text(json.dumps(rows, indent=2), encoding="utf-8"),
    ".csv": _write_csv,
    ".parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
}


def written(suffix: str, rows: list[dict[str, Any]]) -> Path:
    path = Path(f"data{suffix}")
    WRITERS[suffix](path, rows)
    return path


def read(path: Path) -> list[Example]:
    return [read_example(row, place) for place, row in read_rows(path)]


def error_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1, str(caught.value)
    return str(caught.value)


def jsonl(*lines: str | bytes) -> Path:
    path = Path("data.jsonl")
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines))
    return path


GOOD = json.dumps({"prompt": "p", "response": "r"})


class TestSameExample:
    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    @pytest.mark.parametrize("suffix", WRITERS)
    def test_every_format_and_kind_gives_the_same_example(self, suffix: str, kind: dict[str, Any]) -> None:
        assert read(written(suffix, [kind, kind])) == [EXPECTED, EXPECTED]

    def test_suffixes_are_read_in_any_case(self) -> None:
        path = written(".jsonl", [KINDS["pair"]])
        assert read(path.rename("DATA.JSONL")) == [EXPECTED]

    def test_a_byte_order_mark_and_windows_line_ends_are_no_content(self) -> None:
        for suffix in (".jsonl", ".json", ".csv"):
            path = written(suffix, [KINDS["pair"]])
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
            assert read(path) == [EXPECTED], suffix
        assert read(jsonl(GOOD + "\r", GOOD + "\r", "\r")) == 2 * read(jsonl(GOOD))

    def test_blank_lines_are_no_rows_and_still_count_as_lines(self) -> None:
        path = jsonl("", GOOD, "   ", "{", "")
        assert error_of(path).startswith("data.jsonl:4: not JSON")

    def test_line_separators_inside_text_do_not_split_a_row(self) -> None:
        text = "one\u2028two\u2029three\x0bfour\x0cfive\x85six"
        path = jsonl(json.dumps({"prompt": text, "response": "r"}, ensure_ascii=False))
        assert read(path)[0].prompt == text

    def test_the_system_turn_and_earlier_turns_belong_to_the_prompt(self) -> None:
        turns = [{"role": "system", "content": "Be brief."}, *TURNS, {"role": "user", "content": "more"}]
        (found,) = read(jsonl(json.dumps({"messages": [*turns, {"role": "assistant", "content": "ok"}]})))
        assert found.messages == tuple(turns)
        assert found.response == "ok"
        assert found.prompt.startswith("system: Be brief.\n\nuser: Fix")

    def test_only_role_and_content_of_a_turn_are_kept(self) -> None:
        turns = [{**turn, "name": None, "id": 5} for turn in TURNS]
        assert read(jsonl(json.dumps({"messages": turns}))) == [EXPECTED]

    def test_parquet_may_leave_out_columns_by_null(self) -> None:
        rows = [{**KINDS["pair"], "messages": None, "request": None}, {**KINDS["messages"], "prompt": None}]
        assert read(written(".parquet", rows)) == [EXPECTED, EXPECTED]

    def test_more_fields_are_carried_along(self) -> None:
        for suffix in WRITERS:
            path = written(suffix, [{**KINDS["pair"], "category": "Coding", "split": "dev"}])
            ((_, row),) = read_rows(path)
            assert (row["category"], row["split"]) == ("Coding", "dev")

    @given(st.text(min_size=1), st.text(min_size=1))
    def test_any_text_survives_or_is_refused(self, prompt: str, response: str) -> None:
        line = json.dumps({"prompt": prompt, "response": response})
        try:
            found = read_example(json.loads(line), "here")
        except InputError:
            assert not prompt.strip() or not response.strip()
        else:
            assert (found.prompt, found.response) == (prompt, response)


class TestNamesAndContents:
    """A file whose name tells another kind than its content is read, or said to be what it is."""

    def test_json_lines_named_json_and_a_list_named_jsonl_are_read(self) -> None:
        rows = [KINDS["pair"]] * 3
        WRITERS[".jsonl"](Path("a.json"), rows)
        WRITERS[".json"](Path("b.jsonl"), rows)
        assert read(Path("a.json")) == read(Path("b.jsonl")) == [EXPECTED] * 3
        Path("a.json").write_text(GOOD + "\n" + GOOD + "\n{")
        assert error_of(Path("a.json")).startswith("a.json:3: not JSON")

    @pytest.mark.parametrize(
        ("name", "content", "told"),
        [
            ("a.jsonl", json.dumps({"prompt": "p", "response": "r"}, indent=1).encode(), "a.jsonl:1: not JSON Lines"),
            ("a.jsonl", f"{GOOD}\n{GOOD},\n".encode(), "a.jsonl:2: not JSON (there is a comma too many)"),
            ("a.json", f"[{GOOD},]".encode(), "a.json: not JSON (there is a comma too many)"),
            ("a.jsonl", f"{GOOD}\n".encode("utf-16"), "a.jsonl:1: not UTF-8 (byte 0) but UTF-16; save"),
            ("a.jsonl", f"{GOOD}\n".encode("utf-16-le"), "a.jsonl:1: not UTF-8 but UTF-16, or binary; save"),
            ("a.csv", b"PK\x03\x04 and more", "a.csv:1: not UTF-8 but a zip archive or a spreadsheet"),
            ("a.jsonl", b"PAR1 and more", "a.jsonl:1: not UTF-8 but Parquet: name it .parquet"),
            ("a.csv", b"prompt;response\np;r\n", "a.csv:1: columns are parted by ';'"),
        ],
    )
    def test_what_it_is_and_what_to_do_is_said(self, name: str, content: bytes, told: str) -> None:
        Path(name).write_bytes(content)
        assert error_of(Path(name)).startswith(told)


class TestNothingIsDroppedSilently:
    def test_a_column_that_is_null_counts_as_absent(self) -> None:
        for suffix in WRITERS:
            for name in ("messages", "request"):
                assert read(written(suffix, [{**KINDS["pair"], name: None}] * 2)) == [EXPECTED] * 2, (suffix, name)
        path = written(".csv", [{**KINDS["pair"], "messages": ""}])
        assert read(path) == [EXPECTED]

    def test_an_empty_response_is_still_an_error_beside_null_columns(self) -> None:
        assert "must be the assistant's response" in error_of(
            written(".csv", [{"prompt": "p", "response": "", "messages": ""}])
        )

    def test_a_byte_order_mark_within_a_file_is_no_content(self) -> None:
        assert read(jsonl(GOOD, "\ufeff" + GOOD)) == 2 * read(jsonl(GOOD))

    def test_a_csv_header_with_a_name_twice_is_refused(self) -> None:
        Path("a.csv").write_text("prompt,response,response\np,r,s\n")
        assert error_of(Path("a.csv")).startswith("a.csv:1: the header names the column 'response' twice")

    def test_a_json_object_with_a_name_twice_is_refused(self) -> None:
        assert error_of(jsonl(GOOD, '{"prompt": "p", "response": "r", "response": "s"}')).startswith(
            "data.jsonl:2: not JSON ('response' is named twice in one object)"
        )

    def test_a_parquet_column_that_is_there_twice_is_refused(self) -> None:
        column = pa.array(["x"])
        pq.write_table(pa.Table.from_arrays([column] * 3, names=["prompt", "response", "response"]), "a.parquet")
        assert error_of(Path("a.parquet")).startswith("a.parquet: the column 'response' is there twice")


class TestPromptIds:
    def test_white_space_does_not_make_another_prompt_and_words_do(self) -> None:
        first, second, third = read(
            jsonl(*(json.dumps({"prompt": text, "response": "r"}) for text in ("a  b\n", " a b", "a B")))
        )
        assert first.prompt_id == second.prompt_id != third.prompt_id

    def test_roles_make_another_prompt(self) -> None:
        turns = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
        other = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
        assert prompt_id(tuple(turns)) != prompt_id(tuple(other))


class TestMalformedFiles:
    def test_unknown_suffix(self) -> None:
        Path("data.xlsx").write_text("x")
        found = error_of(Path("data.xlsx"))
        assert found.startswith("data.xlsx: unknown file type '.xlsx'")
        assert ".jsonl" in found

    @pytest.mark.parametrize("suffix", [*WRITERS])
    def test_empty_file(self, suffix: str) -> None:
        path = Path(f"data{suffix}")
        path.touch()
        assert error_of(path).startswith(f"data{suffix}: the file is empty")

    @pytest.mark.parametrize(
        ("name", "content"),
        [("a.jsonl", "\n \n"), ("a.json", "[]"), ("a.csv", "prompt,response\n"), ("a.csv", "prompt,response")],
    )
    def test_no_rows(self, name: str, content: str) -> None:
        Path(name).write_text(content)
        assert error_of(Path(name)).startswith(f"{name}: the file has no rows")

    def test_no_rows_in_parquet(self) -> None:
        pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), "a.parquet")
        assert error_of(Path("a.parquet")).startswith("a.parquet: the file has no rows")

    @pytest.mark.parametrize(
        "line", ["{", "{'prompt': 1}", '{"prompt": "p" "response": "r"}', "prompt,response", "[" * 100_000]
    )
    def test_bad_json_names_its_line(self, line: str) -> None:
        assert error_of(jsonl(GOOD, GOOD, line, GOOD)).startswith("data.jsonl:3: not JSON")

    def test_bad_json_in_a_json_file(self) -> None:
        Path("a.json").write_text('[{"prompt": "p",\n "response": }]')
        assert "a.json: not JSON (Expecting value: line 2" in error_of(Path("a.json"))

    @pytest.mark.parametrize("content", ['{"prompt": "p"}', '"text"', "5", "null"])
    def test_a_json_file_that_is_no_list(self, content: str) -> None:
        Path("a.json").write_text(content)
        assert error_of(Path("a.json")).startswith("a.json: must be a list of rows")

    @pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
    def test_what_is_not_utf_8_names_its_line(self, suffix: str) -> None:
        path = Path(f"a{suffix}")
        path.write_bytes((b"first" if suffix != ".jsonl" else b"{   }") + b"\nsecond caf\xe9\n")
        with pytest.raises(InputError) as caught:
            list(read_rows(path))
        assert str(caught.value).startswith(f"a{suffix}:2: not UTF-8 (byte 16)")

    def test_utf_16_is_not_utf_8(self) -> None:
        Path("a.jsonl").write_bytes(GOOD.encode("utf-16"))
        assert error_of(Path("a.jsonl")).startswith("a.jsonl:1: not UTF-8")

    @pytest.mark.parametrize("row", ["5", '"text"', "null", '["p", "r"]', "true"])
    def test_a_row_that_is_no_object(self, row: str) -> None:
        assert error_of(jsonl(GOOD, row)).startswith("data.jsonl:2: a row must be an object with named fields")
        Path("a.json").write_text(f"[{GOOD}, {row}]")
        assert error_of(Path("a.json")).startswith("a.json[1]: a row must be an object")

    @pytest.mark.parametrize("line", ["p", "p,r,more"])
    def test_csv_rows_of_another_length(self, line: str) -> None:
        Path("a.csv").write_text(f"prompt,response\np,r\n{line}\n")
        assert error_of(Path("a.csv")).startswith("a.csv:3: ")

    @pytest.mark.parametrize("line", ['"p" x,r', '"p'])
    def test_csv_with_a_quote_out_of_place(self, line: str) -> None:
        Path("a.csv").write_text(f"prompt,response\np,r\n{line}\n")
        assert ": not CSV (" in error_of(Path("a.csv"))

    def test_csv_with_a_quote_out_of_place_names_its_line(self) -> None:
        Path("a.csv").write_text('prompt,response\np,r\n"p" x,r\n')
        assert error_of(Path("a.csv")).startswith("a.csv:3: not CSV")

    def test_csv_fields_may_be_long(self) -> None:
        Path("a.csv").write_text(f"prompt,response\n{'x' * 200_000},r\n")
        assert len(read(Path("a.csv"))[0].prompt) == 200_000

    @pytest.mark.parametrize("content", [b"PAR1 and then nothing", b"x" * 5000])
    def test_corrupt_parquet(self, content: bytes) -> None:
        Path("a.parquet").write_bytes(content)
        assert error_of(Path("a.parquet")).startswith("a.parquet: not Parquet")

    def test_parquet_that_is_cut_or_damaged(self) -> None:
        path = written(".parquet", [KINDS["pair"]] * 2000)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        assert error_of(path).startswith("data.parquet: not Parquet")

    def test_parquet_text_that_is_not_utf_8(self) -> None:
        raw = pa.array([b"caf\xe9"], pa.binary())
        text = pa.StringArray.from_buffers(1, raw.buffers()[1], raw.buffers()[2])
        pq.write_table(pa.table({"prompt": text, "response": text}), "a.parquet")
        assert error_of(Path("a.parquet")).startswith("a.parquet")

    @pytest.mark.parametrize("name", ["nothing.jsonl", "folder.jsonl"])
    def test_a_file_that_is_not_there(self, name: str) -> None:
        Path("folder.jsonl").mkdir()
        assert error_of(Path(name)).startswith(name)


TURN = "`role` (system, user, assistant, tool, developer) and a `content` of text"
MALFORMED_ROWS: list[tuple[str, dict[str, Any], str]] = [
    ("nothing", {}, "has nothing; needs `messages`"),
    ("other names", {"input": "p", "output": "r"}, "has input, output; needs `messages`, or `prompt` and `response`"),
    ("no response", {"prompt": "p"}, "has prompt; needs"),
    ("no prompt", {"response": "r"}, "has response; needs"),
    ("prompt is a number", {"prompt": 5, "response": "r"}, "`prompt` and `response` must be text"),
    ("prompt is null", {"prompt": None, "response": "r"}, "`prompt` and `response` must be text"),
    ("response is a list", {"prompt": "p", "response": ["r"]}, "`prompt` and `response` must be text"),
    ("empty prompt", {"prompt": " \n", "response": "r"}, "must be the user's prompt, and not empty"),
    ("empty response", {"prompt": "p", "response": ""}, "must be the assistant's response, and not empty"),
    ("messages is null", {"messages": None}, "`messages` must be a list of turns"),
    ("messages is empty", {"messages": []}, "`messages` must be a list of turns"),
    ("messages is an object", {"messages": TURNS[0]}, "`messages` must be a list of turns"),
    ("messages is broken text", {"messages": "[{"}, "not JSON"),
    ("a turn is text", {"messages": ["hi", "there"]}, TURN),
    ("a turn without role", {"messages": [{"content": "p"}, TURNS[1]]}, TURN),
    ("a turn of an unknown role", {"messages": [{"role": "human", "content": "p"}, TURNS[1]]}, TURN),
    ("a turn of no plain role", {"messages": [{"role": ["user"], "content": "p"}, TURNS[1]]}, TURN),
    ("a turn without content", {"messages": [TURNS[0], {"role": "assistant", "tool_calls": []}]}, TURN),
    ("content is null", {"messages": [TURNS[0], {"role": "assistant", "content": None}]}, TURN),
    (
        "an image among the parts",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, TURNS[1]]},
        "a turn holds more than text (image_url)",
    ),
    ("last turn is the user's", {"messages": [*TURNS, TURNS[0]]}, "the last turn must be the assistant's response"),
    ("only a response", {"messages": [TURNS[1]]}, "the turn before the response must be the user's prompt"),
    ("two responses", {"messages": [*TURNS, TURNS[1]]}, "the turn before the response must be the user's prompt"),
    (
        "only a system turn",
        {"messages": [{"role": "system", "content": "s"}, TURNS[1]]},
        "the turn before the response must be the user's prompt",
    ),
    ("half a surrogate pair", {"prompt": "p \ud83d", "response": "r"}, "half of a surrogate pair"),
    ("half a pair in the response", {"prompt": "p", "response": "\udc00"}, "half of a surrogate pair"),
    ("log without messages", {"request": {}, "response": ANSWER}, "no OpenAI log: it needs request.messages"),
    ("log without choices", {"request": {"messages": CHAT}, "response": {}}, "no OpenAI log"),
    ("log with no choice", {"request": {"messages": CHAT}, "response": {"choices": []}}, "no OpenAI log"),
    ("log of an error", {"request": {"messages": CHAT}, "response": {"error": {"code": 429}}}, "that the call failed"),
    ("log of nulls", {"request": None, "response": None}, "no OpenAI log"),
    ("log of numbers", {"request": 1, "response": 2}, "no OpenAI log"),
    ("log of lists", {"request": [], "response": []}, "no OpenAI log"),
    ("log of empty bodies", {"request": {"body": None}, "response": {"body": None}}, "no OpenAI log"),
    ("log of text", {"request": "hello", "response": "you"}, "not JSON"),
    ("log with text for messages", {"request": {"messages": "hi"}, "response": ANSWER}, TURN),
    (
        "log of a tool call",
        {"request": {"messages": CHAT}, "response": {"choices": [{"message": {"content": None}}]}},
        "the answer is empty",
    ),
]


@pytest.mark.parametrize(
    ("row", "what"), [case[1:] for case in MALFORMED_ROWS], ids=[case[0] for case in MALFORMED_ROWS]
)
def test_a_malformed_row_is_an_error_with_file_line_and_what_is_wrong(row: dict[str, Any], what: str) -> None:
    found = error_of(jsonl(GOOD, json.dumps(row)))
    assert found.startswith("data.jsonl:2: ")
    assert what in found


def test_places_name_file_and_row_in_every_format() -> None:
    for suffix, place in {".jsonl": "data.jsonl:2", ".json": "data.json[1]", ".parquet": "data.parquet row 1"}.items():
        path = written(suffix, [{"prompt": "p", "response": "r"}, {"prompt": "p", "response": " "}])
        assert error_of(path).startswith(f"{place}: ")
    path = written(".csv", [{"prompt": "two\nlines", "response": "r"}, {"prompt": "p", "response": ""}])
    assert error_of(path).startswith("data.csv:4: ")
