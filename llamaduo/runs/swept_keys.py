"""What tells the runs of a sweep apart: the keys that it sweeps, with each run's values.

told_apart([["train.lora_r=4", "task=coding"], ["train.lora_r=8", "task=coding"]])
-> [{"train.lora_r": "4"}, {"train.lora_r": "8"}]
in_plan(Path("results/runs/pocket_llama-coding-1a2b3c4d"))      the same of one run, from its study's `grid.json`
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llamaduo.files.regular import read_json


def told_apart(overrides: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Return each run's values of the keys in which runs differ; empty where a run doesn't set one."""
    settings = [_values(texts) for texts in overrides]
    names = list(dict.fromkeys(name for values in settings for name in values))
    swept = [name for name in names if len({values.get(name, "") for values in settings}) > 1]
    return [{name: values.get(name, "") for name in swept} for values in settings]


def in_plan(folder: Path) -> dict[str, str]:
    """Return what tells a run apart in its study's plan; nothing where there is none that can be read."""
    try:
        cells = read_json(folder.parent / "grid.json")["cells"]
        plan = {str(cell["run"]): [str(text) for text in cell["overrides"]] for cell in cells}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return dict(zip(plan, told_apart(list(plan.values())), strict=True)).get(folder.name, {})


def shown(values: dict[str, str], name: str) -> str:
    """Return a run's name, `<name>-<8 hex>`, with the values that it doesn't say itself."""
    said = name[:-9].split("-")
    return " ".join([name, *(f"{key}={value}" for key, value in values.items() if value and value not in said)])


def _values(texts: Sequence[str]) -> dict[str, str]:
    parts = (text.lstrip("+").partition("=") for text in texts)
    return {name: value.strip("\"'") for name, _, value in parts}
