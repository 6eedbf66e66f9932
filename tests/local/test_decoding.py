"""Decoding: the tokens that transformers' generate gives, whatever shares the network, and not a row of idle work.

The reference asks `generate` for one sample at a time. Broken copies show that these tests notice.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from networks import NAMES, VOCABULARY, network

from llamaduo.errors import ConfigError
from llamaduo.local import decoding, prefills, slots
from llamaduo.local.decoding import Rules, Sample, decode, decode_what_fits, draw
from llamaduo.local.slots import Slots

ENDS = frozenset(range(100, 140))
"""Many, so that answers end at all lengths."""
RNG = random.Random(1)
PROMPTS = [[RNG.randrange(3, VOCABULARY) for _ in range(length)] for length in (1, 30, 12, 5, 13, 12, 21)]
SAMPLES = [Sample(at, 10 * at + k, RNG.randint(1, 24)) for at in range(len(PROMPTS)) for k in range(3)]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class SeededSampling:
    """What draws one sample in `generate`: a logits processor for its greedy search."""

    def __init__(self, seed: int, temperature: float) -> None:
        import torch

        self._generator, self._temperature = torch.Generator().manual_seed(seed), temperature

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        noise = torch.empty_like(scores[0]).exponential_(generator=self._generator)
        return scores / self._temperature - noise.log()


def generated(net: Any, sample: Sample, temperature: float) -> list[int]:
    """Return one sample by transformers' own generate."""
    import torch
    from transformers import LogitsProcessorList

    ids = torch.tensor([PROMPTS[sample.prompt]])
    out = net.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=sample.limit,
        eos_token_id=sorted(ENDS),
        pad_token_id=0,
        logits_processor=LogitsProcessorList([SeededSampling(sample.seed, temperature)] if temperature else []),
    )
    return list(map(int, out[0, ids.shape[1] :]))


@cache
def expected(name: str, temperature: float = 1.0) -> list[list[int]]:
    net = network(name)
    return [generated(net, sample, temperature) for sample in SAMPLES]


def decoded(net: Any, temperature: float = 1.0, count: int = 4, **options: Any) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    decode(net, PROMPTS, SAMPLES, Rules(temperature, ENDS), slots=count, finished=found.__setitem__, **options)
    return [found[number] for number in range(len(SAMPLES))]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_those_of_generate_one_by_one(name: str, temperature: float) -> None:
    want = expected(name, temperature)
    assert len({len(ids) for ids in want}) > 5, "answers of all lengths"
    net = network(name)
    for count in (1, 3, 8, 64):
        assert decoded(net, temperature, count) == want, count


@pytest.mark.parametrize("name", NAMES)
def test_eager_attention_draws_the_same_tokens(name: str) -> None:
    assert decoded(network(name, "eager")) == expected(name)


def test_an_adapter_draws_the_same_tokens_as_in_generate() -> None:
    from peft import LoraConfig, get_peft_model

    net = get_peft_model(network("llama"), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).eval()
    want = [generated(net, sample, 1.0) for sample in SAMPLES]
    assert want != expected("llama"), "the adapter changes the network"
    assert decoded(net) == want


def test_bfloat16_answers_are_complete_and_repeatable() -> None:
    import torch

    for attention in ("sdpa", "eager"):
        net = network("gemma3", attention).to(torch.bfloat16)
        found = decoded(net)
        assert found == decoded(net)
        for ids, sample in zip(found, SAMPLES, strict=True):
            assert ids[-1] in ENDS or len(ids) == sample.limit
            assert not ENDS & set(ids[:-1])


