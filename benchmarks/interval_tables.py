"""The tables of `intervals.py` in Markdown, from its raw figures: what `docs/evidence.md` shows.

python benchmarks/interval_tables.py       from benchmarks/results/intervals.json
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from measure import RESULTS

METHODS = ("gaffke", "bca", "student", "betting", "anderson")
NAMES = {
    "gaffke": "ours",
    "bca": "BCa",
    "student": "Student's t",
    "betting": "betting",
    "anderson": "Anderson's",
    "mean": "none: the mean",
    "auto": "by the number of prompts",
}


def tables(raw: dict[str, Any]) -> str:
    """Return all tables, each under a line that says what it shows."""
    return "\n\n".join(
        f"{title}\n\n{table}"
        for title, table in (
            ("Lower 95% limits above the truth, in % (nominal 2.5): worst of all true means and repeats", _cover(raw)),
            ("Mean width of 95% intervals, and in brackets the % of lower limits above the truth", _widths(raw)),
            ("Worlds made to break limits: % of lower limits above the truth / upper limits below it", _harsh(raw)),
            ("Whole runs, worst of the three correlations, in %", _runs(raw["runs"] + raw["auto"])),
            ("Prompts for a power of 50% / 80% at a true mean of 95, by looks at dev", _guide(raw)),
        )
    )


def _cover(raw: dict[str, Any]) -> str:
    rows, sizes = raw["cover"], _sorted(raw["cover"], "prompts")
    lines = []
    for world in _ordered(rows, "world"):
        cells = [[r["over"] for r in rows if (r["world"], r["prompts"]) == (world, size)] for size in sizes]
        lines.append([world, *(f"{max(cell):.1f}" for cell in cells)])
    return _table(["world", *(f"{size} prompts" for size in sizes)], lines)


def _widths(raw: dict[str, Any]) -> str:
    lines = [
        [row["world"], row["prompts"], *(f"{row[name]['width']:.1f} ({row[name]['over']:.0f})" for name in METHODS)]
        for row in raw["widths"]
    ]
    return _table(["world", "prompts", *(NAMES[name] for name in METHODS)], lines)


def _harsh(raw: dict[str, Any]) -> str:
    rows, sizes = raw["harsh"], _sorted(raw["harsh"], "prompts")
    lines = []
    for world in _ordered(rows, "world"):
        found = {row["prompts"]: row for row in rows if row["world"] == world}
        lines.append([world, *(f"{found[size]['over']:.1f} / {found[size]['under']:.1f}" for size in sizes)])
        if "apart" in found[sizes[0]]:
            lines.append([f"{world}, each counted", *(f"{found[size]['apart']:.1f}" for size in sizes)])
    return _table(["world", *(f"{size} prompts" for size in sizes)], lines)


def _runs(every: Sequence[dict[str, Any]]) -> str:
    lines = []
    for gate, method, size in dict.fromkeys((r["gate"], r["method"], r["prompts"]) for r in every):
        group = [r for r in every if (r["gate"], r["method"], r["prompts"]) == (gate, method, size)]
        for world in _ordered(group, "world"):
            rows = [r for r in group if r["world"] == world]
            wrong = [max(r["bad"][name] for r in rows) for name in ("unsplit", "dev", "accepted", "confirmed")]
            right = [_range(r["good"][name] for r in rows) for name in ("accepted", "confirmed")]
            lines.append([gate, NAMES[method], size, world, *(f"{value:.1f}" for value in wrong), *right])
    head = ["gate", "limit", "prompts", "world", "wrong: no split", "wrong: dev", "wrong: accepted", "wrong: confirmed"]
    return _table([*head, "right: accepted", "right: confirmed"], lines)


def _guide(raw: dict[str, Any]) -> str:
    looks = _sorted(raw["guide"], "looks")
    fewest, *_, largest = sorted(int(size) for size in raw["guide"][0]["powers"])

    def told(prompts: int | None) -> str:
        return f"> {largest}" if prompts is None else f"<= {fewest}" if prompts == fewest else str(prompts)

    lines = []
    for gate, method, world in dict.fromkeys((r["gate"], r["method"], r["world"]) for r in raw["guide"]):
        rows = {r["looks"]: r for r in raw["guide"] if (r["gate"], r["method"], r["world"]) == (gate, method, world)}
        cells = [" / ".join(told(rows[k][name]) for name in ("half", "most")) for k in looks]
        lines.append([gate, NAMES[method], world, *cells])
    return _table(["gate", "limit", "world", *(f"{k} look{'s' * (k > 1)}" for k in looks)], lines)


def _range(values: Iterable[float]) -> str:
    found = sorted(values)
    return f"{found[0]:.0f} to {found[-1]:.0f}"


def _ordered(rows: Sequence[dict[str, Any]], name: str) -> list[Any]:
    return list(dict.fromkeys(row[name] for row in rows))


def _sorted(rows: Sequence[dict[str, Any]], name: str) -> list[int]:
    return sorted({row[name] for row in rows})


def _table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


if __name__ == "__main__":
    print(tables(json.loads((RESULTS / "intervals.json").read_text(encoding="utf-8"))["raw"]))
