"""The command line: argv in, one call, exit code out.

Exit codes: 0 done (passed, or stopped by a rule), 2 bad configuration or input, 3 stopped by the budget,
4 a service LLM or data failed for good, 130 interrupted.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamaduo.errors import ConfigError, LlamaduoError
from llamaduo.redaction import literal_key, name_secret, redact_logs, redact_message, refusal

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from llamaduo.compose import Composed, Outcome
    from llamaduo.config import Experiment
    from llamaduo.records import RunState

HELP = """\
llamaduo moves a prompt that works on a service LLM to a small local LLM, and proves that it moved.

usage: llamaduo COMMAND [ARGUMENTS] [--debug]

commands:
  run [key=value ...]   run one experiment; without arguments the offline pocket profile, in about two minutes
                        -m sweeps over key=a,b, -cd DIR -cn NAME runs a study's YAML, --cfg job shows the configuration
  quote [key=value ...] what the run or sweep would cost in calls and hours, before anything is spent; needs no key
  journal               what was spent, by run, stage, service LLM and day
  journal export FILE   every request and reply as .jsonl or .parquet; import FILE takes them in, verify checks them all
  report DIR            tables from the run folders below DIR, as text and CSV; calls no model
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
  llamaduo run data=file data.path=pairs.jsonl judge=reference synthesis=none
  llamaduo quote preset=service task=coding judge.repeats=10
  llamaduo journal export study.parquet service.journal=study.sqlite
  llamaduo report results/runs
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    redact_logs()
    try:
        _refuse_keys(arguments)
        return _dispatch(arguments)
    except LlamaduoError as error:
        if debug:
            raise
        _complain(str(error))
        return error.exit_code
    except Exception as error:
        if debug:
            raise
        _complain(f"{type(error).__name__}: {error} (a fault of llamaduo's: --debug shows where)")
        return 1
    except KeyboardInterrupt:
        print("llamaduo: interrupted; the same command goes on where it stopped.", file=sys.stderr)
        return 130


def _complain(text: str) -> None:
    print(f"llamaduo: {redact_message(text)}", file=sys.stderr)


