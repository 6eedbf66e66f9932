"""The prompts behind requests, out of the journal: what the paper's data sets call `seed_prompt`.

    prompts_of(experiment, {"1b2c...", ...})["1b2c..."]      "Generate a series of ..."

With `privacy=on` that is what was sent, made-up values and all. No journal, no prompts.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from llamaduo.config import Experiment
from llamaduo.errors import InputError
from llamaduo.service.access import journal_path
from llamaduo.service.journal import Journal

_AT_ONCE = 500


def prompts_of(experiment: Experiment, keys: Collection[str]) -> dict[str, str]:
    """Return by key the last turn of the requests that the run's journal has."""
    path = journal_path(experiment)
    if not keys or not path.is_file():
        return {}
    wanted, found = sorted(keys), {}
    try:
        journal = Journal(path, read_only=True)
        try:
            for start in range(0, len(wanted), _AT_ONCE):
                chunk = wanted[start : start + _AT_ONCE]
                marks = ", ".join("?" * len(chunk))
                rows = journal.query(f"SELECT key, request FROM requests WHERE key IN ({marks})", *chunk)  # noqa: S608 (marks)
                found.update({key: str(json.loads(request)["messages"][-1]["content"]) for key, request in rows})
        finally:
            journal.close()
    except (InputError, ValueError, LookupError, TypeError):
        return found
    return found
