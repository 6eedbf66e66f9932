"""The members of a study's archive, one after the other: nothing is believed, and nothing is extracted.

    write_members(Path("runs.tar.xz"), Path("scratch/main_table"))

An archive may be a stranger's. It is unpacked as a stream: a member has to be a regular file with a name that
`archive.pack` writes, once, and its bytes are written by us into a new file. What an archive may come to is limited
while it is read, so that a small one fills neither disk nor memory: bytes in all and for each byte of the archive,
members, bytes of a member, bytes of a line. Raises InputError.
"""

from __future__ import annotations

import lzma
import re
import tarfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from llamaduo.errors import InputError
from llamaduo.redaction import one_line
from llamaduo.runs import layout

REPLIES = "replies.jsonl"
"""The journal's rows, beside the run folders."""
RUN_FILES = (
    layout.CONFIG, layout.ENVIRONMENT, layout.IDENTITY, layout.STATE, layout.METRICS, layout.RUBRIC, layout.ACCOUNT,
    layout.UNUSED,
    layout.PRIVACY, layout.SECRET,
)  # fmt: skip
"""What is archived of a run besides its artifacts."""
ARTIFACTS = (
    *layout.JUDGED[1:], layout.REST, *layout.GROWN, layout.PROVENANCE,
    layout.LOSSES, layout.TRAIN_PREDICTIONS, layout.AUDIT,
)  # fmt: skip
"""Files of an iteration; each has a marker. Of an adapter there are its marker and its record."""
INSIDE = {
    *ARTIFACTS,
    *(f"{name}{layout.DONE}" for name in (layout.ADAPTER, *ARTIFACTS)),
    f"{layout.ADAPTER}/{layout.RECORD}",
}
"""What may lie in an iteration's folder."""
_PLACE = re.compile(rf"{layout.ITERATIONS}/[a-z0-9_]{{1,40}}/(.+)")
_DEEPEST = 4
"""Folders that a run's may lie in, its own included."""

MOST_MEMBERS = 50_000
"""Some 800 runs."""
_MOST_BYTES = 4 << 30
_MOST_FOR_A_BYTE = 1000
"""Bytes that a byte of the archive may come to: rehearsals come to 20 to 26."""
_ALWAYS = 64 << 20
"""Bytes that any archive may come to."""
_LARGEST = {REPLIES: _MOST_BYTES, layout.CONFIG: 1 << 20}
_LARGEST_LINES, _LARGEST_TREE = 512 << 20, 64 << 20
"""Bytes of any other member: of lines, which are read one by one, and of what is read as a whole."""
_LONGEST_LINE = 16 << 20
_MEMORY = 256 << 20
"""What unpacking may take; `archive.pack` asks for 65 MiB."""
_CHUNK = 1 << 20
_HEADERS = {"path", "mtime", "atime", "ctime", "uid", "gid", "uname", "gname"}
"""Records of an extended header that are understood, or change nothing."""


def is_member(name: str) -> bool:
    """Tell whether a file of this name belongs into an archive."""
    return name == REPLIES or _run_of(name) is not None


def _run_of(name: str) -> str | None:
    """Return the folder of the run that a file is part of, None if it is no file of a run."""
    *folders, last = name.split("/")
    for depth in range(1, min(len(folders), _DEEPEST) + 1):
        inside = "/".join([*folders[depth:], last])
        place = _PLACE.fullmatch(inside)
        if inside in RUN_FILES or (place and place[1] in INSIDE):
            plain = name.isprintable() and all(map(_is_plain, folders)) and layout.ITERATIONS not in folders[:depth]
            return "/".join(folders[:depth]) if plain else None
    return None


def _is_plain(folder: str) -> bool:
    return folder not in ("", ".", "..") and "\\" not in folder and len(folder.encode()) <= 255


def write_members(file: Path, folder: Path) -> None:
    """Write every member of an archive below a folder, which is made."""
    try:
        with file.open("rb") as packed:
            stream = _Inflated(packed, file.stat().st_size)
            seen: set[str] = set()
            names = []
            for name, size in _members(stream):
                _take_name(name, seen)
                names.append(name)
                _take_bytes(name, size, stream, folder)
            stream.end()
            _refuse_incomplete(folder, {_run_of(name) for name in names})
    except InputError as error:
        raise InputError(f"{file}: no archive of a study ({error}).") from error
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        raise InputError(f"{file}: no archive of a study ({one_line(str(error))}).") from error


