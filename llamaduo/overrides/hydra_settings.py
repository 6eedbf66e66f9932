"""What a configuration may tell Hydra, and what it may not: a YAML may be a stranger's.

    refuse_settings(config)         raises ConfigError for what would write, run or import something unasked
    refuse_search_path(entries)
    read_files_with_limits()        aliases make a small file fill the memory

Hydra's own settings can name files to empty (logging), folders to write into, variables to set and classes to call;
llamaduo needs none of them. And `${oc.env:NAME}`, which would carry a secret of the environment into what is written,
is resolved nowhere; `${host:}` is the machine's name.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.core_plugins.file_config_source import FileConfigSource as HydrasFiles
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from llamaduo.errors import ConfigError
from llamaduo.files.yaml_limits import MOST, refuse_too_much

_FIXED: dict[str, Any] = {
    "output_subdir": None,
    "run.dir": ".",
    "sweep.subdir": ".",
    "job.chdir": False,
    "job.env_set": {},
    "job.env_copy": [],
    "callbacks": {},
    "verbose": False,
    "job_logging": {"version": 1, "root": {"level": "ERROR"}, "disable_existing_loggers": True},
    "hydra_logging": {"version": 1, "root": {"level": "ERROR"}, "disable_existing_loggers": True},
}
"""What these have to be, as `conf/config.yaml` has them; each would let a configuration write or call something."""
_CALLED = {"_target_", "_args_", "_partial_", "_recursive_", "_convert_"}
"""Names by which Hydra finds something to call, wherever they stand below what it instantiates."""
_INSTANTIATED = ("launcher", "sweeper")
_PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.hydra_")


def refuse_settings(config: DictConfig) -> DictConfig:
    """Return a composed configuration; raises ConfigError for settings of Hydra that it may not make."""
    plain: Any = OmegaConf.to_container(config.hydra, resolve=False)
    for key, wanted in _FIXED.items():
        value = plain
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value != wanted:
            raise ConfigError(f"hydra.{key}: is llamaduo's to set, since it can write or run something; take it out.")
    for part in _INSTANTIATED:
        node: Any = OmegaConf.to_container(config.hydra[part], resolve=True, throw_on_missing=False)
        if not str(node.get("_target_")).startswith(_PLUGINS):
            raise ConfigError(f"hydra.{part}._target_: none of Hydra's; choose it with launch=NAME.")
        called = next((key for key in _paths(node) if key.split(".")[-1] in _CALLED and key != "_target_"), None)
        if called:
            raise ConfigError(f"hydra.{part}.{called}: would call something; take it out.")
    _ = (
        config.study,
        config.runtime.results,
        config.hydra.sweep.dir,
    )  # raises what resolving them raises, the first named
    return config


def _paths(tree: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every key, those in lists included."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in pairs:
        yield f"{prefix}{name}"
        yield from _paths(value, f"{prefix}{name}.")


class FileConfigSource(HydrasFiles):
    """Hydra's source of files, which parses none that comes to more than a configuration can.

    Hydra registers its own again as it launches, and passes it over beside one of the same name.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        """Return a configuration; raises ConfigError for one that would fill the memory."""
        path = Path(self.path, self._normalize_file_name(config_path))
        try:
            if path.is_file():
                with path.open(encoding="utf-8") as file:
                    refuse_too_much(file.read(MOST + 1))
        except (ValueError, OSError, YAMLError) as error:
            told = " ".join(str(error).split()).replace(' in "<unicode string>"', "")
            raise ConfigError(f"{path}: not read as a configuration: {told}.") from error
        return super().load_config(config_path)


def read_files_with_limits() -> None:
    """Let Hydra read files by ours; its plugins have to be known already."""
    SourcesRegistry.instance().types["file"] = FileConfigSource


def refuse_search_path(entries: Iterable[Any]) -> None:
    """Raise ConfigError for places of configurations that are no folders: Hydra imports a package that is named."""
    for entry in entries:
        scheme, separator, _ = str(entry).partition("://")
        if separator and scheme != "file":
            raise ConfigError(f"hydra.searchpath={entry}: only folders are searched; name one.")


def _refuse_environment(name: str = "", *_: Any) -> NoReturn:
    raise ValueError(
        f"${{oc.env:{name}}} is not resolved, since a configuration is written down; name the variable with "
        "api_key_env, base_url_env or headers_env, or give the value on the command line"
    )


OmegaConf.register_new_resolver("oc.env", _refuse_environment, replace=True)
OmegaConf.register_new_resolver("host", socket.gethostname, replace=True)
