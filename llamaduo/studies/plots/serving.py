"""What serving costs: a service LLM's bill against a local model's, month by month, and when the move has paid back.

    cost_over_time(rows)        {"system": "service", "load": "light", "month": 3, "usd": 5850.0}, and more
    pay_back(rows)              {"assumption": "GPU price", "value": 0.5, "requests": 100000, "months_shared": 2.1,
                                 "months_whole": null}

Rows may name `run`, `task`, `local_model` and `service_llm` too. Both figures show calculations from stated
assumptions and not measurements: what is drawn has no n, and a band is the range over runs. Their data hold what was
left out of the drawing, too: a column `drawn` tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamaduo.studies.parts import Figure
from llamaduo.studies.plots.drawing import at_bottom, at_left, finished, label_ends, left_out, panels, style
from llamaduo.studies.plots.grouping import grouped, short
from llamaduo.studies.plots.lines import is_score
from llamaduo.studies.plots.palette import colour, mark
from llamaduo.studies.tidy import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS, MOST_SYSTEMS = 8, 6
_ASSUMED = "a calculation from the assumptions that the cost tables state, not a measurement, so there is no n"
_IN_DATA = "they are in the figure's data"


def cost_over_time(rows: Sequence[Row]) -> Figure | None:
    """Return cumulative cost by month, a panel a load and task, a line a system; None where there is no row.

    Rows hold `system`, `load`, `month` and `usd` (cumulative). Runs that share a line are drawn as mean and range.
    """
    known = _lines(rows)
    by_panel = grouped(known, lambda row: row["panel"])
    if not by_panel:
        return None
    shown = list(by_panel)[:MOST_PANELS]
    systems = list(grouped(known, lambda row: row["series"]))
    kept = systems[:MOST_SYSTEMS]
    data = [row | {"drawn": row["panel"] in shown and row["series"] in kept} for row in known]
    drawn = [row for row in data if row["drawn"]]
    months = max(row["month"] for row in drawn)
    caption = (
        f"Cumulative cost in USD over {months:g} months: {_ASSUMED}."
        + (" Where runs share a line it is their mean, and the band their range." if _ranges(drawn) else "")
        + left_out(len(kept), len(systems), "systems", _IN_DATA)
        + left_out(len(shown), len(by_panel), "panels", _IN_DATA)
    )
    with style():
        from matplotlib.ticker import MaxNLocator

        figure, axes = panels(shown, height=2.4, share_y=False, columns=min(2, len(shown)))
        for axis, panel in zip(axes, shown, strict=True):
            _draw_systems(axis, [row for row in drawn if row["panel"] == panel], kept)
            axis.set_xlim(0, months)
            axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 3, 5, 6, 10]))
            axis.grid(axis="y")
        for axis in at_left(axes):
            axis.set_ylabel("cumulative cost (USD)")
        for axis in at_bottom(axes):
            axis.set_xlabel("months of service")
        return finished("cost_over_time", "Cost over time, service LLM and local model", caption, data, figure)


def _lines(rows: Sequence[Row]) -> list[Row]:
    """Return a row for each panel, line and month: mean and range over the runs that share it."""
    tasks = {row.get("task") for row in rows}
    marked: dict[tuple[str, str, float], list[float]] = {}
    for row in rows:
        panel = f"{row['load']} load" + (f", {row['task']}" if len(tasks) > 1 else "")
        if is_score(row["usd"]):
            marked.setdefault((panel, _system(row), row["month"]), []).append(row["usd"])
    return [
        {"panel": panel, "series": system, "month": month, "usd": sum(usd) / len(usd), "low": min(usd),
         "high": max(usd), "runs": len(usd)}
        for (panel, system, month), usd in marked.items()
    ]  # fmt: skip


def _system(row: Row) -> str:
    """Return a system's name with the model's: `gpt_4o`, `gemma_7b, shared machine`."""
    system, local, service = str(row["system"]), row.get("local_model"), row.get("service_llm")
    if system == "service":
        return str(service or "service LLM")
    return system.replace("local", str(local), 1) if local and system.startswith("local") else system


def _ranges(rows: Sequence[Row]) -> bool:
    return any(row["runs"] > 1 for row in rows)


def _draw_systems(axis: Axes, rows: Sequence[Row], systems: Sequence[str]) -> None:
    ends = []
    for number, system in enumerate(systems):
        here = sorted((row for row in rows if row["series"] == system), key=lambda row: row["month"])
        if not here:
            continue
        at, usd = [row["month"] for row in here], [row["usd"] for row in here]
        axis.plot(at, usd, color=colour(number))
        axis.plot(at[-1:], usd[-1:], color=colour(number), marker=mark(number), clip_on=False)
        if _ranges(here):
            axis.fill_between(at, [r["low"] for r in here], [r["high"] for r in here], color=colour(number),
                              alpha=0.15, linewidth=0)  # fmt: skip
        ends.append((at[-1], usd[-1], f"{system}\n${usd[-1]:,.0f}", colour(number)))
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    label_ends(axis, ends, lines=2)


def pay_back(rows: Sequence[Row]) -> Figure | None:
    """Return months to pay back against requests a month, a panel an assumption, a line a value of it.

    Rows hold `assumption`, `value`, `assumed`, `requests`, `months_shared` and `months_whole` (null: never); those of
    the run that comes first by task, model and name are drawn, its months with whole machines only as assumed.
    """
    known = [row for row in rows if _pays(row, "months_shared")]
    if not known:
        return None
    first = min(known, key=_whose)
    data = [row | {"drawn": _whose(row) == _whose(first) and _is_drawn(row)} for row in rows]
    drawn = [row for row in data if row["drawn"]]
    shown = list(grouped(drawn, lambda row: row["assumption"]))
    runs = len({_whose(row) for row in known})
    who = " on ".join(filter(None, (first.get("local_model"), first.get("task"))))
    caption = (
        f"Months until moving {f'to {who} ' if who else ''}has paid back, against requests a month, at a local price "
        f"for the share of the GPU that is used: {_ASSUMED}. One assumption is varied at a time, the line in bold is "
        "what is assumed, the dashed one the same with whole machines rented all month; where a line is missing, it "
        "never pays back." + left_out(1, runs, "runs", _IN_DATA)
    )
    with style():
        figure, axes = panels(shown, height=2.6)
        for axis, assumption in zip(axes, shown, strict=True):
            _draw_values(axis, [row for row in drawn if row["assumption"] == assumption])
        for axis in at_left(axes):
            axis.set_ylabel("months to pay back")
        for axis in at_bottom(axes):
            axis.set_xlabel("requests a month")
        return finished("pay_back", "Months to pay back, and what they depend on", caption, data, figure)


def _pays(row: Row, months: str) -> bool:
    """Tell whether there are months that an axis of powers of ten can show."""
    return is_score(row[months]) and row[months] > 0


def _is_drawn(row: Row) -> bool:
    return _pays(row, "months_shared") or (bool(row["assumed"]) and _pays(row, "months_whole"))


def _whose(row: Row) -> tuple[str, ...]:
    return tuple(str(row.get(name) or "") for name in ("task", "local_model", "run"))


def _draw_values(axis: Axes, rows: Sequence[Row]) -> None:
    by_value = grouped(sorted(rows, key=lambda row: row["value"]), lambda row: row["value"])
    for number, (value, found) in enumerate(by_value.items()):
        here = sorted(found, key=lambda row: row["requests"])
        assumed = bool(here[0]["assumed"])
        name = f"{100 * value:.0f}%" if here[0]["assumption"] == "utilisation" else f"x {value:g}"
        axis.plot(*_points(here, "months_shared"), color=colour(number), linewidth=2.6 if assumed else 1.1,
                  marker=mark(number), markersize=3, label=name)  # fmt: skip
        if assumed:
            axis.plot(*_points(here, "months_whole"), color=colour(number), linewidth=1.6, linestyle="--")
    axis.set_xscale("log")
    axis.set_yscale("log")
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_formatter(lambda amount, _: short(amount) if amount >= 1 else f"{amount:g}")
        one.set_minor_formatter(lambda amount, _: "")
    axis.grid(axis="y")
    axis.legend(fontsize=7, handlelength=1.4)


def _points(rows: Sequence[Row], months: str) -> tuple[list[float], list[float]]:
    known = [row for row in rows if _pays(row, months)]
    return [row["requests"] for row in known], [row[months] for row in known]
