"""From a command line to experiments, through Hydra.

    compose(["task=coding"]).experiments              one experiment
    compose(["-m", "task=coding,closed_qa"])          a sweep: every experiment is checked before any is run

`conf/` is looked up inside the installed package, then beside it. Hydra's own options (`-m`, `-cd`,
`-cn`, `--cfg`, `--resolve`, `--package`, `--info`) are understood; its errors become ConfigErrors that
name the nearest valid option.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from llamaduo.config import Experiment
from llamaduo.errors import ConfigError
from llamaduo.files.scratch import scratch_folder
from llamaduo.overrides.explained import explained, no_option, refuse_unknown
from llamaduo.overrides.grammar import given, read, refuse_sweeps
from llamaduo.overrides.hydra_settings import refuse_settings
from llamaduo.overrides.loader import hydra_over_conf
from llamaduo.overrides.settled import settle
from llamaduo.redaction import name_secret, redact_message

Task = Callable[[Experiment], None]
"""What a launcher does with one experiment; it has to be picklable."""


@dataclass
class Composed:
    """A command line, understood."""

    experiments: list[Experiment]
    """Every experiment that it asks for, each of them checked."""
    sweep: Sweep | None
    """How a sweep's experiments are run; None for a single run."""


@dataclass
class Sweep:
    """The jobs of a sweep, and the launcher that runs them."""

    overrides: list[list[str]]
    """What makes each experiment, in their order."""
    launcher: dict[str, Any]
    """The launcher's own settings, `hydra.launcher`."""
    launch: Callable[[Task, Sequence[int]], None]
    """Runs a function on the experiments of these numbers; raises whatever the launcher or the function raises."""
    configuration: str = "config"
    """The file that they are composed from (`-cn`), without its ending."""


def compose(argv: Sequence[str]) -> Composed | None:
    """Return what the arguments of `llamaduo run` ask for, or None if they asked to be shown something.

    Raises ConfigError with every problem found.
    """
    parser = get_args_parser()
    parser.prog = "llamaduo run"
    args = _parse(parser, argv)
    try:
        hydra = hydra_over_conf(args.config_dir)
        try:
            return _composed(hydra, parser, args)
        finally:
            GlobalHydra.instance().clear()
    except RecursionError as error:
        raise ConfigError("The configuration is nested too deeply.") from error
    except (HydraException, OmegaConfBaseException, ValueError, YAMLError) as error:
        raise ConfigError(explained(error)) from error


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}. See llamaduo --help.")

    parser.error = refuse  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(list(argv))
    wrong = [text for text in args.overrides if "=" not in text and not text.startswith("~")]
    if wrong:
        raise ConfigError(f"{wrong[0]}: not an override; write key=value, such as task=coding.")
    _refuse_options(args)
    args.overrides = read(args.overrides, sweeps=args.multirun)
    refuse_unknown(key for text in args.overrides if (key := _schema_key(text)))
    args.overrides = [f"++{text}" if _A_PARAMETER.match(text) else text for text in args.overrides]
    return args


def _refuse_options(args: argparse.Namespace) -> None:
    """Raise ConfigError for options of Hydra's that would change nothing here."""
    if args.config_path:
        raise ConfigError(f"-cp {args.config_path}: conf/ is llamaduo's own; name a folder of yours with -cd.")
    for name in ("shell_completion", "experimental_rerun"):
        if getattr(args, name):
            raise ConfigError(f"--{name.replace('_', '-')}: llamaduo has no use for this option of Hydra's.")
    if (args.resolve or args.package) and not args.cfg:
        raise ConfigError("--resolve and --package say how a configuration is shown: add --cfg job.")


def _schema_key(override: str) -> str | None:
    """Return the key that an override sets, if it can only be one of the schema's: no group, and none of Hydra's."""
    key = override.partition("=")[0].lstrip("+")
    return None if "." not in key or key.startswith(("~", "hydra.")) or {"/", "@", ":", "$"} & set(key) else key


_A_PARAMETER = re.compile(
    r"((service_llm|infer\.server|judge\.panel\.[^.=]+)\.(parameters|headers_env)|privacy\.patterns)\.[^=]+="
)
"""An override of what has free names, such as a service LLM's parameters: any may be set there, new or not."""


def _composed(hydra: Hydra, parser: argparse.ArgumentParser, args: argparse.Namespace) -> Composed | None:
    name, overrides = args.config_name or "config", args.overrides
    if args.cfg:
        with _redacted():
            _show(hydra, name, args)
        return None
    if args.info:
        with _redacted():
            hydra.show_info(args.info, config_name=name, overrides=overrides)
        return None
    if args.hydra_help or args.help:
        with _redacted():
            hydra.app_help(config_name=name, args_parser=parser, args=args)
        return None
    _refuse_missing_options(hydra, overrides)
    config = _config(hydra, name, overrides, sweeps=args.multirun)
    if config.hydra.mode is RunMode.MULTIRUN:
        return _sweep(hydra, name, config)
    return Composed(checked([config]), None)


def _refuse_missing_options(hydra: Hydra, overrides: Sequence[str]) -> None:
    """Raise ConfigError for an option that is not there, before anything is composed; launchers may lack a package."""
    repository = hydra.config_loader.repository  # type: ignore[attr-defined]  # the only loader has one
    for group, option in given(overrides):
        known = group.startswith("hydra/") or not repository.group_exists(group)
        if not known and not repository.config_exists(f"{group}/{option}"):
            raise ConfigError(no_option(group, option, repository.get_group_options(group)))


