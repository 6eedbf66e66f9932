"""Measure how fast training rows are rendered and tokenised, and how soon they are there again.

    python benchmarks/render.py             256k rows, three rounds, about five minutes
    python benchmarks/render.py --quick     16k rows, one round

Rows have 85 to 155 tokens under ChatML. They are made of pieces of 3 to 12 words of the coding pairs of No Robots, one
word in twenty changed into one that nobody has seen, and the tokenizer is a byte-level BPE of at most 32k tokens
trained on these pairs on the spot. Each measurement is a process of its own, which first reads the rows:

    first     tokenised() with an empty cache: rows a second, target at least 10,000, and the peak memory of the
              whole process, target below 2 GB
    second    tokenised() with what the first left: seconds, target below 2. What comes before it in any case, the
              libraries' import and the tokenizer, is told beside it.
    peer      datasets.map, batched, num_proc=2, with apply_chat_template and the tokenizer on lists, on a part of the
              rows; ours on the same part beside it. The tokens are compared.

Times are wall times on whatever cores there are; `cpu_us` is the processor time that a row took. The figure is the
median of `first` in rows a second. No Robots is not part of this repository: without it nothing is measured.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import re
import statistics
import string
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import ROOT, Options, Result, conclude, folder, options, run, say, summary

NO_ROBOTS = ROOT.parent / "shared/data/no_robots_coding.jsonl"
ROWS, PART = 256_000, 64_000
SHORTEST, LONGEST, CONTEXT = 85, 155, 2048
VOCABULARY = 32_000
ROWS_A_SECOND, PEAK_GB, SECOND_S = 10_000, 2.0, 2.0
TARGET = (
    f">= {ROWS_A_SECOND:,} rows/s (median); peak memory < {PEAK_GB:g} GB; second start < {SECOND_S:g} s; "
    "same tokens as the peer's"
)


def main() -> None:
    wanted = options(__doc__)
    load = os.getloadavg()
    if wanted.overrides:
        sys.exit("render: there is no run here whose settings could be changed; leave them out.")
    if not NO_ROBOTS.is_file():
        note = "skipped: shared/data/no_robots_coding.jsonl, beside the repository's folder, is not there"
        skipped = Result("render", None, "rows/s", TARGET, None, 0, {}, note)
        conclude(skipped, None, replace(wanted, save=False), load)
        return
    count, part, rounds = (16_000, 4_000, 1) if wanted.quick else (ROWS, PART, 3)
    with folder() as place:
        vocabulary = made(place, count)
        say(f"{count:,} rows of {SHORTEST} to {LONGEST} tokens made; vocabulary {vocabulary:,}")
        raw = [measured(place, number, count, part) for number in range(rounds)]
    conclude(result(raw, count, part, vocabulary, wanted), raw, wanted, load)


# What is rendered


def made(place: Path, count: int) -> int:
    """Write the tokenizer and the rows; return the vocabulary's size."""
    from llamaduo.config import LocalModel
    from llamaduo.local.model import load_chat
    from llamaduo.records import to_json

    lines = NO_ROBOTS.read_text(encoding="utf-8").splitlines()
    texts = [turn["content"] for line in lines for turn in json.loads(line)["messages"]]
    train_tokenizer(texts, place / "tokenizer")
    chat = load_chat(LocalModel(name="bpe", path=str(place / "tokenizer"), context=CONTEXT))
    drawn = drawn_examples(texts)
    left = count
    with (place / "rows.jsonl").open("w", encoding="utf-8") as file:
        while left:
            some = [next(drawn) for _ in range(1024)]
            pairs = chat.pairs([(example.messages, example.response) for example in some])
            lengths = [len(prompt) + len(response or []) for prompt, response in pairs]
            fit = [row for row, length in zip(some, lengths, strict=True) if SHORTEST <= length <= LONGEST][:left]
            file.writelines(to_json(row) + "\n" for row in fit)
            left -= len(fit)
    return len(chat.tokenizer)


def train_tokenizer(texts: list[str], place: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from llamaduo.data.chat import CHATML

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=marks, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=marks[2], pad_token=marks[0])
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(place)


def drawn_examples(texts: list[str]) -> Iterator[Any]:
    """Yield examples of about the right length, for ever."""
    from llamaduo.records import Example

    rng = random.Random(1)
    words = [word for text in texts for word in re.findall(r"\s*\S+", text)]

    def text(length: int) -> str:
        pieces: list[str] = []
        while len(pieces) < length:
            start = rng.randrange(len(words) - 12)
            pieces += words[start : start + rng.randint(3, 12)]
        return "".join(piece if rng.random() > 0.05 else changed(piece) for piece in pieces[:length]).strip()

    def changed(word: str) -> str:
        at = rng.randrange(len(word) + 1)
        return word[:at] + "".join(rng.choices(string.ascii_lowercase, k=3)) + word[at:]

    number = 0
    while True:
        number += 1
        yield Example(
            f"{number:016x}", ({"role": "user", "content": text(rng.randint(15, 40))},), text(rng.randint(15, 40))
        )


# Measurements, each in a process of its own


def measured(place: Path, number: int, count: int, part: int) -> dict[str, Any]:
    """Return one round: everything once."""
    cache, small = place / f"cache-{number}", place / f"cache-{number}-part"
    found = {
        "first": worker(place, "ours", count, cache),
        "second": worker(place, "ours", count, cache),
        "peer": worker(place, "peer", part, place / f"peer-{number}"),
        "part": worker(place, "ours", part, small),
    }
    if found["second"]["digest"] != found["first"]["digest"]:
        sys.exit("render: the second start found other rows than the first left.")
    for name, told in found.items():
        rows = count if name in ("first", "second") else part
        say(
            f"round {number}, {name:6} {told['seconds']:6.2f} s, {rows / told['seconds']:10,.0f} rows/s, "
            f"{told['cpu_us']:.0f} us of processor time a row, peak {told['peak_gb']:.2f} GB, libraries "
            f"and tokenizer {told['loading']:.2f} s before it"
        )
    return found


