r"""Arguments such as `key=value`, read as the person at the keyboard means them, before Hydra's grammar sees them.

    read(["data.path=日本語.csv"], sweeps=False)      ['data.path="日本語.csv"']
    read(['infer.stop=["\\n"]'], sweeps=False)        a list of one line break

Hydra's grammar gives commas, `=`, brackets, quotes, `~`, `#`, accents and more a meaning or refuses them. A text that
can mean one thing only is put into quotes here; what could mean several is refused with its cause and the command that
says which. Texts for models (`infer.stop`, `parameters`) may hold `\n`, `\t`, `\r` and `\\`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import types
import typing
from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from llamaduo.config import PATHS, Experiment
from llamaduo.errors import ConfigError

_KEY = re.compile(r"\+{0,2}[A-Za-z0-9_$][A-Za-z0-9_$/@:-]*(?:\.[A-Za-z0-9_$/@:-]+)*")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def read(arguments: Sequence[str], *, sweeps: bool) -> list[str]:
    """Return the arguments as Hydra reads them; raises ConfigError for one that could mean several things.

    With `sweeps` a comma stands between the values of a sweep.
    """
    return [_read(argument, sweeps=sweeps) for argument in arguments]


def refuse_sweeps(arguments: Sequence[str]) -> None:
    """Raise ConfigError for values of a sweep where there is none."""
    for argument in arguments:
        found = _parsed(argument)
        if found is not None and found.is_sweep_override():
            raise ConfigError(several(*argument.removeprefix("++").split("=", 1)))


def given(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (key, value) of every text that is given to a key, by a sweep or alone."""
    for argument in arguments:
        found = _parsed(argument)
        if found is not None and not found.is_delete():
            values = getattr(found.value(), "list", ()) if found.is_sweep_override() else (found.value(),)
            yield from ((found.key_or_group, value) for value in values if isinstance(value, str))


def unread(argument: str) -> ConfigError:
    """Return the error of an argument that Hydra can't read."""
    key, _, value = argument.partition("=")
    if not _KEY.fullmatch(key.removeprefix("~")):
        return ConfigError(f"{argument}: {key!r} is no key; keys are words with dots between them: train.epochs=3.")
    if "${" in value:
        cause, mended = "`${` begins a reference to another key, and this is none", value.replace("${", r"\${")
    elif value[:1] in ("[", "{"):
        cause, mended = f"a list or a table begins with {value[0]!r}, and its brackets or quotes don't close", value
    elif value[:1] in ("'", '"'):
        cause, mended = "its quotes don't close, or something stands behind them", value
    else:
        cause, mended = "it can't be read", value
    return ConfigError(f"{argument}: {cause}.{_way_on(key, mended)}")


def _read(argument: str, *, sweeps: bool) -> str:
    key, equals, value = argument.partition("=")
    if not _KEY.fullmatch(key.removeprefix("~")):
        raise unread(argument)
    name = key.lstrip("+")
    if equals and not value and _is_list(kind_of(name)):
        raise ConfigError(f"{argument}: it holds a list; for an empty one write '{key}=[]'.")
    if not value or argument.startswith("~"):
        return argument
    found = _parsed(argument)
    if name in PATHS and os.path.exists(os.path.expanduser(value)):
        as_it_is = found is not None and found.value() == value and "${" not in value
        return argument if as_it_is else f"{key}={quoted(value, whole=True)}"
    if found is None:
        return _mended(key, value, kind_of(name), sweeps=sweeps)
    if found.is_sweep_override():
        if sweeps:
            _refuse_texts_for_lists(key, value, found)
        return argument
    return f"{key}={_meant(name, value, found.value())}"


def _refuse_texts_for_lists(key: str, given: str, found: Override) -> None:
    """Raise ConfigError for a sweep over a key that holds lists, if its values are none."""
    values = getattr(found.value(), "list", None)
    if _is_list(kind_of(key.lstrip("+"))) and not (values and all(isinstance(value, list) for value in values)):
        each = "a],[b" if "(" in given else given.replace(",", "],[")
        raise ConfigError(
            f"{key}={given}: each value of this sweep has to be a list, such as in {shlex.quote(f'{key}=[{each}]')}; "
            f"one list for all is {shlex.quote(f'{key}=[{each}]'.replace('],[', ','))}."
        )


