"""Judge: let every panel member score every answer, M times.

Reads predictions; asks service LLMs (or metrics, `judge=reference`); returns a `Verdict` for every
(answer, member, repeat), in order. A reply that can't be read strictly is asked for again a bounded
number of times and is then unscored with a reason: never a zero, never repaired. A judge whose scores are surely of
another scale than the one that it was asked for ends the stage.

Members that are `dear` judge some of each prompt's answers only, those that `two_tier.chosen` draws.

With `rounds` not everything is asked at once: a round at a time, until `enough` says of all verdicts so far that the
rest can't matter. What that depends on is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter

from llamaduo.config import Judge, JudgeKind, JudgePrompt
from llamaduo.errors import ServiceError
from llamaduo.evidence.economy import Round
from llamaduo.evidence.reference import METRICS
from llamaduo.evidence.scale import another_scale
from llamaduo.evidence.scorecard import unscored
from llamaduo.evidence.two_tier import chosen
from llamaduo.records import Prediction, Verdict
from llamaduo.service.asking_again import again_if
from llamaduo.service.attempts import Reply
from llamaduo.service.client import Service
from llamaduo.service.prompts import judge_prompt, judge_template, text_hash, verdict_schema
from llamaduo.service.replies import Scores, UnreadableError, read_scores
from llamaduo.service.requests import Failure, Outcome, Request
from llamaduo.service.unusable import Told, of_judges, quoted

Progress = Callable[[int, int], None]
Call = tuple[Prediction, str, int]
"""An answer, a panel member and a repeat."""


def judge(
    predictions: Sequence[Prediction],
    *,
    config: Judge,
    service: Service | None,
    progress: Progress,
    seed: int = 0,
    rounds: Sequence[Round] | None = None,
    enough: Callable[[Sequence[Verdict]], bool] | None = None,
) -> list[Verdict]:
    """Return the panel's verdicts, by prediction, member and repeat; `service` may be None for `judge=reference`.

    `seed` draws the answers that dear members judge.

    Without `rounds` they are on all predictions; with them, on those of the rounds before it was `enough`.
    """
    if config.kind is JudgeKind.reference:
        return _by_metrics(predictions, progress)
    assert service is not None
    calls = calls_there_are(predictions, config, seed)
    hashed = text_hash(judge_template(config.prompt, config.criteria))
    found: dict[int, tuple[Verdict, Outcome | None]] = {}
    before = 0
    for part in _parts(calls, rounds):
        asked = {at: request(config, *calls[at]) for at in part if calls[at][0].answered}
        outcomes = _ask_until_readable(asked, config, service, partial(_from, progress, before))
        before += len({one.key for one in asked.values()})
        for at in part:
            verdict = _verdict(*calls[at], outcomes.get(at), hashed=hashed, criteria=config.criteria)
            found[at] = verdict, outcomes.get(at)
        if not config.any_scale:
            _refuse_another_scale(found, calls)
        if enough and enough([verdict for verdict, _ in found.values()]):
            break
    return [found[at][0] for at in sorted(found)]


def _parts(calls: Sequence[Call], rounds: Sequence[Round] | None) -> Iterator[list[int]]:
    """Yield the places of the calls of each round."""
    if rounds is None:
        yield list(range(len(calls)))
        return
    for part in rounds:
        prompts = set(part.prompts)
        yield [
            at
            for at, (prediction, _, repeat) in enumerate(calls)
            if prediction.prompt_id in prompts and repeat in part.repeats
        ]


def _from(progress: Progress, before: int, done: int, count: int) -> None:
    """Show the progress of a round as part of all rounds so far."""
    progress(before + done, before + count)


def calls_there_are(predictions: Sequence[Prediction], config: Judge, seed: int) -> list[Call]:
    """Return (answer, member, repeat) of every verdict of service LLMs, in order."""
    answers = [(p.prompt_id, p.sample) for p in predictions]
    drawn = chosen(answers, share=config.dear_share, seed=seed) if config.dear else set()
    return [
        (p, name, repeat)
        for p, answer in zip(predictions, answers, strict=True)
        for name in config.panel
        if name not in config.dear or answer in drawn
        for repeat in range(config.repeats)
    ]


def verdicts_there_are(predictions: Sequence[Prediction], config: Judge, seed: int) -> int:
    """Return how many verdicts there are on answers if nothing is left out."""
    if config.kind is not JudgeKind.service:
        return len(predictions) * len(METRICS)
    return len(calls_there_are(predictions, config, seed))


def refuse_unreadable(verdicts: Sequence[Verdict], config: Judge, service: Service | None) -> None:
    """Raise ServiceError when too few of the judges' replies could be read, those of either tier."""
    tiers = ([v for v in verdicts if (v.judge in config.dear) is tier] for tier in (False, True))
    share, counts = max(map(unscored, tiers), key=itemgetter(0))
    if share > config.max_unscored:
        failures = [v.reasons["unscored"] for v in verdicts if "unscored" in v.reasons]
        told, last = _unreadable(verdicts, service), failures[-1] if failures else None
        raise ServiceError(of_judges(share, counts, limit=config.max_unscored, told=told, failure=last))


