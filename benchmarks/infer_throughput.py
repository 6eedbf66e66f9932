"""Measure how many useful tokens a second answering gives, beside the original llamaduo's way of doing it.

    python benchmarks/infer_throughput.py            five rounds, about fifteen minutes
    python benchmarks/infer_throughput.py --quick    one round of few and short answers, within a minute

Needs the real conversations beside the project; no GPU, key or network. The network is a random Llama of 4.3 million
parameters (`toy_llama.py`), in float32 on one thread. A round is 16 prompts x 4 samples at temperature 0.8: prompts are
real ones, drawn anew in each round, and so are the lengths of their answers. Random weights end no answer, so each
sample has the length, end mark included, of a response drawn from the same data, at most 1,024 tokens as with the
original. Nobody knows it beforehand: ours as the sample's limit, its peers as a criterion that ends this row alone.

    ours               llamaduo.local.decoding, 8 slots
    ours, 32 slots     the same with four times the memory for keys and values
    batches            the original: prompts as they come, batches of 8 padded on the left, transformers' generate, all
                       of it 4 times
    return sequences   the same with num_return_sequences=4: 2 prompts a batch, once

The peers draw from the whole softmax, which is the cheapest that generate has. Useful tokens are those up to an
answer's end. The figure is the median over the rounds of ours over batches, target at least 2.0; the same in processor
time stands beside, in which other work on the machine shows less. Besides: greedy answers of ours and of batches are
the same, token by token; and what ours draws is the same with 8 and with 32 slots.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from measure import Options, Result, conclude, folder, options, private, say, summary
from toy_llama import DATA, VOCABULARY, conversations, make_network, make_tokenizer

K = 4
BATCH = 8
LIMIT = 1024
TEMPERATURE = 0.8
NO_TOKEN = 10**9
"""An end mark that is in no vocabulary."""
RATIO = 2.0
TARGET = f">= {RATIO:g} times the original's batches; same greedy answers, token by token; same draws with any slots"

Answers = dict[tuple[int, int], list[int]]
"""Tokens, by prompt and sample."""


@dataclass(frozen=True)
class Work:
    """What there is to do in a round."""

    prompts: list[list[int]]
    lengths: list[list[int]]
    """Of the answers: prompts x K."""

    def tokens(self) -> int:
        """Return how many tokens all answers have together."""
        return sum(map(sum, self.lengths))


@dataclass(frozen=True)
class Timed:
    """How long it took."""

    tokens: int
    seconds: float
    processor_seconds: float


def main() -> None:
    wanted = options(__doc__)
    if wanted.overrides:
        sys.exit(f"infer_throughput: {' '.join(wanted.overrides)}: no run is measured here, so nothing to override.")
    if not DATA.exists():
        say(f"infer_throughput: skipped, {DATA.name} is not beside the project")
        return
    load = os.getloadavg()
    with folder() as place:
        alone(place)
        network, works = make_network(VOCABULARY).eval(), drawn(wanted.quick)
        say(f"Llama, {network.num_parameters():,} parameters; {len(works)} x {len(works[0].prompts)} prompts x {K}")
        rounds, checks = measured(network, works)
    raw = {"rounds": [{name: asdict(timed) for name, timed in each.items()} for each in rounds]}
    raw |= {"work": [asdict(work) | {"prompts": list(map(len, work.prompts))} for work in works], "checks": checks}
    conclude(result(rounds, checks, wanted), raw, wanted, load)


def alone(home: Any) -> None:
    """Keep this process to one thread, a home of its own, and quiet."""
    os.environ.update(private(home) | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()


def drawn(quick: bool) -> list[Work]:
    """Return the rounds' prompts, and lengths of real responses for their answers."""
    turns = conversations()
    tokenizer = make_tokenizer(turn["content"] for each in turns for turn in each)
    prompts = [asked(tokenizer, each[:-1]) for each in turns]
    ends = [len(tokenizer(each[-1]["content"])["input_ids"]) + 1 for each in turns]
    fitting = [prompt for prompt in prompts if len(prompt) <= LIMIT]
    count, limit = (8, 256) if quick else (16, LIMIT)
    made = []
    for seed in range(1 if quick else 5):
        rng = random.Random(seed)
        lengths = [[min(rng.choice(ends), limit) for _ in range(K)] for _ in range(count)]
        made.append(Work(rng.sample(fitting, count), lengths))
    return made


def asked(tokenizer: Any, turns: Sequence[dict[str, str]]) -> list[int]:
    text = tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


# Ours and its peers


def ours(network: Any, work: Work, slots: int = BATCH, temperature: float = TEMPERATURE, k: int = K) -> Answers:
    from llamaduo.local.decoding import Rules, Sample, decode

    places = [(at, sample) for at in range(len(work.prompts)) for sample in range(k)]
    samples = [Sample(at, K * at + sample, work.lengths[at][sample]) for at, sample in places]
    found: Answers = {}
    rules = Rules(temperature, frozenset({NO_TOKEN}))
    decode(
        network, work.prompts, samples, rules, slots=slots, finished=lambda n, ids: found.update({places[n]: list(ids)})
    )
    return found


def batches(network: Any, work: Work, temperature: float = TEMPERATURE, k: int = K) -> Answers:
    """Answer as the original does: the same batches, over and over."""
    found: Answers = {}
    for sample in range(k):
        for start in range(0, len(work.prompts), BATCH):
            rows = range(start, min(start + BATCH, len(work.prompts)))
            found |= generated(network, work, [(at, sample) for at in rows], rows, temperature)
    return found


