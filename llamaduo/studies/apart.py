"""What tells runs apart that are alike in all that is shown of them: the rest of their configurations.

apart(runs, rows)      [None, None], or ["train.weight_decay=0.1", "train.weight_decay=0.0"]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llamaduo.config import without_influence


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
