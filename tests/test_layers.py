"""What the import layers promise: nothing below `compose` loads Hydra, nor what is imported in functions alone."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
BELOW = [name for layer in LAYERS[LAYERS.index("overrides") + 1 :] for name in layer.split(" | ")]


def test_the_layers_are_those_of_the_package() -> None:
    assert len(BELOW) == len(set(BELOW)) > 15
    assert "overrides" in LAYERS[LAYERS.index("compose") + 1 :], "it is compose's own, and reads Hydra's grammar"


@pytest.mark.parametrize("name", BELOW)
def test_nothing_below_compose_loads_hydra(name: str) -> None:
    code = (
        "import importlib, pkgutil, sys; whole = importlib.import_module(sys.argv[1]); "
        "[importlib.import_module(found.name) for found in pkgutil.walk_packages("
        "getattr(whole, '__path__', []), sys.argv[1] + '.')]; "
        "print({'hydra', 'litellm', 'wandb', 'torch', 'transformers', 'peft'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, f"llamaduo.{name}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "set()"
