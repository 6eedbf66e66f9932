"""Run the loop against a real OpenAI-compatible service over HTTP: `transformers serve`, with a tiny model behind it.

    python benchmarks/transformers_serve.py             three iterations, one to two minutes on two cores
    python benchmarks/transformers_serve.py --quick     a model trained for less, two iterations on fewer rows

Needs `transformers serve`, which needs fastapi and uvicorn; no key, no GPU, no network. What happens:

1. A Llama of half a million parameters is made on the spot, from nothing, and trained for half a minute on what the
   pocket teacher replies to our own judge and synthesis prompts. It learns the *form*: a verdict's JSON and a list of
   pairs in JSON. What it says is mostly wrong: the scores and the data mean nothing here, the route is what is proven.
2. `transformers serve` offers it on a local port, and a relay in front of it writes down what passes.
3. `llamaduo run judge=endpoint service_llm=endpoint` closes the loop through it, as it would with any such server.
4. The same command again (the run is finished), and again after the run's folder was moved away (everything is made
   anew, and every reply is in the journal). Neither may send anything.

The claim has these conditions: exit code 0, stopped by a rule; at least 90% of the verdicts are scored; synthetic rows
are kept; every reply in the journal has tokens and a finish reason, and there are as many of them, with as many tokens,
as the relay saw; the two repeats send nothing and end with the same scores. The figure is the share of verdicts scored.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import math
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from measure import Options, Ran, Result, conclude, folder, llamaduo, options, private, say, summary

MODEL = "tiny"
SCORED = 0.9
RULES = {"passed", "plateau", "max_iterations", "no_new_data"}
TARGET = (
    f"exit code 0, stopped by a rule; >= {SCORED:.0%} of verdicts scored; synthetic rows kept; journal and relay "
    "agree, every reply with tokens and a finish reason; the same command again, and without the run's folder, sends "
    "nothing"
)
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
QUIET = {"GOMP_SPINCOUNT": "1000", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
CONTEXT = 4096
PAIRS = 4
"""Pairs that a synthesis request asks for."""
LABELS = ("access", "billing", "delivery", "repair")


@dataclass(frozen=True)
class Size:
    """How much is done."""

    steps: int
    """Optimizer steps of the served model."""
    train_rows: int
    rows: int
    """Rows of dev and of test."""
    iterations: int


FULL = Size(steps=200, train_rows=32, rows=16, iterations=3)
QUICK = Size(steps=160, train_rows=16, rows=4, iterations=2)


@dataclass(frozen=True)
class Call:
    """What the relay saw of one call."""

    path: str
    status: int
    seconds: float
    fields: tuple[str, ...]
    """Members of the request."""
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int


def main() -> None:
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"transformers_serve: `transformers serve` needs {' and '.join(missing)}: pip install fastapi uvicorn")
    wanted = options(__doc__)
    load = os.getloadavg()
    size = QUICK if wanted.quick else FULL
    os.environ.update(OFFLINE | QUIET)
    os.environ.pop("OPENAI_API_KEY", None)  # the server takes any key, and has to do without one
    with folder() as place:
        start = time.perf_counter()
        say(f"made the model: {make_model(place / MODEL, size.steps)}")
        made = time.perf_counter()
        with served(place) as port, Relay(port) as relay:
            ready = time.perf_counter()
            say(f"serving: {ready - made:.1f} s until healthy")
            raw = measured(place, relay, arguments(place, relay, size, wanted))
        raw["seconds"] |= {"model": round(made - start, 2), "server_start": round(ready - made, 2)}
    shown(raw)
    conclude(result(raw, wanted), raw, wanted, load)


# The model behind the service


def lesson(rng: random.Random, kind: str) -> tuple[str, str]:
    """Return a prompt as llamaduo would send it, and the pocket teacher's reply to it."""
    from llamaduo.pocket.tasks import TASKS
    from llamaduo.pocket.teacher import reply
    from llamaduo.service.prompts import judge_prompt, synthesis_prompt

    task = TASKS["classification"]
    instruction = task.make(rng)
    response = task.solve(instruction) or ""
    if kind == "judge":
        wrong = [label for label in LABELS if label != response]
        # Few right ones: a judge that can't tell yet then finds fault, and the loop goes round more than once.
        answers = [response, *wrong, rng.choice(wrong)[:4], task.make(rng)[-20:], ""]
        prompt = judge_prompt("blind", instruction=instruction, reference=response, candidate=rng.choice(answers))
    else:
        prompt = synthesis_prompt(
            "default", instruction=instruction, response=response, topic="Classification", count=PAIRS
        )
    return prompt, reply(prompt, {})


