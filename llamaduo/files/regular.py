"""What lies in a file's place may be no file: a folder, a named pipe that nobody writes to, a device without an end.

regular(path)        the path                  raises OSError for what is no file
read(path)           its bytes                 also
read_json(path)      the value in it           also ValueError, of what is nested too deeply too
no_files(folder)     what lies below a folder and is neither a file nor a folder
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

NO_FILE = "it is no file"


def regular(path: Path) -> Path:
    """Return the path of a file; raises OSError for what is none, which is never opened."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, NO_FILE)
    return path


def read(path: Path) -> bytes:
    """Return what a file holds; raises OSError for what is none."""
    return regular(path).read_bytes()


def read_json(path: Path) -> Any:
    """Return the value that a file of JSON holds; raises OSError, or ValueError where it holds none."""
    try:
        return json.loads(read(path).decode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def no_files(root: Path) -> list[Path]:
    """Return what lies below a folder and is neither file nor folder; a link that leads nowhere is as good as gone."""
    paths = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    return sorted(path for path in paths if path.exists() and not path.is_file())
