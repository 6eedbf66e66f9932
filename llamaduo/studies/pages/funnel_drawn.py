"""The funnel of a run's data as SVG that goes into a page and takes its colours from the page's style sheet.

drawn(funnel(run))      five bars: requests, replies, pairs read, curated rows, trained rows; what was lost beside each

Requests and rows have scales of their own. A bar is cut where one iteration's part ends and the next one's begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup, escape

from llamaduo.studies.funnel import Funnel, Step

WIDTH = 560
_STEP, _BAR = 50, 16
_TOP = 16


@dataclass(frozen=True)
class _Bar:
    """One step of all iterations."""

    name: str
    field: str
    scale: str
    """The step whose count fills the width."""
    told: str
    """What is said behind its count."""


def drawn(found: Funnel) -> Markup:
    """Return the drawing of a run's way from requests to trained rows."""
    bars = _bars(found)
    height = _TOP + _STEP * len(bars) - (_STEP - _BAR - 14)
    label = "From requests to trained rows: " + "; ".join(
        f"{bar.name} {getattr(found.total, bar.field):,}" for bar in bars
    )
    parts = [piece for at, bar in enumerate(bars) for piece in _drawn(bar, found, _TOP + at * _STEP)]
    head = f'<svg class="curve funnel" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")  # noqa: S704 (what is not ours in it is escaped)


def _bars(found: Funnel) -> list[_Bar]:
    total = found.total
    failed = total.requests - total.replies
    read = f"{total.parsed / total.replies:.1f} a reply" if total.replies else ""
    broken = f"{total.dropped:,} were no whole pair" if total.dropped else ""
    gone = ", ".join(f"{one.count:,} {one.counted}" for one in found.removed)
    return [
        _Bar("Requests", "requests", "requests", ""),
        _Bar("Replies", "replies", "requests", f"{failed:,} failed" if failed else "all answered"),
        _Bar("Pairs read", "parsed", "parsed", ", ".join(filter(None, (read, broken)))),
        _Bar("Curated rows", "kept", "parsed", gone or "none removed"),
        _Bar("Trained rows", "trained", "parsed", f"{found.left:,} more than was wanted or could be used"
             if found.left else "all of them"),
    ]  # fmt: skip


def _drawn(bar: _Bar, found: Funnel, y: int) -> Iterator[str]:
    total: int = getattr(found.total, bar.field)
    most: int = max(getattr(found.total, bar.scale), total, 1)
    kind = "asked" if bar.scale == "requests" else "rows"
    yield (
        f'<text x="0" y="{y}"><tspan class="name">{bar.name}</tspan><tspan class="count" dx="7">{total:,}</tspan>'
        f'<tspan class="said" dx="10">{escape(_short(bar.told))}</tspan></text>'
    )
    yield f'<rect class="ground" x="0" y="{y + 7}" width="{WIDTH}" height="{_BAR}" rx="2"/>'
    at = 0.0
    for number, step in found.steps.items():
        part: int = getattr(step, bar.field)
        width = WIDTH * part / most
        if part:
            gap = 1.5 if at and width > 3 else 0.0
            told = escape(f"iteration {number}: {part:,} {bar.name.lower()}")
            yield (
                f'<rect class="{kind}" x="{at + gap:.1f}" y="{y + 7}" width="{max(width - gap, 0.8):.1f}" '
                f'height="{_BAR}"><title>{told}</title></rect>'
            )
        at += width


def _short(text: str) -> str:
    return text if len(text) <= 66 else f"{text[:63].rstrip()}..."


def share(part: int, whole: int) -> str:
    """Return a part in percent, empty where there is no whole; what is not all of it is not rounded to all."""
    if not whole:
        return ""
    percent = 100 * part / whole
    return f"{min(percent, 99.9):.1f}%" if 99 < percent < 100 else f"{percent:.0f}%"


def rows_told(found: Funnel) -> list[tuple[str, Step]]:
    """Return the lines of the table beside the drawing: an iteration each, then all."""
    lines = [(str(number), step) for number, step in found.steps.items()]
    return lines if len(lines) == 1 else [*lines, ("all", found.total)]
