"""`llamaduo quote`: what the run or the sweep of the same arguments would cost."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from llamaduo.compose import compose
from llamaduo.display import plain_console
from llamaduo.quote.quote import quote
from llamaduo.quote.shown import rendered


def main(arguments: Sequence[str]) -> int:
    """Print the quote and return the exit code."""
    composed = compose(arguments)
    if composed is not None:
        console = plain_console()
        for part in rendered(quote(composed.experiments, today=datetime.datetime.now(datetime.UTC).date())):
            console.print(part)
    return 0
