"""What is said of removals while a run goes on.

many_removed(rows, removed, others)      a sentence, where more than a third of a round's rows were removed
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from llamaduo.curation.curate import Removal, shortened
from llamaduo.curation.order import reasons_told
from llamaduo.records import Example


def many_removed(rows: Sequence[Example], removed: Iterable[Removal], others: Iterable[Example]) -> list[str]:
    """Return what to say if curation took more than a third of a round's rows: how many, and two of each reason.

    `removed` are the removals among the rows, `others` what they can have matched besides.
    """
    removed = list(removed)
    if 3 * len(removed) <= len(rows):
        return []
    prompts = {row.prompt_id: row.messages[-1]["content"] for row in (*others, *rows)}
    told, mends = [], []
    for reason in reasons_told(removal.reason for removal in removed):
        found = [removal for removal in removed if removal.reason == reason.name]
        shown = "; ".join(_matched(one, prompts) for one in found[:2] if one.match) or _whys(found)
        told += [f"{len(found):,} {reason.of_a_round}{f': {shown}' if shown else ''}"] if found else []
        mends += (
            [f" If those {reason.of_a_round} are good rows, {reason.mend}."] if found and not found[0].match else []
        )
    return [
        f"curation removed {len(removed):,} of this round's {len(rows):,} rows. {'. '.join(told)}. If such rows are "
        "not alike, set curation.duplicate_jaccard or curation.contamination_jaccard higher; if they are, more "
        f"coverage rows as seeds, or a higher service_llm.temperature, bring others.{''.join(mends)}"
    ]


def _matched(one: Removal, prompts: Mapping[str, str]) -> str:
    alike = "" if one.similarity is None else f" ({one.similarity:.0%})"
    return f"{shortened(prompts[one.prompt_id], 70)!r} matches {shortened(prompts[one.match], 70)!r}{alike}"


def _whys(removed: Iterable[Removal]) -> str:
    """Return what was wrong with rows that matched no other, and with how many."""
    return ", ".join(f"{count:,} {why}" for why, count in Counter(one.why for one in removed if one.why).items())
