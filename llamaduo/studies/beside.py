"""Who stands beside a run's models: the ceiling and the floors, each as the run that would have had it alone.

    for one in stand_ins(run): print(one.name, one.run.experiment.train.enabled, one.card["precision"]["mean"])

A floor is told like a run of `baseline=base` or `baseline=few_shot`, the ceiling like one of `infer=service_llm`: their
configurations say so, and with them every label that is made of one. Reads the run's record alone; their answers and
verdicts lie in `iterations/NAME/` and `iterations/test_NAME/`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llamaduo.config import FEW_SHOTS, Beside
from llamaduo.runs import layout
from llamaduo.runs.record import RunRecord


@dataclass(frozen=True)
class StandIn:
    """One that was judged beside a run's models."""

    name: Beside
    run: RunRecord
    """The run, by a name of its own and with the configuration that this one alone would have had."""
    split: str
    """The split that its scorecard is about: the one that the run itself is reported by."""
    card: dict[str, Any]
    """Its scorecard, as plain values."""
    verdicts: Path
    """Where its verdicts lie; its answers lie beside them."""


def stand_ins(run: RunRecord) -> list[StandIn]:
    """Return who was judged beside a run's models, on the split that the run is reported by: test, else the gate's."""
    on, split = ("test", "test") if run.state.test else ("gate", run.split)
    found = []
    for name in Beside:
        card = run.state.beside.get(name, {}).get(on)
        if card:
            alone = replace(run, name=own_name(run.name, name), config=_alone(run.config, name))
            verdicts = layout.place(run.folder, layout.beside(name, on)) / layout.VERDICTS
            found.append(StandIn(name, alone, split, card, verdicts))
    return found


def own_name(run: str, name: str) -> str:
    """Return what one that stands beside a run goes by among runs."""
    return f"{run}, {name}"


def _alone(config: dict[str, Any], name: Beside) -> dict[str, Any]:
    """Return a run's configuration with nothing trained and nothing synthesised, and with whose answers these are."""
    answers: dict[Beside, dict[str, Any]] = {
        Beside.service_llm: {"backend": "endpoint", "server": config["service_llm"], "temperature": None, "shots": 0},
        Beside.few_shot: {"shots": FEW_SHOTS},
    }
    loop: dict[str, Any] = config.get("loop") or {}
    return config | {
        "train": config["train"] | {"enabled": False},
        "synthesis": config["synthesis"] | {"enabled": False},
        "loop": loop | {"start": None, "growth": (loop.get("growth") or {}) | {"volumes": []}},
        "infer": (config.get("infer") or {}) | answers.get(name, {}),
    }
