"""Where a training that was broken off goes on: the two newest states of it, in safetensors.

    checkpoints = Checkpoints(folder, identity, every_s=600.0)
    found = checkpoints.newest()                     # (progress, tensors) or None
    checkpoints.save(progress, tensors)              # progress: what JSON holds; tensors: by name

A state is a folder `step-00000123` that appears whole, by a rename; its `state.json` names the tensors' checksum, so
that one which was damaged since is passed over. A state of another training (other rows, another model, another
configuration) is not taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from llamaduo.errors import RunFolderError
from llamaduo.files.writing import sync

_KEPT = 2


class Checkpoints:
    """The states of one training."""

    def __init__(self, folder: Path, identity: str, *, every_s: float) -> None:
        self._folder, self._identity, self._every_s = folder, identity, every_s
        self._last = time.monotonic()
        self.notes: list[str] = []
        """States that could not be used, and why."""

    @property
    def due(self) -> bool:
        """Tell whether it is time for another one."""
        return time.monotonic() - self._last >= self._every_s

    def newest(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return progress and tensors of the newest state that is whole."""
        from safetensors.torch import load_file

        for place in reversed(self._places()):
            try:
                state = json.loads((place / "state.json").read_text(encoding="utf-8"))
                digest = _digest(place / "tensors.safetensors")
            except (OSError, ValueError) as error:
                self.notes.append(f"checkpoint {place.name} can't be read ({error}); the one before it is taken.")
                continue
            if state["identity"] != self._identity:
                self.notes.append(f"checkpoint {place.name} is of another training; it is not taken.")
            elif state["sha256"] != digest:
                self.notes.append(f"checkpoint {place.name} is damaged; the one before it is taken.")
            else:
                return state["progress"], load_file(place / "tensors.safetensors")
        return None

    def save(self, progress: dict[str, Any], tensors: dict[str, Any]) -> None:
        """Store a state, and remove those older than the one before it; raises RunFolderError if it can't."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        place = self._folder / f"step-{progress['step']:08d}"
        private = self._folder / f".{place.name}.{os.getpid()}.tmp"
        try:
            shutil.rmtree(private, ignore_errors=True)
            private.mkdir(parents=True)
            save_file(tensors, private / "tensors.safetensors")
            state = {"identity": self._identity, "progress": progress}
            state["sha256"] = _digest(private / "tensors.safetensors")
            (private / "state.json").write_text(json.dumps(state), encoding="utf-8")
            for path in (private / "tensors.safetensors", private / "state.json", private):
                sync(path)
            shutil.rmtree(place, ignore_errors=True)
            os.replace(private, place)
            sync(self._folder)
        except (OSError, SafetensorError) as error:
            raise RunFolderError(
                f"{place}: the checkpoint can't be written ({error}); free space, then run again."
            ) from error
        for old in self._places()[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        self._last = time.monotonic()

    def _places(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
