"""What a file of rows holds, unpacked while it is read: gzip, bzip2, xz and Zstandard, told by their first bytes.

    with opened(Path("log.jsonl.gz")) as file: ...         a binary file; raises DamagedError while it is read

Several packed parts one behind the other are one content. What a packed file may come to is limited while it is read,
as an archive's members are, so that a small one fills no memory.
"""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from llamaduo.errors import InputError

CHUNK = 1 << 20
_MOST_FOR_A_BYTE = 1000
"""Bytes that a byte of a packed file may come to."""
_ALWAYS = 64 << 20
"""Bytes that any packed file may come to."""
_LARGEST_WINDOW = 1 << 27
"""Bytes of memory that unpacking Zstandard may take (`zstd --long`)."""


_PIECE = 1 << 10
"""Bytes of a frame that are unpacked at once: they come to 32 MiB at most."""


class DamagedError(InputError):
    """A packed file can't be unpacked further."""


def opened(path: Path) -> io.BufferedReader:
    """Return a file's content as a binary file."""
    file = path.open("rb")
    head = file.read(8)
    file.seek(0)
    unpack = next((unpack for mark, unpack in _PACKED.items() if head.startswith(mark)), None)
    if unpack is None:
        return file
    return io.BufferedReader(_Unpacked(path, file, unpack(file)), CHUNK)


def _gzip(file: BinaryIO) -> Any:
    import gzip

    return gzip.GzipFile(fileobj=file)


def _bzip2(file: BinaryIO) -> Any:
    import bz2

    return bz2.BZ2File(file)


class _Zstandard:
    """The frames of a Zstandard file; the library's own reader takes a frame that is cut short for a whole one."""

    def __init__(self, file: BinaryIO) -> None:
        import zstandard

        self._file = file
        self._unpacking = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        self._frame: Any = None
        self._packed = self._content = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end."""
        while self._at == len(self._content):
            piece, self._packed = self._packed or self._file.read(_PIECE), b""
            if not piece:
                if self._frame is not None:
                    raise EOFError("it is cut short")
                return b""
            self._frame = self._frame or self._unpacking.decompressobj()
            self._content, self._at = self._frame.decompress(piece), 0
            if self._frame.eof:
                self._packed, self._frame = self._frame.unused_data, None
        found = self._content[self._at : self._at + size]
        self._at += len(found)
        return found


_PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": _gzip,
    b"BZh": _bzip2,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _Zstandard,
    **{bytes([0x50 + n]) + b"\x2a\x4d\x18": _Zstandard for n in range(16)},  # a frame that is skipped
}
"""How packed files begin."""


class _Unpacked(io.RawIOBase):
    """The content of a packed file, which is not endless."""

    def __init__(self, path: Path, file: BinaryIO, stream: Any) -> None:
        super().__init__()
        self._path, self._file, self._stream = path, file, stream
        self._left = self._most = max(_ALWAYS, _MOST_FOR_A_BYTE * path.stat().st_size)

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def close(self) -> None:
        """Close the packed file, too."""
        self._file.close()
        super().close()

    def readinto(self, target: Any) -> int:
        """Fill a buffer; raises DamagedError, and InputError for what comes to too much."""
        view = memoryview(target)
        try:
            content = self._stream.read(len(view))
        except Exception as error:  # each kind of packing has its own
            if not isinstance(error, OSError | EOFError | ValueError | lzma.LZMAError | zlib.error) and (
                type(error).__name__ != "ZstdError"
            ):
                raise
            suffix = self._path.suffix
            raise DamagedError(f"{self._path}: not {suffix} ({error}); pack the file again.") from error
        self._left -= len(content)
        if self._left < 0:
            raise InputError(
                f"{self._path}: comes to more than {self._most >> 20:,} MiB, {_MOST_FOR_A_BYTE:,} times its size, as "
                "no log does; unpack it yourself if it is one."
            )
        view[: len(content)] = content
        return len(content)
