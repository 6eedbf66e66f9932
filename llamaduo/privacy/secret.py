"""The secret that made-up values follow from: 32 random bytes, as 64 hex digits in `placeholders.key`.

    secret_of(run_folder, shared=journal.parent)

It lies beside the journal, so that all runs which share one send the same texts and nothing is bought twice, and in
each run's folder, so that the run's numbers can be derived again anywhere. Who has it and what was sent could try
whether a value was meant; the texts themselves lie beside it in the run's folder.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from llamaduo.errors import InputError
from llamaduo.files.regular import read
from llamaduo.files.writing import writing

NAME = "placeholders.key"
_BYTES = 32
_PATIENCE_S = 2.0


def secret_of(folder: Path | None, shared: Path | None, *, keep: bool = True) -> bytes:
    """Return a run's secret: its folder's, else the shared one, else a new one, which `keep` writes into both places.

    Raises InputError for a file that is none, RunFolderError for a place that can't be written.
    """
    places = [place / NAME for place in (folder, shared) if place is not None]
    known = next((found for path in places if (found := _read(path))), None)
    if not keep:
        return known or secrets.token_bytes(_BYTES)
    if known is None and shared is not None:
        known = _kept(shared / NAME, secrets.token_bytes(_BYTES))
    known = known or secrets.token_bytes(_BYTES)
    return _kept(folder / NAME, known) if folder is not None else known


def _read(path: Path) -> bytes | None:
    """Return the secret in a file, None where there is none; one that is being written is waited for."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            text = read(path).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(
                f"{path}: can't be read ({error.strerror}); it is what made-up values are drawn from."
            ) from error
        if len(text) == 2 * _BYTES or time.monotonic() > until:
            break
        time.sleep(0.01)
    try:
        return bytes.fromhex(text) if len(text) == 2 * _BYTES else _refused(path)
    except ValueError:
        return _refused(path)


def _refused(path: Path) -> bytes:
    raise InputError(
        f"{path}: damaged: it has to hold 64 hex digits. Put it back from a copy (the run folders have one), or remove "
        "it: values are then replaced by others, and what was bought with the old ones is bought again."
    )


def _kept(path: Path, secret: bytes) -> bytes:
    """Write a secret for this user alone, unless there is one already, which is then the one that counts."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return _read(path) or secret
        with os.fdopen(handle, "w") as file:
            file.write(secret.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
    return secret
