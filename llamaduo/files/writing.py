"""Files that appear whole: written under a private name, synced and renamed, so that a kill leaves the old or the new.

write_text(Path("results/runs/runs.csv"), text)       raises RunFolderError where it can't be written
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llamaduo.errors import RunFolderError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within it, say of what fails that the path can't be written."""
    try:
        yield
    except UnicodeError as error:
        raise RunFolderError(f"{path}: can't be written ({error}); mend the text's encoding.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFolderError(
            f"{path}: can't be written ({reason}). Free space or set runtime.results to another folder, then run again."
        ) from error


def sync(path: Path) -> None:
    """Let the disk have a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def private(path: Path) -> Path:
    """Return the name under which this process alone writes what will lie at a path."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def write_text(path: Path, text: str) -> None:
    """Replace a file's content in one step: readers see the old text or the new one, never a part."""
    with writing(path):
        write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content in one step."""
    hidden = private(path)
    with writing(path):
        try:
            with open(hidden, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(hidden, path)
            sync(path.parent)
        finally:
            hidden.unlink(missing_ok=True)
