"""The filters in the order in which a row is asked of: whichever takes it first is its reason.

    chosen(config)              the classes of a run's filters
    reasons_told({"exact"})     how tables and notes tell of removals: the two of every run, then others that were met

A new filter is a file beside this one, a member of `CurationFilter` in `config.py`, and a line here. Cheap ones stand
before dear ones.
"""

from __future__ import annotations

from collections.abc import Iterable

from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.contamination import Contamination
from llamaduo.curation.exact import Exact
from llamaduo.curation.filters import Filter, Reason
from llamaduo.curation.near import Near

ORDER: tuple[type[Filter], ...] = (Contamination, Exact, Near)
"""All filters there are."""
DEFAULT = (CurationFilter.contamination, CurationFilter.near)
"""Those of a run that names none."""
REASONS = (Near.reason, Contamination.reason)
"""Why rows are removed in a run that names no filters, in the order in which it is told."""


def chosen(config: Curation) -> list[type[Filter]]:
    """Return the filters that a configuration names, in the declared order; where it names none, the default ones."""
    return [one for one in ORDER if one.name in (config.filters or DEFAULT)]


def reasons_told(met: Iterable[str] = ()) -> tuple[Reason, ...]:
    """Return the reasons to tell of: those of every run, and those of other filters that were met, by name."""
    names = set(met)
    return (*REASONS, *(one.reason for one in ORDER if one.reason not in REASONS and one.reason.name in names))
