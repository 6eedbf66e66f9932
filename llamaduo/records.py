"""The frozen records that cross stage borders, and how they look as JSON.

Every record is a dataclass of plain values, so a line of a `.jsonl` file is `to_json(record)` and
nothing else. One prediction, as stored:

    {"prompt_id": "5b1f...", "sample": 0, "prompt": "Classify this ticket ...", "reference": "billing",
     "text": "billing", "finish_reason": "stop", "prompt_tokens": 41, "completion_tokens": 3}
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

Record = TypeVar("Record")


IF_ANY = {"if_any": True}
"""Of a field that is written only where it holds something: files without it keep their bytes."""


def only_with(name: str) -> dict[str, str]:
    """Return what marks a field that means something, and is written, only where another one holds something."""
    return {"only_with": name}


def shown_fields(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, but those that are written only where they hold something."""
    fields = ((f, getattr(record, f.name)) for f in dataclasses.fields(record))
    return {
        f.name: value
        for f, value in fields
        if (value or "if_any" not in f.metadata) and getattr(record, f.metadata.get("only_with", ""), True)
    }


def to_json(record: Any) -> str:
    """Return the record as one line of JSON; floats are written so that they read back equal."""
    tree = dataclasses.asdict(record)
    return json.dumps({name: tree[name] for name in shown_fields(record)}, ensure_ascii=False, allow_nan=False)


def from_json(kind: type[Record], line: str) -> Record:
    """Return the record of the given kind that `to_json` wrote."""
    values = json.loads(line)
    for key, value in values.items():
        if isinstance(value, list):
            values[key] = tuple(dict(item) if isinstance(item, dict) else item for item in value)
    return kind(**values)


def prompt_id(messages: tuple[Mapping[str, Any], ...]) -> str:
    """Return the identity of a prompt: 16 hex digits over its roles, texts and calls of tools, white space folded."""
    folded = [[message["role"], " ".join(message["content"].split())] for message in messages]
    folded += [["calls", turn_text(message)] for message in messages if message.get("tool_calls")]
    return hashlib.sha256(json.dumps(folded, ensure_ascii=False).encode()).hexdigest()[:16]


def with_calls(text: str, calls: Sequence[Mapping[str, Any]]) -> str:
    """Return a turn's text with the tools that it calls behind it, as a judge and a person see them."""
    made = [(json.dumps(one["function"]["name"], ensure_ascii=False), one["function"]["arguments"]) for one in calls]
    shown = [f'<tool_call>{{"name": {name}, "arguments": {arguments}}}</tool_call>' for name, arguments in made]
    return "\n".join([text, *shown] if text else shown) if shown else text


def turn_text(turn: Mapping[str, Any]) -> str:
    """Return all that a turn says: its text, and the tools that it calls."""
    return with_calls(turn["content"], turn.get("tool_calls") or ())


COVERAGE = "coverage"
"""The generator of pairs that people kept."""
CORRECTION = "correction"
"""The kind of a pair that answers a training prompt right which the student has failed."""


@dataclass(frozen=True)
class Example:
    """A (prompt, response) pair to learn from or to be judged against."""

    prompt_id: str
    """Identity of the prompt; equal prompts have equal ids."""
    messages: tuple[dict[str, Any], ...]
    """The prompt: `{"role", "content"}` turns that end with the user's, or with a tool's reply (`tool_call_id`); an
    assistant's that calls tools has `tool_calls`."""
    response: str
    """The response that the service LLM, or a person, gave."""
    generator: str = COVERAGE
    """Who wrote the pair: `coverage`, or the name of the service LLM that synthesised it."""
    seed_id: str | None = None
    """The coverage prompt that a synthetic pair was asked for with."""
    cluster: str | None = None
    """The prompt whose near-duplicates this coverage prompt is one of, the same for all of them; null where it has
    none."""
    kind: str | None = field(default=None, metadata=IF_ANY)
    """`correction` of a pair whose prompt is a training row's: another right answer to it."""
    calls: tuple[dict[str, Any], ...] = field(default=(), metadata=IF_ANY)
    """The tools that the response calls, in OpenAI's form; they stand at the end of its text, too."""
    tools: tuple[dict[str, Any], ...] = field(default=(), metadata=IF_ANY)
    """The functions that the request offered, in OpenAI's form."""

    @property
    def prompt(self) -> str:
        """The prompt as one text: the user's turn alone, or all turns with their roles."""
        if len(self.messages) == 1:
            return str(self.messages[0]["content"])
        return "\n\n".join(f"{message['role']}: {turn_text(message)}" for message in self.messages)

    @property
    def with_tools(self) -> bool:
        """Whether tools are called, in the response or before."""
        return bool(self.calls) or any(turn["role"] == "tool" or "tool_calls" in turn for turn in self.messages)

    @property
    def answer(self) -> dict[str, Any]:
        """The response as a turn; of one that calls tools its text and its calls apart."""
        if not self.calls:
            return {"role": "assistant", "content": self.response}
        text = self.response[: -len(with_calls("", self.calls))].removesuffix("\n")
        return {"role": "assistant", "content": text, "tool_calls": list(self.calls)}


