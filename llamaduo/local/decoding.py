"""Decoding: draw many samples from a network, a fixed number of them side by side.

Samples of one prompt share its prefill, prompts of like length run together, and a slot whose sample has ended takes
the next one at once. Each sample draws from a generator of its own, so nothing that shares the network with it can
change it, beyond the rounding of the network's own arithmetic.

`decode_what_fits` is what a run does: with CUDA graphs on a GPU, and with less side by side where memory runs out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llamaduo.errors import ConfigError
from llamaduo.local.memory import is_out_of_memory
from llamaduo.local.model import give_back
from llamaduo.local.prefills import Prefills
from llamaduo.local.slots import Capture, Forward, Prefilled, Slots, cuda_graph

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sample:
    """An answer to draw."""

    prompt: int
    """Which of the prompts it answers."""
    seed: int
    limit: int
    """The most tokens that it may have, its end mark among them."""


@dataclass(frozen=True)
class Rules:
    """How tokens are drawn, and where an answer ends before its limit."""

    temperature: float
    """0 takes the likeliest token."""
    ends: frozenset[int]
    """Tokens that end an answer; they are part of it."""
    stopped: Callable[[list[int]], bool] | None = None
    """Tells after every token whether the answer so far is complete."""


def decode_what_fits(
    network: Any,
    prompts: Sequence[Sequence[int]],
    samples: Sequence[Sample],
    rules: Rules,
    *,
    slots: int,
    finished: Callable[[int, list[int]], None],
    note: Callable[[str], None],
) -> None:
    """Draw every sample; where memory runs out, what is left of them with half as many side by side.

    Raises ConfigError where there is no memory for one. `note` is told what a reader should know.
    """
    left = dict(enumerate(samples))
    while left:
        numbers = list(left)

        def done(at: int, ids: list[int], numbers: list[int] = numbers) -> None:
            del left[numbers[at]]
            finished(numbers[at], ids)

        capture = _graphs(note) if network.device.type == "cuda" else None
        try:
            decode(network, prompts, list(left.values()), rules, slots=slots, finished=done, capture=capture, note=note)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if slots == 1:
                raise ConfigError(
                    "out of memory with a single answer: lower infer.max_new_tokens, or take train.quantization=nf4."
                ) from error
            slots = max(1, slots // 2)
            note(f"out of memory: from here on {slots} answers are drawn side by side.")
        give_back()  # behind the block: the error holds on to what was allocated


def _graphs(note: Callable[[str], None]) -> Capture:
    """Return what records forward passes as CUDA graphs; from the first that can't be recorded on they run as they are.

    Some kernels of quantised layers wait for the GPU, which a recording can't.
    """
    import torch

    works, pool = True, torch.cuda.graph_pool_handle()

    def capture(forward: Forward) -> Forward:
        nonlocal works
        if works:
            try:
                return cuda_graph(forward, pool)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                works = False
                note(f"answers come more slowly: no CUDA graph can be made of this model ({_first_line(error)}).")
        return forward

    return capture


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def decode(
    network: Any,
    prompts: Sequence[Sequence[int]],
    samples: Sequence[Sample],
    rules: Rules,
    *,
    slots: int,
    finished: Callable[[int, list[int]], None],
    capture: Capture | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Draw every sample, `slots` of them side by side; `capture` is for `Slots`.

    `finished` gets each sample's number in `samples` and its tokens as soon as it ends, in no special order. Where
    memory runs out for prompts, fewer of them are read at once, and `note` is told.
    """
    import torch

    if not samples:
        return
    order = sorted(range(len(samples)), key=lambda n: (-len(prompts[samples[n].prompt]), samples[n].prompt))
    columns = max(len(prompts[sample.prompt]) + sample.limit for sample in samples)
    with torch.inference_mode():
        _Decoding(
            samples=samples,
            rules=rules,
            finished=finished,
            device=network.device,
            slots=Slots(network, min(slots, len(samples)), columns, capture),
            prefills=Prefills(network, prompts, [samples[number].prompt for number in order], note),
            waiting=deque(order),
        ).run()