def _config(hydra: Hydra, name: str, arguments: list[str], *, sweeps: bool) -> DictConfig:
    """Compose the configuration of a run, or that of a sweep, which `hydra.mode` then says."""
    try:
        config = hydra.compose_config(
            name, arguments, run_mode=RunMode.MULTIRUN, with_log_configuration=False, validate_sweep_overrides=False
        )
    except (AttributeError, TypeError, AssertionError) as error:  # Hydra's, of a value where it expects another kind
        told = str(error).splitlines()[0]
        raise ConfigError(
            f"{' '.join(arguments)}: one of these has no place there, or is of a wrong kind ({told})."
        ) from error
    if sweeps:
        config.hydra.mode = RunMode.MULTIRUN
    elif config.hydra.mode is not RunMode.MULTIRUN:
        refuse_sweeps(arguments)
    return settle(refuse_settings(config))


def _show(hydra: Hydra, name: str, args: argparse.Namespace) -> None:
    """Print the configuration; those of a sweep's jobs are YAML documents that begin with their overrides."""
    jobs = [args.overrides]
    if args.multirun:
        jobs = _jobs(hydra, _config(hydra, name, args.overrides, sweeps=True)).overrides
    for overrides in jobs:
        if args.multirun:
            print(f"--- # {' '.join(overrides)}")
        hydra.show_cfg(name, overrides, cfg_type=args.cfg, package=args.package, resolve=args.resolve)


@contextlib.contextmanager
def _redacted() -> Iterator[None]:
    """Redact what is printed: an interpolation may bring a key into it."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        for variable in re.findall(r"api_key_env: (\w+)", printed.getvalue()):
            name_secret(variable)
        print(redact_message(printed.getvalue()), end="")


class _Collect(Launcher):
    """A launcher that runs nothing and keeps the configuration of every job."""

    def __init__(self, hydra: Hydra, config: DictConfig) -> None:
        self._hydra, self._config = hydra, config
        self.overrides: list[list[str]] = []
        self.configs: list[DictConfig] = []

    def setup(self, **_: Any) -> None:
        """Nothing to set up."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose every job and keep it."""
        done = []
        for overrides in job_overrides:
            self.overrides.append(list(overrides))
            self.configs.append(self._hydra.config_loader.load_sweep_config(self._config, list(overrides)))
            job = JobReturn(status=JobStatus.COMPLETED)
            job.return_value = None
            done.append(job)
        return done


def _sweep(hydra: Hydra, name: str, config: DictConfig) -> Composed:
    """Compose every job of a sweep, check them all, and return how to run them."""
    jobs = _jobs(hydra, config)
    if not jobs.overrides:
        given = " ".join(config.hydra.overrides.task)
        raise ConfigError(f"-m {given}: this comes to no run at all: a glob or a range finds nothing.")

    def launch(task: Task, numbers: Sequence[int]) -> None:
        GlobalHydra.instance().initialize(hydra)
        try:
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=_no_callbacks()),
                task_function=partial(_typed, task),
                config=config,
            )
            for job in launcher.launch([jobs.overrides[number] for number in numbers], initial_job_idx=0):
                _ = job.return_value  # raises what composing it has raised
        finally:
            GlobalHydra.instance().clear()

    settings: Any = OmegaConf.to_container(config.hydra.launcher)
    if "submitit_folder" in settings:
        settings["submitit_folder"] = config.hydra.launcher.submitit_folder
    return Composed(checked(jobs.configs), Sweep(jobs.overrides, settings, launch, name.removesuffix(".yaml")))


def _typed(task: Task, config: DictConfig) -> None:
    task(to_experiment(config))


def _jobs(hydra: Hydra, config: DictConfig) -> _Collect:
    """Compose every job of a sweep; what Hydra's sweeper writes on the way goes to a folder that is thrown away."""
    with scratch_folder() as scratch:
        apart = config.copy()
        apart.hydra.sweep.dir = str(scratch)
        sweeper: Any = Plugins.instance().instantiate_sweeper(
            config=apart,
            hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=_no_callbacks()),
            task_function=lambda _: None,
        )
        sweeper.validate_batch_is_legal = lambda _: None  # _Collect composes every job as it is
        sweeper.launcher = collect = _Collect(hydra, config)
        sweeper.sweep(arguments=list(config.hydra.overrides.task))
    return collect


def _no_callbacks() -> Any:
    from hydra._internal.callbacks import Callbacks

    return Callbacks()


def to_experiment(config: DictConfig) -> Experiment:
    """Return the typed experiment of a composed configuration; raises ConfigError for values left open."""
    config = config.copy()
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError("\n".join(f"{key} is not set: add {key}=VALUE." for key in missing))
    refuse_unknown(_paths(OmegaConf.to_container(config)))
    experiment = OmegaConf.to_object(config)
    assert isinstance(experiment, Experiment)
    return experiment


def _paths(tree: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every key."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield f"{prefix}{name}"
            yield from _paths(value, f"{prefix}{name}.")


def checked(configs: Iterable[DictConfig]) -> list[Experiment]:
    """Return the experiments; raises ConfigError with the problems of all of them."""
    from llamaduo.checks import problems

    experiments = [to_experiment(config) for config in configs]
    found: dict[str, None] = {}
    for experiment in experiments:
        found.update(dict.fromkeys(problems(experiment)))
    if found:
        raise ConfigError("\n".join(found))
    return experiments
