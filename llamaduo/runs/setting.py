"""What a run is made with, as its folder says before the first stage.

Writes `config.yaml` (the resolved configuration, without secrets), `environment.json` (the machine), `identity.json`
(see `identity`) and `judge_prompt.txt` (a copy of the user's own rubric). What an earlier command wrote of them goes on
counting: a rubric is read from its copy, and `service.reasks` is never less than it was.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from llamaduo.config import Experiment, has_own_rubric, plain
from llamaduo.environment import describe
from llamaduo.runs import layout
from llamaduo.runs.folder import write_kept
from llamaduo.runs.marks import kept_fault

_BEFORE_BRACE = re.compile(r"(\\*)\$\{")


def write_config(experiment: Experiment, folder: Path) -> None:
    """Write down what the run is."""
    from omegaconf import OmegaConf

    text = OmegaConf.to_yaml(OmegaConf.create(_literal(plain(experiment))))
    write_kept(folder / layout.CONFIG, text.encode())


def _literal(tree: Any) -> Any:
    """Return a tree whose texts are read as what they are: no `${` in it is an interpolation."""
    if isinstance(tree, dict):
        return {name: _literal(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_literal(value) for value in tree]
    return _BEFORE_BRACE.sub(r"\1\1\\${", tree) if isinstance(tree, str) else tree


def with_reasks_of(folder: Path, experiment: Experiment) -> Experiment:
    """Return the experiment with `service.reasks` as it once was for this run: what was read by it is part of it."""
    stored = folder / layout.CONFIG
    if kept_fault(stored):
        return experiment  # none is there, or what is there is named by who reads it next
    from omegaconf import OmegaConf

    earlier = OmegaConf.select(OmegaConf.load(stored), "service.reasks") or 0
    service = replace(experiment.service, reasks=max(experiment.service.reasks, int(earlier)))
    return replace(experiment, service=service)


def write_environment(experiment: Experiment, folder: Path) -> list[str]:
    """Write down where the run is made, unless that is there; return what to say of what was damaged."""
    file = folder / layout.ENVIRONMENT
    fault = kept_fault(file)
    if not fault:
        return []
    told = [f"{file}: damaged ({fault}); it tells of this machine as it is today."] if file.exists() else []
    write_kept(file, describe(runtime=experiment.runtime.seed, data=experiment.data.seed).encode())
    return told


def rubric_copy(folder: Path) -> Path:
    """Return where a run's folder keeps its copy of the rubric."""
    return folder / layout.RUBRIC


def with_rubric_in(experiment: Experiment, folder: Path) -> Experiment:
    """Return the experiment with the user's own rubric read from its copy in the run's folder, which is made here.

    So the run judges with one text to its end, and `verify` and an archive have it.
    """
    if not has_own_rubric(experiment.judge):
        return experiment
    copy = rubric_copy(folder)
    if kept_fault(copy):
        write_kept(copy, Path(experiment.judge.prompt).expanduser().read_bytes())
    return replace(experiment, judge=replace(experiment.judge, prompt=str(copy)))