def draw(logits: torch.Tensor, generators: Sequence[torch.Generator], temperature: float) -> list[int]:
    """Draw a token for each row of logits (rows x vocabulary), with the row's own generator.

    By the Gumbel-max trick: the greatest of logits / T plus noise is distributed like a sample at temperature T.
    """
    import torch

    if temperature > 0:
        noise = torch.empty_like(logits, dtype=torch.float32)
        for row, generator in zip(noise, generators, strict=True):
            row.exponential_(generator=generator)
        logits = logits.float() / temperature - noise.log()
    tokens: list[int] = logits.argmax(-1).tolist()
    return tokens


@dataclass
class _Run:
    """A sample under way."""

    number: int
    sample: Sample
    generator: torch.Generator
    length: int
    """Tokens that the network has seen: the prompt, and all that were drawn but the last."""
    drawn: list[int] = field(default_factory=list)


@dataclass
class _Decoding:
    """Which sample is in which slot. The slots in use are the first ones whenever the network runs."""

    samples: Sequence[Sample]
    rules: Rules
    finished: Callable[[int, list[int]], None]
    device: torch.device
    slots: Slots
    prefills: Prefills
    waiting: deque[int]
    """Numbers of samples, in the order in which they begin."""
    running: dict[int, _Run] = field(default_factory=dict)
    """By slot."""

    def run(self) -> None:
        """Draw until every sample has ended."""
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.slots.count:
                self._begin()
            self._close_gaps()
            if self.running:
                self._step()

    def _begin(self) -> None:
        """Give free slots to waiting samples of one prefill, so that no second one is in memory beside it.

        A sample that ends with its first token leaves its slot free.
        """
        import torch

        free = [slot for slot in range(self.slots.count) if slot not in self.running]
        numbers: list[int] = []
        prompts: list[Prefilled] = []
        while self.waiting and len(numbers) < len(free):
            wanted = self.samples[self.waiting[0]].prompt
            if numbers and not self.prefills.holds(wanted):
                break
            numbers.append(self.waiting.popleft())
            prompts.append(self.prefills.take(wanted))
        free = free[: len(numbers)]
        runs = [self._new(number, prompt) for number, prompt in zip(numbers, prompts, strict=True)]
        tokens = self._draw(torch.stack([prompt.logits for prompt in prompts]), runs)
        places: dict[int, tuple[Prefilled, list[int]]] = {}
        for slot, run, prompt, token in zip(free, runs, prompts, tokens, strict=True):
            if self._goes_on(run, token):
                self.running[slot] = run
                places.setdefault(run.sample.prompt, (prompt, []))[1].append(slot)
        for prompt, taken in places.values():
            self.slots.put(prompt, taken)

    def _new(self, number: int, prompt: Prefilled) -> _Run:
        import torch

        sample = self.samples[number]
        return _Run(number, sample, torch.Generator(self.device).manual_seed(sample.seed), prompt.length)

    def _close_gaps(self) -> None:
        """Move the last samples into free slots, so that a step goes through no free one."""
        while self.running and (last := max(self.running)) >= len(self.running):
            gap = next(slot for slot in range(last) if slot not in self.running)
            run = self.running.pop(last)
            self.slots.move(last, gap, run.length)
            self.running[gap] = run

    def _step(self) -> None:
        """Draw one token for every running sample."""
        runs = [self.running[slot] for slot in range(len(self.running))]
        logits = self.slots.step([run.drawn[-1] for run in runs], [run.length for run in runs])
        for slot, (run, token) in enumerate(zip(runs, self._draw(logits, runs), strict=True)):
            run.length += 1
            if not self._goes_on(run, token):
                del self.running[slot]

    def _draw(self, logits: torch.Tensor, runs: list[_Run]) -> list[int]:
        return draw(logits, [run.generator for run in runs], self.rules.temperature)

    def _goes_on(self, run: _Run, token: int) -> bool:
        """Add a token to a sample and tell whether it goes on; hand it over if not."""
        run.drawn.append(token)
        over = token in self.rules.ends or len(run.drawn) >= run.sample.limit
        if not over and (self.rules.stopped is None or not self.rules.stopped(run.drawn)):
            return True
        self.finished(run.number, run.drawn)
        return False