def _refuse_keys(arguments: list[str]) -> None:
    """Raise ConfigError for an argument that holds a key, without repeating it."""
    for name in re.findall(r"api_key_env=(\w+)", " ".join(arguments)):
        name_secret(name)
    for argument in arguments:
        variable = literal_key(argument)
        if variable:
            name = redact_message(argument.partition("=")[0]) if "=" in argument else "the command line"
            raise ConfigError(refusal(name, variable))


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command == "--version":
        from llamaduo import __version__

        print(f"llamaduo {__version__}")
        return 0
    commands = {
        "run": _run,
        "quote": _quote,
        "journal": _journal,
        "report": _report,
        "verify": _verify,
        "track": _track,
        "doctor": _doctor,
    }
    if command not in commands:
        import difflib

        near = difflib.get_close_matches(command, commands, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        print(f"llamaduo: {command}: there is no such command.{hint} See llamaduo --help.", file=sys.stderr)
        return 2
    return commands[command](rest)


def _run(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        print(HELP, end="")
        return 0
    from llamaduo.compose import compose

    composed = compose(arguments)
    if composed is None:
        return 0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    signal.signal(signal.SIGTERM, _interrupt)
    if composed.sweep is not None:
        return _run_all(composed)
    return _exit_code(_run_one(composed.experiments[0]))


def _interrupt(*_: object) -> None:
    """Treat SIGTERM as Ctrl-C, which lets paid calls in flight come home."""
    signal.raise_signal(signal.SIGINT)


def _run_one(experiment: Experiment) -> RunState:
    """Run one experiment and show it; a finished one is shown without loading anything heavy."""
    from llamaduo.display import Display, pocket_label
    from llamaduo.loop import finished, run, run_folder
    from llamaduo.tracking import read_metrics

    folder = run_folder(experiment)
    with Display() as display:
        state = finished(experiment)
        if state:
            lines = [*pocket_label(experiment), f"{folder} is finished already; this is its result."]
            display.start(lines, read_metrics(folder))
        else:
            state = run(experiment, display=display)
        display.finish(state, str(folder))
    return state


def _exit_code(state: RunState) -> int:
    return 3 if state.stop_reason == "budget" else 0


def _run_all(composed: Composed) -> int:
    """Run every job of a sweep; one that fails doesn't stop the others, and the summary names it."""
    from llamaduo.config import DataSource
    from llamaduo.steps import load_data

    assert composed.sweep is not None
    for experiment in composed.experiments:
        if experiment.data.source is DataSource.file:
            load_data(experiment)
    outcomes = composed.sweep(_job)
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in ("run", "result", "similarity [95%]", "precision [95%]", "cost"):
        table.add_column(name, no_wrap=True)
    for outcome in outcomes:
        table.add_row(outcome["name"], outcome["result"], *outcome["scores"])
    console = _console()
    console.print()
    console.print(table)
    failed = [outcome for outcome in outcomes if outcome["exit_code"]]
    if failed:
        names = ", ".join(outcome["name"] for outcome in failed)
        print(f"llamaduo: {len(failed)} of {len(outcomes)} runs did not finish: {names}", file=sys.stderr)
    return int(failed[0]["exit_code"]) if failed else 0


def _job(experiment: Experiment) -> Outcome:
    """Run one job of a sweep and say what it came to; raises only when it is interrupted."""
    from llamaduo.loop import run_folder

    name = run_folder(experiment).name
    outcome = {"name": name, "result": "failed", "scores": ["", "", ""], "exit_code": 1}
    try:
        state = _run_one(experiment)
    except LlamaduoError as error:
        _complain(f"{name}: {error}")
        return outcome | {"exit_code": error.exit_code}
    except Exception as error:  # a fault in one job must not stop the others
        _complain(f"{name}: {type(error).__name__}: {error}")
        return outcome
    scores = [*_scores(run_folder(experiment), state), f"${state.cost_usd:.2f}"]
    return outcome | {"result": state.stop_reason, "scores": scores, "exit_code": _exit_code(state)}


def _scores(folder: Path, state: RunState) -> list[str]:
    """Return similarity and precision of the run's best iteration, as text."""
    from llamaduo.display import span
    from llamaduo.tracking import read_metrics

    if state.best_iteration is None:
        return ["", ""]
    row = read_metrics(folder)[state.best_iteration]
    similarity = span(row.similarity_mean, row.similarity_low, row.similarity_high)
    return [similarity, span(row.precision_mean, row.precision_low, row.precision_high)]


def _quote(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        print(HELP, end="")
        return 0
    import datetime

    from llamaduo.compose import compose
    from llamaduo.quote import quote, rendered

    composed = compose(arguments)
    if composed is not None:
        console = _console()
        for part in rendered(quote(composed.experiments, today=datetime.datetime.now(datetime.UTC).date())):
            console.print(part)
    return 0


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 140
    return console


def _journal(arguments: list[str]) -> int:
    from llamaduo.journal_command import journal

    return journal(arguments, _console())


def _verify(arguments: list[str]) -> int:
    from llamaduo.verify_command import verify_command

    return verify_command(arguments, _console())


def _report(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        print(HELP, end="")
        return 0
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise ConfigError("usage: llamaduo report DIR (a run's folder, a study's, or results/).")
    from llamaduo.studies.report import report

    print(report(arguments[0]), end="")
    return 0


def _track(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        print(HELP, end="")
        return 0
    from llamaduo.track_command import track

    print(track(arguments), end="")
    return 0


def _doctor(arguments: list[str]) -> int:
    from llamaduo.doctor import examine

    if arguments:
        raise ConfigError("usage: llamaduo doctor (it takes no arguments).")
    print(examine(), end="")
    return 0