class Counted:
    """A network that takes down the work it is given: tokens of prompts, and rows of every later step."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.config, self.device = inner, inner.config, inner.device
        self.prefills: list[tuple[int, int]] = []
        self.steps: list[int] = []

    def __call__(self, **fields: Any) -> Any:
        rows, width = fields["input_ids"].shape
        if "logits_to_keep" in fields:
            self.prefills.append((int(fields["attention_mask"].sum()), rows * width))
        else:
            self.steps.append(rows)
        return self.inner(**fields)


@pytest.mark.parametrize("count", [1, 4, 64])
def test_a_prompt_is_prefilled_once_and_no_row_runs_idle(count: int) -> None:
    net = Counted(network("llama"))
    found = decoded(net, count=count)
    assert sum(real for real, _ in net.prefills) == sum(map(len, PROMPTS))
    assert all(padded < 2 * real for real, padded in net.prefills)
    assert sum(net.steps) == sum(len(ids) - 1 for ids in found), "the prefill gives the first token of each"
    full = sum(rows == count for rows in net.steps)
    longest = max(len(ids) for ids in found)
    assert len(net.steps) - full < longest, "slots stay full until the last samples have begun"


def test_answers_come_as_they_end() -> None:
    ended: list[int] = []
    alone = [Sample(0, 1, 20), Sample(0, 2, 2), Sample(0, 3, 5)]
    decode(network("llama"), PROMPTS, alone, Rules(1.0, frozenset()), slots=3, finished=lambda n, _: ended.append(n))
    assert ended == [1, 2, 0]


def test_nothing_to_draw_asks_nothing_of_the_network() -> None:
    decode(None, PROMPTS, [], Rules(1.0, ENDS), slots=4, finished=lambda *_: None)


def test_an_answer_ends_when_it_is_said_to_be_complete() -> None:
    found: dict[int, list[int]] = {}
    seen: list[list[int]] = []

    def stopped(ids: list[int]) -> bool:
        seen.append(list(ids))
        return len(ids) == 4

    rules = Rules(1.0, frozenset(), stopped)
    decode(network("llama"), PROMPTS, [Sample(1, 1, 9), Sample(2, 2, 3)], rules, slots=2, finished=found.__setitem__)
    assert [len(found[0]), len(found[1])] == [4, 3]
    assert [ids for ids in seen if ids[0] == found[0][0]] == [found[0][:n] for n in (1, 2, 3, 4)]


# ---------------------------------------------------------------- captured forward passes


def test_captured_forward_passes_are_few_and_draw_the_same_tokens() -> None:
    made: list[Callable[[], Any]] = []

    def capture(forward: Callable[[], Any]) -> Callable[[], Any]:
        """Stand in for a CUDA graph: the passes are those of a few sizes, and their logits lie in one place."""
        logits = forward().clone()
        made.append(forward)

        def replay() -> Any:
            return logits.copy_(forward())

        return replay

    for name in NAMES:
        made.clear()
        assert decoded(network(name), count=6, capture=capture) == expected(name)
        assert 1 < len(made) <= 4, "6, 4, 2 and 1 slots, in 128 columns"


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, recorded: Callable[..., Any], count: int) -> tuple[Any, list[str]]:
    """Return what `decode_what_fits` draws where a network says that it is on a GPU, and its notes."""
    import torch

    net, whole, notes = network("llama"), decoding.decode, []
    monkeypatch.setattr(decoding, "cuda_graph", recorded)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(decoding, "decode", lambda _, *args, **options: whole(net, *args, **options))
    found: dict[int, list[int]] = {}
    claims = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    rules = Rules(1.0, ENDS)
    decode_what_fits(claims, PROMPTS, SAMPLES, rules, slots=count, finished=found.__setitem__, note=notes.append)
    return [found[number] for number in range(len(SAMPLES))], notes


def test_a_run_on_a_gpu_records_its_forward_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def recorded(forward: Any, pool: Any) -> Any:
        made.append(pool)
        return forward

    assert on_a_gpu(monkeypatch, recorded, 6) == (expected("llama"), [])
    assert set(made) == {"pool"}


def test_a_run_on_a_cpu_records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "cuda_graph", lambda *_: pytest.fail("a graph on a CPU"))
    found: dict[int, list[int]] = {}
    rules = Rules(1.0, ENDS)
    decode_what_fits(network("llama"), PROMPTS, SAMPLES, rules, slots=6, finished=found.__setitem__, note=print)
    assert [found[number] for number in range(len(SAMPLES))] == expected("llama")


@pytest.mark.parametrize("fails_at", [0, 1])
def test_where_a_pass_cannot_be_recorded_the_rest_runs_as_it_is(fails_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    def fails(forward: Any, pool: Any) -> Any:
        tried.append(forward)
        if len(tried) > fails_at:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
        return forward

    found, notes = on_a_gpu(monkeypatch, fails, 6)
    assert found == expected("llama")
    assert len(tried) == fails_at + 1
    words = "no CUDA graph can be made of this model (CUDA error: operation not permitted when stream is capturing)."
    assert notes == [f"answers come more slowly: {words}"]


def test_where_recording_takes_too_much_memory_there_are_fewer_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    tried: list[Any] = []

    def too_large(forward: Any, pool: Any) -> Any:
        tried.append(forward)
        if len(tried) < 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward

    found, notes = on_a_gpu(monkeypatch, too_large, 8)
    assert found == expected("llama")
    assert notes == [f"out of memory: from here on {count} answers are drawn side by side." for count in (4, 2)]


# ---------------------------------------------------------------- prefills


def held_at_once(monkeypatch: pytest.MonkeyPatch, count: int) -> list[int]:
    """Return how many prompts' prefills are still held whenever another prefill begins."""
    seen: list[Any] = []
    held: list[int] = []

    def watched(net: Any, prompts: Any) -> Any:
        held.append(sum(ref() is not None for ref in seen))
        made = slots.prefill(net, prompts)
        seen.extend(map(weakref.ref, made))
        return made

    monkeypatch.setattr(prefills, "prefill", watched)
    monkeypatch.setattr(prefills, "PREFILL_TOKENS", 30)
    assert decoded(network("llama"), count=count) == expected("llama")
    return held


