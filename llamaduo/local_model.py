"""Loading a local model and its tokenizer: from the package, a folder, or the Hub.

Weights are safetensors only, and code from a repository is not run unless `trust_remote_code` is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llamaduo.config import LocalModel, Quantization, Runtime, model_location
from llamaduo.data.chat import CHATML, Chat
from llamaduo.errors import ConfigError, InputError

if TYPE_CHECKING:
    import torch


def load_chat(model: LocalModel) -> Chat:
    """Return the model's tokenizer, ready to render chats. Imports transformers, not torch."""
    from transformers import AutoTokenizer

    path, revision = (model.tokenizer, model.tokenizer_revision) if model.tokenizer else (model.path, model.revision)
    tokenizer = _from_hub(path, AutoTokenizer, model, revision=revision)
    if model.chat_template == "chatml":
        tokenizer.chat_template = CHATML
    elif model.chat_template is not None:
        tokenizer.chat_template = model.chat_template
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Chat(tokenizer)


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


def load_base(model: LocalModel, runtime: Runtime, quantization: Quantization) -> Any:
    """Return the base model on its device, in evaluation mode.

    float32 on CPU and bfloat16 on GPU unless `runtime.dtype` says otherwise.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = pick_device(runtime)
    name = ("bfloat16" if device.type == "cuda" else "float32") if runtime.dtype == "auto" else runtime.dtype
    if name not in ("float32", "bfloat16", "float16"):
        raise ConfigError(f"runtime.dtype={name}: take auto, float32, bfloat16 or float16.")
    dtype = getattr(torch, name)
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if runtime.attention is not None:
        options["attn_implementation"] = runtime.attention
    if quantization is not Quantization.none:
        options["quantization_config"] = _quantized(quantization, dtype)
        options["device_map"] = {"": device}
    loaded = _from_hub(model.path, AutoModelForCausalLM, model, revision=model.revision, **options)
    if quantization is Quantization.none:
        loaded = loaded.to(device)
    for module in loaded.modules():
        if hasattr(
            module, "support_avx512bf16_for_cpu"
        ):  # bitsandbytes' answers on CPU would be those of other weights
            module.support_avx512bf16_for_cpu = False  # (bfloat16) than were trained, or of none: blocks must fit rows
    return loaded.eval()


def _quantized(quantization: Quantization, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if quantization is Quantization.int8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _from_hub(path: str, loader: Any, model: LocalModel, **options: Any) -> Any:
    try:
        return loader.from_pretrained(model_location(path), trust_remote_code=model.trust_remote_code, **options)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:240]
        raise InputError(f"local model {path} can't be loaded: {reason}") from error
