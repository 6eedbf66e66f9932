"""Curves over iterations, as SVG that goes into a page and takes its colours from the page's style sheet.

curve(run, "precision")      the panel's mean with its 95% intervals, each judge's mean, the gate, the test split
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup, escape

from llamaduo.runs.record import RunRecord
from llamaduo.runs.state import Iteration

WIDTH, HEIGHT = 520, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 64, 14, 42


class _Axes:
    """Where scores and iterations lie on the drawing."""

    def __init__(self, columns: int, low: float) -> None:
        self.low = low
        step = (WIDTH - _LEFT - _RIGHT) / columns
        self._x = [round(_LEFT + (number + 0.5) * step, 1) for number in range(columns)]

    def x(self, column: int) -> float:
        return self._x[column]

    def y(self, score: float) -> float:
        share = (min(max(score, self.low), 100.0) - self.low) / (100.0 - self.low)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)


def curve(run: RunRecord, score: str) -> Markup:
    """Return the drawing of one score over the iterations; empty where there is none to draw."""
    scored = [line for line in run.history if getattr(line, f"{score}_mean") is not None]
    if not scored:
        return Markup("")
    test = (run.state.test or {}).get(score) or {}
    gate = gate_of(run, score)
    axes = _Axes(len(run.history) + bool(test.get("mean") is not None), _floor(scored, score, gate, test))
    parts = [
        *_grid(axes),
        *_gate(axes, gate),
        *_judges(axes, run, score),
        *_panel(axes, scored, score, run),
        *_ticks(axes, run.history),
        *_test(axes, len(run.history), test),
    ]
    label = f"{score.capitalize()} by iteration: " + "; ".join(_told(line, score) for line in scored)
    head = f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")  # noqa: S704 (what is not ours in it is escaped)


def gate_of(run: RunRecord, score: str) -> float | None:
    """Return the gate on a score, None without one."""
    gate: float | None = getattr(run.experiment.loop.gate, score)
    return gate


def _limits(line: Iteration, score: str) -> tuple[float, float, float]:
    """Return mean, low and high; the limits are the mean where there is no interval."""
    mean, low, high = (getattr(line, f"{score}_{name}") for name in ("mean", "low", "high"))
    return mean, mean if low is None else low, mean if high is None else high


def _told(line: Iteration, score: str) -> str:
    mean, low, high = (getattr(line, f"{score}_{name}") for name in ("mean", "low", "high"))
    return f"{line.iteration}: {mean:.1f}" + ("" if low is None or high is None else f" [{low:.1f}, {high:.1f}]")


def _floor(scored: Sequence[Iteration], score: str, gate: float | None, test: dict[str, Any]) -> float:
    """Return where the axis begins: a multiple of 10 below all that is drawn, or 0."""
    values = [_limits(line, score)[1] for line in scored]
    values += [v for line in scored for judge in line.judges.values() if (v := judge.get(f"{score}_mean")) is not None]
    values += [value for value in (gate, test.get("mean"), test.get("low")) if value is not None]
    low = (min(values) - 4) // 10 * 10
    return max(0.0, min(low, 80.0)) if low > 20 else 0.0


def _grid(axes: _Axes) -> Iterable[str]:
    step = 10 if axes.low >= 50 else 20
    for score in range(100, int(axes.low) - 1, -step):
        y = axes.y(score)
        yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick" x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{score}</text>'


def _gate(axes: _Axes, gate: float | None) -> Iterable[str]:
    if gate is not None:
        y = axes.y(gate)
        yield f'<line class="gate" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="gate-label" x="{WIDTH - _RIGHT + 6}" y="{y + 4}">gate {gate:g}</text>'


def _judges(axes: _Axes, run: RunRecord, score: str) -> Iterable[str]:
    if len(run.judges) < 2:
        return
    for number, name in enumerate(sorted(run.judges)):  # figures count them in this order too
        means = [(line.iteration, (line.judges.get(name) or {}).get(f"{score}_mean")) for line in run.history]
        points = [(axes.x(at), axes.y(mean)) for at, mean in means if mean is not None]
        place = series(number)
        if len(points) > 1:
            yield f'<polyline class="judge {place}" points="{_joined(points)}"/>'
        for (x, y), (at, mean) in zip(points, [m for m in means if m[1] is not None], strict=True):
            told = escape(f"{name}, iteration {at}: {mean:.1f}")
            yield f'<circle class="judge {place}" cx="{x}" cy="{y}" r="2.5"><title>{told}</title></circle>'


def series(number: int) -> str:
    """Return the style class of the judge with this number."""
    return f"s{number % 6 + 1}"


def _panel(axes: _Axes, scored: Sequence[Iteration], score: str, run: RunRecord) -> Iterable[str]:
    found = [(line, axes.x(line.iteration), *_limits(line, score)) for line in scored]
    if len(found) > 1:
        upper = [(x, axes.y(high)) for _, x, _, _, high in found]
        lower = [(x, axes.y(low)) for _, x, _, low, _ in found]
        yield f'<polygon class="band" points="{_joined(upper + lower[::-1])}"/>'
        yield f'<polyline class="mean" points="{_joined([(x, axes.y(mean)) for _, x, mean, _, _ in found])}"/>'
    for line, x, mean, low, high in found:
        yield from _whisker(axes, x, low, high, "mean")
        n = run.scored.get(line.iteration, {}).get(score)
        told = f"iteration {_told(line, score)}, {_behind(line.prompts, n)}"
        if line.iteration == run.state.best_iteration:
            yield f'<circle class="best" cx="{x}" cy="{axes.y(mean)}" r="8"/>'
        yield f'<circle class="mean" cx="{x}" cy="{axes.y(mean)}" r="4"><title>{told}</title></circle>'


def _behind(prompts: int | None, answers: int | None) -> str:
    """Return what stands behind a mark; prompts where the run recorded them."""
    if answers is None:
        return "n unknown"
    return f"n = {f'{prompts:,} prompts, ' if prompts else ''}{answers:,} answers"


def _whisker(axes: _Axes, x: float, low: float, high: float, name: str) -> Iterable[str]:
    top, bottom = axes.y(high), axes.y(low)
    if top != bottom:
        yield f'<path class="whisker {name}" d="M{x - 4} {top}h8M{x} {top}V{bottom}M{x - 4} {bottom}h8"/>'


def _ticks(axes: _Axes, history: Sequence[Iteration]) -> Iterable[str]:
    every = -(-len(history) // 10)
    for line in history[::every]:
        x = axes.x(line.iteration)
        yield f'<text class="tick" x="{x}" y="{HEIGHT - 24}" text-anchor="middle">{line.iteration}</text>'
        if len(history) <= 6:
            rows = f"{line.train_rows:,} rows"
            yield f'<text class="tick faint" x="{x}" y="{HEIGHT - 9}" text-anchor="middle">{rows}</text>'


def _test(axes: _Axes, column: int, test: dict[str, Any]) -> Iterable[str]:
    mean, low, high = (test.get(name) for name in ("mean", "low", "high"))
    if mean is None:
        return
    x, y = axes.x(column), axes.y(mean)
    if low is not None and high is not None:
        yield from _whisker(axes, x, low, high, "test")
    behind = _behind(test.get("prompts"), test.get("n"))
    told = f"test split: {mean:.1f}" + ("" if low is None else f" [{low:.1f}, {high:.1f}]") + f", {behind}"
    yield f'<path class="test" d="M{x} {y - 6}l6 6l-6 6l-6 -6z"><title>{told}</title></path>'
    yield f'<text class="tick" x="{x}" y="{HEIGHT - 24}" text-anchor="middle">test</text>'
    yield f'<text class="tick faint" x="{x}" y="{HEIGHT - 9}" text-anchor="middle">once</text>'


def _joined(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)
