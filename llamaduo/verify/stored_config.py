"""A run's stored configuration, which may be a stranger's: checked as any other, and made to reach nothing of ours.

    experiment = stored_experiment(record)                raises ConfigError, InputError or ValueError
    isolate(experiment)                                   its names and paths are ours from here on

A configuration is stored resolved: an interpolation in it is refused (`interpolations`). The checks are those of a new
run, but for what they ask of this machine; and what would keep a derivation busy for hours is refused.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from llamaduo.checks import problems
from llamaduo.compose import to_experiment
from llamaduo.config import (
    DataSource,
    Experiment,
    Isolation,
    Launch,
    Quantization,
    Strategy,
    WandbMode,
    has_own_rubric,
)
from llamaduo.errors import ConfigError
from llamaduo.runs.setting import rubric_copy

if TYPE_CHECKING:
    from llamaduo.runs.record import RunRecord

OURS = "derived"
"""What takes the place of names and paths."""
_INTERPOLATION = re.compile(r"(?<!\\)(?:\\\\)*\$\{")
_MOST = {
    "data.train_rows": 100_000, "data.dev_rows": 100_000, "data.test_rows": 100_000, "judge.repeats": 1000,
    "infer.samples": 1000, "infer.shots": 1000, "loop.max_iterations": 1000, "loop.growth.factor": 1000,
    "synthesis.overdraw": 100,
}  # fmt: skip
"""More of these would keep a derivation busy for hours, or fill the memory."""


def stored_experiment(record: RunRecord) -> Experiment:
    """Return the experiment of a run's folder, set to replay; its own rubric is the copy in the folder."""
    from omegaconf import DictConfig, OmegaConf

    config = OmegaConf.merge(OmegaConf.structured(Experiment), OmegaConf.create(record.config))
    assert isinstance(config, DictConfig)
    experiment = to_experiment(config)
    experiment.tracking.wandb = WandbMode.off
    experiment.service.replay = True
    experiment.judge.any_scale = True  # what was decided by its scores is derived from them
    if has_own_rubric(experiment.judge):
        copied = rubric_copy(record.folder)
        if not copied.is_file():
            raise ConfigError(f"judge.prompt: a file of its own, of which {copied.name} is no copy here")
        experiment.judge.prompt = str(copied)
    found = problems(_for_any_machine(experiment)) + list(_too_much(experiment))
    if found:
        raise ConfigError(" ".join(found))
    return experiment


def interpolations(tree: Any, path: str = "") -> str:
    """Say where there is a `${...}` in a name or a value; empty for none."""
    if isinstance(tree, dict):
        pairs = [(str(name), f"a name in {path or 'it'}") for name in tree]
        pairs += [(value, f"{path}.{name}" if path else str(name)) for name, value in tree.items()]
        return next((told for value, place in pairs if (told := interpolations(value, place))), "")
    if isinstance(tree, list):
        return next((told for at, value in enumerate(tree) if (told := interpolations(value, f"{path}.{at}"))), "")
    found = isinstance(tree, str) and _INTERPOLATION.search(tree)
    return f"{path}: a stored value has no ${{...}}, and it is not resolved" if found else ""


def _for_any_machine(experiment: Experiment) -> Experiment:
    """Return a copy without what depends on the machine: GPU, packages, files and folders."""
    made = copy.deepcopy(experiment)
    made.train.quantization, made.train.liger = Quantization.none, False
    made.runtime.device, made.runtime.launch, made.runtime.isolation = "auto", Launch.single, Isolation.auto
    if not made.local_model.path.startswith("pocket:"):
        made.local_model.path = OURS
    made.local_model.tokenizer = OURS if made.local_model.tokenizer else None
    if made.data.source is DataSource.file:
        made.data.source, made.data.path, made.data.revision = DataSource.hub, OURS, OURS
    if made.synthesis.strategy is Strategy.label:
        made.synthesis.strategy, made.data.unlabelled = None, None
    return made


def _too_much(experiment: Experiment) -> list[str]:
    values = {path: _at(experiment, path) for path in _MOST}
    return [
        f"{path}={value}: nothing is derived beyond {_MOST[path]:,}."
        for path, value in values.items()
        if value is not None and value > _MOST[path]
    ]


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    return value


def unopened(experiment: Experiment) -> Experiment:
    """Return a copy whose models' folders nobody opens: for a fingerprint, which is told what they held."""
    made = copy.deepcopy(experiment)
    made.local_model.path = made.runtime.accelerate = f"pocket:{OURS}"
    made.local_model.tokenizer = None
    return made


def isolate(experiment: Experiment) -> None:
    """Put our own names and paths into an experiment, none of which leads anywhere, and let nothing be run."""
    experiment.study = experiment.name = OURS
    experiment.data.source, experiment.data.path, experiment.data.unlabelled = DataSource.pocket, None, None
    experiment.local_model.path, experiment.local_model.tokenizer = OURS, None
    experiment.local_model.trust_remote_code = False
    experiment.infer.vllm = OURS
    experiment.runtime.accelerate, experiment.runtime.cache = OURS, None
    experiment.runtime.retries = 0
