"""Measure what the loop itself costs: the share of its time in which nothing is trained, answered or asked.

    python benchmarks/loop_overhead.py             three runs of the default experiment
    python benchmarks/loop_overhead.py --quick     one run, ended after two iterations

Timers are put around `steps.train`, `steps.infer` and `Service.ask`, from outside, and around `loop.close_the_loop`;
overhead = (wall - train - infer - ask) / wall. What a stage imports at its first use (torch, peft, litellm) is the
stage's; the second and third run find it imported, in the same process. `ask` holds all that a call needs: litellm,
the pocket teacher and judge, which compute rather than wait, and the journal's durable writes. As the journal is
ours, its time is measured too, and `with_journal` is the share with it counted as overhead. An iteration reaches
from the end of the last one's record to the end of its own, the synthesis of its rows included. The figure is the
median share in percent; the target is 5% or less.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import Options, Result, conclude, folder, options, private, say, summary

PERCENT = 5.0
STAGES = ("train", "infer", "ask")


@dataclass
class Timeline:
    """When what was going on."""

    spans: list[tuple[str, float, float]] = field(default_factory=list)
    """Name, start and end of every timed call, in order of their ends."""

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with a timer around it."""

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.spans.append((name, start, time.perf_counter()))

        return timed

    def of(self, name: str) -> list[tuple[float, float]]:
        """Return the start and end of every call of that name."""
        return [(start, end) for found, start, end in self.spans if found == name]

    def inside(self, name: str, start: float, end: float) -> float:
        """Return the seconds that calls of that name took within a window."""
        return sum(max(0.0, min(end, b) - max(start, a)) for a, b in self.of(name))


def main() -> None:
    wanted = options(__doc__)
    load = os.getloadavg()
    raw = []
    for number in range(1 if wanted.quick else 3):
        with folder() as place:
            raw.append(measured(place, wanted))
        say(f"run {number}: {told(raw[-1]['loop'])}; stopped by {raw[-1]['stop_reason']}")
        for at, iteration in enumerate(raw[-1]["iterations"]):
            say(f"  iteration {at}: {told(iteration)}")
    conclude(result(raw, wanted), raw, wanted, load)


def measured(place: Path, wanted: Options) -> dict[str, Any]:
    """Run the experiment once in this process, from nothing, and return the shares of its time."""
    os.environ.update(private(place / "home"))
    from llamaduo.compose import compose
    from llamaduo.display import Display
    from llamaduo.environment import settle_libraries
    from llamaduo.errors import LlamaduoError
    from llamaduo.loop import run

    settle_libraries()

    limit = ["loop.max_iterations=2"] if wanted.quick else []
    try:
        composed = compose([f"runtime.results={place / 'results'}", *limit, *wanted.overrides])
        assert composed is not None
        with Watch() as timeline:
            state = run(composed.experiments[0], display=Display(quiet=True))
    except LlamaduoError as error:
        sys.exit(f"loop_overhead: {error}")
    return {"stop_reason": state.stop_reason, **windows(timeline)}


class Watch:
    """Timers around the stages, the service, the journal and the loop, for as long as it is open."""

    def __enter__(self) -> Timeline:
        from llamaduo import loop
        from llamaduo.service.client import Service
        from llamaduo.service.journal import Journal
        from llamaduo.steps import steps

        timeline = Timeline()
        places: list[tuple[Any, str, str]] = [
            (loop, "close_the_loop", "loop"),
            (steps.Steps, "record", "record"),
            (steps, "train", "train"),
            (steps, "infer", "infer"),
            (Service, "ask", "ask"),
            *((Journal, method, "journal") for method in ("find", "_commit")),
        ]
        self._before = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in places]
        for owner, attribute, name in places:
            setattr(owner, attribute, timeline.around(name, getattr(owner, attribute)))
        return timeline

    def __exit__(self, *_: object) -> None:
        for owner, attribute, function in self._before:
            setattr(owner, attribute, function)


def windows(timeline: Timeline) -> dict[str, Any]:
    """Return the shares of the whole loop and of each iteration."""
    ((start, end),) = timeline.of("loop")
    ends = [closed for _, closed in timeline.of("record")]
    starts = [start, *ends[:-1]]
    return {
        "loop": shares(timeline, start, end),
        "iterations": [shares(timeline, a, b) for a, b in zip(starts, ends, strict=True)],
    }


def shares(timeline: Timeline, start: float, end: float) -> dict[str, float]:
    """Return the seconds of a window by what they went to, and the share that is overhead, in percent."""
    wall = end - start
    seconds = {name: timeline.inside(name, start, end) for name in (*STAGES, "journal")}
    rest = wall - sum(seconds[name] for name in STAGES)
    percent = {"overhead_percent": 100 * rest / wall, "with_journal_percent": 100 * (rest + seconds["journal"]) / wall}
    return {name: round(value, 4) for name, value in {"wall": wall, **seconds, "rest": rest, **percent}.items()}


def told(window: dict[str, float]) -> str:
    """Return a window as a line."""
    parts = ", ".join(f"{name} {window[name]:.2f} s" for name in ("wall", *STAGES, "rest"))
    return f"{parts}; overhead {window['overhead_percent']:.2f}%, with journal {window['with_journal_percent']:.2f}%"


def result(raw: list[dict[str, Any]], wanted: Options) -> Result:
    """Sum the runs up."""
    values = [run["loop"]["overhead_percent"] for run in raw]
    spread = {
        "overhead_percent": summary(values),
        "with_journal_percent": summary([run["loop"]["with_journal_percent"] for run in raw]),
        "by_iteration_percent": summary([part["overhead_percent"] for run in raw for part in run["iterations"]]),
        "wall_seconds": summary([run["loop"]["wall"] for run in raw]),
    }
    figure = statistics.median(values)
    note = "quick: one run, ended after two iterations" if wanted.quick else "one process, a new home for every run"
    unit, target = "% of the loop's wall time", f"<= {PERCENT:g}%"
    return Result("loop_overhead", round(figure, 3), unit, target, figure <= PERCENT, len(raw), spread, note)


if __name__ == "__main__":
    main()
