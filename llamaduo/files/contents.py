"""Contents: what a file or a folder holds, as a hash, so that a changed one is known under its old name.

    of_file(Path("rows.jsonl"))        64 hex digits
    of_model(Path("./mine"))           of what a model is loaded from: weights, settings, tokenizer, templates, code
    of_folder(Path("./rows"))          of every file in it but hidden ones

A large file is read once: its hash is kept in `$LLAMADUO_HOME/hashes/` under its path, size, inode and the times at
which it was written and changed (which no program can set back), and read again when any of these differs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llamaduo.files.folders import below

_LARGE = 8 << 20
"""Bytes from which a file's hash is kept."""
_SETTLED_NS = 2 * 10**9
"""A file that was changed less than this ago can be changed again within the same tick of its clock."""
_OF_MODEL = {".json", ".safetensors", ".jinja", ".model", ".txt", ".tiktoken", ".bpe", ".spm", ".vocab", ".py"}
"""The endings of what transformers reads of a model's folder."""
_TEMPLATES = "additional_chat_templates/*.jinja"


def home() -> Path:
    """Return `$LLAMADUO_HOME`, or `~/.llamaduo`, or `.llamaduo` for a user without a home: what all runs share."""
    named = os.environ.get("LLAMADUO_HOME") or "~/.llamaduo"
    found = Path(os.path.expanduser(named))
    return Path.cwd() / ".llamaduo" if found.parts[0] == "~" else found


def of_file(path: Path) -> str:
    """Return the sha256 of a file's content; raises OSError where it can't be read."""
    return remembered([path], lambda: _read(path))


def remembered(files: Sequence[Path], compute: Callable[[], str]) -> str:
    """Return a hash of files' content, computed only if they are small or have changed since it was."""
    told = [path.stat() for path in files]
    if sum(one.st_size for one in told) < _LARGE:
        return compute()
    parts = [
        (os.fspath(path.resolve()), one.st_size, one.st_ino, one.st_dev, one.st_mtime_ns, one.st_ctime_ns)
        for path, one in zip(files, told, strict=True)
    ]
    kept = home() / "hashes" / hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    with contextlib.suppress(OSError, UnicodeError):
        found = kept.read_text(encoding="ascii")
        if len(found) == 64:
            return found
    digest = compute()
    if time.time_ns() - max(one.st_ctime_ns for one in told) > _SETTLED_NS:
        _keep(kept, digest)
    return digest


def _read(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keep(kept: Path, digest: str) -> None:
    """Write a hash down; where that can't be done it is computed again."""
    private = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        private.write_text(digest, encoding="ascii")
        os.replace(private, kept)


def of_model(folder: Path) -> str:
    """Return a hash over the files of a model's or a tokenizer's folder that can change what it does.

    These lie right in it, but for further chat templates: what is in other folders isn't loaded.
    """
    found = [path for path in folder.iterdir() if path.suffix in _OF_MODEL]
    return _together(folder, [path for path in [*found, *folder.glob(_TEMPLATES)] if path.is_file()])


def of_folder(folder: Path) -> str:
    """Return a hash over the names and contents of all files in a folder, and in those below it, but hidden ones.

    Folders behind links count, too.
    """
    found = (place / name for place, names in below(folder) for name in names)
    kept = [p for p in found if not any(name.startswith(".") for name in p.relative_to(folder).parts)]
    return _together(folder, [path for path in kept if path.is_file()])


def _together(folder: Path, files: Iterable[Path]) -> str:
    ordered = sorted(files)
    with ThreadPoolExecutor() as pool:
        digests = pool.map(of_file, ordered)
    lines = [f"{path.relative_to(folder).as_posix()} {found}" for path, found in zip(ordered, digests, strict=True)]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
