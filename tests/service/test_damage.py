"""A truncated, bit-flipped or swapped journal: found, kept beside the repaired one, and only what is bad bought again.

Every case opens a damaged copy of one journal of 60 replies, asks everything again and looks at three things: each
reply is the right one, what was bought had a row on a damaged page, and the notes say what happened. Which rows
have bytes on which page is read from marks in their texts, not from SQLite.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from asking import rows, silent
from numbered import answering, ask_all, change

from llamaduo.config import Price, ServiceLLM
from llamaduo.errors import InputError
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal
from llamaduo.service.requests import Request
from llamaduo.service.schema import VERSION

ROWS = 60
PAGE = 4096
FLIPS = 60
PROVIDER = "numbered"


def text_of(number: int) -> str:
    """Return a reply of realistic length that is marked all over."""
    rng = random.Random(number)
    return " ".join(f"R{number:03};{rng.getrandbits(96):x}" for _ in range(rng.randint(5, 90)))


@dataclass
class Copies:
    """A journal of 60 replies, and damaged copies of it."""

    place: Path
    requests: list[Request]
    bought: list[int]
    """The numbers of the requests that were sent to the service LLM."""
    original: Path
    file: bytes
    log: bytes = b""
    """The write-ahead log, if there is one."""
    on_page: dict[int, set[int]] = field(default_factory=dict)
    """Numbers of the replies that have a part on a page, counted from 0."""
    made: int = 0

    def damaged(self, content: bytes) -> Path:
        """Return the path of a copy with other content."""
        self.made += 1
        path = self.place / str(self.made) / "journal.sqlite"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        if self.log:
            Path(f"{path}-wal").write_bytes(self.log)
        return path

    def flipped(self, position: int, bit: int) -> Path:
        """Return the path of a copy in which one bit is another."""
        content = bytearray(self.file)
        content[position] ^= 1 << bit
        return self.damaged(bytes(content))

    def ask(self, path: Path) -> tuple[set[int], list[str]]:
        """Ask everything of a journal; return what was bought, and the notes; every reply has to be right."""
        self.bought.clear()
        texts, notes = ask_all(path, self.requests)
        assert texts == [text_of(number) for number in range(ROWS)]
        assert len(set(self.bought)) == len(self.bought)
        return set(self.bought), notes

    def check(self, path: Path, allowed: Iterable[int]) -> set[int]:
        """Ask, and check that only rows of damaged pages were bought, that it is said, and that it lasts."""
        content = path.read_bytes()
        bought, notes = self.ask(path)
        assert bought <= set(allowed)
        kept = [one for one in path.parent.glob("journal.sqlite.damaged-*") if not one.name.endswith(("-wal", "-shm"))]
        if kept:
            assert [one.read_bytes() for one in kept] == [content]
            assert [kept[0].name in note for note in notes if "it was damaged" in note] == [True]
        ((aside,),) = rows(path, "SELECT count(*) FROM set_aside")
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]
        assert rows(path, "PRAGMA user_version") == [(VERSION,)]
        assert len([note for note in notes if "set aside" in note]) == aside
        assert kept or aside >= len(bought) or not content
        if notes:
            assert self.ask(path) == (set(), [])
        shutil.rmtree(path.parent)
        return bought


@pytest.fixture(scope="module")
def asked() -> Iterator[list[int]]:
    with answering(PROVIDER, text_of) as asked:
        yield asked


@pytest.fixture(scope="module")
def whole(asked: list[int], tmp_path_factory: pytest.TempPathFactory) -> Copies:
    """Return a journal that was closed in peace."""
    return _bought(asked, tmp_path_factory.mktemp("whole"), closed=True)


@pytest.fixture
def copies(whole: Copies, tmp_path: Path) -> Copies:
    """Return copies of it."""
    return replace(whole, place=tmp_path)


def _bought(asked: list[int], place: Path, *, closed: bool) -> Copies:
    llm = ServiceLLM(name="m", provider=PROVIDER, model="m", price=Price(1.0, 2.0, "a test"))
    requests = [Request(llm, f"{n} {'word ' * (n * 13 % 400)}", None, 0, "judge") for n in range(ROWS)]
    path = place / "journal.sqlite"
    service = Service(Journal(path), run="study/run", budget_usd=None)
    service.ask(requests, silent)
    if closed:
        service.close()
    made = Copies(place, requests, asked, path, path.read_bytes())
    if not closed:
        made.log = Path(f"{path}-wal").read_bytes()
        service.close()
    marks = _marks(path)
    for page in range(len(made.file) // PAGE):
        content = made.file[page * PAGE : (page + 1) * PAGE]
        made.on_page[page] = {n for n, of_it in marks.items() if any(mark in content for mark in of_it)}
    return made


def _marks(path: Path) -> dict[int, list[bytes]]:
    """Return what tells a row's bytes, by its number: the marks of its text, both ends of its checksum."""
    found = rows(path, "SELECT text, checksum FROM replies")
    return {int(text[1:4]): [text[:5].encode(), c[:20].encode(), c[-20:].encode()] for text, c in found}