def _refuse_incomplete(folder: Path, runs: set[str | None]) -> None:
    """Raise InputError for files of a run that no reader would take for one."""
    for run in sorted(filter(None, runs)):
        for name in (layout.CONFIG, layout.STATE):
            if not (folder / run / name).is_file():
                raise InputError(f"{_shown(run)} has no {name}")


def _members(stream: _Inflated) -> Iterator[tuple[str, int]]:
    """Yield name and size of each member, behind whose header the stream then stands."""
    longer = None
    while any(block := stream.exactly(tarfile.BLOCKSIZE)):
        entry = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if entry.type == tarfile.XHDTYPE and 0 < entry.size <= tarfile.BLOCKSIZE * 8:
            longer = _path_in(stream.exactly(entry.size))
        elif entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            yield longer or entry.name, entry.size
            longer = None
        else:
            raise InputError(f"{_shown(entry.name)} is no regular file")
        stream.exactly(-entry.size % tarfile.BLOCKSIZE)


def _path_in(header: bytes) -> str | None:
    """Return the path that an extended header names: records of `LENGTH KEY=VALUE` and a line break."""
    path = None
    while header:
        size = int(header[: header.index(b" ")])
        key, _, value = header[:size].decode().partition(" ")[2].removesuffix("\n").partition("=")
        if size < 5 or key not in _HEADERS:
            raise InputError(f"an extended header says {_shown(key)}")
        path, header = value if key == "path" else path, header[size:]
    return path


def _take_name(name: str, seen: set[str]) -> None:
    if not is_member(name):
        raise InputError(f"{_shown(name)} is no file of a run")
    same = unicodedata.normalize("NFC", name).casefold()
    if same in seen:
        raise InputError(f"{_shown(name)} is there twice")
    seen.add(same)
    if len(seen) > MOST_MEMBERS:
        raise InputError(f"it has more than {MOST_MEMBERS:,} members")


def _take_bytes(name: str, size: int, stream: _Inflated, folder: Path) -> None:
    """Write the next bytes of the stream into a new file."""
    path = folder / PurePosixPath(name)
    of_lines = path.suffix == ".jsonl"
    largest = _LARGEST.get(path.name, _LARGEST_LINES if of_lines else _LARGEST_TREE)
    if not 0 <= size <= largest:
        raise InputError(f"{_shown(name)} comes to {size:,} bytes, of at most {largest:,}")
    path.parent.mkdir(parents=True, exist_ok=True)
    line = 0
    with path.open("xb") as target:
        while size:
            chunk = stream.read(min(size, _CHUNK))
            if not chunk:
                raise EOFError("it ends inside a member")
            first, last = chunk.find(b"\n"), chunk.rfind(b"\n")
            line = line + len(chunk) if last < 0 else max(line + first, len(chunk) - last)
            if of_lines and line > _LONGEST_LINE:
                raise InputError(f"{_shown(name)} has a line of more than {_LONGEST_LINE:,} bytes")
            line = line if last < 0 else len(chunk) - last
            target.write(chunk)
            size -= len(chunk)


class _Inflated:
    """The bytes of an xz file, forwards only; raises InputError when they are too many."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = self._most = min(_MOST_BYTES, max(_ALWAYS, _MOST_FOR_A_BYTE * size))
        self._xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none at the end."""
        while not self._xz.eof:
            packed = self._file.read(1 << 16) if self._xz.needs_input else b""
            if self._xz.needs_input and not packed:
                raise EOFError("it is cut short")
            inflated = self._xz.decompress(packed, size)
            self._left -= len(inflated)
            if self._left < 0:
                raise InputError(f"it comes to more than {self._most >> 20:,} MiB")
            if inflated:
                return inflated
        return b""

    def exactly(self, size: int) -> bytes:
        """Return so many bytes, which have to be there; for few."""
        found = b""
        while len(found) < size:
            more = self.read(size - len(found))
            if not more:
                raise EOFError("it ends too early")
            found += more
        return found

    def end(self) -> None:
        """Read what is left, which has to be nothing but zeros; other tools would go on with a second stream."""
        while rest := self.read(_CHUNK):
            if any(rest):
                raise InputError("it goes on behind its end")
        if self._xz.unused_data or self._file.read(1):
            raise InputError("it goes on behind its end")


def _shown(name: str) -> str:
    return one_line(name if len(name) <= 80 else f"{name[:77]}...")
