"""One round of synthesis: what a strategy planned is asked, and its replies are read.

    batch = synthesize(asked, strategy, service, progress)

Returns the new examples, each with the request that it came from. Pairs are read one by one out of each reply;
incomplete ones are dropped and counted. What comes back is raw: curation follows. Replies that bring no pair at all
are a failure of the service LLM's, and no end of what there is to be had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from llamaduo.errors import ServiceError
from llamaduo.records import IF_ANY, Example
from llamaduo.service.asking_again import again_if
from llamaduo.service.attempts import Reply
from llamaduo.service.client import Progress, Service
from llamaduo.service.replies import unfinished
from llamaduo.service.requests import Failure, Outcome, Request
from llamaduo.service.unusable import Told, counted, of_teacher, quoted
from llamaduo.synthesis.strategy import Asked, Strategy


@dataclass(frozen=True)
class Origin:
    """Where a new pair comes from."""

    request: str
    """The key in the journal of the request whose reply holds it."""
    seeds: tuple[str, ...]
    """The prompts of the rows that the request was made from."""
    round: int
    """Which round of a growth asked for it, from 0."""


@dataclass(frozen=True)
class Round:
    """What one round of asking brought."""

    requests: int
    failed: int
    """Requests without a reply."""
    dropped: int
    """Items that were no whole pair."""
    parsed: int
    """Pairs read."""


@dataclass(frozen=True)
class Batch:
    """What one round of synthesis brought, or several."""

    examples: tuple[Example, ...] = ()
    """New pairs, as they came."""
    requests: int = 0
    """Requests made."""
    failed: int = 0
    """Requests that got no reply."""
    dropped: int = 0
    """Items in replies that were no whole pair."""
    cost_usd: float = 0.0
    """Price of the replies."""
    origins: tuple[Origin, ...] = ()
    """Where each pair comes from."""
    rounds: tuple[Round, ...] = ()
    """The same by round."""
    picking: int = field(default=0, metadata=IF_ANY)
    """Requests for further answers, and to pick the best, besides."""
    unpicked: int = field(default=0, metadata=IF_ANY)
    """Pairs whose first answer stayed since none could be picked."""

    def __add__(self, later: Batch) -> Batch:
        """Return what this round and a later one brought."""
        return Batch(
            self.examples + later.examples,
            self.requests + later.requests,
            self.failed + later.failed,
            self.dropped + later.dropped,
            self.cost_usd + later.cost_usd,
            self.origins + later.origins,
            self.rounds + later.rounds,
            self.picking + later.picking,
            self.unpicked + later.unpicked,
        )


_ANOTHER = 1_000_000
"""What another try of a request adds to its number."""


def synthesize(
    asked: Sequence[Asked],
    strategy: Strategy,
    service: Service,
    progress: Progress,
    *,
    number: int = 0,
    before: int = 0,
    note: Callable[[str], None] = lambda text: None,
) -> Batch:
    """Ask for new pairs; `number` is that of the round.

    Raises ServiceError when no request was answered, and when neither these requests nor those `before` brought a pair.
    """

    def another(made: Request) -> Request:
        """Return the same once more; its reply is read as the first one's."""
        again = replace(made, repeat=made.repeat + _ANOTHER)
        by_key[service.key(again)] = by_key[service.key(made)]
        return again

    by_key = {service.key(one.request): one for one in asked}
    again = again_if(
        lambda reply: not strategy.read(by_key[reply.key], reply)[0],
        another,
        usual=0,
        service=service,
    )
    outcomes = service.ask([one.request for one in asked], progress, again)
    examples: list[Example] = []
    origins: list[Origin] = []
    dropped = 0
    fruitless: list[Outcome] = []
    for one, outcome in zip(asked, outcomes, strict=True):
        pairs, lost = ([], 0) if isinstance(outcome, Failure) else strategy.read(one, outcome)
        dropped += lost
        fruitless += [] if pairs else [outcome]
        examples += pairs
        origins += [Origin(outcome.key, tuple(seed.prompt_id for seed in one.seeds), number) for _ in pairs]
    name, failed = asked[0].request.llm.name, sum(isinstance(outcome, Failure) for outcome in outcomes)
    if _in_vain(outcomes, len(examples), before):
        raise ServiceError(_why_fruitless(name, fruitless))
    if replies := [one for one in fruitless if isinstance(one, Reply)]:
        reasons = counted(Counter(map(_why, replies)))
        shown = quoted(replies[0].as_it_came or replies[0].text)
        note(f"{len(replies)} of {len(asked)} replies of {name} hold no pair ({reasons}); one of them: {shown}.")
    paid = [reply for one in outcomes for reply in (*one.before, one) if isinstance(reply, Reply)]
    cost = sum((reply.cost_usd for reply in paid), 0.0)
    round_ = Round(len(asked), failed, dropped, len(examples))
    return Batch(tuple(examples), len(asked), failed, dropped, cost, tuple(origins), (round_,))


def _in_vain(outcomes: Sequence[Outcome], pairs: int, before: int) -> bool:
    """Tell whether asking was for nothing; beside pairs that came before, a refusal of the last prompts is not."""
    reasons = {one.reason if isinstance(one, Failure) else None for one in outcomes}
    return not (pairs or before) or (None not in reasons and reasons != {"refused"})


def _why(outcome: Outcome) -> str:
    """Return why an outcome brought no pair, a word that verdicts have too."""
    if isinstance(outcome, Failure):
        return outcome.reason
    return unfinished(outcome.finish_reason) or ("not_json" if outcome.text.strip() else "empty")


def _why_fruitless(name: str, outcomes: Sequence[Outcome]) -> str:
    replies = [one for one in outcomes if isinstance(one, Reply)]
    failures = [one.message for one in outcomes if isinstance(one, Failure)]
    return of_teacher(
        name,
        asked=len(outcomes),
        reasons=Counter(map(_why, outcomes)),
        told=Told(name, "service_llm", replies[0].quotable) if replies else None,
        failure=failures[-1] if failures else None,
    )