def make_tokenizer(rng: random.Random) -> Any:
    """Train a byte-level BPE tokenizer with a chat template on some lessons."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from llamaduo.pocket.pretrain import CHAT_TEMPLATE, SPECIAL_TOKENS

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1536,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lessons = [lesson(rng, kind) for kind in ("judge", "synthesis") for _ in range(400)]
    tokenizer.train_from_iterator([text for pair in lessons for text in pair], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL_TOKENS[0],
        eos_token=SPECIAL_TOKENS[2],
        model_max_length=CONTEXT,
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )


def make_model(out: Path, steps: int) -> str:
    """Train the model, save it, and say what it is."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    rng = random.Random(1)
    tokenizer = make_tokenizer(rng)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 20) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))
    )
    losses = []
    for _ in range(steps):
        loss = answer_loss(model, tokenizer, [lesson(rng, kind) for kind in ("judge", "synthesis") * 4])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    # The server samples only if the model's own configuration says so: a temperature in a request is not enough.
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.5, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return f"{model.num_parameters():,} parameters, {steps} steps, loss {losses[-1]:.2f} nats per token of a reply"


def answer_loss(model: Any, tokenizer: Any, lessons: list[tuple[str, str]]) -> Any:
    """Return the mean loss of the reply's tokens; the vocabulary is not projected over the long prompts."""
    import torch

    pairs = []
    for prompt, reply in lessons:
        turn = [{"role": "user", "content": prompt}]
        head = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
        pairs.append((head, tokenizer.encode(reply + tokenizer.eos_token)))
    width = max(len(head) + len(tail) for head, tail in pairs)
    first = min(len(head) for head, _ in pairs)
    padding = [width - len(head) - len(tail) for head, tail in pairs]
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[*head, *tail, *[pad] * left] for (head, tail), left in zip(pairs, padding, strict=True)])
    targets = torch.tensor(
        [[-100] * len(head) + tail + [-100] * left for (head, tail), left in zip(pairs, padding, strict=True)]
    )
    hidden = model.model(input_ids=ids).last_hidden_state[:, first - 1 : -1]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden).flatten(0, 1), targets[:, first:].flatten())


# The service, and the relay in front of it


