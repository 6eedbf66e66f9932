"""vLLM: started with the adapter, asked only once it is proved to apply it, stopped whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes import quiet

from llamaduo.config import Backend, Experiment, Infer, LocalModel, Quantization, Runtime
from llamaduo.errors import ConfigError, InputError, ServiceError
from llamaduo.local import vllm_answers, vllm_server
from llamaduo.local.job import AnswerJob
from llamaduo.local.model import load_chat
from llamaduo.local.vllm_server import arguments, program
from llamaduo.loop import run
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Example, Prediction, prompt_id
from llamaduo.runs.finished import run_folder
from llamaduo.service.answers import repeat_number
from llamaduo.stages.infer import infer

FAKE = Path(__file__).parents[1] / "fake_vllm.py"
MODEL = LocalModel(name="pocket_llama", path="pocket:llama", context=512)
RUNTIME = Runtime(device="cpu", seed=5)


def examples(count: int) -> list[Example]:
    rows = [({"role": "user", "content": prompt},) for prompt, _ in make_pairs("closed_qa", count, seed=5)]
    return [Example(prompt_id(messages), messages, "the reference") for messages in rows]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "an, odd=name"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": 12, "rank_pattern": {"q_proj": 20}}))
    return folder


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Return a function that makes the program and says how it fails; whatever happens, nothing is left of it."""
    monkeypatch.setattr(vllm_server, "_LOOK_S", 0.05)
    monkeypatch.setenv("FAKE_VLLM_PID", str(tmp_path / "pid"))
    monkeypatch.setenv("FAKE_VLLM_REQUESTS", str(tmp_path / "requests.jsonl"))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))

    def made(way: str = "") -> str:
        path = tmp_path / "vllm"
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
        path.chmod(0o700)
        monkeypatch.setenv("FAKE_VLLM", way)
        return str(path)

    yield made
    assert is_gone(tmp_path)
    assert list((tmp_path / "scratch").glob("llamaduo-*")) == []


def is_gone(place: Path) -> bool:
    """Tell whether the server that was started has ended, or does so soon."""
    try:
        pid = int((place / "pid").read_text())
    except FileNotFoundError:
        return True
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return False


def requests(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "requests.jsonl").read_text().splitlines()]


def answers(
    program: str,
    adapter: Path | None,
    rows: list[Example],
    model: LocalModel = MODEL,
    progress: Any = None,
    shots: int = 0,
) -> list[Prediction]:
    config = Infer(samples=2, max_new_tokens=12, batch_size=4, stop=["\n\n"], backend=Backend.vllm, vllm=program)
    config.shots = shots
    return infer(
        AnswerJob(model, config, RUNTIME, adapter=str(adapter) if adapter else None),
        rows,
        progress=progress or (lambda done, total: None),
        pool=rows if shots else (),
    )


def test_the_adapter_answers_in_order_and_each_sample_has_its_own_seed(
    vllm: Callable[..., str], adapter: Path, tmp_path: Path
) -> None:
    rows = [replace(row, cluster=f"cluster of {row.prompt_id}") for row in examples(5)]
    found = answers(vllm(), adapter, rows)
    assert all(p.cluster == f"cluster of {p.prompt_id}" for p in found)
    seeds = {(row.prompt_id, k): repeat_number(5, row.prompt_id, k) for row in rows for k in range(2)}
    assert [(p.prompt_id, p.sample) for p in found] == list(seeds)
    assert len(set(seeds.values())) == 10
    for row, k, prediction in zip([r for r in rows for _ in "ab"], [0, 1] * 5, found, strict=True):
        assert prediction.text == f"adapter {seeds[row.prompt_id, k]} {row.prompt}"
        assert (prediction.finish_reason, prediction.reference) == ("stop", "the reference")
        assert (prediction.request, prediction.cost_usd) == (None, 0.0), (
            "the journal holds no answer of a server of ours"
        )
        assert prediction.prompt_tokens == len(load_chat(MODEL).prompt_ids(row.messages))
    asked = [body for body in requests(tmp_path) if "logprobs" not in body]
    assert len(asked) == 10
    for body in asked:
        assert (body["model"], body["max_tokens"], body["temperature"]) == ("adapter", 12, 0.3)
        assert (body["stop"], body["stop_token_ids"]) == (["\n\n"], sorted(load_chat(MODEL).end_ids))


def test_without_an_adapter_the_base_model_answers_unproved(vllm: Callable[..., str], tmp_path: Path) -> None:
    found = answers(vllm("ignores_adapter"), None, examples(1))
    assert [p.text.split()[0] for p in found] == ["base", "base"]
    assert len(requests(tmp_path)) == 2


