"""Memory: how much of it training and answering take, worked out before any weight is loaded.

    refuse_if_too_large(experiment)      # ConfigError, with the settings that would fit
    estimate(experiment, shape_of(experiment.local_model), "cuda").total

Reads the model's configuration and the shapes of its skeleton; loads no weights. Everything is counted at its worst:
each row as long as `train.max_length`, each prompt with its answer as long as `local_model.context`. What autograd
keeps is counted tensor by tensor as transformers' layers and peft's LoRA keep it; tests compare the count with what
autograd says, and the whole with what a process takes.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaduo.config import Backend, Experiment, Launch, Quantization, Runtime, Train, conf_dir, is_pocket, plain
from llamaduo.environment import available_memory, gpu_memory
from llamaduo.errors import ConfigError
from llamaduo.local.model import pick_device
from llamaduo.local.shape import Shape, shape_of
from llamaduo.local.slots import PREFILL_TOKENS

GIB = 2**30
_FLOAT = 4
_NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes a weight: 4 bits, an 8-bit constant for 64 of them, a float32 one for 256 of those (QLoRA, 2305.14314)."""
_SAME_INPUT = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
"""Layers that read the very tensor of another one."""
_FIXED = {"cuda": GIB, "cpu": GIB // 2}
"""CUDA's context, kernels and workspaces; the libraries on CPU."""
_HOLES = {"cuda": 0.05, "cpu": 0.9}
"""What the allocator holds and can't use, as a share of what comes and goes: measured with glibc's on CPU."""
_LEAST_LENGTH = 256
_NEW_ROWS = 256
"""Tokens of a chat that nobody has trained, at most: Llama 3 reserves as many."""
_RAN_OUT = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")
"""How torch says so: CUDA's allocator and driver, the CPU's allocator on Linux and on Windows, cuBLAS."""


@dataclass(frozen=True)
class Estimate:
    """What one stage takes at its peak, in bytes."""

    weights: int = 0
    """The base model: linear layers quantised if asked for, embeddings, output layer and norms never."""
    adapter: int = 0
    """LoRA's A and B, which peft keeps in float32, and rows of tokens that the base model never saw."""
    gradients: int = 0
    """Of the adapter, in float32."""
    optimizer: int = 0
    """AdamW's two moments of the adapter, in float32."""
    activations: int = 0
    """What backward needs of a forward pass, and what one layer needs while it works."""
    logits: int = 0
    """Scores over the vocabulary: in the model's type, in float32, and their gradient."""
    kv_cache: int = 0
    """Keys and values of all answers side by side, each as long as the context, and of prompts read ahead."""
    overhead: int = 0
    """Libraries, workspaces, the allocator's holes, and matrices that are only there for a moment."""

    @property
    def total(self) -> int:
        """All of it."""
        return sum(dataclasses.astuple(self))


def estimate(experiment: Experiment, shape: Shape, device: str) -> Estimate:
    """Return what the larger of training and answering takes on a `cuda` or `cpu` device."""
    stages = [training(experiment, shape, device), answering(experiment, shape, device)]
    return max(stages, key=lambda stage: stage.total)


def training(experiment: Experiment, shape: Shape, device: str) -> Estimate:
    """Return what training takes; nothing where nothing is trained, or where FSDP spreads the model over devices.

    On a CPU all processes of a training share one memory, and each of them holds the whole of it.
    """
    train, runtime = experiment.train, experiment.runtime
    several = runtime.launch is Launch.accelerate
    if not train.enabled or (several and _settings(runtime).get("distributed_type") == "FSDP"):
        return Estimate()
    kept, tokens = _element(experiment, device), _tokens(train)
    adapter = _adapter(train, shape)
    layer = math.ceil(_kept_by_layer(experiment, shape, kept, device) * tokens)
    logits = shape.vocabulary * tokens * (kept + 2 * _FLOAT)
    activations = shape.layers * layer
    if train.gradient_checkpointing:  # a layer is worked out again when the logits are gone
        activations = shape.layers * shape.hidden * tokens * kept + max(layer - logits, 0)
    alone = Estimate(
        weights=_weights(shape, train.quantization, kept),
        adapter=adapter,
        gradients=adapter,
        optimizer=2 * adapter,
        activations=activations,
        logits=logits,
        overhead=_overhead(experiment, shape, device, activations + logits, matrices=2),
    )
    processes = _processes(runtime) if device == "cpu" and several else 1
    return Estimate(*(processes * part for part in dataclasses.astuple(alone)))


def _settings(runtime: Runtime) -> dict[str, Any]:
    """Return what accelerate's file says; nothing if it can't be read: whoever starts it says what is wrong with it."""
    import yaml

    shipped = conf_dir() / "accelerate" / f"{runtime.accelerate}.yaml"
    path = shipped if shipped.is_file() else Path(runtime.accelerate).expanduser()
    with suppress(OSError, ValueError, yaml.YAMLError):
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        return settings if isinstance(settings, dict) else {}
    return {}


def _processes(runtime: Runtime) -> int:
    """Return how many processes accelerate starts on a CPU of this machine: two, where its file leaves it open."""
    settings = _settings(runtime)
    with suppress(ValueError, TypeError, ZeroDivisionError):
        count = int(settings.get("num_processes", -1)) // int(settings.get("num_machines", 1))
        return count if count > 0 else 2
    return 2


def answering(experiment: Experiment, shape: Shape, device: str) -> Estimate:
    """Return what answering takes; nothing where a server that already runs answers.

    Some prompts are read ahead. vLLM takes what memory it finds for answers side by side, but needs room for one.
    """
    infer, train, context = experiment.infer, experiment.train, experiment.local_model.context
    if infer.served:
        return Estimate()
    kept = _element(experiment, device)
    by_vllm, read_at_once = infer.backend is Backend.vllm, max(context, PREFILL_TOKENS)
    rows, ahead = (1, 0) if by_vllm else (infer.batch_size, read_at_once)
    reading = read_at_once * (3 * shape.inner + 2 * shape.hidden) * (kept + _FLOAT)
    logits = rows * shape.vocabulary * (kept + 3 * _FLOAT)
    return Estimate(
        weights=_weights(shape, train.quantization, kept),
        adapter=_adapter(train, shape) if train.enabled else 0,
        activations=reading,
        logits=logits,
        kv_cache=(rows * context + ahead) * 2 * shape.keys * shape.layers * kept,
        overhead=_overhead(experiment, shape, device, reading + logits, matrices=0 if by_vllm else 1),
    )


def _element(experiment: Experiment, device: str) -> int:
    """Return the bytes of a number in the type that the model is loaded in."""
    name = experiment.runtime.dtype
    return _FLOAT if name == "float32" or (name == "auto" and device == "cpu") else 2


def _tokens(train: Train) -> int:
    """Return the tokens of a forward pass at most; a row that is longer than the limit goes alone."""
    whole = train.max_length if train.packing else train.batch_size * train.max_length
    limit = max(train.tokens_per_batch or whole, train.max_length)
    return limit if train.packing else min(whole, limit)


def _adapter(train: Train, shape: Shape) -> int:
    """Return the bytes of an adapter at its largest: LoRA's matrices, and a row for every new token in each matrix."""
    lora = train.lora_r * sum(inputs + outputs for _, inputs, outputs in shape.adapted(train))
    return _FLOAT * (lora + _NEW_ROWS * shape.hidden * shape.matrices)


def _weights(shape: Shape, quantization: Quantization, kept: int) -> int:
    """Return the bytes of the base model; what is not quantised takes `kept` bytes a parameter."""
    linear = sum(inputs * outputs for _, inputs, outputs in shape.linear)
    if quantization is Quantization.nf4:
        return math.ceil(linear * _NF4) + shape.others * kept
    if quantization is Quantization.int8:
        return linear + sum(_FLOAT * outputs for _, _, outputs in shape.linear) + shape.others * kept
    return (linear + shape.others) * kept


def _overhead(experiment: Experiment, shape: Shape, device: str, passing: int, matrices: int) -> int:
    """Return the bytes of libraries, of the allocator's holes, and of what is only there for a moment.

    That is the largest layer while it is not quantised, and, since a chat may have tokens whose rows are learned, what
    peft makes of the matrix that holds them, one such matrix at a time: a copy with these rows and, in training, its
    gradient (`matrices` says how many of both). Only the weights tell whether there are such tokens, with the model's
    own tokenizer too. `passing` are the bytes that are taken and given back in every pass.
    """
    quantised = experiment.train.quantization is not Quantization.none
    largest = max((inputs * outputs for _, inputs, outputs in shape.linear), default=0) if quantised else 0
    copies = matrices * shape.vocabulary * shape.hidden if experiment.train.enabled else 0
    return _FIXED[device] + math.ceil(_HOLES[device] * passing) + (largest + copies) * _element(experiment, device)


def _kept_by_layer(experiment: Experiment, shape: Shape, kept: int, device: str) -> float:
    """Return the bytes that autograd keeps of a token in a layer, on average over the layers.

    Norms work in float32. The feed-forward layer keeps the gate, what the activation makes of it, and the other half.
    """
    norms = shape.normed * _FLOAT / shape.layers
    return (
        norms
        + _attention(experiment, shape, kept)
        + 3 * shape.inner * kept
        + _lora(experiment.train, shape, kept, device)
    )


def _attention(experiment: Experiment, shape: Shape, kept: int) -> int:
    """Return the bytes of a token's queries, keys, values and result, and of its part of a mask or of probabilities.

    Rows side by side need no mask. Packed ones, and those longer than a sliding window, do; then SDPA spreads keys and
    values over all heads and keeps the mask as numbers. Eager attention keeps probabilities, in float32 too.
    """
    train, name = experiment.train, experiment.runtime.attention or "sdpa"
    length = _tokens(train) if train.packing else train.max_length
    if name == "eager":
        copy = kept if kept != _FLOAT else 0
        return 4 * shape.queries * kept + length * shape.heads * (_FLOAT + copy)
    if name == "sdpa" and (train.packing or length > shape.window):
        return 4 * shape.queries * kept + length * kept
    return 2 * (shape.queries + shape.keys) * kept


def _lora(train: Train, shape: Shape, kept: int, device: str) -> float:
    """Return the bytes that the adapters of a layer keep of a token: what goes into A and into B.

    In float32, layers with the same input share it, and the output projection's is the attention's result. In a short
    type each has a copy of its own, and so it has after dropout, with dropout's mask.
    """
    adapted = shape.adapted(train)
    names = {name for name, _, _ in adapted}
    alone = kept != _FLOAT or train.lora_dropout > 0
    mask = 0 if not train.lora_dropout else 1 if device == "cuda" else _FLOAT
    found = 0
    for name, inputs, _ in adapted:
        place, _, leaf = name.rpartition(".")
        shared = not alone and (leaf == "o_proj" or f"{place}.{_SAME_INPUT.get(leaf)}" in names)
        found += (0 if shared else inputs * (kept + mask)) + train.lora_r * kept
    return found / shape.layers


def refuse_if_too_large(experiment: Experiment) -> None:
    """Raise ConfigError if the device has too little memory, with the first settings that would fit.

    Where nobody tells how much there is, and for pocket models, nothing is refused.
    """
    elsewhere = experiment.infer.served and not experiment.train.enabled
    if elsewhere or is_pocket(experiment.local_model.path):
        return
    place = pick_device(experiment.runtime)
    room = gpu_memory(place.index or 0) if place.type == "cuda" else available_memory()
    if room is None:
        return
    shape = shape_of(experiment.local_model)
    needed = estimate(experiment, shape, place.type)
    if needed.total > room:
        raise ConfigError(_refusal(experiment, shape, place.type, needed, room))


def _refusal(experiment: Experiment, shape: Shape, device: str, needed: Estimate, room: int) -> str:
    parts = sorted(dataclasses.asdict(needed).items(), key=lambda part: -part[1])
    listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts if size >= 0.05 * GIB)
    fitting = next((rung for rung in _ladder(experiment) if estimate(rung, shape, device).total <= room), None)
    mend = "No setting makes it fit: take a smaller local_model, or a device with more memory."
    if fitting:
        mend = f"This would fit: {_differences(experiment, fitting)}"
    verb = "train" if needed == training(experiment, shape, device) else "answer"
    return (
        f"{experiment.local_model.name} needs about {needed.total / GIB:.1f} GiB to {verb} ({listed}), and "
        f"{'the GPU has' if device == 'cuda' else 'this machine has'} {room / GIB:.1f} GiB.\n{mend}"
    )


