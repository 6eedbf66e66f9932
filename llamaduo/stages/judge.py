"""Judge: let every panel member score every answer, M times.

Reads predictions; asks service LLMs (or metrics, `judge=reference`); returns a `Verdict` for every
(answer, member, repeat), in order. A reply that can't be read strictly is asked for again a bounded
number of times and is then unscored with a reason: never a zero, never repaired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from llamaduo.config import Judge, JudgeKind, JudgePrompt
from llamaduo.evidence.reference import METRICS
from llamaduo.records import Prediction, Verdict
from llamaduo.service.attempts import Reply
from llamaduo.service.client import Failure, Outcome, Request, Service
from llamaduo.service.prompts import judge_prompt, judge_template, text_hash, verdict_schema
from llamaduo.service.replies import Scores, UnreadableError, read_scores

Progress = Callable[[int, int], None]


def judge(
    predictions: Sequence[Prediction], *, config: Judge, service: Service | None, progress: Progress
) -> list[Verdict]:
    """Return the panel's verdicts on all predictions; `service` may be None for `judge=reference`."""
    if config.kind is JudgeKind.reference:
        return _by_metrics(predictions, progress)
    assert service is not None
    calls = _calls(predictions, config)
    asked = {
        at: request(config, prediction, name, repeat)
        for at, (prediction, name, repeat) in enumerate(calls)
        if prediction.answered
    }
    outcomes = _ask_until_readable(asked, config, service, progress)
    hashed = text_hash(judge_template(config.prompt, config.criteria))
    return [
        _verdict(prediction, name, repeat, outcomes.get(at), hashed=hashed, criteria=config.criteria)
        for at, (prediction, name, repeat) in enumerate(calls)
    ]


def _calls(predictions: Sequence[Prediction], config: Judge) -> list[tuple[Prediction, str, int]]:
    """Return (answer, member, repeat) of every verdict, in order."""
    return [(p, name, repeat) for p in predictions for name in config.panel for repeat in range(config.repeats)]


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

    def again(asked: Request, outcome: Outcome) -> Request | None:
        turn = asked.repeat // config.repeats
        if turn == config.reasks or isinstance(outcome, Failure) or _read(outcome, config.criteria)[1] is None:
            return None
        return replace(asked, repeat=asked.repeat + config.repeats)

    return dict(zip(asked, service.ask(list(asked.values()), progress, again), strict=True))


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