def worker(place: Path, what: str, count: int, cache: Path) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", what, str(place), str(count), str(cache)]
    ran = run(command, cwd=place, home=place / "home")
    if ran.exit_code:
        sys.exit(f"render: {what} ended with {ran.exit_code}: {(ran.stderr or ran.stdout).strip()[-500:]}")
    return json.loads(ran.stdout.splitlines()[-1]) | {"peak_gb": round(ran.peak_bytes / 1e9, 3)}


def work(what: str, place: Path, count: int, cache: Path) -> None:
    """Do one measurement in this process, and print what it found."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as a run has it
    begin = time.perf_counter()
    from llamaduo.config import LocalModel
    from llamaduo.local.model import load_chat
    from llamaduo.records import Example
    from llamaduo.runs.folder import read_rows

    chat = load_chat(LocalModel(name="bpe", path=str(place / "tokenizer"), context=CONTEXT))
    loaded = time.perf_counter()
    examples = read_rows(place / "rows.jsonl", Example)[:count]
    job = {"ours": ours, "peer": peer}[what](chat, examples, cache)
    start, before = time.perf_counter(), processor_seconds()
    rows = job()
    seconds, spent = time.perf_counter() - start, processor_seconds() - before
    told = {"seconds": seconds, "cpu_us": 1e6 * spent / count, "loading": loaded - begin}
    rounded = {name: round(value, 4) for name, value in told.items()}
    print(json.dumps(rounded | {"rows": len(rows), "digest": digest(rows)}))


def processor_seconds() -> float:
    """Return what this process has used, and those of its children that have ended."""
    return sum(os.times()[:4])


def ours(chat: Any, examples: Sequence[Any], cache: Path) -> Callable[[], Any]:
    from llamaduo.data.rows import tokenised

    return functools.partial(tokenised, examples, chat, CONTEXT, cache)


def peer(chat: Any, examples: Sequence[Any], cache: Path) -> Callable[[], Any]:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    cache.mkdir()
    columns = {"messages": [list(e.messages) for e in examples], "response": [e.response for e in examples]}
    table = Dataset.from_dict(columns)
    rendering = functools.partial(rendered, chat.tokenizer, sorted(chat.end_ids))
    options = {"batched": True, "num_proc": 2, "remove_columns": table.column_names}
    return lambda: table.map(rendering, cache_file_name=str(cache / "rows.arrow"), **options)


def rendered(tokenizer: Any, ends: list[int], batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Render a batch with transformers alone, as `datasets.map` wants it."""
    prompts, responses = batch["messages"], batch["response"]
    answered = [[*m, {"role": "assistant", "content": r}] for m, r in zip(prompts, responses, strict=True)]
    asked = tokenizer.apply_chat_template(prompts, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(answered, tokenize=False)
    behind = [text[len(before) :] for text, before in zip(whole, asked, strict=True)]
    first = tokenizer(asked, add_special_tokens=False)["input_ids"]
    then = tokenizer(behind, add_special_tokens=False)["input_ids"]
    then = [ids[: next(at for at, token in enumerate(ids) if token in ends) + 1] for ids in then]
    return {"0": [a + b for a, b in zip(first, then, strict=True)], "1": [len(ids) for ids in first]}


def digest(rows: Any) -> str:
    """Return a hash of the rows' tokens and of how many of them are the prompts'."""
    import numpy as np

    found = hashlib.sha256()
    for row in rows:
        ids, prompt = row.values() if isinstance(row, dict) else row
        found.update(np.array([prompt, len(ids), *ids], np.int64).tobytes())
    return found.hexdigest()


# What comes of it


def result(raw: list[dict[str, Any]], count: int, part: int, vocabulary: int, wanted: Options) -> Result:
    """Sum the rounds up."""
    rates = {
        "rows_per_s": [count / found["first"]["seconds"] for found in raw],
        "part_rows_per_s": [part / found["part"]["seconds"] for found in raw],
        "peer_rows_per_s": [part / found["peer"]["seconds"] for found in raw],
        "second_s": [found["second"]["seconds"] for found in raw],
        "loading_s": [found["second"]["loading"] for found in raw],
        "cpu_us": [found["first"]["cpu_us"] for found in raw],
        "peak_gb": [max(found[name]["peak_gb"] for name in ("first", "second")) for found in raw],
    }
    same = all(found["part"]["digest"] == found["peer"]["digest"] for found in raw)
    figure, second = (statistics.median(rates[name]) for name in ("rows_per_s", "second_s"))
    holds = figure >= ROWS_A_SECOND and second < SECOND_S and max(rates["peak_gb"]) < PEAK_GB and same
    ratio = statistics.median(rates["part_rows_per_s"]) / statistics.median(rates["peer_rows_per_s"])
    note = (
        f"second start {second:.2f} s, peak {max(rates['peak_gb']):.2f} GB; on {part:,} rows {ratio:.2f} times "
        f"datasets.map with 2 processes, {'the same' if same else 'OTHER'} tokens; {os.cpu_count()} cores, vocabulary "
        f"{vocabulary:,}, all the text allows"
    )
    spread: dict[str, Any] = {name: summary(values) for name, values in rates.items()}
    if wanted.quick:
        note = f"quick: {count:,} rows in place of {ROWS:,}, one round; {note}"
    return Result("render", round(figure, 1), "rows/s", TARGET, None if wanted.quick else holds, len(raw), spread, note)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
    else:
        main()
