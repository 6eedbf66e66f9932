"""LoRA adapters: made for a base model, and loaded onto one, onto the right one alone.

An adapter is a folder of `adapter_config.json` and `adapter_model.safetensors`. It holds the matrices of its
layers and the embedding rows of tokens that the base model never saw, and no other part of the base model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llamaduo.config import LocalModel, Train, is_pocket
from llamaduo.errors import PICKLE, ConfigError, InputError
from llamaduo.local.embedding import rows_to_train

WEIGHTS = "adapter_model.safetensors"


def new_adapter(base: Any, model: LocalModel, config: Train, used: Sequence[int] | np.ndarray) -> Any:
    """Return the base model with an untrained adapter; `used` are the tokens of all training rows."""
    from peft import LoraConfig, get_peft_model

    targets = _targets(base, config.target_modules)
    rows = rows_to_train(base, used)
    clash = sorted(name for name in rows for target in targets if _is_called(name, target))
    if clash:
        raise ConfigError(
            f"train.target_modules: {', '.join(clash)} holds rows of new tokens, which are trained as they are: "
            "leave it out."
        )
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        trainable_token_indices=rows or None,
        task_type="CAUSAL_LM",
    )
    network = get_peft_model(base, lora)
    network.peft_config["default"].base_model_name_or_path = model.path
    return network


def load_adapter(base: Any, folder: str, model: LocalModel, *, trainable: bool = False) -> Any:
    """Return the base model with the adapter that a folder holds; raises InputError if it is another model's."""
    from peft import PeftConfig, PeftModel
    from safetensors import SafetensorError

    _refuse_if_not_an_adapter(folder)
    try:
        _refuse_another_base(folder, PeftConfig.from_pretrained(folder).base_model_name_or_path, model.path)
        network = PeftModel.from_pretrained(base, folder, is_trainable=trainable)
    except (IndexError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"adapter {folder} does not fit {model.path}: {reason}. Train it again.") from error
    _refuse_other_layers(network, folder, model.path)
    return network


def _targets(base: Any, wanted: list[str]) -> list[str]:
    """Return the layers that get an adapter; raises ConfigError for a name that none has."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as CHOICES

    if wanted == ["all-linear"]:
        return wanted
    kind = base.config.model_type
    named = wanted or list(CHOICES.get(kind, ()))
    there = [name for name, module in base.named_modules() if getattr(module, "weight", None) is not None]
    strange = [target for target in named if not any(_is_called(name, target) for name in there)]
    if named and not strange:
        return named
    linear = sorted({name.rpartition(".")[2] for name in there if "norm" not in name})
    missing = f"{kind} has no {', '.join(strange)}" if strange else f"peft has no choice for {kind}"
    raise ConfigError(f"train.target_modules={wanted}: {missing}; take all-linear, or some of {', '.join(linear)}.")


def _is_called(name: str, target: str) -> bool:
    """Whether peft finds a module by this target."""
    return name == target or name.endswith(f".{target}")


def _refuse_if_not_an_adapter(folder: str) -> None:
    if (Path(folder) / "adapter_config.json").is_file() and (Path(folder) / WEIGHTS).is_file():
        return
    pickled = sorted(path.name for path in Path(folder).glob("*.bin"))
    if pickled:
        raise InputError(
            f"adapter {folder} holds {pickled[0]} and no {WEIGHTS}: {PICKLE}; save the adapter as safetensors."
        )
    raise InputError(f"adapter {folder}: adapter_config.json and {WEIGHTS} are not both there; train it again.")


def _refuse_another_base(folder: str, trained_on: str | None, path: str) -> None:
    """Compare the bases' names, or their config.json: a copy of a model's folder is the same model.

    Where one of the two is a folder that is no longer there, or a copy of a model of the Hub, shapes decide alone.
    """
    if not trained_on or trained_on == path:
        return
    configs = [Path(name) / "config.json" for name in (trained_on, path) if not is_pocket(name)]
    there = [json.loads(config.read_text()) for config in configs if config.is_file()]
    if not there or (len(there) == 2 and there[0] != there[1]):
        raise InputError(f"adapter {folder} was trained on {trained_on}, not on {path}: set local_model to its base.")


def _refuse_other_layers(network: Any, folder: str, path: str) -> None:
    """Compare the names of all tensors: peft skips one that the model hasn't, and warns of one that is missing."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(Path(folder) / WEIGHTS, framework="pt") as file:
        found = set(file.keys())
    wanted = set(get_peft_model_state_dict(network, save_embedding_layers=False))
    if found != wanted:
        example = min(found ^ wanted)
        raise InputError(
            f"adapter {folder} does not fit {path}: {len(found - wanted)} of its tensors belong nowhere, "
            f"{len(wanted - found)} are missing ({example}). Train it again."
        )