def return_sequences(network: Any, work: Work) -> Answers:
    """Answer with all samples of a prompt in one batch."""
    found: Answers = {}
    for start in range(0, len(work.prompts), BATCH // K):
        rows = range(start, min(start + BATCH // K, len(work.prompts)))
        found |= generated(network, work, [(at, sample) for at in rows for sample in range(K)], rows, TEMPERATURE)
    return found


def generated(
    network: Any, work: Work, places: list[tuple[int, int]], rows: Sequence[int], temperature: float
) -> Answers:
    """Let transformers answer prompts in one batch, each as often as there are places for it."""
    import torch
    from transformers import StoppingCriteriaList

    width = max(len(work.prompts[at]) for at in rows)
    padding = [width - len(work.prompts[at]) for at in rows]
    lengths = [work.lengths[at][sample] for at, sample in places]
    widths = torch.tensor(lengths, device=network.device) + width
    ids = [[0] * pad + work.prompts[at] for at, pad in zip(rows, padding, strict=True)]
    mask = [[0] * pad + [1] * (width - pad) for pad in padding]
    how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    with torch.inference_mode():
        out = network.generate(
            input_ids=torch.tensor(ids, device=network.device),
            attention_mask=torch.tensor(mask, device=network.device),
            num_return_sequences=len(places) // len(rows),
            max_new_tokens=max(lengths),
            stopping_criteria=StoppingCriteriaList([ended(widths)]),
            eos_token_id=NO_TOKEN,
            pad_token_id=0,
            **how,
        )
    tokens = [row[:length] for row, length in zip(out[:, width:].tolist(), lengths, strict=True)]
    return dict(zip(places, tokens, strict=True))


def ended(widths: Any) -> Callable[..., Any]:
    """Return the criterion that ends each row at its own width."""
    return lambda input_ids, scores, **_: input_ids.shape[1] >= widths


# Measuring


def measured(network: Any, works: list[Work]) -> tuple[list[dict[str, Timed]], dict[str, int]]:
    """Time everybody in turns, and compare answers."""
    ways: dict[str, Callable[[Work], Answers]] = {
        "ours": lambda work: ours(network, work),
        "ours, 32 slots": lambda work: ours(network, work, slots=32),
        "batches": lambda work: batches(network, work),
        "return sequences": lambda work: return_sequences(network, work),
    }
    rounds, checks = [], {"greedy": 0, "greedy_same": 0, "drawn": 0, "drawn_same": 0}
    for way in ways.values():
        way(Work(works[0].prompts[:2], [[3] * K] * 2))
    for number, work in enumerate(works):
        timed, answers = {}, {}
        for name, way in ways.items():
            timed[name], answers[name] = clocked(way, work)
        rounds.append(timed)
        greedy, wanted = ours(network, work, temperature=0, k=1), batches(network, work, temperature=0, k=1)
        checks["greedy"] += len(wanted)
        checks["greedy_same"] += sum(greedy[place] == wanted[place] for place in wanted)
        checks["drawn"] += len(answers["ours"])
        checks["drawn_same"] += sum(answers["ours, 32 slots"][place] == ids for place, ids in answers["ours"].items())
        told = ", ".join(f"{name} {each.tokens / each.seconds:,.0f}" for name, each in timed.items())
        say(f"round {number + 1}: {work.tokens():,} useful tokens, a second: {told}")
    return rounds, checks


def clocked(way: Callable[[Work], Answers], work: Work) -> tuple[Timed, Answers]:
    """Time one way through a round's work; ends the benchmark if an answer has not its length."""
    start, used = time.perf_counter(), time.process_time()
    answers = way(work)
    seconds, processor = time.perf_counter() - start, time.process_time() - used
    lengths = {(at, k): length for at, row in enumerate(work.lengths) for k, length in enumerate(row)}
    if {place: len(ids) for place, ids in answers.items()} != lengths:
        sys.exit("infer_throughput: an answer is missing, or has not the length that it was given.")
    return Timed(work.tokens(), round(seconds, 4), round(processor, 4)), answers


def result(rounds: list[dict[str, Timed]], checks: dict[str, int], wanted: Options) -> Result:
    """Sum the rounds up."""
    spread: dict[str, Any] = dict(ratios(rounds)) | {
        f"{name}, tokens a second": summary([each[name].tokens / each[name].seconds for each in rounds])
        for name in rounds[0]
    }
    figure = spread["over batches"]["median"]
    same = checks["greedy_same"] == checks["greedy"] and checks["drawn_same"] == checks["drawn"]
    note = (
        f"greedy answers the same: {checks['greedy_same']} of {checks['greedy']}; draws the same with 8 and 32 slots: "
        f"{checks['drawn_same']} of {checks['drawn']}; over num_return_sequences "
        f"{spread['over return sequences']['median']:.2f}"
    )
    if wanted.quick:
        note = f"quick: one round of 8 prompts, answers of at most 256 tokens; {note}"
    holds = (figure >= RATIO and same) if not wanted.quick else (None if same else False)
    return Result("infer_throughput", figure, "times the original's batches", TARGET, holds, len(rounds), spread, note)


def ratios(rounds: list[dict[str, Timed]]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield how many times faster ours is than each other way, in wall and in processor time."""
    for name in rounds[0]:
        if name != "ours":
            yield f"over {name}", summary([each[name].seconds / each["ours"].seconds for each in rounds])
            processor = [each[name].processor_seconds / each["ours"].processor_seconds for each in rounds]
            yield f"over {name}, processor time", summary(processor)


if __name__ == "__main__":
    main()
