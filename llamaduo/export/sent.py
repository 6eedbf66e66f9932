"""What a run has sent, to whom: the lines of a data set's card.

    for line in sent_to(run): ...      - To gpt_4o (openai, gpt-4o-2024-08-06): 32 requests for new pairs. ...

Reads the counts of `curation.json` and of `scorecard.json`; no request is looked at again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from llamaduo.config import JudgeKind, ServiceLLM
from llamaduo.redaction import one_line
from llamaduo.runs import layout
from llamaduo.runs.layout import CURATION, SCORECARD
from llamaduo.runs.record import RunRecord, read_tree
from llamaduo.synthesis.strategies import named

_SHOWS = {
    "label": "a prompt without an answer each (`data.unlabelled`)",
    "correct": "a training prompt, its reference and the model's failed answer each, or a training row",
    "self_instruct": "a training row, or an earlier synthetic one, each",
}
"""What a request of a strategy holds, where that isn't a training row."""


def sent_to(run: RunRecord) -> Iterator[str]:
    """Yield what each service LLM was sent, a line of Markdown each."""
    lines = [*_synthesis(run), *_judges(run), *_answers(run)]
    yield from lines or ["Nothing was sent to a service LLM."]


def _synthesis(run: RunRecord) -> Iterator[str]:
    grown = [read_tree(path) for place in layout.places(run.folder) if (path := place / CURATION).exists()]
    requests = sum(int(tree["requests"]) for tree in grown)
    if not requests:
        return
    strategy = named(run.experiment.synthesis).value
    shows = _SHOWS.get(strategy, "a training row (prompt and response) each")
    picking = sum(int(tree.get("picking") or 0) for tree in grown)
    more = f", and {picking:,} for further answers to new prompts and to pick the best" if picking else ""
    yield (
        f"- To {_whom(run.experiment.service_llm)}: {requests:,} requests for new pairs (strategy `{strategy}`), with "
        f"{shows}{more}."
    )


def _judges(run: RunRecord) -> Iterator[str]:
    if run.experiment.judge.kind is not JudgeKind.service:
        return
    counts: Counter[str] = Counter()
    for place in layout.places(run.folder):
        card = place / SCORECARD
        judges: dict[str, Any] = read_tree(card).get("judges") or {} if card.exists() else {}
        for name, scores in judges.items():
            counts[name] += int(scores.get("scored") or 0) + int(scores.get("unscored") or 0)
    for name, llm in run.experiment.judge.panel.items():
        if counts[name]:
            yield (
                f"- To {_whom(llm)}, as the judge: {counts[name]:,} verdicts were asked for, with a prompt and its "
                "reference out of dev or test and a model's answer each."
            )


def _answers(run: RunRecord) -> Iterator[str]:
    asked = {run.experiment.service_llm.name: run.experiment.service_llm} if "service_llm" in run.state.beside else {}
    server = run.experiment.infer.server
    if run.experiment.infer.served and server:
        asked[server.name] = server
    for llm in asked.values():
        yield f"- To {_whom(llm)}: prompts of dev and test, to be answered."


def _whom(llm: ServiceLLM) -> str:
    if llm.provider == "pocket":
        return f"`{one_line(llm.name)}`, a program on the same machine"
    return f"`{one_line(llm.name)}` (provider {one_line(llm.provider)}, model `{one_line(llm.model)}`)"
