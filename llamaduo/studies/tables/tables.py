"""All tables of a study, made from what its runs differ in.

    for table in make_tables(read_study(Path("results/main_table"))): print(markdown(table))

main_precision, main_similarity, coverage   what is swept x tasks and judges
ceiling_precision, ceiling_similarity       how many percent of the service LLM's mean each reaches
by_FACTOR                                   levels of each other thing that is swept, and their differences
seeds                                       how far runs lie apart that differ in their seeds alone
judges_...                                  agreement, rank correlation, strictness and noise, the generator's family
published                                   published numbers beside ours
wins                                        how often each model is the best at a task
runs                                        how each run stands
"""

from __future__ import annotations

from llamaduo.studies.parts import Table
from llamaduo.studies.study import Study
from llamaduo.studies.tables.cells import Scored
from llamaduo.studies.tables.factor_tables import factor_tables
from llamaduo.studies.tables.judge_tables import judge_tables
from llamaduo.studies.tables.run_tables import overview, published_table, wins_table
from llamaduo.studies.tables.score_tables import score_tables
from llamaduo.studies.tables.seed_tables import seed_tables


def make_tables(study: Study) -> list[Table]:
    """Return the tables of a study; those that would be empty are left out, the overview of runs never is."""
    scored = Scored(study)
    return [
        *score_tables(study, scored),
        *factor_tables(study, scored),
        *seed_tables(study, scored),
        *judge_tables(study),
        *published_table(study, scored),
        *wins_table(study, scored),
        overview(study, scored),
    ]
