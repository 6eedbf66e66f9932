"""The cache of rows: made once, whole or not there, and never another's, whoever is killed or writes meanwhile."""

from __future__ import annotations

import datetime
import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from row_examples import EXAMPLES, LENGTH, example, load, same

from llamaduo.data import chat as chat_module
from llamaduo.data import rows
from llamaduo.data.chat import CHATML, Chat
from llamaduo.data.rows import Rows, tokenised
from llamaduo.errors import InputError
from llamaduo.records import Example


@pytest.fixture
def chat() -> Chat:
    return load()


@pytest.fixture
def no_rendering(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function from whose call on nothing can be rendered."""

    def refuse(*_: Any) -> Any:
        raise AssertionError("rendered again")

    return lambda: monkeypatch.setattr(Chat, "pairs", refuse)


def test_the_second_time_rows_are_mapped_and_nothing_is_rendered(
    chat: Chat, tmp_path: Path, no_rendering: Callable[[], None]
) -> None:
    made = tokenised(EXAMPLES, chat, LENGTH, tmp_path / "some" / "where")
    no_rendering()
    found = tokenised([replace(row) for row in EXAMPLES], load(), LENGTH, tmp_path / "some" / "where")
    assert same(found, made)
    assert not found.ids.flags.writeable
    assert not found.ids.flags.owndata
    (path,) = (tmp_path / "some" / "where").iterdir()
    header = json.loads(path.read_bytes()[:4096])
    assert header["format"] == 1
    assert header["key"] == path.stem
    assert header["arrays"] == {"starts": ["<i8", 299], "kept": ["<i8", 298], "prompts": ["<i4", 298],
                                "ids": ["<u2", found.ids.size]}  # fmt: skip


def test_a_file_is_synced_before_it_gets_its_name_and_its_folder_afterwards(
    chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            steps.append(f"{name} {'folder' if name == 'fsync' and os.fstat(given[0]).st_nlink > 1 else 'file'}")
            return function(*given)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
    tokenised(EXAMPLES[:3], chat, LENGTH, tmp_path)
    assert steps == ["fsync file", "replace file", "fsync folder"]


def variants(chat: Chat) -> Iterator[tuple[str, list[Example], Chat, int]]:
    """Yield what differs in one thing that decides about the rows."""
    few = EXAMPLES[:3]
    first = few[0]
    asked = first.messages[0]["content"]
    yield "nothing", few, chat, LENGTH
    yield "length", few, chat, LENGTH - 1
    yield "order", [few[1], few[0], few[2]], chat, LENGTH
    yield "fewer", few[:2], chat, LENGTH
    yield "response", [replace(first, response=first.response + " "), *few[1:]], chat, LENGTH
    yield "prompt", [example(asked + "\n", first.response), *few[1:]], chat, LENGTH
    yield "role", [replace(first, messages=({"role": "system", "content": asked},)), *few[1:]], chat, LENGTH
    turns = ({"role": "system", "content": ""}, *first.messages)
    yield "turn", [replace(first, messages=turns), *few[1:]], chat, LENGTH
    yield "stops", few, Chat(load().tokenizer, [min(set(chat.tokenizer.added_tokens_decoder) - chat.end_ids)]), LENGTH
    for name, change in CHANGES.items():
        other = load()
        change(other.tokenizer)
        yield name, few, Chat(other.tokenizer), LENGTH


def other_words(tokenizer: Any) -> None:
    tokenizer.chat_template = "Be brief. " + tokenizer.chat_template


CHANGES: dict[str, Callable[[Any], Any]] = {
    "word": lambda tokenizer: tokenizer.add_tokens(["invoice"]),
    "template": other_words,
    "end": lambda tokenizer: setattr(tokenizer, "eos_token", tokenizer.convert_ids_to_tokens(5)),
    "beginning": lambda tokenizer: setattr(tokenizer, "bos_token", tokenizer.convert_ids_to_tokens(5)),
}


def alike(chat: Chat) -> set[str]:
    """Return which variants have a key that another has, too."""
    keys = {name: rows._key(*given) for name, *given in variants(chat)}
    assert None not in keys.values()
    return {name for name, key in keys.items() if list(keys.values()).count(key) > 1}


def test_all_that_decides_about_rows_is_in_the_key(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    assert alike(chat) == set()
    assert rows._key(EXAMPLES, chat, LENGTH) == rows._key(tuple(map(replace, EXAMPLES)), load(), LENGTH)


@pytest.mark.parametrize(
    ("forgotten", "found"),
    [
        (("tokenizer", "template", "special", "stops"), {"nothing", "stops", *CHANGES}),
        (("tokenizer",), {"nothing", "word"}),
        (("template",), {"nothing", "template"}),
        (("special",), {"nothing", "end", "beginning"}),
        (("stops",), {"nothing", "stops"}),
    ],
)
def test_what_is_forgotten_in_the_key_would_be_noticed(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, forgotten: tuple[str, ...], found: set[str]
) -> None:
    def dumps(told: Any, **options: Any) -> str:
        kept = {name: part for name, part in told.items() if name not in forgotten} if options else told
        return json.dumps(kept, **options)

    monkeypatch.setattr(chat_module, "json", SimpleNamespace(dumps=dumps))
    assert alike(chat) == found


def test_libraries_and_format_are_in_the_key(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {rows._key(EXAMPLES, chat, LENGTH)}
    for name in ("transformers", "tokenizers", "jinja2"):
        monkeypatch.setattr(chat_module, "version", lambda asked, name=name: "9.9" if asked == name else "1.0")
        keys.add(rows._key(EXAMPLES, chat, LENGTH))
    monkeypatch.setattr(rows, "_FORMAT", 2)
    keys.add(rows._key(EXAMPLES, chat, LENGTH))
    assert len(keys) == 5


def test_a_template_that_tells_the_day_is_rendered_anew_every_day(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tomorrow(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:
            return datetime.date(2100, 1, 1)

    plain = chat.fingerprint()
    chat.tokenizer.chat_template = "Today: {{ strftime_now('%d %b %Y') }}" + CHATML
    dated = chat.fingerprint()
    monkeypatch.setattr(chat_module, "date", Tomorrow)
    assert chat.fingerprint() != dated
    assert load().fingerprint() == plain


# Damage


def kept_file(chat: Chat, place: Path) -> Path:
    tokenised(EXAMPLES[:20], chat, LENGTH, place)
    (path,) = place.glob("*.rows")
    return path


def damaged(whole: bytes) -> Iterator[bytes]:
    """Yield the file cut, with each bit of its first line or some other flipped, and with something behind it."""
    yield from (whole[:size] for size in (0, 1, 100, 4095, 4096, 4097, len(whole) // 2, len(whole) - 1))
    yield whole + b"\0"
    yield whole[:4096] + bytes(len(whole) - 4096)
    flips = [*range(8 * len(whole[:4096].rstrip())), *random.Random(1).sample(range(8 * len(whole)), 200)]
    for bit in flips:
        yield whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :]
    yield b"[" * len(whole)
    for told in ({}, [], 3, {"arrays": 1}, {"arrays": {name: ["<i8", -1] for name in rows._ARRAYS}}):
        yield json.dumps(told).encode().ljust(4096) + whole[4096:]


def unnoticed(path: Path) -> int:
    """Return how many damaged files are taken for whole."""
    whole = path.read_bytes()
    taken = 0
    for content in damaged(whole):
        path.write_bytes(content)
        try:
            taken += rows._read(path, path.stem) is not None
        except Exception:  # taken for whole, and then it made no sense
            taken += 1
    path.write_bytes(whole)
    assert rows._read(path, path.stem) is not None
    return taken


def test_damage_is_noticed(chat: Chat, tmp_path: Path) -> None:
    assert unnoticed(kept_file(chat, tmp_path)) == 0


def test_without_the_checksum_damage_would_pass(chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = SimpleNamespace(update=lambda data: None, hexdigest=lambda: "0" * 64)
    path = kept_file(chat, tmp_path)
    monkeypatch.setattr(rows, "hashlib", SimpleNamespace(sha256=lambda _: nothing))
    rows._write(tokenised(EXAMPLES[:20], chat, LENGTH, None), path, path.stem)
    assert unnoticed(path) > 100


def test_what_is_damaged_is_made_again(chat: Chat, tmp_path: Path) -> None:
    expected = tokenised(EXAMPLES[:20], chat, LENGTH, None)
    path = kept_file(chat, tmp_path)
    whole = path.read_bytes()
    for content in (whole[:-1], bytes(len(whole)), b""):
        path.write_bytes(content)
        assert same(tokenised(EXAMPLES[:20], chat, LENGTH, tmp_path), expected)
        assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_under_another_ones_name_is_not_taken(chat: Chat, tmp_path: Path) -> None:
    path = kept_file(chat, tmp_path)
    others = EXAMPLES[20:40]
    path.rename(tmp_path / f"{rows._key(others, chat, LENGTH)}.rows")
    assert same(tokenised(others, chat, LENGTH, tmp_path), tokenised(others, chat, LENGTH, None))


# Other processes, other files, no room


def test_writers_that_are_killed_or_work_at_the_same_time_leave_whole_files(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_writers.py")
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    violated = json.loads(done.stdout)
    assert violated.pop("sound") == []
    assert set(violated) == {"in_place", "named_alike"}
    assert all(violated.values())


def test_the_files_that_were_used_last_are_kept_up_to_the_limit(
    chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(number: int) -> Rows:
        return tokenised(EXAMPLES[number : number + 5], chat, LENGTH, tmp_path)

    first = ask(100)
    (path,) = tmp_path.iterdir()
    tokens = first.ids.tolist()
    for number in range(101, 105):
        ask(number)
    (tmp_path / "mine.txt").write_text("kept")
    for age, known in enumerate(sorted(tmp_path.glob("*.rows"), key=lambda path: path.stat().st_mtime)):
        os.utime(known, (1_000_000_000 + age, 1_000_000_000 + age))
    ask(100)  # used again: now the newest
    monkeypatch.setattr(rows, "_LIMIT_BYTES", 3 * path.stat().st_size + 1000)
    left = tmp_path / ".some.rows.0123.tmp"
    young = tmp_path / ".other.rows.4567.tmp"
    left.touch()
    young.touch()
    os.utime(left, (1_000_000_000, 1_000_000_000))
    ask(105)
    assert len(list(tmp_path.glob("*.rows"))) == 3
    assert path.exists()
    assert (tmp_path / "mine.txt").exists()
    assert young.exists()
    assert not left.exists()
    monkeypatch.setattr(rows, "_LIMIT_BYTES", 0)
    ask(106)
    assert len(list(tmp_path.glob("*.rows"))) == 1  # the newest, whatever its size
    assert first.ids.tolist() == tokens  # mapped still


def test_a_folder_that_can_not_be_written_is_told_before_anything_is_rendered(
    chat: Chat, tmp_path: Path, no_rendering: Callable[[], None]
) -> None:
    (tmp_path / "file").touch()
    no_rendering()
    with pytest.raises(InputError, match=r"cache of rows .*file/rows.* set runtime\.cache to another folder"):
        tokenised(EXAMPLES, chat, LENGTH, tmp_path / "file" / "rows")


def test_a_full_disk_leaves_nothing_behind(chat: Chat, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, before[1]))
    try:
        with pytest.raises(InputError, match=r"File too large\); free space, or set runtime\.cache"):
            tokenised(EXAMPLES, chat, LENGTH, tmp_path / "rows")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "rows").iterdir())
    assert len(tokenised(EXAMPLES, chat, LENGTH, tmp_path / "rows")) == 298