def _unreadable(verdicts: Sequence[Verdict], service: Service | None) -> Told | None:
    """Return a reply that could not be read, None where none came."""
    for verdict in verdicts:
        stored = service.stored(verdict.request) if service and verdict.request else None
        if verdict.unscored and stored:
            return Told(verdict.judge, f"judge.panel.{verdict.judge}", stored.quotable)
    return None


def request(config: Judge, prediction: Prediction, name: str, repeat: int) -> Request:
    """Return what a panel member is asked about one answer."""
    prompt = judge_prompt(
        config.prompt,
        instruction=prediction.prompt,
        reference=prediction.reference,
        candidate=prediction.text,
        template=judge_template(config.prompt, config.criteria),
    )
    schema = None if config.prompt == JudgePrompt.paper else verdict_schema(config.criteria)
    return Request(config.panel[name], prompt, schema, repeat, "judge")


def _ask_until_readable(
    asked: dict[int, Request], config: Judge, service: Service, progress: Progress
) -> dict[int, Outcome]:
    """Return the outcome of each call; a reply that can't be read is asked for again, as a new repeat."""
    again = again_if(
        lambda reply: _read(reply, config.criteria)[1] is not None,
        lambda asked: replace(asked, repeat=asked.repeat + config.repeats),
        usual=config.reasks,
        service=service,
    )
    return dict(zip(asked, service.ask(list(asked.values()), progress, again), strict=True))


def _refuse_another_scale(found: dict[int, tuple[Verdict, Outcome | None]], calls: Sequence[Call]) -> None:
    """Raise ServiceError if a judge's scores are surely of another scale than the one that it was asked for."""
    members: dict[str, list[int]] = {}
    for at, (verdict, _) in found.items():
        if verdict.similarity is not None and verdict.precision is not None:
            members.setdefault(verdict.judge, []).append(at)
    for name, places in members.items():
        scores = [(found[at][0].similarity or 0.0, found[at][0].precision or 0.0) for at in places]
        right = [calls[at][0].text.strip() == calls[at][0].reference.strip() for at in places]
        top = another_scale(scores, right)
        if top is not None:
            outcome = found[places[0]][1]
            low, high = min(map(min, scores)), max(map(max, scores))
            shown = quoted(outcome.quotable if isinstance(outcome, Reply) else "")
            raise ServiceError(
                f"{name} seems to score on a scale up to {top}, not on the one from 0 to 100: its {len(scores)} "
                f"verdicts give {low:g} to {high:g}. It replied: {shown}. "
                "Ask for 0 to 100 in judge.prompt, or take another judge; if these scores are meant of 100, "
                "judge.any_scale=true goes on. Replies are kept."
            )


def _read(outcome: Outcome, criteria: Sequence[str]) -> tuple[Scores | None, str | None]:
    """Return the scores of an outcome, or the reason it has none."""
    if isinstance(outcome, Failure):
        return None, outcome.reason
    try:
        return read_scores(outcome.text, outcome.finish_reason, criteria), None
    except UnreadableError as error:
        return None, error.reason


def _verdict(
    prediction: Prediction, name: str, repeat: int, outcome: Outcome | None, *, hashed: str, criteria: Sequence[str]
) -> Verdict:
    scores, reason = _read(outcome, criteria) if outcome else (None, prediction.finish_reason)
    replies = [*outcome.before, outcome] if outcome else []
    reasons = {"unscored": outcome.message} if isinstance(outcome, Failure) else {}
    return Verdict(
        prompt_id=prediction.prompt_id,
        sample=prediction.sample,
        judge=name,
        repeat=repeat,
        similarity=scores.similarity if scores else None,
        precision=scores.precision if scores else None,
        reasons=scores.reasons if scores else reasons,
        unscored=reason,
        prompt_hash=hashed,
        request=outcome.key if outcome else None,
        cost_usd=sum(reply.cost_usd for reply in replies if isinstance(reply, Reply)),
        criteria=scores.criteria if scores else {},
    )


def _by_metrics(predictions: Sequence[Prediction], progress: Progress) -> list[Verdict]:
    """Score closeness to the reference; precision has no metric and stays null."""
    verdicts = []
    for done, prediction in enumerate(predictions, 1):
        for name, metric in METRICS.items():
            verdicts.append(
                Verdict(
                    prompt_id=prediction.prompt_id,
                    sample=prediction.sample,
                    judge=name,
                    repeat=0,
                    similarity=metric(prediction.reference, prediction.text) if prediction.answered else None,
                    precision=None,
                    reasons={},
                    unscored=None if prediction.answered else prediction.finish_reason,
                    prompt_hash=None,
                    request=None,
                )
            )
        progress(done, len(predictions))
    return verdicts