def test_the_journal_is_one_worth_damaging(copies: Copies) -> None:
    assert 60 < len(copies.on_page) < 300
    assert set().union(*copies.on_page.values()) == set(range(ROWS))
    bare = [page for page, numbers in copies.on_page.items() if not numbers]
    assert 0 in bare
    assert len(bare) > 10
    assert copies.check(copies.damaged(copies.file), []) == set()


def test_single_bits_all_over_the_file(copies: Copies) -> None:
    rng = random.Random(20)
    lost = 0
    for _ in range(FLIPS):
        position = rng.randrange(len(copies.file))
        lost += len(copies.check(copies.flipped(position, rng.randrange(8)), copies.on_page[position // PAGE]))
    assert FLIPS // 5 < lost < FLIPS  # about one row for a flip that hits one


def test_single_bits_of_the_header_cost_nothing(copies: Copies) -> None:
    rng = random.Random(21)
    believed = (19, 59, 63)  # the write version, the encoding, the version of the tables
    for position in sorted({*range(0, 112, 3), *believed}):
        for bit in range(8) if position in believed else [rng.randrange(8)]:
            copies.check(copies.flipped(position, bit), [])


def test_single_bits_of_the_schema_the_trees_and_the_indexes_cost_nothing(copies: Copies) -> None:
    rng = random.Random(22)
    roots = [page - 1 for (page,) in rows(copies.original, "SELECT rootpage FROM sqlite_master")]
    bare = [page for page in {0, *roots} if not copies.on_page[page]]
    assert len(bare) >= 10
    for page in bare:
        for _ in range(8 if page == 0 else 4):
            copies.check(copies.flipped(page * PAGE + rng.randrange(PAGE), rng.randrange(8)), [])
        copies.check(copies.flipped(page * PAGE + (100 if page == 0 else 0) + rng.randrange(8), rng.randrange(8)), [])


@pytest.mark.parametrize(
    "word", [b"raw TEXT", b"checksum TEXT", b"replies (", b"UNIQUE", b"reserved ON", b"outcome IS"]
)
def test_a_letter_of_the_schema_costs_nothing(copies: Copies, word: bytes) -> None:
    position = copies.file.index(word)
    assert position < PAGE
    copies.check(copies.flipped(position, 0), [])


def test_a_whole_page_that_is_lost_costs_the_rows_on_it(copies: Copies) -> None:
    rng = random.Random(23)
    for page in [0, *rng.sample(sorted(copies.on_page), 9)]:
        for filling in (bytes(PAGE), rng.randbytes(PAGE)):
            content = copies.file[: page * PAGE] + filling + copies.file[(page + 1) * PAGE :]
            copies.check(copies.damaged(content), copies.on_page[page])


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.1, 0.33, 0.5, 0.77, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("at_a_page", [True, False])
def test_a_truncated_file_costs_what_is_cut_off(copies: Copies, share: float, at_a_page: bool) -> None:
    length = round(share * len(copies.file))
    length = length // PAGE * PAGE if at_a_page else length
    cut_off: set[int] = set()
    for page, numbers in copies.on_page.items():
        if (page + 1) * PAGE > length:
            cut_off |= numbers
    bought = copies.check(copies.damaged(copies.file[:length]), cut_off)
    assert bought or share > 0.9


def test_what_lies_in_the_log_of_a_process_that_died_is_found_too(asked: list[int], tmp_path: Path) -> None:
    copies = _bought(asked, tmp_path / "original", closed=False)
    assert len(copies.log) > 10 * PAGE
    copies.check(copies.damaged(copies.file), [])
    content = bytearray(copies.file)
    content[:16] = b"nothing of SQLite"[:16]
    path = copies.damaged(bytes(content))
    bought, notes = copies.ask(path)
    assert bought == set()
    assert any("60 replies are sound" in note for note in notes)


SWAPS = {
    "texts": "UPDATE replies SET text = (SELECT text FROM was WHERE was.id = 38 - replies.id) WHERE id IN (7, 31)",
    "raw": "UPDATE replies SET raw = (SELECT raw FROM was WHERE was.id = 38 - replies.id) WHERE id IN (7, 31)",
    "texts and raw": "UPDATE replies SET (text, raw) = (SELECT text, raw FROM was WHERE was.id = 38 - replies.id) "
    "WHERE id IN (7, 31)",
    "all but the key": "UPDATE replies SET (text, finish_reason, prompt_tokens, completion_tokens, cost_usd, raw, "
    "received_at, checksum) = (SELECT text, finish_reason, prompt_tokens, completion_tokens, cost_usd, raw, "
    "received_at, checksum FROM was WHERE was.id = 38 - replies.id) WHERE id IN (7, 31)",
    "keys": "UPDATE replies SET key = key || 'x' WHERE id IN (7, 31); "
    "UPDATE replies SET key = (SELECT key FROM was WHERE was.id = 38 - replies.id) WHERE id IN (7, 31)",
    "checksums": "UPDATE replies SET checksum = (SELECT checksum FROM was WHERE was.id = 38 - replies.id) "
    "WHERE id IN (7, 31)",
    "a letter": "UPDATE replies SET text = replace(text, 'a', 'b') WHERE id IN (7, 31)",
    "a cost": "UPDATE replies SET cost_usd = cost_usd / 2 WHERE id IN (7, 31)",
    "a finish reason": "UPDATE replies SET finish_reason = 'length' WHERE id IN (7, 31)",
    "bytes": "UPDATE replies SET text = CAST(text AS BLOB), checksum = CAST(checksum AS BLOB) WHERE id IN (7, 31)",
    "a type": "UPDATE replies SET prompt_tokens = prompt_tokens + 0.5 WHERE id IN (7, 31)",
}


def numbers_of(path: Path) -> set[int]:
    """Return the numbers of the two replies that are tampered with."""
    return {int(text[1:4]) for (text,) in rows(path, "SELECT text FROM replies WHERE id IN (7, 31)")}


@pytest.mark.parametrize("name", SWAPS)
def test_swapped_and_altered_rows_are_set_aside_and_bought_again(copies: Copies, name: str) -> None:
    path = copies.damaged(copies.file)
    two = numbers_of(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TEMP TABLE was AS SELECT * FROM replies WHERE id IN (7, 31)")
        db.executescript(SWAPS[name])
        db.commit()
        tampered = db.execute("SELECT key, CAST(text AS TEXT) FROM replies WHERE id IN (7, 31) ORDER BY key").fetchall()
    bought, notes = copies.ask(path)
    assert bought == two
    assert len(notes) == 2
    assert all("was damaged; it is set aside and bought again" in note for note in notes)
    aside = rows(path, "SELECT key, row FROM set_aside ORDER BY key")
    assert [(key, text[:9] in row) for (key, row), (_, text) in zip(aside, tampered, strict=True)] == [
        (key, True) for key, _ in tampered
    ]
    assert copies.ask(path) == (set(), [])


def test_swapped_requests_mislead_nobody(copies: Copies) -> None:
    path = copies.damaged(copies.file)
    other = "(SELECT request FROM was WHERE was.id = 38 - requests.id)"
    was = "CREATE TEMP TABLE was AS SELECT * FROM requests WHERE id IN (7, 31)"
    change(path, was, f"UPDATE requests SET request = {other} WHERE id IN (7, 31)")
    copies.check(path, [])


def test_a_deleted_row_is_bought_again(copies: Copies) -> None:
    path = copies.damaged(copies.file)
    two = numbers_of(path)
    change(path, "DELETE FROM replies WHERE id IN (7, 31)")
    assert copies.ask(path) == (two, [])


def test_what_was_spent_is_told_by_the_attempts_of_a_damaged_file(copies: Copies) -> None:
    whole = Journal(copies.damaged(copies.file))
    spent, study = whole.spent("study/run"), whole.spent("study")
    whole.close()
    repaired = Journal(copies.flipped(0, 0))
    assert repaired.notes
    assert repaired.spent("study/run") == pytest.approx(spent, rel=1e-9)
    assert repaired.spent("study") == pytest.approx(study, rel=1e-9)
    assert repaired.query("SELECT count(*), count(DISTINCT key) FROM attempts") == [(ROWS, ROWS)]
    repaired.close()


def test_a_damaged_journal_that_somebody_uses_is_left_alone(copies: Copies) -> None:
    path = copies.damaged(copies.file)
    journal = Journal(path)
    content = path.read_bytes()
    path.write_bytes(b"nothing" + content[7:])
    with pytest.raises(InputError, match="it is damaged, and another process uses it: stop that one, then run again"):
        Journal(path)
    path.write_bytes(content)
    journal.close()
    copies.check(path, [])
