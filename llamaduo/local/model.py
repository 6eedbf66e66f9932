"""Loading a local model and its tokenizer: from the package, a folder, or the Hub.

Weights are safetensors only, and code from a repository is not run unless `trust_remote_code` is set.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaduo.config import LocalModel, Quantization, Runtime, model_location
from llamaduo.data.chat import Chat, chatml
from llamaduo.environment import settle_hub
from llamaduo.errors import ConfigError, InputError
from llamaduo.local.embedding import fit_embedding
from llamaduo.local.hub import refused

if TYPE_CHECKING:
    import torch


def load_chat(model: LocalModel) -> Chat:
    """Return the model's tokenizer, ready to render chats. Imports transformers, not torch."""
    from transformers import AutoTokenizer

    field, revision = ("tokenizer", model.tokenizer_revision) if model.tokenizer else ("path", model.revision)
    tokenizer = _loaded(AutoTokenizer, model, field, revision=revision)
    if model.chat_template == "chatml":
        tokenizer.chat_template = chatml(tokenizer)
    elif model.chat_template is not None:
        if "{" not in model.chat_template:
            raise ConfigError(
                f"local_model.chat_template={model.chat_template}: is no template, which is given as its text; take "
                "chatml, or put a file with a template into the tokenizer's folder as chat_template.jinja."
            )
        tokenizer.chat_template = model.chat_template
    chat = Chat(tokenizer, _stops(model))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(chat.closing)
    return chat


def refuse_if_absent(model: LocalModel) -> None:
    """Raise InputError where the model's configuration can't be read; that it can't be had is told soon."""
    if not Path(model_location(model.path)).is_dir():
        _refuse_if_not_to_be_had(model)
    from transformers import AutoConfig

    _loaded(AutoConfig, model, "path", revision=model.revision)


def _refuse_if_not_to_be_had(model: LocalModel) -> None:
    """Ask the Hub's own client, which is imported in a tenth of the time that transformers takes."""
    from huggingface_hub import errors, hf_hub_download

    settle_hub()
    try:
        hf_hub_download(model.path, "config.json", revision=model.revision)
    except Exception as error:
        if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
            return  # it has no such file: transformers says what that means
        raise InputError(refused(error, "local_model.path", model.path)) from error


def _stops(model: LocalModel) -> list[int]:
    """Return the tokens at which the model's own generation settings stop: those of what it learned to end with.

    They can be others than its tokenizer's: Llama 3 ends a text with another token than Llama 3 Instruct.
    """
    from transformers import GenerationConfig, PretrainedConfig

    where, pinned = model_location(model.path), {"revision": model.revision}
    _settle(where)
    try:
        found = GenerationConfig.from_pretrained(where, **pinned).eos_token_id
    except OSError:  # it has none: transformers would take the configuration's
        try:
            found = PretrainedConfig.get_config_dict(where, **pinned)[0].get("eos_token_id")
        except OSError:
            return []  # whoever loads the model says why it can't be had
    return [] if found is None else [found] if isinstance(found, int) else list(found)


def pick_device(runtime: Runtime) -> torch.device:
    """Return the device to run on; raises ConfigError if it isn't there."""
    import torch

    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    if runtime.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(runtime.device)
    except RuntimeError as error:
        raise ConfigError(f"runtime.device={runtime.device}: take auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"runtime.device={runtime.device}: there is no such GPU; take runtime.device=auto.")
    return device


def load_base(model: LocalModel, runtime: Runtime, quantization: Quantization, tokenizer: Any = None) -> Any:
    """Return the base model on its device, in evaluation mode, with an embedding row for every token of a tokenizer.

    float32 on CPU and bfloat16 on GPU unless `runtime.dtype` says otherwise. Its `untrained_rows` are the tokens
    whose rows training has to make (see `embedding.py`); without a tokenizer the embedding stays as it is.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = pick_device(runtime)
    name = ("bfloat16" if device.type == "cuda" else "float32") if runtime.dtype == "auto" else runtime.dtype
    if name not in ("float32", "bfloat16", "float16"):
        raise ConfigError(f"runtime.dtype={name}: take auto, float32, bfloat16 or float16.")
    dtype = getattr(torch, name)
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "ignore_mismatched_sizes": True}
    if runtime.attention is not None:
        options["attn_implementation"] = runtime.attention
    if quantization is not Quantization.none:
        options["quantization_config"] = _quantized(quantization, dtype)
        options["device_map"] = {"": device}
    options |= {"revision": model.revision, "output_loading_info": True}
    loaded, info = _loaded(AutoModelForCausalLM, model, "path", **options)
    _refuse_other_weights(model, info, loaded.config.get_text_config().num_hidden_layers)
    if quantization is Quantization.none:
        loaded = loaded.to(device)
    _as_in_training(loaded)
    loaded.untrained_rows = [] if tokenizer is None else fit_embedding(loaded, tokenizer)
    return loaded.eval()


def give_back() -> None:
    """Give a GPU the memory back that nobody holds any more: what is loaded next, by any process, finds it free."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def skeleton(model: LocalModel) -> Any:
    """Return the model without its weights, on the meta device: its configuration and shapes, at no memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = _loaded(AutoConfig, model, "path", revision=model.revision)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=model.trust_remote_code)
    except ValueError as error:
        raise InputError(refused(error, "local_model.path", model.path)) from error


def _quantized(quantization: Quantization, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if quantization is Quantization.int8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _as_in_training(network: Any) -> None:
    """Keep bitsandbytes' weights as they are: for answers on some CPUs it packs them anew and rounds their scales.

    The answers would be another model's than the trained one's, and layers whose width is no multiple of 64 fail.
    """
    for module in network.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _settle(where: str) -> None:
    """Find out whether the Hub answers, for a model that is no folder here."""
    if not Path(where).is_dir():
        settle_hub()


def _loaded(loader: Any, model: LocalModel, field: str, **options: Any) -> Any:
    """Return what a loader of transformers makes of `model.path` or `model.tokenizer`."""
    path = getattr(model, field)
    _settle(model_location(path))
    try:
        return loader.from_pretrained(model_location(path), trust_remote_code=model.trust_remote_code, **options)
    except Exception as error:  # tokenizers and safetensors raise what nobody else does
        if type(error).__name__ == "OutOfMemoryError":
            raise
        raise InputError(refused(error, f"local_model.{field}", path)) from error


def _refuse_other_weights(model: LocalModel, info: dict[str, Any], layers: int) -> None:
    """Refuse weights of another model: transformers would fill what is missing with random numbers."""
    numbered = {
        name: re.match(r"(?:model\.|language_model\.)*layers\.(\d+)\.", name) for name in info["unexpected_keys"]
    }
    beyond = {name for name, found in numbered.items() if found and int(found[1]) >= layers}
    wrong = {
        "are missing": set(info["missing_keys"]),
        "have another shape": {name for name, *_ in info["mismatched_keys"]},
        "belong to layers that it has not": beyond,
    }
    found = [f"{len(names)} {what} ({min(names)})" for what, names in wrong.items() if names]
    if found:
        raise InputError(
            f"local_model.path={model.path}: its weights are not those that its config.json describes: "
            f"of its tensors {', '.join(found)}. Download it again."
        )
