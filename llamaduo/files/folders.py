"""What lies below a folder, symbolic links followed: a study that was moved to a larger disk and linked back counts.

    for folder, names in below(Path("results")): ...        each folder with the names of its files, by path

A folder that can be reached in several ways is there once, by the way that follows fewest links.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path


def below(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and all folders below it, each with the sorted names of its files; sorted by path."""
    found: dict[str, tuple[Path, list[str]]] = {}
    waiting = deque([str(root)])
    while waiting:
        start = waiting.popleft()
        for place, folders, names in os.walk(start):
            real = os.path.realpath(place)
            if real in found:
                folders.clear()
                continue
            found[real] = (Path(place), sorted(names))
            waiting += sorted(there for name in folders if os.path.islink(there := os.path.join(place, name)))
    yield from sorted(found.values())


def files_below(root: Path, name: str) -> list[Path]:
    """Return every file of a name at or below a folder, sorted by path."""
    return sorted(folder / name for folder, names in below(root) if name in names)
