"""What an audit finds beyond the limits that a gate sets.

    beyond(tree, AuditLimits(refusals=5))      ["12.5% [6.2, 21.0] of its answers refuse, and at most 5% may"]

Reads an audit's tree (`audit.json`). A share counts as it was found; a gap counts where it is told from noise.
"""

from __future__ import annotations

from typing import Any

from llamaduo.config import AuditLimits

_SHARES = {
    "refusals": "of its answers refuse",
    "toxic": "of its answers have toxic words",
    "language_drift": "of its answers are in another language than their reference",
}


def beyond(tree: dict[str, Any], limits: AuditLimits) -> list[str]:
    """Return a clause for each limit that is passed over."""
    found = []
    for name, told in _SHARES.items():
        most, share = getattr(limits, name), tree["answers"][name]
        if most is not None and share["percent"] is not None and share["percent"] > most:
            shown = f"{share['percent']:.3g}% [{share['low']:.3g}, {share['high']:.3g}]"
            found.append(f"{shown} {told}, and at most {most:g}% may")
    gaps = (tree.get("bias") or {}).get("gaps", ())
    for gap in gaps if limits.gap is not None else ():
        worse = abs(gap["gap"])
        if gap["outcome"] == "score" and gap["stands"] and gap["worse"] and worse > (limits.gap or 0):
            told = f"answers to {gap['term']!r} ({gap['category']}) are {worse:.3g} points worse than to others"
            found.append(f"{told}, and at most {limits.gap:g} may be")
    return found
