"""Slots: sequences that run through a network side by side, each at a place of its own.

A slot is a row in the keys and values of every layer, and a column is a place in the sequence: the first token of
every sequence lies in column 0, whatever lies beside it. So a sequence can begin, end or move to another slot at any
step without touching the others, and a mask made from the lengths alone hides the columns that a sequence hasn't
reached, or that its sliding window has left:

    slot 0   t t t t t t t .      7 tokens so far, the next one goes to column 7
    slot 1   t t t x x . . .      3 tokens so far; x is left over from the sequence before it, and masked
    slot 2   t t t t t . . .

A prompt comes in through `prefill`, all its tokens at once; then each `Slots.step` adds one token to every slot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llamaduo.errors import ConfigError

if TYPE_CHECKING:
    import torch

Forward = Callable[[], "torch.Tensor"]
"""A forward pass over tensors that stay where they are; returns logits."""
Capture = Callable[[Forward], Forward]
"""Makes another forward pass that does the same, such as the replay of a CUDA graph."""

PREFILL_TOKENS = 4096
"""Tokens in a prefill, padding included; a longer prompt goes alone."""
_FIRST_COLUMNS = 64
_BUCKET = 128
"""Captured forward passes have a multiple of this many columns, so that there are few of them."""


@dataclass(frozen=True)
class Prefilled:
    """What a network makes of a prompt of n tokens: views of the batch in which it was computed."""

    keys: dict[int, torch.Tensor]
    """By layer: heads x n x head size."""
    values: dict[int, torch.Tensor]
    """By layer: heads x n x head size."""
    logits: torch.Tensor
    """Of the first new token: vocabulary."""
    length: int
    """n."""


def prefill(network: Any, prompts: Sequence[Sequence[int]]) -> list[Prefilled]:
    """Run prompts through the network as one batch, padded on the left; only their last tokens get logits."""
    import torch
    from transformers import DynamicCache

    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=network.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=network.device)
    cache = DynamicCache()  # not told of sliding windows, so every layer keeps all columns
    logits = network(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    layers = {at: layer for at, layer in enumerate(cache.layers) if layer.is_initialized}
    return [
        Prefilled(
            keys={at: layer.keys[row, :, width - len(prompt) :] for at, layer in layers.items()},
            values={at: layer.values[row, :, width - len(prompt) :] for at, layer in layers.items()},
            logits=logits[row],
            length=len(prompt),
        )
        for row, prompt in enumerate(prompts)
    ]


class Slots:
    """A network with `count` slots for sequences of at most `columns` tokens.

    Memory for columns is taken as sequences need it, doubling each time. With `capture` all of it is taken at once,
    and forward passes are captured in a few sizes, to be used again: slots by powers of two, columns by steps of 128.
    """

    def __init__(self, network: Any, count: int, columns: int, capture: Capture | None = None) -> None:
        import torch

        self.count = count
        self._network = network
        self._config = network.config.get_text_config()
        self._windows = _windows(self._config)
        self._capture = capture
        self._captured: dict[tuple[int, int], Forward] = {}
        self._most = _up(columns, _BUCKET) if capture else columns
        self._room = self._most if capture else min(columns, _FIRST_COLUMNS)
        self._keys: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}
        self._inputs = torch.zeros((2, count), dtype=torch.long, device=network.device)
        self._rows = torch.arange(count, device=network.device)
        self._columns = torch.arange(self._most, device=network.device)

    def put(self, prompt: Prefilled, slots: Sequence[int]) -> None:
        """Begin a sequence with this prompt in each of the slots."""
        import torch

        self._reserve(prompt.length)
        rows = torch.tensor(slots, device=self._rows.device)
        for stores, states in ((self._keys, prompt.keys), (self._values, prompt.values)):
            for layer, state in states.items():
                if layer not in stores:  # zeros, because what a mask hides has to be a number
                    stores[layer] = state.new_zeros(self.count, state.shape[0], self._room, state.shape[2])
                stores[layer][rows, :, : prompt.length] = state

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the sequence of `length` tokens in one slot to another."""
        for stores in (self._keys, self._values):
            for store in stores.values():
                store[target, :, :length] = store[source, :, :length]

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
        """Add a token to each of the first slots, which hold that many tokens so far.

        Returns the logits of the tokens that may follow: slots x vocabulary.
        """
        import torch

        rows, width = len(tokens), max(lengths) + 1
        self._reserve(width)
        self._inputs[:, :rows] = torch.tensor([tokens, lengths], device=self._inputs.device)
        if self._capture is None:
            return self._forward(rows, width)
        size = min(1 << (rows - 1).bit_length(), self.count), _up(width, _BUCKET)
        if size not in self._captured:
            self._captured[size] = self._capture(lambda: self._forward(*size))
        return self._captured[size]()[:rows]

    def _forward(self, rows: int, width: int) -> torch.Tensor:
        tokens, places = self._inputs[:, :rows]
        logits: torch.Tensor = self._network(
            input_ids=tokens[:, None],
            attention_mask=self._masks(places, width),
            position_ids=places[:, None],
            past_key_values=_Cache(self._keys, self._values, (self._rows[:rows], slice(None), places), width),
            use_cache=True,
        ).logits[:, -1]
        return logits

    def _masks(self, places: torch.Tensor, width: int) -> Any:
        """Return what each slot looks at (slots x 1 x 1 x width), in the form in which the network takes it."""
        behind = places[:, None, None, None] - self._columns[:width]
        masks: dict[str | None, Any] = {
            kind: self._for_attention((behind >= 0) if window is None else (behind >= 0) & (behind < window))
            for kind, window in self._windows.items()
        }
        return masks.get(None, masks)

    def _for_attention(self, seen: torch.Tensor) -> torch.Tensor:
        """Return a mask as it is for torch's own attention, or as what eager attention adds to its scores."""
        import torch

        if self._config._attn_implementation == "sdpa":
            return seen
        dtype = next(iter(self._keys.values())).dtype
        return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)

    def _reserve(self, columns: int) -> None:
        """Make room for that many columns."""
        if columns <= self._room:
            return
        old, self._room = self._room, min(self._most, max(columns, 2 * self._room))
        for stores in (self._keys, self._values):
            for layer, store in stores.items():
                count, heads, _, size = store.shape
                stores[layer] = store.new_zeros(count, heads, self._room, size)
                stores[layer][:, :, :old] = store