@pytest.mark.parametrize("count", [1, 8, 64])
def test_one_prefill_is_in_memory_at_a_time(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    held = held_at_once(monkeypatch, count)
    assert len(held) > 3
    assert not any(held)


def test_a_copy_that_prefills_for_all_free_slots_first_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefills.Prefills, "holds", lambda self, prompt: True)
    assert any(held_at_once(monkeypatch, 64))


def test_where_memory_runs_out_for_prompts_fewer_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    sizes: list[int] = []

    def too_large(net: Any, prompts: Any) -> Any:
        sizes.append(len(prompts))
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return slots.prefill(net, prompts)

    monkeypatch.setattr(prefills, "prefill", too_large)
    notes: list[str] = []
    assert decoded(network("llama"), count=8, note=notes.append) == expected("llama")
    assert sum(size == 1 for size in sizes) == len(PROMPTS)
    assert len(notes) == sum(size > 1 for size in sizes) < 6
    assert notes[0] == "out of memory: from here on prompts are read 30 tokens at a time."


def test_where_not_even_one_prompt_can_be_read_there_are_fewer_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    taken: list[int] = []

    def too_large(net: Any, prompts: Any) -> Any:
        if taken[-1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return slots.prefill(net, prompts)

    init = Slots.__init__
    monkeypatch.setattr(
        Slots, "__init__", lambda self, net, count, *rest: taken.append(count) or init(self, net, count, *rest)
    )
    monkeypatch.setattr(prefills, "prefill", too_large)
    found: dict[int, list[int]] = {}
    notes: list[str] = []
    rules = Rules(1.0, ENDS)
    decode_what_fits(network("llama"), PROMPTS, SAMPLES, rules, slots=8, finished=found.__setitem__, note=notes.append)
    assert [found[number] for number in range(len(SAMPLES))] == expected("llama")
    assert taken == [8, 4]
    assert notes[-1] == "out of memory: from here on 4 answers are drawn side by side."


# ---------------------------------------------------------------- drawing


def test_draws_follow_the_softmax() -> None:
    import torch

    logits = torch.tensor([[2.0, 1.0, 0.0]])
    wanted = torch.softmax(logits / 0.8, -1)[0]
    generator = torch.Generator().manual_seed(7)
    drawn = torch.tensor([draw(logits, [generator], 0.8) for _ in range(20_000)]).flatten()
    assert (drawn.bincount() / len(drawn)).tolist() == pytest.approx(wanted.tolist(), abs=0.012)


def test_layers_that_slots_do_not_know_are_refused() -> None:
    net = network("qwen3")
    net.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ConfigError, match=r"qwen3 has layers of the kind linear_attention.*infer.backend=vllm"):
        decoded(net)


# ---------------------------------------------------------------- broken copies


def forgets_the_window(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(slots, "_windows", lambda config: {None: None})


def sees_what_is_left_over(patch: pytest.MonkeyPatch) -> None:
    masks = Slots._masks
    patch.setattr(Slots, "_masks", lambda self, places, width: masks(self, places.max().expand_as(places), width))


def counts_columns_for_all(patch: pytest.MonkeyPatch) -> None:
    step = Slots.step
    patch.setattr(Slots, "step", lambda self, tokens, lengths: step(self, tokens, [max(lengths)] * len(lengths)))


def moves_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Slots, "move", lambda self, source, target, length: None)


def grows_without_its_columns(patch: pytest.MonkeyPatch) -> None:
    reserve = Slots._reserve

    def forgetful(self: Slots, columns: int) -> None:
        grows = columns > self._room
        reserve(self, columns)
        for store in self._keys.values():
            store.mul_(not grows)

    patch.setattr(Slots, "_reserve", forgetful)
    patch.setattr(slots, "_FIRST_COLUMNS", 8)


def gives_the_prompt_to_one_sample(patch: pytest.MonkeyPatch) -> None:
    put = Slots.put
    patch.setattr(Slots, "put", lambda self, prompt, taken: put(self, prompt, taken[:1]))


def draws_from_one_generator(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decoding, "draw", lambda logits, generators, heat: draw(logits, generators[:1] * len(logits), heat))


MUTANTS = [
    forgets_the_window, sees_what_is_left_over, counts_columns_for_all, moves_nothing, grows_without_its_columns,
    gives_the_prompt_to_one_sample, draws_from_one_generator,
]  # fmt: skip


@pytest.mark.parametrize("broken", MUTANTS)
def test_a_broken_copy_draws_other_tokens(broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("mistral")
    assert decoded(net) == expected("mistral")
    broken(monkeypatch)
    assert decoded(net) != expected("mistral")


def test_room_for_columns_is_made_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_FIRST_COLUMNS", 1)
    assert decoded(network("mistral")) == expected("mistral")