@dataclass(frozen=True)
class Adapter:
    """What training left behind."""

    train_rows: int
    """Rows trained on."""
    synthetic_rows: int
    """Synthetic rows among them."""
    skipped_rows: int
    """Rows left out whole, whatever the reason; each is listed in the adapter's `skipped.jsonl`."""
    steps: int
    """Optimizer steps taken."""
    tokens: int
    """Real tokens processed, padding not counted."""
    loss: float | None
    """Mean loss per response token over the last epoch (nats); null for a base model that was not trained."""
    padding: float = 0.0
    """Share of the processed tokens that was padding."""
    epochs: int = 0
    """Epochs behind the adapter that was kept."""
    dev_loss: float | None = None
    """Mean loss per response token on dev of that adapter (nats), where it was measured."""
    too_long_rows: int = 0
    """Rows left out because they exceed `train.max_length`."""
    end_mark_rows: int = 0
    """Rows left out because an end mark is inside the response."""
    template_rows: int = field(default=0, metadata=IF_ANY)
    """Synthetic rows left out because the chat template refuses or changes them."""


TOO_LONG, END_MARK, TEMPLATE = "too_long", "end_mark", "template"
"""Why a row is not trained on."""


@dataclass(frozen=True)
class Skipped:
    """A row that training left out whole, a line of the adapter's `skipped.jsonl`."""

    prompt_id: str
    """The row's prompt."""
    tokens: int
    """Tokens of its prompt and its response; 0 where the template can't show them."""
    reason: str
    """`too_long`, `end_mark` (one is inside the response), or `template`: it refuses or changes the row."""


ANSWERED = ("stop", "length")
"""The finish reasons of an answer."""


@dataclass(frozen=True)
class Prediction:
    """One sampled answer of the local model."""

    prompt_id: str
    """The prompt that was answered."""
    sample: int
    """Which of the K answers, from 0."""
    prompt: str
    """The prompt as text."""
    reference: str
    """The response to compare with."""
    text: str
    """The answer, special tokens removed; empty where there is none."""
    finish_reason: str
    """`stop` (end mark or stop string), `length` (cut at the limit of new tokens), or why there is no answer: one of
    `UNSCORED_REASONS`."""
    prompt_tokens: int
    """Tokens of the rendered prompt."""
    completion_tokens: int
    """Tokens drawn, those of the end mark or the stop string included."""
    request: str | None = None
    """The reply's key in the journal; null where the model answered here, or a server of our own."""
    cost_usd: float = 0.0
    """Price of this answer."""
    cluster: str | None = None
    """The example's cluster: the prompt whose near-duplicates this prompt is one of; null where it has none."""

    @property
    def answered(self) -> bool:
        """Whether there is an answer to judge."""
        return self.finish_reason in ANSWERED


@dataclass(frozen=True)
class Verdict:
    """What one judge call made of one answer."""

    prompt_id: str
    """The prompt that was answered."""
    sample: int
    """Which of the K answers, from 0."""
    judge: str
    """The panel member's name."""
    repeat: int
    """Which of the M repeats, from 0."""
    similarity: float | None
    """Closeness to the reference, 0 to 100; null when the judge did not say."""
    precision: float | None
    """How well the answer does what the prompt asks, 0 to 100; null when the judge did not say."""
    reasons: dict[str, str]
    """The judge's words, by score; under `unscored` what the service said of a call that failed."""
    unscored: str | None
    """Null, or why this verdict carries no score: a member of `UNSCORED_REASONS`."""
    prompt_hash: str | None
    """sha256 of the judge prompt's template, 16 hex digits; null for a metric."""
    request: str | None
    """The reply's key in the journal; null for a metric or where nothing was sent."""
    cost_usd: float = 0.0
    """Price of this call's reply."""
    criteria: dict[str, float] = field(default_factory=dict, metadata=IF_ANY)
    """The scores of `judge.criteria` by name, 0 to 100; empty where none are asked for, or the verdict is unscored."""


