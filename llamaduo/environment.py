"""What a result was made with: versions, code revision, hardware, seeds."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import llamaduo

_PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "litellm", "hydra-core", "scipy",
    "sacrebleu", "rouge-score", "wandb",
)  # fmt: skip


def package_versions() -> dict[str, str | None]:
    """Return the installed version of each package that matters, None where it is absent."""
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _git(*args: str) -> str | None:
    command = ["git", "-C", str(Path(llamaduo.__file__).parent), *args]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def memory_gib() -> float | None:
    """Return the machine's memory in GiB."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def gpus() -> list[str]:
    """Return the names of the CUDA devices, without loading torch."""
    try:
        query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def describe(**seeds: int) -> str:
    """Return `environment.json`."""
    status = _git("status", "--porcelain")
    tree: dict[str, Any] = {
        "llamaduo": llamaduo.__version__,
        "python": platform.python_version(),
        "packages": package_versions(),
        "git": {"revision": _git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)},
        "hardware": {
            "machine": platform.machine(),
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "memory_gib": memory_gib(),
            "gpus": gpus(),
        },
        "seeds": seeds,
    }
    return json.dumps(tree, indent=1) + "\n"
