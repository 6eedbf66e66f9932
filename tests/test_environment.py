"""What the machine has: GPUs as CUDA counts them, and the memory that is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamaduo import environment
from llamaduo.environment import available_memory, gpu_memory, gpus

MIB = 2**20


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an nvidia-smi on PATH that knows two GPUs."""
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        '  *index*) echo "0, GPU-aaa-1, 24564"; echo "1, GPU-bbb-2, 81559";;\n'
        '  *) echo "NVIDIA A, 24564 MiB"; echo "NVIDIA B, 81559 MiB";;\n'
        "esac\n"
    )
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("seen", "number", "mebibytes"),
    [
        (None, 0, 24564),
        (None, 1, 81559),
        (None, 2, None),
        ("1", 0, 81559),
        ("1,0", 1, 24564),
        ("1", 1, None),
        ("GPU-bbb", 0, 81559),
        ("MIG-1234", 0, None),
        ("", 0, None),
        ("-1", 0, None),
    ],
)
def test_a_gpus_memory_is_counted_as_cuda_counts_gpus(
    seen: str | None, number: int, mebibytes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert gpu_memory(number) == (None if mebibytes is None else mebibytes * MIB)
    assert gpus() == ["NVIDIA A, 24564 MiB", "NVIDIA B, 81559 MiB"]


def test_without_a_driver_nobody_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpu_memory(0) is None
    assert gpus() == []


@pytest.mark.parametrize(("limit", "left"), [("8000", 8000 - 5000 + 1000), ("max", None)])
def test_a_containers_limit_is_kept(limit: str, left: int | None, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 4000\ninactive_file 1000\n")
    assert environment._left_in_container(tmp_path) == left
    assert environment._left_in_container(tmp_path / "nothing") is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="memory is read from /proc")
def test_the_memory_that_is_left_is_less_than_there_is() -> None:
    left, whole = available_memory(), environment.memory_gib()
    assert left is not None
    assert whole is not None
    assert 0 < left <= whole * 2**30 * 1.01
