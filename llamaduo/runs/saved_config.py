"""A run's `config.yaml`: as it was saved, and as the experiment that it tells of.

    tree = read_config(Path("results/runs/pocket_llama-coding-1a2b3c4d/config.yaml"))
    experiment = typed(Experiment, tree)         some 1 ms, without OmegaConf

What an older run doesn't say is filled in here alone: with the schema's default, which is what such runs did, or with
None where tables tell that it isn't known. Keys of newer versions are passed over, and a value that is none of its
kind stays as it is: a run is read to be shown, and `llamaduo verify` is what checks it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import Enum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from llamaduo.config import MISSING, Data, Gate, Infer, Judge, Loop, Runtime, ServiceLLM, Task, Train
from llamaduo.errors import InputError
from llamaduo.files.regular import regular
from llamaduo.files.yaml_limits import MOST, refuse_too_much

T = TypeVar("T")

_NOT_KNOWN: dict[type[Any], tuple[str, ...]] = {
    Data: ("source", "seed"),
    Gate: ("similarity", "precision", "error"),
    Infer: ("samples", "temperature", "max_new_tokens"),
    Judge: ("prompt", "repeats"),
    Loop: ("start",),
    Runtime: ("seed",),
    ServiceLLM: ("max_tokens",),
    Task: ("synthetic_rows",),
    Train: ("lora_r", "lora_alpha", "epochs", "quantization"),
}
"""Fields whose default says nothing of a run without them; nor is known what has no default."""


def typed(kind: type[T], tree: Any) -> T:
    """Return a dataclass of the schema from plain values; raises TypeError where these are of another shape."""
    make: Callable[[Any], T] = _maker(kind)  # type: ignore[arg-type]
    return make(tree)


@cache
def _maker(kind: Any) -> Callable[[Any], Any]:
    """Return what makes a value of a kind from a plain one."""
    if get_origin(kind) in (Union, UnionType):
        make = _maker(next(one for one in get_args(kind) if one is not type(None)))
        return lambda value: None if value is None else make(value)
    if get_origin(kind) is dict:
        make = _maker(get_args(kind)[1])
        return lambda value: {name: make(item) for name, item in dict(value or {}).items()}
    if get_origin(kind) is list:
        make = _maker(get_args(kind)[0])
        return lambda value: [make(item) for item in value or []]
    if dataclasses.is_dataclass(kind):
        return _record_maker(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return lambda value: next((member for member in kind if member.value == value), value)
    return lambda value: value


def _record_maker(kind: Any) -> Callable[[Any], Any]:
    makers = {name: _maker(hint) for name, hint in get_type_hints(kind).items()}
    fields = dataclasses.fields(kind)
    asked = (f.name for f in fields if f.default == MISSING or dataclasses.is_dataclass(f.default_factory))
    unsaid = dict.fromkeys((*_NOT_KNOWN.get(kind, ()), *asked))

    def made(tree: Any) -> Any:
        given = unsaid | dict(tree or {})
        return kind(**{name: make(given[name]) for name, make in makers.items() if name in given})

    return made


_NEEDED = {"task", "local_model", "service_llm", "synthesis", "judge", "protocol", "train"}
"""What a file has to have to be taken for a run's configuration."""


def read_config(path: Path) -> dict[str, Any]:
    """Return a run's configuration as plain values; raises InputError where the file holds none."""
    import yaml

    try:
        config = plain_yaml(path)
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        told = " ".join(str(error).split()).replace(' in "<unicode string>"', "")
        raise InputError(f"{path}: damaged ({type(error).__name__}: {told}); move its run elsewhere.") from error
    if not isinstance(config, dict) or not config.keys() >= _NEEDED:
        raise InputError(f"{path}: not a run's configuration; move the folder elsewhere.")
    return config


def plain_yaml(path: Path) -> Any:
    """Return what a YAML file holds; raises ValueError where it isn't of the kind that a run writes."""
    import yaml

    with open(regular(path), encoding="utf-8") as file:
        text = file.read(MOST + 1)
    refuse_too_much(text, aliases=False)
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (a safe one, in C)
