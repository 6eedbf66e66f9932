"""Measure how fast llamaduo answers where it has nothing heavy to do.

    python benchmarks/startup.py             ten rounds
    python benchmarks/startup.py --quick     three rounds

Four commands, each a new process, in turns after one round that isn't counted: the help, a printed configuration, a
configuration error, and the run that is finished already (made first, with preset=smoke and one iteration). Their
median wall times are to be at most 0.6 s, and 1.0 s for the finished run; and none of them may import torch,
transformers, litellm or wandb, which `python -X importtime` shows. An interpreter that does nothing runs beside
them, for comparison. The figure is the slowest median of the first three in seconds.
"""

from __future__ import annotations

import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Options, Ran, Result, conclude, folder, llamaduo, options, run, say, summary

HEAVY = {"torch", "transformers", "litellm", "wandb"}
TARGET = "medians <= 0.6 s (help, cfg, error) and <= 1.0 s (finished); none imports " + ", ".join(sorted(HEAVY))
PEER = "interpreter alone"


@dataclass(frozen=True)
class Command:
    """A command to time."""

    name: str
    arguments: list[str]
    exit_code: int
    """What it has to end with: a command that broke is not timed."""
    limit: float
    """Target of its median, in seconds."""


def main() -> None:
    wanted = options(__doc__)
    load = os.getloadavg()
    with folder() as place:
        finished = ["run", "preset=smoke", "loop.max_iterations=1", f"runtime.results={place}", *wanted.overrides]
        checked(llamaduo(*finished, cwd=place, home=place / "home"), Command("making a run", finished, 0, 0))
        commands = [
            Command("help", ["--help"], 0, 0.6),
            Command("cfg", ["run", "--cfg", "job"], 0, 0.6),
            Command("error", ["run", "task=nosuch"], 2, 0.6),
            Command("finished", finished, 0, 1.0),
        ]
        seconds = timed(commands, place, rounds=3 if wanted.quick else 10)
        heavy = {command.name: imports(command, place) for command in commands}
    shown(commands, seconds, heavy)
    raw = {"seconds": seconds, "heavy_imports": heavy, "commands": {c.name: c.arguments for c in commands}}
    conclude(result(commands, seconds, heavy, wanted), raw, wanted, load)


def checked(ran: Ran, command: Command) -> Ran:
    """Return what ran, if it ended as it has to; otherwise end the benchmark."""
    if ran.exit_code != command.exit_code:
        told = (ran.stderr or ran.stdout).strip()[-500:]
        sys.exit(f"startup: {command.name} ended with {ran.exit_code}, not {command.exit_code}: {told}")
    return ran


def timed(commands: list[Command], place: Path, rounds: int) -> dict[str, list[float]]:
    """Return the wall times of every command, run in turns; the first round warms the disk cache."""
    seconds: dict[str, list[float]] = {name: [] for name in [*(command.name for command in commands), PEER]}
    for number in range(rounds + 1):
        for command in commands:
            ran = checked(llamaduo(*command.arguments, cwd=place, home=place / "home"), command)
            if number:
                seconds[command.name].append(round(ran.seconds, 4))
        bare = run([sys.executable, "-c", "pass"], cwd=place, home=place / "home")
        if number:
            seconds[PEER].append(round(bare.seconds, 4))
    return seconds


def imports(command: Command, place: Path) -> list[str]:
    """Return the heavy packages that a command imports."""
    ran = llamaduo(*command.arguments, cwd=place, home=place / "home", python=["-X", "importtime"])
    lines = [line for line in checked(ran, command).stderr.splitlines() if line.startswith("import time:")]
    names = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}
    if "llamaduo" not in names:
        sys.exit(f"startup: -X importtime told nothing of {command.name}; its imports can't be checked.")
    return sorted(names & HEAVY)


def shown(commands: list[Command], seconds: dict[str, list[float]], heavy: dict[str, list[str]]) -> None:
    """Print a line a command."""
    limits = {command.name: f"<= {command.limit:g} s" for command in commands}
    for name, values in seconds.items():
        found = summary(values)
        loaded = ", ".join(heavy.get(name, [])) or "none"
        say(
            f"{name:18} median {found['median']:.3f} s [{found['min']:.3f}, {found['max']:.3f}], n = {len(values)}, "
            f"target {limits.get(name, 'none')}, heavy imports: {loaded}"
        )


def result(
    commands: list[Command], seconds: dict[str, list[float]], heavy: dict[str, list[str]], wanted: Options
) -> Result:
    """Sum the rounds up."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    slow = [command.name for command in commands if medians[command.name] > command.limit]
    loading = [name for name, found in heavy.items() if found]
    complaints = [f"too slow: {', '.join(slow)}"] * bool(slow) + [f"heavy imports: {', '.join(loading)}"] * bool(
        loading
    )
    note = "; ".join(complaints) or "every command is fast enough and imports nothing heavy"
    if wanted.quick:
        note = f"quick: {len(seconds[PEER])} rounds in place of 10; {note}"
    spread: dict[str, Any] = {name: summary(values) for name, values in seconds.items()}
    figure = max(medians[command.name] for command in commands[:3])
    return Result("startup", round(figure, 4), "s", TARGET, not complaints, len(seconds[PEER]), spread, note)


if __name__ == "__main__":
    main()
