"""The command line: argv in, one call, exit code out.

Exit codes: 0 done (passed, or stopped by a rule), 2 bad configuration or input, 3 stopped by the budget,
4 a service LLM or data failed for good, 130 interrupted. What can't be printed ends nothing: it is said on stderr when
all is done, and of commands that only print it is an error; a reader that has gone, such as `head`, is none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module

from llamaduo.commands.signals import interrupt_on_signals, lasting_output
from llamaduo.errors import ConfigError, InputError, LlamaduoError
from llamaduo.redaction import (
    complain,
    literal_key,
    name_secret,
    plain_output,
    redact_logs,
    redact_message,
    refusal,
    show_traceback,
)

HELP = """\
llamaduo moves a prompt that works on a service LLM to a small local LLM, and proves that it moved.

usage: llamaduo COMMAND [ARGUMENTS] [--debug]

commands:
  run [key=value ...]   run one experiment; without arguments the offline pocket profile, in about two minutes
                        -m sweeps over key=a,b, -cd DIR -cn NAME runs a study's YAML, --cfg job shows the configuration
  quote [key=value ...] what the run or sweep would cost in calls and hours, before anything is spent; needs no key
  import FILE... [-o OUT]  API logs and other data, read by what is in them, become a data set for data.path
  judge-audit           what the judges make of answers whose worth is known; every fault that shows is named
  audit RUN             what a run's answers and synthetic rows are like: refusals, toxic words, languages, lengths,
                        variety, and bias by identity terms: its own model answers swapped prompts; offline
  journal               what was spent, by run, stage, service LLM and day
  journal export FILE   every request and reply as .jsonl or .parquet; import FILE takes them in, verify checks them all
  export data RUN       a run's rows as a data set for the Hub, Parquet and a card; -o FOLDER, --format messages|paper,
                        --split adds dev and test
  status DIR            a study's grid: done, running, waiting, failed; cost and time left; --json for machines
  privacy FILE          what privacy=on would replace in a file of rows before anything is sent; --json for machines
  report DIR            tables, figures and pages (report.html) from the run folders below DIR; calls no model
  verify DIR            every number below DIR, or of an archive, derived again from stored replies; offline
  track DIR             sends finished runs below DIR to W&B, each step once, and a study's tables; --offline writes
                        W&B's own folders for `wandb sync` instead
  doctor                what this machine can do: hardware, keys, packages, writable folders

options:
  --debug               show the traceback of an error
  --version             show the version
  -h, --help            show this text

examples:
  llamaduo run
  llamaduo run task=coding local_model=pocket_gemma judge=pocket_panel
  llamaduo run -m local_model=pocket_llama,pocket_mistral task=classification,coding
  llamaduo run -m launch=joblib hydra.launcher.n_jobs=2 task=classification,coding
  llamaduo status results/runs
  llamaduo run data=file data.path=pairs.jsonl judge=reference synthesis=none
  llamaduo import logs/*.jsonl.gz -o pairs.jsonl
  llamaduo quote preset=service task=coding judge.repeats=10
  llamaduo judge-audit judge=today_panel preset=service --labels scored.csv
  llamaduo journal export study.parquet service.journal=study.sqlite
  llamaduo report results/runs
"""
COMMANDS = (
    "run",
    "quote",
    "import",
    "judge-audit",
    "audit",
    "journal",
    "export",
    "status",
    "privacy",
    "report",
    "verify",
    "track",
    "doctor",
)
"""Each is a module of `commands/`."""
_MODULES = {"import": "importing"}
"""Names that are none for a module."""
_ASKS_FOR_HELP = ("-h", "--help")
_HAVE_USAGE = ("import", "judge-audit", "audit", "journal", "export", "privacy", "verify")
"""Commands with a USAGE of their own, more than a line of HELP."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    with plain_output(), lasting_output() as lost:
        code = _main(arguments, debug=debug)
        with contextlib.suppress(AttributeError):  # it was closed from the beginning
            sys.stdout.flush()
        if not lost or lost[0].errno == errno.EPIPE:
            return code
        complain(f"what was printed is lost: {lost[0].strerror}; free space there, or print elsewhere.")
        return code if arguments[:1] in (["run"], ["judge-audit"]) else code or InputError.exit_code


def _main(arguments: list[str], *, debug: bool) -> int:
    try:
        interrupt_on_signals()
        _refuse_keys(arguments)
        arguments = [_at_home(argument) for argument in arguments]
        return _dispatch(arguments)
    except LlamaduoError as error:
        if debug:
            show_traceback(error)
        else:
            complain(str(error))
        return error.exit_code
    except Exception as error:
        if debug:
            show_traceback(error)
        elif isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            complain(f"{_short(str(error.filename))}: this name is longer than the file system takes; shorten it.")
            return 2
        else:
            complain(f"{type(error).__name__}: {error} (a fault of llamaduo's: --debug shows where)")
        return 1
    except KeyboardInterrupt:
        print("llamaduo: interrupted; the same command goes on where it stopped.", file=sys.stderr)
        return 130


def _short(name: str) -> str:
    return name if len(name) < 100 else f"{name[:60]}... ({len(name)} characters)"


def _refuse_keys(arguments: list[str]) -> None:
    """Raise ConfigError for an argument that holds a key, without repeating it."""
    for name in re.findall(r"api_key_env=(\w+)", " ".join(arguments)):
        name_secret(name)
    for argument in arguments:
        variable = literal_key(argument)
        if variable:
            name = redact_message(argument.partition("=")[0]) if "=" in argument else "the command line"
            raise ConfigError(refusal(name, variable))


def _at_home(argument: str) -> str:
    """Return an argument with the home folder in place of a `~` that the shell has left: `~/x`, `--archive=~/x`."""
    option, path = re.fullmatch(r"(-[\w-]+=)?(.*)", argument, re.DOTALL).groups("")  # type: ignore[union-attr]
    return option + os.path.expanduser(path) if path == "~" or path.startswith("~/") else argument


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("help", *_ASKS_FOR_HELP):
        print(HELP, end="")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command == "--version":
        from llamaduo import __version__

        print(f"llamaduo {__version__}")
        return 0
    if command not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        print(f"llamaduo: {command}: there is no such command.{hint} See llamaduo --help.", file=sys.stderr)
        return 2
    if rest[:1] in ([word] for word in _ASKS_FOR_HELP) and command not in _HAVE_USAGE:
        print(HELP, end="")
        return 0
    redact_logs()
    module = import_module(f"llamaduo.commands.{_MODULES.get(command, command.replace('-', '_'))}")
    if command in _HAVE_USAGE and {*_ASKS_FOR_HELP} & {*rest}:
        print(module.USAGE)
        return 0
    code: int = module.main(rest)
    return code