def _meant(name: str, given: str, value: Any) -> str:
    """Return what is meant by a value that Hydra can read, in its grammar: the schema knows what it can be."""
    kind = kind_of(name)
    if kind is str and _is_no_text(value, given):
        return quoted(given)
    if _is_list(kind) and isinstance(value, str | bool | int | float) and "${" not in given:
        in_quotes = given.strip()[:1] in ("'", '"')
        return f"[{_written(_unescaped(value if in_quotes else given))}]"
    if dataclasses.is_dataclass(kind) and not isinstance(value, str | dict):
        raise ConfigError(
            f"{name}={given}: it takes the name of one of its options, or a key of it a value: {name}.KEY=VALUE."
        )
    if (name == "infer.stop" or ".parameters." in name) and "\\" in given:
        return _written(_unescaped(value))
    return given


def _mended(key: str, value: str, kind: Any, *, sweeps: bool) -> str:
    """Return an argument that Hydra can't read in words that it can."""
    if not _KEY.fullmatch(key) or "${" in value:
        raise unread(f"{key}={value}")
    if sweeps and "," in value:
        made = f"{key}={_each_quoted(value)}"
    elif value.startswith("[") and value.endswith("]") and kind is not str:
        made = f"{key}=[{_each_quoted(value[1:-1])}]"
    elif value[0] in "'\"" or (value[0] in "[{" and kind is not str):
        raise unread(f"{key}={value}")
    elif "," in value:
        raise ConfigError(several(key, value))
    else:
        made = f"{key}=[{quoted(value)}]" if _is_list(kind) else f"{key}={quoted(value)}"
    if _parsed(made) is None:
        raise unread(f"{key}={value}")
    return made


def _each_quoted(value: str) -> str:
    """Return values with commas between them, those in quotes that need them."""
    parts = re.findall(r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^,])+""", value)
    return ",".join(part if _parsed(f"x={part}") else quoted(part.strip()) for part in parts)


def several(key: str, value: str) -> str:
    """Return the sentence on a value with commas that is no sweep's."""
    return (
        f"{key}={value}: commas stand between the values of a sweep, which needs -m (--multirun).{_way_on(key, value)}"
    )


def _way_on(key: str, value: str) -> str:
    """Return how to write a list, for a key that takes one, or one text; nothing for one that takes neither."""
    if kind_of(key.lstrip("+")) in (int, float, bool):
        return ""
    if not _is_list(kind_of(key.lstrip("+"))):
        return f" If it is one text, write {_command(key, value)}."
    one = not value.startswith("[") and "," in value
    return f" For a list write {shlex.quote(f'{key}=[{value}]')}." if one else ' A list looks like \'["a b","c"]\'.'


def _command(key: str, value: str) -> str:
    """Return the argument that gives a key this very text, as a shell takes it."""
    return shlex.quote(f"{key}={quoted(value)}")


def quoted(value: str, *, whole: bool = False) -> str:
    """Return a text in Hydra's quotes; `whole` keeps `${` from being a reference to another key."""
    text = value.replace("${", r"\${") if whole else value
    text = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + (r"\"" if found[2] else ""), text)
    return f'"{text}"'


def _is_no_text(value: Any, given: str) -> bool:
    """Tell whether Hydra has read something else than the text that alone can be meant: a number, or without blanks."""
    if isinstance(value, str):
        return given.strip(" \t") == value != given
    return isinstance(value, bool | int | float | list | dict)


def _unescaped(value: Any) -> Any:
    if isinstance(value, list):
        return [_unescaped(item) for item in value]
    if isinstance(value, dict):
        return {key: _unescaped(item) for key, item in value.items()}
    if isinstance(value, str):
        return re.sub(r"\\([ntr\\])", lambda found: _ESCAPES[found[1]], value)
    return value


def _written(value: Any) -> str:
    """Return a value in Hydra's grammar, every text in quotes."""
    if isinstance(value, list):
        return f"[{','.join(_written(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_written(item)}' for key, item in value.items())}}}"
    if isinstance(value, str):
        return quoted(value)
    return "null" if value is None else str(value)


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def _parsed(argument: str) -> Override | None:
    """Return what Hydra makes of an argument, or None if it can't read it."""
    try:
        return _parser().parse_override(argument)
    except HydraException:
        return None


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _is_list(kind: Any) -> bool:
    return typing.get_origin(kind) is list


def kind_of(key: str) -> Any:
    """Return the type that the schema gives a key, without its null; None where it knows none."""
    kind: Any = Experiment
    for part in key.split("."):
        if typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        elif dataclasses.is_dataclass(kind):
            kind = _hints(typing.cast("Hashable", kind)).get(part)
        else:
            return None
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            kind = next(one for one in typing.get_args(kind) if one is not type(None))
    return kind
