"""What of a composed configuration follows from the rest of it, settled before anything reads it.

    settle(config)      a path that begins with `~` lies in the home folder; own data have no topic of the paper's

It changes the configuration in place. Stored configurations stay as they are.
"""

from __future__ import annotations

import os
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llamaduo.config import PATHS, DataSource
from llamaduo.errors import ConfigError

_TOPICS = ("Classification", "Closed QA", "Coding", "Summarization")
"""How `conf/task/` names the paper's tasks."""
_NO_ROBOTS = "HuggingFaceH4/no_robots"
"""The data set of these tasks."""


def settle(config: DictConfig) -> DictConfig:
    """Settle a composed configuration, and return it."""
    plain: Any = OmegaConf.to_container(config)
    for key in (*PATHS, "hydra.sweep.dir", "hydra.launcher.submitit_folder"):
        value = _at(plain, key)
        if isinstance(value, str) and value.startswith("~"):
            OmegaConf.update(config, key, at_home(key, value))
    rows_of_the_task = _at(plain, "data.category") in ("${task.category}", _at(plain, "task.category"))
    papers = _at(plain, "data.path") == _NO_ROBOTS and rows_of_the_task
    own = _at(plain, "data.source") in (DataSource.file, DataSource.hub) and not papers
    if own and _at(plain, "task.topic") in _TOPICS:
        OmegaConf.update(config, "task.topic", None)
    return config


def at_home(what: str, path: str) -> str:
    """Return a path with the home folder in place of `~`; raises ConfigError where there is none."""
    found = os.path.expanduser(path)
    if found == "~" or found.startswith("~/"):
        raise ConfigError(f"{what}={path}: this user has no home folder; write the whole path.")
    return found


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree
