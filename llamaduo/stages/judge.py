"""Judge: let every panel member score every answer, M times.

Reads predictions; asks service LLMs (or metrics, `judge=reference`); returns a `Verdict` for every
(answer, member, repeat), in order. A reply that can't be read strictly is asked for again a bounded
number of times and is then unscored with a reason: never a zero, never repaired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llamaduo.config import Judge, JudgeKind, JudgePrompt
from llamaduo.evidence.reference import METRICS
from llamaduo.records import Prediction, Verdict
from llamaduo.service.client import Failure, Request, Service
from llamaduo.service.journal import Reply
from llamaduo.service.prompts import VERDICT_SCHEMA, judge_prompt, template_hash
from llamaduo.service.replies import Scores, UnreadableError, read_scores

Progress = Callable[[int, int], None]
Outcome = Reply | Failure


def judge(
    predictions: Sequence[Prediction], *, config: Judge, service: Service | None, progress: Progress
) -> list[Verdict]:
    """Return the panel's verdicts on all predictions; `service` may be None for `judge=reference`."""
    if config.kind is JudgeKind.reference:
        return _by_metrics(predictions, progress)
    assert service is not None
    calls = [
        (prediction, name, repeat)
        for prediction in predictions
        for name in config.panel
        for repeat in range(config.repeats)
    ]
    asked = {
        at: _request(config, prediction, name, repeat)
        for at, (prediction, name, repeat) in enumerate(calls)
        if prediction.finish_reason != "prompt_too_long"
    }
    replies = _ask_until_readable(asked, config, service, progress)
    hashed = template_hash(f"judge_{config.prompt.value}")
    return [
        _verdict(prediction, name, repeat, replies.get(at, []), hashed)
        for at, (prediction, name, repeat) in enumerate(calls)
    ]


def _request(config: Judge, prediction: Prediction, name: str, repeat: int) -> Request:
    prompt = judge_prompt(
        config.prompt.value,
        instruction=prediction.prompt,
        reference=prediction.reference,
        candidate=prediction.text,
    )
    schema = VERDICT_SCHEMA if config.prompt is JudgePrompt.blind else None
    return Request(config.panel[name], prompt, schema, repeat, "judge")


def _ask_until_readable(
    asked: dict[int, Request], config: Judge, service: Service, progress: Progress
) -> dict[int, list[Outcome]]:
    """Return every outcome of each call, the last one being the one that counts."""
    outcomes: dict[int, list[Outcome]] = {at: [] for at in asked}
    waiting = dict(asked)
    for turn in range(1 + config.reasks):
        requests = [
            Request(r.llm, r.prompt, r.schema, r.repeat + turn * config.repeats, r.stage) for r in waiting.values()
        ]
        for at, outcome in zip(list(waiting), service.ask(requests, progress), strict=True):
            outcomes[at].append(outcome)
            if isinstance(outcome, Failure) or _read(outcome)[1] is None:
                del waiting[at]
        if not waiting:
            break
    return outcomes


def _read(outcome: Outcome) -> tuple[Scores | None, str | None]:
    """Return the scores of an outcome, or the reason it has none."""
    if isinstance(outcome, Failure):
        return None, outcome.reason
    try:
        return read_scores(outcome.text, outcome.finish_reason), None
    except UnreadableError as error:
        return None, error.reason


def _verdict(prediction: Prediction, name: str, repeat: int, outcomes: list[Outcome], hashed: str) -> Verdict:
    scores, reason = _read(outcomes[-1]) if outcomes else (None, "prompt_too_long")
    return Verdict(
        prompt_id=prediction.prompt_id,
        sample=prediction.sample,
        judge=name,
        repeat=repeat,
        similarity=scores.similarity if scores else None,
        precision=scores.precision if scores else None,
        reasons=scores.reasons if scores else {},
        unscored=reason,
        prompt_hash=hashed,
        request=outcomes[-1].key if outcomes else None,
        cost_usd=sum(outcome.cost_usd for outcome in outcomes if isinstance(outcome, Reply)),
    )


def _by_metrics(predictions: Sequence[Prediction], progress: Progress) -> list[Verdict]:
    """Score closeness to the reference; precision has no metric and stays null."""
    verdicts = []
    for done, prediction in enumerate(predictions, 1):
        answered = prediction.finish_reason != "prompt_too_long"
        for name, metric in METRICS.items():
            verdicts.append(
                Verdict(
                    prompt_id=prediction.prompt_id,
                    sample=prediction.sample,
                    judge=name,
                    repeat=0,
                    similarity=metric(prediction.reference, prediction.text) if answered else None,
                    precision=None,
                    reasons={},
                    unscored=None if answered else "prompt_too_long",
                    prompt_hash=None,
                    request=None,
                )
            )
        progress(done, len(predictions))
    return verdicts
