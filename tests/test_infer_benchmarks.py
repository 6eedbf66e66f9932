"""The benchmarks of answering: both sides do the same work, and the one for GPUs runs on a shrunk shape on CPU."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def gpu_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu" / "infer.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def benchmark_(module: Any) -> Any:
    return module("infer_throughput")


def test_everybody_gives_each_answer_its_length_and_the_same_greedy_tokens(benchmark_: Any) -> None:
    import torch

    rng = random.Random(3)
    prompts = [[rng.randrange(3, 4096) for _ in range(length)] for length in (9, 2, 14, 5)]
    work = benchmark_.Work(prompts, [[rng.randint(1, 12) for _ in range(4)] for _ in prompts])
    places = {(at, k): length for at, row in enumerate(work.lengths) for k, length in enumerate(row)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    network = benchmark_.make_network(4096).eval()
    for way in (benchmark_.ours, benchmark_.batches, benchmark_.return_sequences):
        answers = way(network, work)
        assert {place: len(ids) for place, ids in answers.items()} == places, way.__name__
        assert all(0 <= token < 4096 for ids in answers.values() for token in ids)
    greedy = benchmark_.batches(network, work, temperature=0, k=1)
    assert set(greedy) == {(at, 0) for at in range(4)}
    assert benchmark_.ours(network, work, temperature=0, k=1) == greedy
    torch.set_num_threads(threads)


def test_a_wrong_length_ends_the_benchmark(benchmark_: Any) -> None:
    work = benchmark_.Work([[3]], [[2, 2, 2, 2]])
    with pytest.raises(SystemExit, match="has not the length that it was given"):
        benchmark_.clocked(lambda _: {(0, k): [5] * (2 + (k == 3)) for k in range(4)}, work)


def test_the_gpu_benchmark_runs_shrunk_on_cpu_and_says_that_this_is_no_figure() -> None:
    done = gpu_script("--tiny")
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    found = json.loads(last)
    assert (found["name"], found["figure"], found["holds"]) == ("gpu_infer", None, None)
    assert found["note"].startswith("tiny: shape shrunk, on CPU, no figure of the claim; the fastest is ")
    assert "failed" not in found["note"], lines
    assert [line.split()[0] for line in lines] == ["stage", "slots", "generate_batch", "original"]
    assert set(found["spread"]) == {"stage", "slots", "generate_batch", "original", "over original"}


def test_without_a_gpu_it_says_how_to_try_it_out() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = gpu_script("--only", "stage")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "gpu/infer: there is no GPU here; --tiny tries the script out on CPU."
