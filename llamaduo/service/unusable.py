"""What is said of replies that are of no use: why they are, how one of them begins, and what to set.

told = Told("jm", "judge.panel.jm", "It is right, I would say.")
of_judges(1.0, {"not_json": 4}, limit=0.1, told=told)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_SHOWN = 160
_AGAIN = "Replies are kept and never bought twice; service.reasks=1 asks once more for what can't be used"


@dataclass(frozen=True)
class Told:
    """One reply that is of no use."""

    who: str
    """Whose it is."""
    key: str
    """Where its sender is configured: `judge.panel.NAME`, `service_llm` or `infer.server`."""
    text: str
    """What it says."""


def quoted(text: str) -> str:
    """Return how a reply begins: on one line, in quotes, `nothing` for an empty one."""
    told = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 8 * _SHOWN]).split())
    more = "..." if len(told) > _SHOWN or len(text) > 8 * _SHOWN else ""
    return f'"{told[:_SHOWN]}{more}"' if told else "nothing"


def of_judges(
    share: float, reasons: Mapping[str, int], *, limit: float, told: Told | None = None, failure: str | None = None
) -> str:
    """Return why nothing is decided by the judges' replies."""
    return (
        f"{share:.0%} of the judges' verdicts are unscored ({counted(reasons)}); with more than {limit:.0%} nothing is "
        f"decided.{_begins(told)}{_mend(reasons, told)} {_AGAIN}. Otherwise run again after an outage, or change "
        f"judge.panel or judge.max_unscored.{_last(failure)}"
    )


def of_teacher(
    name: str, *, asked: int, reasons: Mapping[str, int], told: Told | None = None, failure: str | None = None
) -> str:
    """Return why a teacher's replies are of no use; `reasons` counts the requests that brought nothing."""
    if set(reasons) == {"no_reply"}:
        return f"{name} answered none of {asked} synthesis requests; run the same command again later.{_last(failure)}"
    return (
        f"{name}: none of {asked} replies to synthesis requests holds a pair ({counted(reasons)}).{_begins(told)}"
        f"{_mend(reasons, told or Told(name, 'service_llm', ''))} {_AGAIN}.{_last(failure)}"
    )


def of_server(
    reasons: Mapping[str, int], answers: int, *, limit: float, told: Told | None = None, failure: str | None = None
) -> str:
    """Return why nothing is decided by a server's answers."""
    way_on = "Run the same command again when infer.server answers."
    if told:
        way_on = f"{_begins(told).strip()}{_mend(reasons, told)} {_AGAIN}."
    return (
        f"{sum(reasons.values())} of {answers} answers did not come ({counted(reasons)}); with more than {limit:.0%} "
        f"missing nothing is decided. {way_on}{_last(failure)}"
    )


def counted(reasons: Mapping[str, int]) -> str:
    """Return reasons with their counts."""
    return ", ".join(f"{name} {count}" for name, count in reasons.items())


def _begins(told: Told | None) -> str:
    return f" {told.who} replied: {quoted(told.text)}." if told else ""


def _last(failure: str | None) -> str:
    return f" Last failure: {failure}" if failure else ""


def _mend(reasons: Mapping[str, int], told: Told | None) -> str:
    """Return what may mend the replies, by the reason that comes up most."""
    if told is None:
        return ""
    reason, key = max(reasons, key=lambda name: reasons[name]), told.key
    limit = "infer.max_new_tokens" if key == "infer.server" else f"{key}.max_tokens"
    mends = {
        "truncated": f"Raise {limit}" + (", or lower synthesis.pairs_per_request" if key == "service_llm" else ""),
        "refused": f"It declines: take another {key}",
        **dict.fromkeys(("no_content", "empty"), f"Raise {limit}, which thoughts may use up, or have it think less"),
        **dict.fromkeys(
            ("missing_score", "not_a_number", "out_of_range", "duplicate_key"),
            "See to it that it is asked for scores from 0 to 100 (judge.prompt), or take another judge",
        ),
    }
    if key == "infer.server":
        return f" {mends.get(reason, 'It has to answer in text: leave out tools, and what takes its words away')}."
    json = f"It has to end with JSON: see to a reasoning parser on its server, {key}.json_schema, or another {key}"
    return f" {mends.get(reason, json)}."