def _ladder(experiment: Experiment) -> Iterator[Experiment]:
    """Yield the experiment with less and less memory: what costs time is given up first, what costs quality last."""
    train, infer = experiment.train, experiment.infer
    weights = [train.quantization]
    if importlib.util.find_spec("bitsandbytes") is not None:
        weights += [Quantization.nf4]
    for length, quantization in itertools.product(_halves(train.max_length, _LEAST_LENGTH), dict.fromkeys(weights)):
        shorter = dataclasses.replace(train, max_length=length, quantization=quantization)
        for tokens, checkpointing, batch in itertools.product(
            _halves(_tokens(shorter), length),
            dict.fromkeys([train.gradient_checkpointing, True]),
            _halves(infer.batch_size, 1),
        ):
            limit = train.tokens_per_batch if tokens == _tokens(shorter) else tokens
            lighter = dataclasses.replace(shorter, tokens_per_batch=limit, gradient_checkpointing=checkpointing)
            answered = dataclasses.replace(infer, batch_size=batch)
            yield dataclasses.replace(experiment, train=lighter, infer=answered)


def _halves(value: int, least: int) -> list[int]:
    """Return a number, its half, and so on, down to `least`."""
    found = [value]
    while found[-1] // 2 >= least:
        found.append(found[-1] // 2)
    return found


def _differences(before: Experiment, after: Experiment) -> str:
    """Return the overrides that lead from one experiment of the ladder to another."""
    names = ("gradient_checkpointing", "tokens_per_batch", "quantization", "max_length")
    told = [(f"train.{name}", getattr(before.train, name), getattr(after.train, name)) for name in names]
    told.append(("infer.batch_size", before.infer.batch_size, after.infer.batch_size))
    return " ".join(f"{name}={str(plain(new)).lower()}" for name, old, new in told if new != old)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of torch's says that memory ran out: on a GPU, or on CPU."""
    told = str(error).lower()
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in told for words in _RAN_OUT)
