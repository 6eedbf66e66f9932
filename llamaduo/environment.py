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


def available_memory() -> int | None:
    """Return the bytes of memory that this process can still get, its container's limit kept; None if nobody tells."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, LookupError):
        return None
    return min(free, _left_in_container(Path("/sys/fs/cgroup")) or free)


def _left_in_container(folder: Path) -> int | None:
    """Return the bytes that a control group (version 2) leaves, what it can drop at once counted as free."""
    try:
        limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return limit - used + int(stat["inactive_file"])
    except (OSError, ValueError, LookupError):  # no such group, or no limit
        return None


def gpus() -> list[str]:
    """Return the names of the CUDA devices, without loading torch."""
    return _nvidia_smi("name,memory.total", "noheader")


def gpu_memory(number: int) -> int | None:
    """Return the bytes of a CUDA device, counted as CUDA_VISIBLE_DEVICES counts them; None if nobody tells."""
    known = [line.split(", ") for line in _nvidia_smi("index,uuid,memory.total", "noheader,nounits")]
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(index for index, _, _ in known)).split(",")
    if number >= len(seen):
        return None
    name = seen[number].strip()
    mebibytes = [size for index, uuid, size in known if name and (name == index or uuid.startswith(name))]
    return int(mebibytes[0]) * 2**20 if mebibytes and mebibytes[0].isdigit() else None


def _nvidia_smi(asked: str, form: str) -> list[str]:
    """Return a line for each GPU; none without a driver."""
    try:
        query = ["nvidia-smi", f"--query-gpu={asked}", f"--format=csv,{form}"]
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
