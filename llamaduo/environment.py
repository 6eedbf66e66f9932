"""The machine: versions, code revision, hardware, network file systems, and whether the Hub answers.

describe(runtime=7, data=7)         `environment.json`
network_file_system(path)           "nfs", or None on a local disk
settle_hub()                        without an answer from the Hub its clients read the cache alone
settle_libraries()                  the libraries' own bars and notices stay out of what a command shows
"""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import threading
import warnings
from functools import cache
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


NETWORK = frozenset(
    {
        "nfs", "nfs3", "nfs4", "lustre", "cifs", "smb3", "smbfs", "9p", "ceph", "beegfs", "gpfs", "glusterfs",
        "pvfs2", "orangefs", "afs", "ocfs2", "gfs2", "panfs", "wekafs", "virtiofs", "fuse.glusterfs", "fuse.sshfs",
        "fuse.rclone", "fuse.ceph-fuse", "fuse.s3fs", "fuse.gcsfuse", "fuse.juicefs",
    }
)  # fmt: skip
"""File systems that several machines may share, where a lock or shared memory needn't mean what it means on a disk."""


def network_file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """Return the type of the network file system that a path lies on, or will lie on; None if it is a local one."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
        place = path.expanduser().resolve()
    except OSError:
        return None
    found = ("", "")
    for line in lines:
        fields = line.split()
        if len(fields) > 2:
            point = fields[1].replace("\\040", " ")
            if len(point) >= len(found[0]) and place.is_relative_to(point):
                found = (point, fields[2])
    return found[1] if found[1] in NETWORK else None


_PATIENCE_S = 4.0


def settle_hub() -> None:
    """Put the Hub's clients offline, in this process and in those that it starts, if the Hub does not answer."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not answers(constants.ENDPOINT):
        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True
        if "datasets" in sys.modules:
            sys.modules["datasets"].config.HF_HUB_OFFLINE = True


@cache
def answers(address: str) -> bool:
    """Tell whether a server answers at all; asked once in a process."""
    heard = threading.Event()
    asking = threading.Thread(target=_ask, args=(address, heard), daemon=True)
    asking.start()
    asking.join(_PATIENCE_S)
    return heard.is_set()


def _ask(address: str, heard: threading.Event) -> None:
    import httpx

    try:
        httpx.head(address, timeout=_PATIENCE_S)
    except httpx.HTTPError as error:
        if "CERTIFICATE" not in str(error).upper():  # a certificate that is refused comes from somebody, too
            return
    heard.set()


def settle_libraries() -> None:
    """Keep the libraries' own bars and notices out of the display, and their threads from spinning.

    libgomp's threads spin while they wait: on two cores of which another program uses one, that made
    training of a pocket model 15 times slower. A short spin costs a fifth on idle cores.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in ("transformers", "peft", "bitsandbytes", "httpx", "datasets", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("transformers", "peft", "bitsandbytes", "torch", "litellm", "pydantic"):
        warnings.filterwarnings("ignore", module=name)