@contextmanager
def served(place: Path) -> Iterator[int]:
    """Run `transformers serve` on the model in `place`, and lend its port."""
    beside = Path(sys.executable).with_name("transformers")
    command = str(beside) if beside.exists() else shutil.which("transformers")
    if command is None:
        sys.exit("transformers_serve: the command `transformers` is not installed beside this Python.")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = place / "server.log"
    with log.open("w", encoding="utf-8") as sink:
        server = subprocess.Popen(
            [command, "serve", MODEL, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
            cwd=place,
            env=os.environ | private(place / "server-home"),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        try:
            _await_health(server, port, log)
            yield port
        finally:
            server.terminate()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _await_health(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit(f"transformers_serve: the server did not start: {log.read_text(encoding='utf-8').strip()[-500:]}")


class Relay:
    """Hands every request to the server and its reply back, unchanged, and keeps a `Call` of each."""

    def __init__(self, server_port: int) -> None:
        self.calls: list[Call] = []
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                start = time.perf_counter()
                connection = http.client.HTTPConnection("127.0.0.1", server_port, timeout=300)
                with closing(connection):
                    connection.request("POST", self.path, body, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    text = answer.read()
                relay.calls.append(seen(self.path, answer.status, time.perf_counter() - start, body, text))
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Relay:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def __len__(self) -> int:
        return len(self.calls)


def seen(path: str, status: int, seconds: float, request: bytes, reply: bytes) -> Call:
    """Return what there is to keep of a call; a reply that is no JSON object has no tokens."""
    try:
        tree = json.loads(reply)
    except ValueError:
        tree = {}
    choice = (tree.get("choices") or [{}])[0]
    usage = tree.get("usage") or {}
    return Call(
        path,
        status,
        round(seconds, 3),
        tuple(sorted(json.loads(request))),
        choice.get("finish_reason"),
        usage.get("prompt_tokens", 0),
        usage.get("completion_tokens", 0),
    )


# The run


def arguments(place: Path, relay: Relay, size: Size, wanted: Options) -> list[str]:
    """Return the command: both service LLMs are the server, the local model and the data are the pocket ones."""
    return [
        "run",
        "judge=endpoint",
        f"judge.panel.endpoint.base_url={relay.address}",
        f"judge.panel.endpoint.model={MODEL}",
        "judge.panel.endpoint.max_tokens=256",
        "judge.panel.endpoint.temperature=0.2",
        "service_llm=endpoint",
        f"service_llm.base_url={relay.address}",
        f"service_llm.model={MODEL}",
        "service_llm.max_tokens=512",
        f"synthesis.pairs_per_request={PAIRS}",
        f"data.train_rows={size.train_rows}",
        f"data.dev_rows={size.rows}",
        f"data.test_rows={size.rows}",
        "train.epochs=1",
        "train.min_steps=10",
        "infer.samples=1",
        "infer.max_new_tokens=16",
        "loop.growth.factor=2",
        f"loop.max_iterations={size.iterations}",
        "runtime.device=cpu",
        "runtime.threads=1",
        f"runtime.results={place / 'results'}",
        *wanted.overrides,
    ]


def measured(place: Path, relay: Relay, command: list[str]) -> dict[str, Any]:
    """Run the command, then again, then again without its folder; return what was found after each."""
    say("llamaduo " + " ".join(command))
    first = llamaduo(*command, cwd=place, home=place / "home")
    calls = list(relay.calls)
    found = in_the_folder(place / "results")
    replies = in_the_journal(place / "home" / "llamaduo" / "journal.sqlite")
    repeats = []
    for away in (False, True):
        if away and (place / "results").exists():
            (place / "results").rename(place / "results-before")
        before = len(relay)
        ran = llamaduo(*command, cwd=place, home=place / "home")
        scores = in_the_folder(place / "results")["scores"]
        same = bool(scores) and scores == found["scores"]
        repeats.append({**ended(ran), "folder": not away, "calls": len(relay) - before, "same_scores": same})
    return {
        "command": command,
        **ended(first),
        "calls": figures(calls),
        "journal": replies,
        **found,
        "repeats": repeats,
        "seconds": {"run": round(first.seconds, 2), "repeats": [repeat.pop("took") for repeat in repeats]},
    }


def ended(ran: Ran) -> dict[str, Any]:
    """Return how a command ended."""
    error = ran.stderr.strip()[-500:] if ran.exit_code else None
    return {"exit_code": ran.exit_code, "error": error, "took": round(ran.seconds, 2)}


def figures(calls: list[Call]) -> dict[str, Any]:
    """Sum up what the relay saw."""
    answered = [call for call in calls if call.status == 200]
    return {
        "n": len(calls),
        "answered": len(answered),
        "status": dict(Counter(str(call.status) for call in calls)),
        "paths": sorted({call.path for call in calls}),
        "fields": sorted({name for call in calls for name in call.fields}),
        "finish_reasons": dict(Counter(str(call.finish_reason) for call in answered)),
        "prompt_tokens": sum(call.prompt_tokens for call in answered),
        "completion_tokens": sum(call.completion_tokens for call in answered),
        "longest_prompt": max((call.prompt_tokens for call in answered), default=0),
        "seconds": summary([call.seconds for call in answered]) if answered else None,
    }


def in_the_journal(path: Path) -> dict[str, Any]:
    """Return what the journal keeps of the replies."""
    if not path.exists():
        return {"replies": 0, "whole": 0, "prompt_tokens": 0, "completion_tokens": 0, "finish_reasons": {}}
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT prompt_tokens, completion_tokens, finish_reason FROM replies").fetchall()
    return {
        "replies": len(rows),
        "whole": sum(sent > 0 and got > 0 and reason in ("stop", "length") for sent, got, reason in rows),
        "prompt_tokens": sum(row[0] for row in rows),
        "completion_tokens": sum(row[1] for row in rows),
        "finish_reasons": dict(Counter(row[2] for row in rows)),
    }


def in_the_folder(results: Path) -> dict[str, Any]:
    """Return what the one run below `results` says of itself; nothing is there if it never began."""
    states = list(results.glob("*/*/state.json"))
    state = json.loads(states[0].read_text(encoding="utf-8")) if len(states) == 1 else {}
    run = states[0].parent if state else results
    verdicts = _lines(run.glob("iterations/*/verdicts.jsonl"))
    asked = [json.loads(path.read_text(encoding="utf-8")) for path in run.glob("iterations/*/synthesis*.json")]
    return {
        "status": state.get("status"),
        "stop_reason": state.get("stop_reason"),
        "iterations": state.get("iterations", 0),
        "verdicts": len(verdicts),
        "judge_requests": len({verdict["request"] for verdict in verdicts}),
        "scored": sum(verdict["unscored"] is None for verdict in verdicts),
        "unscored": dict(Counter(verdict["unscored"] for verdict in verdicts if verdict["unscored"])),
        "synthesis_requests": sum(tree["requests"] for tree in asked),
        "synthetic_rows": len(_lines(run.glob("iterations/*/synthetic.jsonl"))),
        "scores": [
            {name: value for name, value in line.items() if name != "seconds"}
            for line in _lines([run / "metrics.jsonl"])
        ],
    }


def _lines(paths: Any) -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in paths if path.exists() for line in path.read_text(encoding="utf-8").splitlines()
    ]


# What it comes to


def share(raw: dict[str, Any]) -> float | None:
    """Return the share of verdicts that carry scores; None if the run failed, for it keeps no unreadable ones then."""
    return raw["scored"] / raw["verdicts"] if raw["verdicts"] and raw["exit_code"] == 0 else None


def conditions(raw: dict[str, Any]) -> dict[str, bool]:
    """Return the claim's conditions, and whether each of them held."""
    journal, calls, (again, anew) = raw["journal"], raw["calls"], raw["repeats"]
    tokens = ("prompt_tokens", "completion_tokens")
    return {
        "stopped by a rule": raw["exit_code"] == 0 and raw["stop_reason"] in RULES,
        "verdicts scored": (share(raw) or 0.0) >= SCORED,
        "synthetic rows kept": raw["synthetic_rows"] > 0,
        "replies whole": 0 < journal["whole"] == journal["replies"],
        "journal as the relay": journal["replies"] == calls["answered"]
        and all(journal[name] == calls[name] for name in tokens),
        "nothing sent again": again["exit_code"] == 0 and again["calls"] == 0,
        "nothing sent anew": anew["exit_code"] == 0 and anew["calls"] == 0 and anew["same_scores"],
    }


def shown(raw: dict[str, Any]) -> None:
    """Print the figures that a reader wants first."""
    calls = raw["calls"]
    again = calls["n"] - raw["judge_requests"] - raw["synthesis_requests"]
    say(f"calls made: {calls['n']} (status {calls['status']}), seconds each: {calls['seconds']}")
    say(
        f"distinct requests: {raw['judge_requests']} to judge {raw['verdicts']} answers (equal ones are judged once), "
        f"{raw['synthesis_requests']} for synthesis; asked again, the reply being unreadable: {again}"
    )
    say(f"sent: {', '.join(calls['fields'])}; finish reasons: {calls['finish_reasons']}")
    tokens = f"{calls['prompt_tokens']:,} in, {calls['completion_tokens']:,} out"
    say(f"tokens: {tokens}, longest prompt {calls['longest_prompt']:,}")
    say(f"verdicts readable: {raw['scored']} of {raw['verdicts']}, unscored: {raw['unscored'] or 'none'}")
    say(f"synthetic rows kept: {raw['synthetic_rows']}")
    say(f"iterations: {raw['iterations']}, stop_reason: {raw['stop_reason']}, exit code: {raw['exit_code']}")
    for repeat in raw["repeats"]:
        where = "with its folder" if repeat["folder"] else "without its folder"
        say(f"same command {where}: {repeat['calls']} calls, same scores: {repeat['same_scores']}")
    say(f"seconds: {raw['seconds']}")


def result(raw: dict[str, Any], wanted: Options) -> Result:
    """Sum the run up."""
    held = conditions(raw)
    missed = [name for name, holds in held.items() if not holds]
    note = f"missed: {', '.join(missed)}" if missed else f"all {len(held)} conditions held"
    note += f"; stopped by {raw['stop_reason']} after {raw['iterations']} iterations, {raw['calls']['n']} calls"
    errors = [ran["error"] for ran in (raw, *raw["repeats"]) if ran["error"]]
    if errors:
        note += f"; the last error: {errors[-1]}"
    if wanted.quick:
        note = f"quick: fewer rows, iterations and training steps of the served model; {note}"
    figure = share(raw)
    spread = {
        "calls": raw["calls"]["n"],
        "call_seconds": raw["calls"]["seconds"],
        "unscored": raw["unscored"],
        "synthetic_rows": raw["synthetic_rows"],
        "calls_of_repeats": [repeat["calls"] for repeat in raw["repeats"]],
    }
    rounded = None if figure is None else round(figure, 4)
    return Result(
        "transformers_serve", rounded, "share of verdicts scored", TARGET, not missed, raw["verdicts"], spread, note
    )


if __name__ == "__main__":
    main()
