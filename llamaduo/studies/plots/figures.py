"""The figures of a report: each is drawn only where the study's runs show such a thing.

    for figure in make_figures(read_study(Path("results/main_table"))): print(figure.name, figure.caption)

Equal run folders give equal bytes; matplotlib is loaded inside the functions. `studies/plots/` has a module a kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from llamaduo.evidence.agreement import rank_correlation, strictness
from llamaduo.studies.costs.costs import study_costs
from llamaduo.studies.costs.pay_back import over_time, sensitivity
from llamaduo.studies.parts import Figure
from llamaduo.studies.plots.density import answer_bins, density
from llamaduo.studies.plots.forest import forest
from llamaduo.studies.plots.grouping import label
from llamaduo.studies.plots.judges import agreement
from llamaduo.studies.plots.lines import learning_curves, rank_lines, volume_scaling
from llamaduo.studies.plots.pareto import pareto
from llamaduo.studies.plots.ranks import rank_map
from llamaduo.studies.plots.serving import cost_over_time, pay_back
from llamaduo.studies.study import Study
from llamaduo.studies.tables.judge_tables import panels
from llamaduo.studies.tidy import Row, factors

SCORES = ("precision", "similarity")


def make_figures(study: Study) -> list[Figure]:
    """Return all figures that the study's runs give, the main ones first."""
    rows = study.rows
    found: list[Figure | None] = []
    for score in SCORES:
        scaling, ranks = volume_scaling(rows, score), rank_map(rows, score) or rank_lines(rows, score)
        found += [scaling, ranks] if scaling or ranks else [forest(rows, score)]
    found += [learning_curves(rows, score, gates(study, score)) for score in SCORES]
    found.append(density(answer_bins(study.scores, pools(study.reported()), _cuts(study))))
    found.append(agreement(agreement_rows(study, "precision"), "precision"))
    found += [pareto(rows, score) for score in SCORES]
    spent = study_costs(study)
    found += [cost_over_time(over_time(spent)), pay_back(sensitivity(spent))]
    return [figure for figure in found if figure is not None]


def agreement_rows(study: Study, score: str) -> list[Row]:
    """Return what `agreement` draws of the panel that judged the most runs; none where it has one judge."""
    several = [panel for panel in panels(study) if len(panel.judges) > 1]
    if not several:
        return []
    panel = max(several, key=lambda panel: len(panel.runs))
    ids, values = panel.prompts, panel.values(score)
    measured = [
        ("rank", one, other, rank_correlation(ids, values[:, a], values[:, b], "spearman", panel.tasks))
        for (a, one), (b, other) in combinations(enumerate(panel.judges), 2)
    ]
    measured += [("strictness", judge, "", strictness(ids, values, at)) for at, judge in enumerate(panel.judges)]
    return [
        {
            "kind": kind,
            "judge": judge,
            "other": other,
            "value": m.value,
            "low": m.low,
            "high": m.high,
            "prompts": m.prompts,
            "n": m.n,
        }
        for kind, judge, other, m in measured
        if m.value is not None
    ]


def gates(study: Study, score: str) -> dict[str, float]:
    """Return by the run's name what its gate asks of a score, 0 to 100; runs without a gate are left out."""
    asked = {run.name: getattr(run.experiment.loop.gate, score) for run in study.runs}
    return {name: float(value) for name, value in asked.items() if value is not None}


_POOLED = ("local_model", "method", "service_llm", "start", "volume", "lora_r", "judge_prompt", "task")
"""The first of these that varies makes the panels of single answers; the rest is pooled."""


def pools(reported: Sequence[Row]) -> dict[str, str]:
    """Return by the run's name the panel that its single answers go to."""
    names = [name for name in _POOLED if name in factors(reported)][:1] or ["local_model"]
    return {row["run"]: label(row, names) or "none" for row in reported}


def _cuts(study: Study) -> dict[str, float]:
    return {run.name: float(run.experiment.loop.coverage_cut) for run in study.runs}
