"""`llamaduo doctor`: what this machine can do: hardware, keys (never their values), packages, writable folders."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llamaduo import __version__
from llamaduo.config import conf_dir
from llamaduo.environment import gpus, memory_gib, network_file_system, package_versions
from llamaduo.errors import ConfigError
from llamaduo.service.journal import default_path

_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "WANDB_API_KEY", "HF_TOKEN")


def main(arguments: Sequence[str]) -> int:
    """Print the report and return the exit code."""
    if arguments:
        raise ConfigError("usage: llamaduo doctor (it takes no arguments).")
    print(examine(), end="")
    return 0


def examine() -> str:
    """Return the report as text, one finding a line."""
    lines = [
        f"llamaduo {__version__}, Python {platform.python_version()} at {sys.prefix}",
        f"machine: {platform.platform()}, {os.cpu_count()} CPU cores, {memory_gib()} GiB memory",
    ]
    found = gpus()
    lines += [f"GPU: {name}" for name in found] or ["GPU: none found; pocket models train on CPU, real ones need a GPU"]
    lines += [f"key {name}: {'present' if os.environ.get(name) else 'not set'}" for name in _KEYS]
    lines += [f"package {name}: {version or 'not installed'}" for name, version in package_versions().items()]
    lines.append(f"configuration: {conf_dir()}")
    lines.append(f"journal: {default_path()}, {_writable(default_path().parent)}")
    lines.append(f"results: {Path('results').resolve()}, {_writable(Path('results').resolve())}")
    return "\n".join(lines) + "\n"


def _writable(folder: Path) -> str:
    """Tell whether files can be made in a folder, or in the nearest parent that exists."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            network = network_file_system(place)
            return f"writable, on {network}: one machine at a time; see docs/clusters.md" if network else "writable"
    except OSError as error:
        return f"NOT writable ({error.strerror})"
