"""Hydra over `conf/`: where configurations are looked for, and each of a sweep's composed once in a process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from llamaduo.config import Experiment, conf_dir
from llamaduo.errors import ConfigError
from llamaduo.overrides.hydra_settings import read_files_with_limits, refuse_search_path, refuse_settings
from llamaduo.overrides.settled import settle


def hydra_over_conf(config_dir: str | None) -> Hydra:
    """Return Hydra over `conf/`, with the schema registered and a study's folder in front."""
    ConfigStore.instance().store(name="schema", node=Experiment)
    search = create_config_search_path(str(conf_dir()))
    if config_dir is not None:
        place = Path(os.path.expanduser(config_dir))
        if not place.is_dir():
            what = (
                "is a file; name the folder it lies in, and the file with -cn" if place.exists() else "no such folder"
            )
            raise ConfigError(f"-cd {config_dir}: {what}.")
        search.prepend("command-line", f"file://{place.resolve()}", SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    read_files_with_limits()
    hydra = Hydra(task_name="llamaduo", config_loader=_Loader(config_search_path=search))
    GlobalHydra.instance().initialize(hydra)
    return hydra


class _Loader(ConfigLoaderImpl):
    """Hydra's loader, which composes each job of a sweep once in a process."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._jobs: dict[tuple[str, ...], DictConfig] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_jobs": {}}  # a job on its way to another process composes itself there

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return the configuration of a job."""
        name = tuple(sweep_overrides)
        if name not in self._jobs:
            self._jobs[name] = settle(refuse_settings(super().load_sweep_config(master_config, sweep_overrides)))
        return self._jobs[name].copy()

    def _process_config_searchpath(
        self, config_name: str | None, parsed_overrides: list[Any], repo: CachingConfigRepository
    ) -> None:
        """Look for configurations in folders alone."""
        loaded = repo.load_config(config_path=config_name) if config_name else None
        named = [OmegaConf.select(loaded.config, "hydra.searchpath") if loaded else None]
        named += [override.value() for override in parsed_overrides if override.get_key_element() == "hydra.searchpath"]
        for entries in named:
            refuse_search_path(entries or ())
        super()._process_config_searchpath(config_name, parsed_overrides, repo)