def test_the_chatml_fallback_is_the_servers_template_too(vllm: Callable[..., str], adapter: Path) -> None:
    model = LocalModel(name="pocket_llama", path="pocket:llama", context=512, chat_template="chatml")
    rows = examples(1)
    assert load_chat(model).prompt_ids(rows[0].messages) != load_chat(MODEL).prompt_ids(rows[0].messages)
    assert answers(vllm(), adapter, rows, model)[0].text.startswith("adapter")


def test_a_prompt_without_room_is_not_sent(vllm: Callable[..., str], adapter: Path, tmp_path: Path) -> None:
    long = Example("long", ({"role": "user", "content": "bako " * 400},), "x")
    found = answers(vllm(), adapter, [long, *examples(1)])
    assert [p.finish_reason for p in found] == ["prompt_too_long", "prompt_too_long", "stop", "stop"]
    assert (found[0].text, found[0].prompt_tokens > 500) == ("", True)
    assert all("bako" not in str(body) for body in requests(tmp_path))
    assert [p.finish_reason for p in answers("no such program", adapter, [long])] == ["prompt_too_long"] * 2


def test_pairs_go_before_a_prompt_as_far_as_there_is_room(
    vllm: Callable[..., str], adapter: Path, tmp_path: Path
) -> None:
    long = Example("long", ({"role": "user", "content": "bako " * 150},), "y")
    found = answers(vllm(), adapter, [*examples(1), long], shots=2)
    assert [p.prompt for p in found[:2]] == [examples(1)[0].prompt] * 2
    turns = {len(body["messages"]) for body in requests(tmp_path) if "bako" not in body["messages"][-1]["content"]}
    assert turns == {3}
    assert {p.finish_reason for p in found} == {"stop"}


def test_a_whole_run_is_answered_with_the_adapter_that_it_trained(
    vllm: Callable[..., str], compose_experiment: Callable[..., Experiment]
) -> None:
    offline = ("preset=smoke", "synthesis=none", "judge=reference", "infer=vllm", "infer.samples=1")
    experiment = compose_experiment(*offline, f"infer.vllm={vllm()}")
    assert run(experiment, display=quiet()).status == "done"
    rows = (run_folder(experiment) / "iterations/00/predictions.jsonl").read_text().splitlines()
    assert len(rows) == 4
    assert all(json.loads(row)["text"].startswith("adapter ") for row in rows)


def test_a_run_without_the_program_ends_before_it_trains(compose_experiment: Callable[..., Experiment]) -> None:
    offline = ("preset=smoke", "synthesis=none", "judge=reference", "infer=vllm")
    experiment = compose_experiment(*offline, "infer.vllm=no-such-vllm")
    with pytest.raises(ConfigError, match="there is no such program"):
        run(experiment, display=quiet())
    assert not list(run_folder(experiment).rglob("adapter*"))


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("ignores_adapter", "does not apply the adapter: over 4 prompts"),
        ("noisy", "does not apply the adapter: over 4 prompts"),
        ("other_template", "makes other tokens of a prompt than training did"),
        ("no_logprobs", "can't be asked for log-probabilities"),
        ("dies", r"did not start \(exit code 3\): ValueError: Free memory on device"),
        ("never_ready", "was not ready after 2 s: it said nothing"),
    ],
)
def test_a_server_that_can_not_be_trusted_answers_nothing(
    way: str, words: str, vllm: Callable[..., str], adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_server, "_START_S", 2.0 if way == "never_ready" else 60.0)
    with pytest.raises(ServiceError, match=words) as caught:
        answers(vllm(way), adapter, examples(5))
    assert len(str(caught.value).splitlines()) == 1
    path = tmp_path / "requests.jsonl"
    assert not path.exists() or all("logprobs" in body for body in requests(tmp_path))


@pytest.mark.parametrize(
    ("way", "part", "broken"),
    [
        ("ignores_adapter", "_prove", lambda *_: None),
        ("noisy", "_TIMES_NOISE", 0.1),
        ("other_template", "_prove", lambda *_: None),
    ],
)
def test_a_proof_that_lacks_a_part_lets_such_a_server_through(  # so the test above needs every part
    way: str, part: str, broken: Any, vllm: Callable[..., str], adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_answers, part, broken)
    assert len(answers(vllm(way), adapter, examples(1))) == 2


@pytest.mark.usefixtures("waits")
def test_a_server_that_dies_is_named_with_its_last_words(vllm: Callable[..., str], adapter: Path) -> None:
    with pytest.raises(ServiceError, match=r"ended meanwhile \(exit code 7\): CudaError: the GPU fell off the bus"):
        answers(vllm("dies_later"), adapter, examples(5))


def test_a_server_that_ignores_sigterm_is_killed(
    vllm: Callable[..., str], adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_server, "_STOP_S", 0.1)
    assert len(answers(vllm("stubborn"), adapter, examples(1))) == 2


def test_ctrl_c_stops_the_server(vllm: Callable[..., str], adapter: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answers(vllm(), adapter, examples(1), progress=interrupt)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_the_server_dies_with_a_process_that_is_killed(vllm: Callable[..., str], adapter: Path, tmp_path: Path) -> None:
    code = f"""
import time
from llamaduo.config import Infer, LocalModel, Runtime
from llamaduo.local.job import AnswerJob
from llamaduo.local.vllm_server import arguments, serving
model, config = LocalModel(name="m", path="pocket:llama", context=64), Infer(vllm={vllm()!r})
runtime = Runtime(device="cpu")
told = arguments(AnswerJob(model, config, runtime, adapter={str(adapter)!r}))
with serving(told, "", runtime):
    print("up", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as ours:
        assert ours.stdout is not None
        assert ours.stdout.readline() == "up\n"
        ours.kill()
    assert is_gone(tmp_path)
    for left in (tmp_path / "scratch").glob("llamaduo-*"):  # nobody was there to take it away
        for file in left.iterdir():
            file.unlink()
        left.rmdir()


def told(adapter: Path | None, *, quantization: Quantization = Quantization.none, **model: Any) -> list[str]:
    known = LocalModel(**({"name": "m", "path": "owner/model", "context": 64} | model))
    config = Infer(vllm=sys.executable, batch_size=9)
    path = str(adapter) if adapter else None
    return arguments(AnswerJob(known, config, RUNTIME, quantization, path))


def test_the_arguments_say_what_a_result_depends_on(adapter: Path) -> None:
    found = told(
        adapter, quantization=Quantization.nf4, revision="abc", trust_remote_code=True, tokenizer="owner/tokenizer"
    )
    assert found[1:3] == ["serve", "owner/model"]
    pairs = dict(pairwise(found))
    assert pairs["--revision"] == "abc"
    assert pairs["--tokenizer"] == "owner/tokenizer"
    assert "--tokenizer-revision" not in pairs
    pinned = told(adapter, revision="abc", tokenizer="owner/tokenizer", tokenizer_revision="def")
    assert pinned[pinned.index("--tokenizer-revision") + 1] == "def"
    assert (pairs["--max-model-len"], pairs["--max-num-seqs"], pairs["--seed"]) == ("64", "9", "5")
    assert (pairs["--dtype"], pairs["--quantization"], pairs["--generation-config"]) == (
        "float32",
        "bitsandbytes",
        "vllm",
    )
    assert (pairs["--max-lora-rank"], pairs["--max-loras"]) == ("32", "1")  # 20 by its rank_pattern
    assert json.loads(pairs["--lora-modules"])["path"] == str(adapter)
    assert {"--enable-lora", "--trust-remote-code"} < set(found)
    plain = told(None, revision="abc")
    assert plain[plain.index("--tokenizer-revision") + 1] == "abc"
    assert not {"--enable-lora", "--quantization", "--trust-remote-code", "--lora-modules"} & set(plain)


def test_what_can_not_work_is_said_before_anything_starts(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"infer\.vllm=no-such-vllm: there is no such program"):
        program(Infer(vllm="no-such-vllm"))
    with pytest.raises(InputError, match=r"no adapter of peft's can be read"):
        told(tmp_path)
    (adapter / "adapter_config.json").write_text('{"r": 8, "trainable_token_indices": {"embed_tokens": [5]}}')
    with pytest.raises(ConfigError, match=r"holds embedding rows .* which vLLM does not apply"):
        told(adapter)
    (adapter / "adapter_config.json").write_text('{"r": 1024}')
    with pytest.raises(ConfigError, match=r"train\.lora_r=1024: vLLM takes adapters up to rank 512"):
        told(adapter)


@pytest.mark.parametrize(
    ("device", "seen", "given"),
    [("cuda", "3,5", "3,5"), ("cuda:1", "3,5", "5"), ("cuda:1", None, "1"), ("auto", None, None)],
)
def test_the_server_sees_the_gpu_of_the_run_and_none_of_our_packages(
    device: str, seen: str | None, given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    found = vllm_server._environment(Runtime(device=device))
    assert "PYTHONPATH" not in found
    assert found.get("CUDA_VISIBLE_DEVICES") == given
    assert found["PATH"] == os.environ["PATH"]
