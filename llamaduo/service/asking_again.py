"""Asking again for replies that are of no use: the usual number of times, and as often as `service.reasks` says.

    service.ask(requests, progress, again_if(useless, following, usual=1, service=service))

Each time is another request, so that it is another purchase. `service.reasks` is for a server that was mended in the
meantime; it changes no run's name, so that the run goes on where it stood. A replay asks for as much of it as the
journal holds: what was read before it was raised is left as it was read.
"""

from __future__ import annotations

from collections.abc import Callable

from llamaduo.service.attempts import Reply
from llamaduo.service.client import Service
from llamaduo.service.requests import Again, Outcome, Request


def again_if(
    useless: Callable[[Reply], bool], following: Callable[[Request], Request], *, usual: int, service: Service
) -> Again:
    """Return what asks for the `following` request wherever a reply is `useless`, a bounded number of times."""
    turns: dict[str, int] = {}

    def again(asked: Request, outcome: Outcome) -> Request | None:
        turn = turns.get(asked.key, 0)
        if not isinstance(outcome, Reply) or turn >= usual + service.reasks or not useless(outcome):
            return None
        other = following(asked)
        if turn >= usual and not service.can_answer(other):
            return None
        turns[other.key] = turn + 1
        return other

    return again