class _Cache:
    """All that a network asks of a cache once it has masks and positions: keep these keys, return all keys."""

    def __init__(
        self, keys: dict[int, torch.Tensor], values: dict[int, torch.Tensor], place: tuple[Any, ...], width: int
    ) -> None:
        self._keys, self._values, self._place, self._width = keys, values, place, width

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep what a step adds (slots x heads x 1 x head size); return all that these slots have, up to the width."""
        rows = keys.shape[0]
        self._keys[layer][self._place] = keys[:, :, 0]
        self._values[layer][self._place] = values[:, :, 0]
        return self._keys[layer][:rows, :, : self._width], self._values[layer][:rows, :, : self._width]


def _windows(config: Any) -> dict[str | None, int | None]:
    """Return the sliding window of each kind of layer; null where a layer sees everything.

    Networks with several kinds take a mask for each, by its name. The name None stands for the one mask of the others.
    """
    kinds: list[str] | None = getattr(config, "layer_types", None)
    if kinds is None:
        if getattr(config, "attention_chunk_size", None) is None:
            return {None: getattr(config, "sliding_window", None)}
        kinds = ["chunked_attention"]
    unknown = sorted(set(kinds) - {"full_attention", "sliding_attention"})
    if unknown:
        raise ConfigError(
            f"local_model: {config.model_type} has layers of the kind {', '.join(unknown)}, which the transformers "
            "backend can't answer with: take infer.backend=vllm."
        )
    return {kind: config.sliding_window if kind == "sliding_attention" else None for kind in kinds}


def _up(number: int, step: int) -> int:
    """Round up to a multiple of `step`."""
    return -(-number // step) * step


def cuda_graph(forward: Forward, pool: Any = None) -> Forward:
    """Record a forward pass as a CUDA graph: its hundreds of kernels then start as one.

    Graphs of one `pool` (torch.cuda.graph_pool_handle()) work in the same memory: each one's logits have to be used
    before another one is replayed.
    """
    import torch

    here, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(here)
    with torch.cuda.stream(aside):
        for _ in range(2):
            forward()
    here.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with (
        torch.cuda.stream(here),
        torch.cuda.graph(graph, pool=pool),
    ):  # a recording that fails leaves another stream behind
        logits = forward()

    def replay() -> torch.Tensor:
        graph.replay()
        return logits

    return replay