UNSCORED_REASONS = (
    "prompt_too_long",  # the local model gave no answer to judge
    "no_reply",  # the service LLM, or the server that answers for the local model, did not answer, retries included
    "refused",  # its safety filter refused the request, or held the reply back
    "truncated",  # the reply was cut at its token limit
    "unfinished",  # the service said that the reply ended for another reason than being finished
    "no_content",  # the reply holds thoughts alone, or nothing where its text should be
    "empty",  # the reply is white space
    "not_json",  # the reply is no single JSON object
    "duplicate_key",  # an object names a key twice, or a score under both of its names
    "missing_score",  # one of the scores that were asked for is absent
    "not_a_number",  # a score is text, a truth value, null, NaN, infinite or too small for a float
    "out_of_range",  # a score lies outside the scale
)
"""The closed list of reasons for which a verdict is unscored."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval; null where no score exists."""

    mean: float | None
    """Mean over answers, 0 to 100."""
    low: float | None
    """Lower limit of the two-sided 95% interval (Gaffke's, over clusters of prompts)."""
    high: float | None
    """Upper limit."""
    n: int
    """Answers that have this score."""
    prompts: int = 0
    """Clusters of prompts behind them: near copies of a prompt are one."""


@dataclass(frozen=True)
class GateLook:
    """What the gate saw of one model on one split."""

    rule: str
    """`lower`, `mean`, or `service_llm`: the lower limit of the difference from the service LLM."""
    method: str | None
    """`guaranteed`, `assumed` or `combined` (of two tiers of judges), for limits; null for means."""
    error: float | None
    """How often such a limit may lie above the truth, at this look; null for means."""
    prompts: int
    """Clusters of prompts that it is over."""
    needed: dict[str, float]
    """By score: what has to be reached, points of 100 (of a difference: minus the margin)."""
    values: dict[str, float | None]
    """By score: what has to reach it, every missing answer counted as 0; null where no score exists."""
    upper: dict[str, float | None]
    """By score: the upper limit at the same error, or the mean; below what is needed, it speaks against the model."""
    judges: dict[str, dict[str, float | None]]
    """`values` by each judge alone."""
    passed: bool
    """Whether every score reaches what is needed, and all prompts were judged."""
    unjudged: int = 0
    """Clusters of prompts that were not judged, since the model couldn't pass any more; values are of the others."""

    @property
    def failed(self) -> bool:
        """Whether a score is shown to fall short, or does not exist."""
        return any(high is None or high < self.needed[name] for name, high in self.upper.items())


@dataclass(frozen=True)
class Scorecard:
    """All verdicts on one model in a few numbers."""

    similarity: Estimate
    """Closeness to the references."""
    precision: Estimate
    """Correctness with respect to the prompts."""
    coverage: float | None
    """Percent of answers whose two scores both reach the cut."""
    answers: int
    """Answers judged: prompts x K."""
    unanswered: int
    """Answers that don't exist because the prompt exceeds the model's context."""
    scored: int
    """Verdicts with a score."""
    unscored: int
    """Verdicts without one, unanswered prompts not counted."""
    reasons: dict[str, int]
    """How often each reason for being unscored came up."""
    cost_usd: float
    """Price of the judges' replies."""
    judges: dict[str, dict[str, Any]]
    """The same numbers for each panel member."""
    criteria: dict[str, dict[str, Any]] = field(default_factory=dict, metadata=IF_ANY)
    """Of each of `judge.criteria`: mean, limits and n, as in an `Estimate`."""
    unjudged: int = 0
    """Answers that no judge was asked about, since the gate couldn't be passed any more; the others were drawn at
    random."""
    spared: int = 0
    """Verdicts that were not asked for: those on unjudged answers, and repeats that couldn't change the decision."""


@dataclass(frozen=True)
class Judged:
    """A model's answers to a split, and what became of them."""

    predictions: Sequence[Prediction]
    """K answers a prompt."""
    verdicts: Sequence[Verdict]
    """Those of every judge on every answer."""
    card: Scorecard
    """What they come to."""
    gate: GateLook | None = None
    """What the gate's rule makes of the test split; null elsewhere and where it asks for nothing."""
