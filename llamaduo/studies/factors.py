"""Factors: what tells runs apart, and what of it a study set out to vary.

apart(configs, alike)               settings in which configurations differ that are equal otherwise
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llamaduo.config import without_influence
from llamaduo.studies.study import Study
from llamaduo.studies.tidy import IDENTITY, Row, identity


def apart(configs: Sequence[dict[str, Any]], alike: Sequence[Any]) -> list[dict[str, str]]:
    """Return the settings in which configurations differ that are equal in `alike`, with the values of each of all."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for config, group in zip(configs, alike, strict=True):
        groups.setdefault(group, []).append(config)
    differing: dict[str, None] = {}
    for group in groups.values():
        if len(group) > 1:
            leaves = [_leaves(without_influence(config)) for config in group]
            names = dict.fromkeys(name for found in leaves for name in found)
            differing |= {name: None for name in names if len({repr(found.get(name)) for found in leaves}) > 1}
    if not differing:
        return [{} for _ in configs]
    return [{name: _text(values.get(name)) for name in differing} for values in map(_leaves, configs)]


def told(values: dict[str, str]) -> str | None:
    """Return settings as one text; None without any."""
    return ", ".join(f"{name}={value}" for name, value in values.items()) or None


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of a tree by their dotted names; a list is one value."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {name: leaf for key, value in tree.items() for name, leaf in _leaves(value, f"{prefix}{key}.").items()}


REPEATS = ("seed", "data_seed")
"""Columns in which runs only repeat each other: their answers are put together."""

OTHER = "other_settings"
"""What tells runs apart that are alike in all other columns."""

NAMES = {
    "local_model": "model", "service_llm": "generator", "lora_r": "LoRA rank", "lora_alpha": "LoRA alpha",
    "learning_rate": "learning rate", "judge_prompt": "judge prompt", "judge_repeats": "judge repeats",
    "data_seed": "data seed", OTHER: "other settings",
}  # fmt: skip
"""How columns are called in tables, where their own name won't do."""

_ORDER = (*IDENTITY[2:], "judges", OTHER, "study")


def identities(study: Study) -> list[Row]:
    """Return what each run is, finished or not."""
    rows = [identity(run) | {"judges": " + ".join(run.judges), OTHER: None} for run in study.runs]
    others = apart([run.config for run in study.runs], [key(row, _ORDER) for row in rows])
    return [row | {OTHER: told(other)} for row, other in zip(rows, others, strict=True)]


def setting(row: Row) -> tuple[Any, ...]:
    """Return what a run is a repeat of: equal for runs that differ in their seeds alone, whatever study they are of."""
    names = [name for name in _ORDER if name not in (*REPEATS, "study")]
    return key(row | {OTHER: row.get(OTHER)}, names)


def varying(rows: Sequence[Row]) -> list[str]:
    """Return the columns needed to tell runs apart, the study first if it is one of them.

    A column that goes with others (an alpha that is always twice the rank) is left out, the later one of the two. The
    method always stays: that a base model has no rank is no reason to call it rank none.
    """
    rows = [{OTHER: None, **row} for row in rows]
    needed = [name for name in _ORDER if len({row[name] for row in rows}) > 1]
    apart = len(_keys(rows, needed))
    for name in reversed(needed.copy()):
        rest = [other for other in needed if other != name]
        if name != "method" and len(_keys(rows, rest)) == apart:
            needed = rest
    return sorted(needed, key=lambda name: name != "study")


def _keys(rows: Sequence[Row], names: Sequence[str]) -> set[tuple[Any, ...]]:
    return {key(row, names) for row in rows}


def key(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    """Return the values of some columns."""
    return tuple(row[name] for name in names)


def in_order(value: Any) -> tuple[Any, ...]:
    """Return what to sort values of a column by: null first, then numbers, base models before shots, then text."""
    if isinstance(value, tuple):
        return tuple(in_order(part) for part in value)
    first = {None: 0, "base": 1}.get(value, 2)
    return (first, isinstance(value, str), value if value is not None else 0)


def shown(value: Any) -> str:
    """Return a value of a column as text."""
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def contexts(rows: Sequence[Row], names: Sequence[str], factor: str) -> dict[tuple[Any, ...], dict[Any, list[Row]]]:
    """Return, by the values of all other swept columns, the rows of each level of a factor; two levels or more.

    A run to which a column doesn't apply (null, such as the rank of a base model) stands beside every run that agrees
    with it in the rest.
    """
    others = [name for name in names if name != factor and name not in REPEATS]
    by_key: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        by_key.setdefault(key(row, others), []).append(row)
    found: dict[tuple[Any, ...], dict[Any, list[Row]]] = {}
    for here, group in by_key.items():
        for place in _places(here, by_key):
            levels = found.setdefault(place, {})
            for row in group:
                levels.setdefault(row[factor], []).append(row)
    return {
        place: dict(sorted(found[place].items(), key=lambda item: in_order(item[0])))
        for place in sorted(found, key=in_order)
        if len(found[place]) > 1
    }


def _places(here: tuple[Any, ...], known: dict[tuple[Any, ...], list[Row]]) -> list[tuple[Any, ...]]:
    """Return the keys that a key with nulls agrees with; itself if it has none or nothing fits."""
    if None not in here:
        return [here]
    fits = [
        other
        for other in known
        if other != here and None not in other and all(a in (None, b) for a, b in zip(here, other, strict=True))
    ]
    return fits or [here]
