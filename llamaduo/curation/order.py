"""The filters in the order in which a row is asked of: whichever takes it first is its reason.

    chosen(config)              the classes of a run's filters
    reasons_told({"exact"})     how tables and notes tell of removals: the two of every run, then others that were met

A new filter is a file beside this one, a member of `CurationFilter` in `config.py`, and a line here. Cheap ones stand
before dear ones.
"""

from __future__ import annotations

from collections.abc import Iterable

from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.code import Code
from llamaduo.curation.contamination import Contamination
from llamaduo.curation.exact import Exact
from llamaduo.curation.filters import Filter, Reason
from llamaduo.curation.labels import Labels
from llamaduo.curation.language import Language
from llamaduo.curation.near import Near
from llamaduo.curation.refusals import Refusals
from llamaduo.curation.secrets import Secrets
from llamaduo.curation.shape import Shape

ORDER: tuple[type[Filter], ...] = (
    Secrets, Shape, Refusals, Labels, Language, Contamination, Exact, Near, Code,
)  # fmt: skip
"""All filters there are."""
DEFAULT = (CurationFilter.contamination, CurationFilter.near)
"""Those of a run that names none."""
REASONS = (Near.reason, Contamination.reason)
"""Why rows are removed in a run that names no filters, in the order in which it is told."""


def chosen(config: Curation) -> list[type[Filter]]:
    """Return the filters that a configuration names, in the declared order; where it names none, the default ones.

    Contamination is asked whatever is named: nothing of dev or test is trained on.
    """
    return [one for one in ORDER if one.name in (*(config.filters or DEFAULT), CurationFilter.contamination)]


def reasons_told(met: Iterable[str] = ()) -> tuple[Reason, ...]:
    """Return the reasons to tell of: those of every run, and those of other filters that were met, by name."""
    names = set(met)
    return (*REASONS, *(one.reason for one in ORDER if one.reason not in REASONS and one.reason.name in names))
