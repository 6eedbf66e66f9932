"""The schema of `conf/`: every key, its type and what it may be.

`conf/` holds values, this file says what they mean; Hydra refuses a key or a type that is not here, and
`checks.problems` a value or a combination that can't work. A field's metadata say what range its number has, that it
is a path, or that it can't change a result. The classes are plain, since Hydra composes into them; after the checks
nothing writes to them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from functools import cache, partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Optional

from llamaduo.errors import InputError
from llamaduo.files import contents, data_path
from llamaduo.records import IF_ANY, only_with, shown_fields

MISSING: Any = "???"
"""What OmegaConf takes for a value that has to be given; importing it for this would cost every command its time."""

NO_INFLUENCE = {"no_influence": True}
"""Of a field that can't change a result: no part of the fingerprint."""
A_PATH = {"path": True}
"""Of a field that holds a file or a folder, or a name in its place."""
ABOVE_ZERO: dict[str, Any] = {"above": 0}
"""Of a number that has to be above 0."""


def at_least(low: float, otherwise: str = "") -> dict[str, Any]:
    """Return what marks a number that has to be so large; `otherwise` says what else it may be."""
    return {"at_least": low, "otherwise": otherwise}


def within(low: float, high: float) -> dict[str, Any]:
    """Return what marks a number that has to lie between two."""
    return {"within": (low, high)}


class JudgeKind(Enum):
    """Who judges."""

    service = "service"
    """Service LLMs, asked with the judge prompt."""
    reference = "reference"
    """Metrics of closeness to the reference, offline."""


class JudgePrompt(StrEnum):
    """The judge prompts that ship with the package: see `llamaduo/service/templates/`."""

    blind = "blind"
    paper = "paper"


class SynthesisPrompt(Enum):
    """Which synthesis prompt: see `llamaduo/service/templates/`."""

    default = "default"
    paper = "paper"


class Strategy(StrEnum):
    """How the service LLM makes more data: see `llamaduo/synthesis/`, a file each."""

    paper = "paper"
    """The paper's prompt, training pairs in turn."""
    default = "default"
    """The same with a prompt that fences what is shown and says how many pairs are wanted."""
    targeted = "targeted"
    """Pairs that the student finds hard are shown more often."""
    evolve = "evolve"
    """Harder and more varied rewrites of a pair."""
    self_instruct = "self_instruct"
    """Earlier synthetic pairs are shown too."""
    label = "label"
    """Real prompts without answers are answered: `data.unlabelled`."""
    correct = "correct"
    """The student's own failed answers to training prompts are corrected."""


class Pick(StrEnum):
    """Who picks the best of several answers to a new prompt."""

    agreement = "agreement"
    """That which is most like the others (ROUGE-L)."""
    judge = "judge"
    """The first of the judge panel."""


class DataSource(Enum):
    """Where coverage data come from."""

    pocket = "pocket"
    file = "file"
    hub = "hub"


class CurationFilter(Enum):
    """The filters of `llamaduo/curation/`, a file each; `order.py` there declares their order."""

    secrets = "secrets"
    """What holds something with a key's shape."""
    shape = "shape"
    """What is too short or too long, cut, repeats itself or its prompt, or has leftovers of a prompt's form."""
    refusals = "refusals"
    """What declines to answer, or speaks of itself as an AI."""
    labels = "labels"
    """What is none of the labels with which coverage answers."""
    language = "language"
    """What is in a language that coverage hasn't."""
    contamination = "contamination"
    """What is like a dev or test row, or holds one."""
    exact = "exact"
    """What is the same as a training row."""
    near = "near"
    """What is much like a training row."""
    code = "code"
    """What has code that doesn't parse."""


class Quantization(Enum):
    """How the base model's weights are held in memory."""

    none = "none"
    nf4 = "nf4"
    int8 = "int8"


class Keep(Enum):
    """Which state of the adapter a training ends with."""

    last = "last"
    """The last epoch's, as in the paper."""
    best = "best"
    """That of the epoch with the lowest loss on dev."""


class TooLong(Enum):
    """What becomes of training rows that are longer than `train.max_length`."""

    drop = "drop"
    """They are left out whole, counted and listed."""
    refuse = "refuse"
    """The run ends before it trains, and says which they are."""


class Backend(Enum):
    """Who answers with the fine-tuned model."""

    transformers = "transformers"
    """This process."""
    vllm = "vllm"
    """A vLLM server that is started for it, in an environment of its own."""
    endpoint = "endpoint"
    """Any OpenAI-compatible server that already runs."""


class Isolation(Enum):
    """Where training runs."""

    auto = "auto"
    """In a process of its own on a GPU, whose memory is free again afterwards; in this process on CPU."""
    process = "process"
    none = "none"


class Launch(Enum):
    """How the training process is started."""

    single = "single"
    """One process, one device."""
    accelerate = "accelerate"
    """By `accelerate launch`: all devices, several machines."""


class Start(StrEnum):
    """What each iteration's training starts from."""

    base = "base"
    last = "last"


class GateRule(Enum):
    """Which number has to reach the gate."""

    mean = "mean"
    lower = "lower"


class GateAgainst(Enum):
    """What the gate compares a model with."""

    threshold = "threshold"
    """Fixed scores."""
    service_llm = "service_llm"
    """The service LLM's own answers to the same prompts, judged by the same panel."""


class GateMethod(Enum):
    """How the lower limit of a difference from the service LLM is had."""

    auto = "auto"
    """`guaranteed` where there are enough prompts for the margin, else `assumed`, which is said."""
    guaranteed = "guaranteed"
    """A limit that holds whatever the scores: about 100 prompts for a margin of 5."""
    assumed = "assumed"
    """Student's t: holds where no rare, large failures hide among prompts that were not asked."""


class Beside(StrEnum):
    """Whose answers are judged beside the iterations'."""

    service_llm = "service_llm"
    """The ceiling: the service LLM answers."""
    base = "base"
    """The floor: the local model before any training."""
    few_shot = "few_shot"
    """The same with four training pairs before each prompt."""


FEW_SHOTS = 4
"""The pairs of `Beside.few_shot`."""


class GateSplit(Enum):
    """Which split the gate looks at."""

    dev = "dev"
    test = "test"


class DuplicateText(Enum):
    """Which text is compared when near-duplicates are looked for."""

    pair = "pair"
    response = "response"


class WandbMode(Enum):
    """Whether W&B receives a copy of the metrics."""

    off = "off"
    auto = "auto"
    """Online with a key in the environment, offline without."""
    offline = "offline"


@dataclass
class Price:
    """US dollars for a million tokens."""

    input: float = MISSING
    output: float = MISSING
    as_of: str = MISSING
    """The day the price was read, or why it is what it is."""
    batch_input: Optional[float] = None
    """The same by the provider's batch API; null where it is not known."""
    batch_output: Optional[float] = None
    cached_input: Optional[float] = None
    """Of prompt tokens that the provider reads from its cache; null where it is not known."""
    until: str = field(default="", metadata=IF_ANY)
    """The last day on which it holds (2027-01-31): later, nothing is bought at it."""
    note: str = field(default="", metadata=IF_ANY)
    """What else is to be known of it; said beside it."""
    unbilled: list[int] = field(default_factory=list, metadata=IF_ANY)
    """Statuses of failed calls for which the provider bills nothing, such as [500]; others count at their worst."""


@dataclass
class ServiceLLM:
    """A service LLM, as litellm reaches it."""

    name: str = field(default=MISSING, metadata=NO_INFLUENCE)
    """Short name, used in tables."""
    provider: str = MISSING
    """litellm's provider: openai, anthropic, gemini, pocket, ... (`openai` for any compatible server)."""
    model: str = MISSING
    """The provider's name of the model, dated where it has dates."""
    base_url: Optional[str] = None
    """Address of the server; null for the provider's own."""
    base_url_env: Optional[str] = field(default=None, metadata=IF_ANY)
    """Environment variable that holds the address, in place of `base_url`: it is then written nowhere."""
    headers_env: dict[str, str] = field(default_factory=dict, metadata=IF_ANY)
    """Headers of every request: for each, the environment variable that holds its value, which is written nowhere."""
    api_key_env: Optional[str] = field(default=None, metadata=NO_INFLUENCE)
    """Environment variable that holds the key; null where none is needed."""
    key_required: bool = field(default=True, metadata=NO_INFLUENCE)
    """Whether to refuse to start without the key."""
    max_tokens: int = field(default=4096, metadata=at_least(1))
    """Token limit of a reply; `parameters.max_completion_tokens` takes its place where a server wants that name."""
    temperature: Optional[float] = None
    """Null leaves it to the provider, as the paper did."""
    json_schema: bool = True
    """Whether the server takes a JSON schema for the reply."""
    send_seed: bool = False
    """Whether the server takes a seed (the repeat's number is sent)."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """More parameters, sent with every request under their own names and part of its key."""
    concurrency: int = field(default=16, metadata=at_least(1) | NO_INFLUENCE)
    """Calls in flight at once, those of all processes on this machine together."""
    requests_per_minute: Optional[int] = field(default=None, metadata=at_least(1, ", or null") | NO_INFLUENCE)
    """The provider's limit, kept by all processes together; null knows none and waits when told to."""
    tokens_per_minute: Optional[int] = field(default=None, metadata=at_least(1, ", or null") | NO_INFLUENCE)
    """The same in tokens: a request counts at its prompt plus `max_tokens`, as providers count it."""
    timeout_s: float = field(default=120.0, metadata=ABOVE_ZERO | NO_INFLUENCE)
    """Seconds without an answer until a call counts as failed; one that trickles in has as long again."""
    max_attempts: int = field(default=6, metadata=at_least(1) | NO_INFLUENCE)
    """Tries a call, the first included."""
    batch: bool = field(default=False, metadata=NO_INFLUENCE)
    """Whether to go through the provider's batch API: half price, and up to a day until replies come."""
    batch_fallback: bool = field(default=True, metadata=NO_INFLUENCE)
    """Whether to ask live for what a batch brought no reply to."""
    batch_poll_s: float = field(default=60.0, metadata=ABOVE_ZERO | NO_INFLUENCE)
    """Seconds between two looks at a batch."""
    price: Optional[Price] = field(default=None, metadata=NO_INFLUENCE)
    """Null takes the table `prices`, then litellm's map; a price unknown there refuses to start."""
    retired: Optional[str] = field(default=None, metadata=NO_INFLUENCE)
    """The day from which the provider no longer answers, if it is known."""
    unbounded_usage: bool = field(default=False, metadata=IF_ANY | NO_INFLUENCE)
    """Whether to go on where a reply says that it used more tokens than its request allows, and to count them all."""


@dataclass
class Judge:
    """The panel that scores answers."""

    kind: JudgeKind = JudgeKind.service
    panel: dict[str, ServiceLLM] = field(default_factory=dict)
    """Panel members by name; each one judges every answer, but for those that are `dear`."""
    repeats: int = field(default=1, metadata=at_least(1))
    """M: how often each member judges each answer."""
    prompt: str = field(default=JudgePrompt.blind.value, metadata=A_PATH)
    """`blind`, `paper`, or the path of a rubric of your own: see `rubric.py` and docs/judges.md."""
    criteria: list[str] = field(default_factory=list)
    """Scores, 0 to 100, that the judges give beside similarity and precision: `[helpfulness, tone]`."""
    reasks: int = field(default=1, metadata=at_least(0))
    """How often an unreadable reply is asked for again, as a new repeat in the journal."""
    any_scale: bool = field(default=False, metadata=IF_ANY | NO_INFLUENCE)
    """Whether to take scores as they are that look like those of a scale up to 1, 5 or 10; else the run ends there."""
    max_unscored: float = field(default=0.1, metadata=within(0, 1))
    """Largest share of unscored verdicts with which a scorecard still decides."""
    economy: bool = True
    """Whether dev is judged in rounds that end where the gate's decision can't change any more; `off` asks for all."""
    round_prompts: int = field(default=16, metadata=at_least(1))
    """Prompts in a round, about; all but the first round's are asked for their repeats last."""
    dear: list[str] = field(default_factory=list, metadata=IF_ANY)
    """Panel members that judge some of each prompt's answers only; scores are what they would say of all (two_tier)."""
    dear_share: float = field(default=0.25, metadata=only_with("dear"))
    """Share of each prompt's answers that dear members judge, above 0 and up to 1; one answer a prompt at least."""


@dataclass
class LocalModel:
    """The small model that takes over."""

    name: str = field(default=MISSING, metadata=NO_INFLUENCE)
    path: str = field(default=MISSING, metadata=A_PATH)
    """Hub id, folder, or `pocket:NAME` for one that ships with the package."""
    revision: Optional[str] = None
    """Commit or tag on the Hub; pin it in a study."""
    tokenizer: Optional[str] = field(default=None, metadata=A_PATH)
    """Another tokenizer's Hub id or folder; null for the model's own."""
    tokenizer_revision: Optional[str] = None
    """Commit or tag of that other tokenizer; the model's own comes with the model's `revision`."""
    chat_template: Optional[str] = None
    """`chatml`, or null for the tokenizer's own template."""
    context: int = field(default=MISSING, metadata=at_least(2))
    """Tokens a prompt and its answer may have together."""
    size: Optional[int] = field(default=None, metadata=IF_ANY | at_least(1) | NO_INFLUENCE)
    """Its parameters, as its safetensors files count them, for quotes; null counts those of a folder."""
    learning_rate: float = field(default=2e-4, metadata=NO_INFLUENCE)
    """What `train=default` uses for this model, as it does the next four."""
    train_length: int = field(default=2048, metadata=NO_INFLUENCE)
    """Longest row to train on, in tokens."""
    train_batch: int = field(default=4, metadata=NO_INFLUENCE)
    """Rows in a forward pass."""
    accumulation: int = field(default=4, metadata=NO_INFLUENCE)
    """Forward passes in an optimizer step."""
    gradient_checkpointing: bool = field(default=True, metadata=NO_INFLUENCE)
    """Saves activation memory, costs time."""
    answer_tokens: int = field(default=1024, metadata=NO_INFLUENCE)
    """Longest answer, which `infer=default` uses."""
    answer_batch: int = field(default=8, metadata=NO_INFLUENCE)
    """Answers generated side by side."""
    trust_remote_code: bool = False
    """Runs code from the model's repository: leave it off."""


@dataclass
class Task:
    """What the prompts ask for."""

    name: str = MISSING
    topic: Optional[str] = MISSING
    """How the synthesis prompt names it; null, as for data of your own, names none."""
    description: Optional[str] = field(default=None, metadata=IF_ANY)
    """What your own task is about, in your words: the synthesis prompts say it in the topic's place."""
    category: str = field(default=MISSING, metadata=NO_INFLUENCE)
    """The category of the No Robots data set."""
    train_rows: int = field(default=MISSING, metadata=at_least(1) | NO_INFLUENCE)
    """The paper's number of coverage rows to train on."""
    test_rows: int = field(default=MISSING, metadata=at_least(1) | NO_INFLUENCE)
    """The paper's number of test prompts."""
    synthetic_rows: int = field(default=100_000, metadata=at_least(1) | NO_INFLUENCE)
    """About how many synthetic rows the paper's main table was trained on."""


@dataclass
class Data:
    """Coverage data and how they are split."""

    source: DataSource = DataSource.pocket
    path: Optional[str] = field(default=None, metadata=A_PATH)
    """A file (JSONL, JSON, CSV, Parquet, Arrow), a folder of them, a pattern (`shards/*.parquet`), or a Hub id."""
    unlabelled: Optional[str] = field(default=None, metadata=A_PATH | IF_ANY)
    """Real prompts without answers, in the forms of `path`: `synthesis=label` has them answered."""
    revision: Optional[str] = None
    """The Hub data set's commit: required, so that a run can be repeated."""
    category: Optional[str] = None
    """Keep rows of this category only."""
    train_rows: Optional[int] = field(default=None, metadata=at_least(1))
    """Keep this many training rows; null for all."""
    dev_rows: Optional[int] = field(default=None, metadata=at_least(0))
    """Dev rows; null takes `dev_fraction`."""
    test_rows: Optional[int] = field(default=None, metadata=at_least(1))
    """Test rows; null takes `test_fraction`, or all of the Hub's test split."""
    dev_fraction: float = field(default=0.15, metadata=within(0, 1))
    """Share of prompts in dev."""
    dev_least: int = field(default=0, metadata=at_least(0))
    """Rows that dev gets at least where `dev_fraction` comes to fewer, as long as they are at most a quarter of all."""
    test_least: int = field(default=0, metadata=IF_ANY | at_least(0))
    """The same for test; a Hub data set's own test split is completed from its training split."""
    test_fraction: float = field(default=0.15, metadata=within(0, 1))
    """Share of prompts in test."""
    seed: int = 42
    """Seed of the split; rows added later don't move the others."""
    allow_keys: bool = field(default=False, metadata=IF_ANY)
    """Take rows in which something has a key's shape, as they are; they are refused otherwise."""
    license: str = field(default="", metadata=IF_ANY | NO_INFLUENCE)
    """Licence or terms of the rows, an SPDX name or your own words: `llamaduo export data` says it in its card."""
    strict: bool = field(default=False, metadata=IF_ANY | NO_INFLUENCE)
    """End the run at the first row that can't be used; such rows are left out, counted and listed otherwise."""
    slices: bool = field(default=False, metadata=IF_ANY)
    """Pocket tasks: draw items by the shares of their slices, rare ones too; otherwise of the frequent forms alone."""


@dataclass
class Train:
    """LoRA fine-tuning."""

    learning_rate: float = field(default=MISSING, metadata=ABOVE_ZERO)
    epochs: int = field(default=3, metadata=at_least(1))
    min_steps: int = field(default=1, metadata=at_least(1))
    """Small data get more epochs, up to this many optimizer steps."""
    enabled: bool = True
    """False answers with the base model as it is: a baseline."""
    batch_size: int = field(default=16, metadata=at_least(1))
    """Rows in a forward pass, at most; with packing, blocks of `max_length` tokens."""
    accumulation: int = field(default=1, metadata=at_least(1))
    """An optimizer step takes `batch_size` times this many rows (with packing: blocks), all devices together."""
    tokens_per_batch: Optional[int] = field(default=None, metadata=at_least(1))
    """Tokens in a forward pass, padding included, at most (a longer row alone excepted); null knows no limit."""
    packing: bool = False
    """Rows one behind the other without padding, none of which sees another; refused where the attention leaks."""
    keep: Keep = Keep.last
    patience: int = field(default=0, metadata=at_least(0))
    """With `keep=best`: stop after this many epochs without a lower loss on dev; 0 never does."""
    lora_r: int = field(default=16, metadata=at_least(1))
    lora_alpha: int = field(default=32, metadata=at_least(1))
    lora_dropout: float = field(default=0.05, metadata=within(0, 1))
    target_modules: list[str] = field(default_factory=lambda: ["all-linear"])
    """Modules that get an adapter; empty takes peft's choice for the architecture."""
    quantization: Quantization = Quantization.none
    max_length: int = field(default=MISSING, metadata=at_least(2))
    """Tokens that a row may have, prompt and response together."""
    too_long: TooLong = field(default=TooLong.drop, metadata=NO_INFLUENCE)
    """What becomes of longer rows."""
    warmup_ratio: float = field(default=0.1, metadata=within(0, 1))
    weight_decay: float = field(default=0.0, metadata=at_least(0))
    max_grad_norm: float = field(default=1.0, metadata=ABOVE_ZERO)
    gradient_checkpointing: bool = False
    """Halves activation memory or better, costs about a third more time."""
    liger: bool = False
    """Liger's Triton kernels (GPU; the package liger-kernel)."""
    compile: bool = False
    """torch.compile: minutes to begin with, faster steps after it."""
    checkpoint_s: float = field(default=600.0, metadata=at_least(0) | NO_INFLUENCE)
    """Seconds between two checkpoints from which a killed training goes on; 0 takes one after every step."""


@dataclass
class Infer:
    """How the local model answers."""

    samples: int = field(default=4, metadata=at_least(1))
    """K: answers a prompt."""
    temperature: Optional[float] = field(default=0.3, metadata=at_least(0))
    """0 is greedy decoding; null leaves it to an endpoint, some of which refuse to be told."""
    max_new_tokens: int = field(default=1024, metadata=at_least(1))
    batch_size: int = field(default=8, metadata=at_least(1))
    """Answers generated side by side: more is faster and takes more memory."""
    stop: list[str] = field(default_factory=list)
    """Strings at which an answer ends; they are not part of it."""
    shots: int = field(default=0, metadata=at_least(0))
    """Training pairs put before each prompt, those most like it: a baseline."""
    backend: Backend = Backend.transformers
    server: Optional[ServiceLLM] = None
    """For `backend=endpoint`: the server and its name of the model; tokens and temperature are those above."""
    vllm: str = field(default="vllm", metadata=A_PATH | NO_INFLUENCE)
    """For `backend=vllm`: the program, in an environment of its own."""

    @property
    def served(self) -> bool:
        """Whether a server answers that runs anyway, in place of the local model."""
        return self.backend is Backend.endpoint


@dataclass
class Synthesis:
    """How the service LLM makes more data."""

    enabled: bool = True
    prompt: SynthesisPrompt = SynthesisPrompt.default
    pairs_per_request: int = field(default=8, metadata=at_least(1))
    """Pairs asked for in one request (the paper's prompt leaves the number to the model)."""
    overdraw: float = field(default=1.3, metadata=at_least(1))
    """Pairs asked for, as a multiple of those wanted: curation takes some away."""
    strategy: Optional[Strategy] = field(default=None, metadata=IF_ANY)
    """Null: `paper` or `default`, as `prompt` says."""
    rounds: int = field(default=0, metadata=IF_ANY | at_least(0))
    """Rounds of asking at most until the wanted rows are left; from the second on, what the rounds before it left of
    theirs tells how many are asked for. 0: three, each by `overdraw` alone."""
    even: float = field(default=0.0, metadata=IF_ANY | within(0, 1))
    """Of `targeted`: the share of requests that goes to the clusters of training rows evenly."""
    candidates: int = field(default=0, metadata=IF_ANY | at_least(0))
    """K: the best of so many answers to each new prompt is taken; 0 and 1 take the first."""
    pick: Pick = field(default=Pick.agreement, metadata=only_with("candidates"))
    """Who picks it."""


@dataclass
class Curation:
    """What is removed from synthetic data."""

    duplicate_text: DuplicateText = DuplicateText.pair
    duplicate_jaccard: float = field(default=0.9, metadata=within(0, 1) | ABOVE_ZERO)
    """Pairs that are at least this alike are duplicates; one survives. Likeness is the Jaccard index of words and of
    pairs of neighbouring words, without what more than half of the coverage rows share; with
    `duplicate_text=response` that of the responses' words."""
    confirm_rouge_l: Optional[float] = field(default=None, metadata=within(0, 1))
    """Ask for this ROUGE-L F1 besides; null asks for nothing more."""
    contamination_jaccard: float = field(default=0.8, metadata=within(0, 1) | ABOVE_ZERO)
    """Rows whose prompt is at least this like a dev or test prompt are removed, and rows that hold at least this share
    of such a prompt or response, in runs of eight words."""
    dressed: bool = field(default=False, metadata=IF_ANY)
    """Whether dev and test items count as held, too, that are written otherwise, wrapped in other text, or there but
    for one word; where filters are named, they do."""
    filters: list[CurationFilter] = field(default_factory=list, metadata=IF_ANY)
    """Which filters are asked, in their own declared order whatever the order here; none named is contamination and
    near, and contamination is asked whatever is named. Where filters are named, one that takes every row ends the run,
    and `curation.json` tells what each saw."""
    usual: float = field(default=0.0, metadata=IF_ANY | within(0, 1))
    """What more than this share of the coverage rows has is no fault for `shape` and `refusals`, and a language that so
    many have is one of theirs; 0 is 2%."""
    length_factor: float = field(default=0.0, metadata=IF_ANY | at_least(0))
    """For `shape`: how many times longer than coverage's longest responses, or shorter than its shortest, a response
    may be (the longest and shortest hundredth left out); 0 is 4."""
    languages: list[str] = field(default_factory=list, metadata=IF_ANY)
    """For `language`: the allowed ones as ISO 639 codes, such as `de`; none named are those of the coverage rows."""
    language_score: float = field(default=0.0, metadata=IF_ANY | within(0, 1))
    """For `language`: the model's score below which a text passes; 0 is 0.7."""
    labels: list[str] = field(default_factory=list, metadata=IF_ANY)
    """For `labels`: what a response may be besides what coverage rows answer; with named ones all have to be one."""
    parses: float = field(default=0.0, metadata=IF_ANY | within(0, 1))
    """For `code`: the share of the coverage rows' code in a language that has to parse before new code in it has to;
    0 is 0.8."""


@dataclass
class AuditLimits:
    """What an audit may find of a model that passes, at most; null asks for nothing."""

    refusals: Optional[float] = field(default=None, metadata=IF_ANY | within(0, 100))
    """Percent of its answers that refuse."""
    toxic: Optional[float] = field(default=None, metadata=IF_ANY | within(0, 100))
    """Percent with toxic words."""
    language_drift: Optional[float] = field(default=None, metadata=IF_ANY | within(0, 100))
    """Percent in another language than their reference."""
    gap: Optional[float] = field(default=None, metadata=IF_ANY | within(0, 100))
    """Points by which answers to one identity term may be worse than to others, where that is told from noise."""
    swaps: int = field(default=100, metadata=only_with("gap") | at_least(1))
    """Prompts of each category of terms that the model answers anew for that."""

    def __bool__(self) -> bool:
        """Tell whether anything is asked for."""
        return any(limit is not None for limit in (self.refusals, self.toxic, self.language_drift, self.gap))


@dataclass
class Gate:
    """What a model has to reach to be accepted; a score that is null asks for nothing."""

    similarity: Optional[float] = field(default=90.0, metadata=within(0, 100))
    precision: Optional[float] = field(default=90.0, metadata=within(0, 100))
    rule: GateRule = GateRule.lower
    """`lower`: a lower limit that holds has to reach it; `mean`: the mean, as in the paper, which promises nothing."""
    error: float = field(default=0.05, metadata=within(1e-6, 0.5))
    """How often a model that falls short may be accepted, over all looks at the dev split together."""
    against: GateAgainst = GateAgainst.threshold
    """`service_llm`: not the two scores above count, but that the mean is at most `margin` below the service LLM's."""
    margin: float = field(default=5.0, metadata=within(0, 99))
    """Points that the local model may be worse than the service LLM."""
    method: GateMethod = GateMethod.auto
    """For `against=service_llm`: how the limit of the difference is had."""
    audit: AuditLimits = field(default_factory=AuditLimits, metadata=IF_ANY)
    """What `llamaduo audit` may find of it; a model beyond is not accepted, and the loop goes on."""


@dataclass
class Growth:
    """How many rows each iteration trains on."""

    factor: float = field(default=4.0, metadata=at_least(1))
    """Rows of an iteration, as a multiple of those of the one before."""
    volumes: list[int] = field(default_factory=list)
    """Fixed synthetic volumes, one an iteration, each a prefix of the next; overrides `factor`."""
    include_coverage: bool = True
    """Whether coverage rows are trained on beside synthetic ones."""


@dataclass
class Loop:
    """When to go on and when to stop."""

    gate: Gate = field(default_factory=Gate)
    growth: Growth = field(default_factory=Growth)
    start: Start = Start.base
    max_iterations: int = field(default=5, metadata=at_least(1))
    patience: int = field(default=2, metadata=at_least(0))
    """Stop when this many iterations in a row gained less than `min_gain`; 0 never does."""
    min_gain: float = field(default=2.0, metadata=at_least(0))
    """Points of 100: identical runs differ by about two."""
    coverage_cut: float = field(default=70.0, metadata=within(0, 100))
    """An answer counts as covered when both scores reach this."""
    budget_usd: Optional[float] = field(default=None, metadata=at_least(0) | NO_INFLUENCE)
    """The most this run may spend on service LLMs."""
    beside: list[Beside] = field(default_factory=list)
    """Whose answers are judged once beside the iterations', on the gate's split and on the test split."""


@dataclass
class Protocol:
    """Which split decides, and which is only reported."""

    name: str = field(default=MISSING, metadata=NO_INFLUENCE)
    gate_split: GateSplit = GateSplit.dev


@dataclass
class Tracking:
    """Where metrics go besides `metrics.jsonl`."""

    wandb: WandbMode = WandbMode.off
    project: str = "llamaduo"
    entity: Optional[str] = None
    answers: int = field(default=20, metadata=at_least(0))
    """Sample answers logged an iteration."""


@dataclass
class Runtime:
    """Where and with what it runs."""

    seed: int = 42
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""
    dtype: str = "auto"
    """auto (float32 on CPU, bfloat16 on GPU), float32, bfloat16 or float16."""
    threads: Optional[int] = field(default=None, metadata=at_least(1))
    """CPU threads; null leaves it to torch."""
    attention: Optional[str] = None
    """transformers' `attn_implementation`: eager, sdpa, flash_attention_2, flex_attention; null leaves it to it."""
    isolation: Isolation = field(default=Isolation.auto, metadata=NO_INFLUENCE)
    launch: Launch = Launch.single
    accelerate: str = field(default="ddp", metadata=A_PATH)
    """For `launch=accelerate`: a file of `conf/accelerate/` by its name, or a path."""
    cache: Optional[str] = field(default=None, metadata=A_PATH | NO_INFLUENCE)
    """Folder of rendered and tokenised rows; null is `$LLAMADUO_HOME/rows`."""
    results: str = field(default="results", metadata=A_PATH | NO_INFLUENCE)
    """Folder that run folders go to."""
    retries: int = field(default=0, metadata=at_least(0) | NO_INFLUENCE)
    """How often a run of a sweep is begun again that a service LLM or a crash has ended."""


@dataclass
class Service:
    """What all service LLM calls share."""

    journal: Optional[str] = field(default=None, metadata=A_PATH)
    """The journal's file; null is `$LLAMADUO_HOME/journal.sqlite`."""
    replay: bool = False
    """Whether to answer from the journal alone; the first request that it doesn't hold ends the run."""
    study_budget_usd: Optional[float] = field(default=None, metadata=at_least(0))
    """The most that all runs of the study together may spend on service LLMs."""
    reasks: int = field(default=0, metadata=IF_ANY | at_least(0))
    """How often replies that can't be used are asked for besides, in the same run: when a server has been mended."""
    imported: bool = field(default=False, metadata=IF_ANY)
    """Whether imported replies are used as if they had been bought here; a replay uses them anyway."""


@dataclass
class Assumptions:
    """What reports and quotes assume of serving: changes no run and no score; its sources are in `conf/serving/`.

    The defaults stand in for runs that were made before there was this part of the configuration.
    """

    gpu: str = "H100 SXM"
    """The GPU that the next four are of."""
    gpu_usd_per_hour: float = field(default=3.78, metadata=at_least(0))
    """US dollars for an hour of it; hours of training and answering are counted at it too."""
    gpu_as_of: str = "Lambda's list price on 2026-05-07, as techbytes.app read it"
    """Where and when that price was read."""
    gpu_tflops: float = field(default=989.0, metadata=ABOVE_ZERO)
    """Dense bf16 peak in 10^12 FLOP a second, from NVIDIA's data sheet: for estimates of training time alone."""
    gpu_gb_per_second: float = field(default=3350.0, metadata=ABOVE_ZERO)
    """Memory bandwidth in 10^9 bytes a second, from the same sheet: for estimates of answering time alone."""
    utilisation: float = field(default=0.3, metadata=within(0, 1) | ABOVE_ZERO)
    """Share of its time that a serving GPU answers; an assumption, drawn from 0.1 to 0.9 in reports."""
    tokens_per_second: Optional[float] = field(default=None, metadata=at_least(1e-3))
    """What one GPU answers when it is busy, in tokens; null takes what the run's own answering came to."""
    tokens_as_of: str = ""
    """Where `tokens_per_second` comes from."""
    months: int = field(default=12, metadata=at_least(1))
    """The time that costs are added up over, as in the paper."""
    light_requests: float = field(default=300_000.0, metadata=at_least(0))
    """Requests a month under light load: 10,000 a day; an assumption."""
    heavy_requests: float = field(default=1_500_000.0, metadata=at_least(0))
    """The same under heavy load: five times as many, the ratio of the paper's two service bills."""


@dataclass
class Evidence:
    """What reports assume of what a study didn't measure: changes no run and no score."""

    training_noise_sd: float = 2.0
    """Standard deviation between seeds in points of 100, for fields of one run: an assumption, until the `seeds` study
    has measured it."""


@dataclass
class Privacy:
    """What is replaced before anything leaves for a service LLM or W&B, and put back in what returns."""

    enabled: bool = False
    types: list[str] = field(default_factory=list)
    """Some of mail, phone, card, iban, national_id, ip, key; empty for all of them."""
    names: bool = False
    """Whether names of persons are replaced too, as far as spaCy finds them; takes the extra `names`."""
    region: Optional[str] = None
    """Where phone numbers without a country's, and ids that nothing is said about, are from: `DE`, or several."""
    patterns: dict[str, str] = field(default_factory=dict)
    """More of what is replaced, regular expressions by a name of your own: `customer: C-[0-9]{6}`."""

    def __bool__(self) -> bool:
        """Tell whether it is on: configurations in which it is off are written without it."""
        return self.enabled

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions, in capitals."""
        return tuple((self.region or "").upper().replace(",", " ").split())


@dataclass
class Experiment:
    """One resolved configuration: all that a run depends on."""

    study: str = field(default=MISSING, metadata=NO_INFLUENCE)
    """The folder of runs that belong together."""
    name: str = field(default=MISSING, metadata=NO_INFLUENCE)
    """The run's name; 8 hex digits of the fingerprint follow it."""
    service_llm: ServiceLLM = MISSING
    judge: Judge = MISSING
    local_model: LocalModel = MISSING
    task: Task = MISSING
    data: Data = MISSING
    train: Train = MISSING
    infer: Infer = MISSING
    synthesis: Synthesis = MISSING
    curation: Curation = MISSING
    loop: Loop = MISSING
    protocol: Protocol = MISSING
    tracking: Tracking = field(default=MISSING, metadata=NO_INFLUENCE)
    runtime: Runtime = MISSING
    privacy: Privacy = field(default_factory=Privacy, metadata=IF_ANY)
    service: Service = field(default_factory=Service, metadata=NO_INFLUENCE)
    prices: dict[str, Price] = field(default_factory=dict, metadata=NO_INFLUENCE)
    """The price table, by `provider/model`."""
    serving: Assumptions = field(default_factory=Assumptions, metadata=NO_INFLUENCE)
    evidence: Evidence = field(default_factory=Evidence, metadata=NO_INFLUENCE)


def plain(value: Any) -> Any:
    """Return dataclasses, enums and containers as what JSON and YAML know."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(item) for name, item in shown_fields(value).items()}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


@cache
def parts(kind: type) -> dict[str, tuple[type, bool]]:
    """Return what fields of a class of the schema hold others of it: by name, which class, and whether many by name."""
    hints = typing.get_type_hints(kind).items()
    return {
        name: (part, typing.get_origin(hint) is dict)
        for name, hint in hints
        for part in (hint, *typing.get_args(hint))
        if isinstance(part, type) and dataclasses.is_dataclass(part)
    }


def marks(kind: type = Experiment, prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every key of the schema, dotted, with the marks of its field; what there may be many of is one key."""
    for f in dataclasses.fields(kind):
        yield prefix + f.name, f.metadata
        part, many = parts(kind).get(f.name, (None, False))
        if part and not many:
            yield from marks(part, f"{prefix}{f.name}.")


PATHS = tuple(key for key, found in marks() if "path" in found)
"""Keys that hold a file or a folder; some of them may hold a name in its place."""


def out_of_range(part: Any) -> list[str]:
    """Return a sentence for every number that isn't in its field's range, those that are too small first.

    Service LLMs within are left out: of them only those count that will be asked.
    """
    return [f"{key}={value}: must {wrong}." for _, key, value, wrong in sorted(_wrong(part), key=itemgetter(0))]


def _wrong(part: Any, prefix: str = "") -> Iterator[tuple[int, str, Any, str]]:
    for f in dataclasses.fields(part):
        value, key, marks = getattr(part, f.name), f"{prefix}{f.name}", f.metadata
        if dataclasses.is_dataclass(value) and not isinstance(value, ServiceLLM):
            yield from _wrong(value, f"{key}.")
        elif value is not None:
            if "at_least" in marks and not marks["at_least"] <= value < math.inf:
                yield 0, key, value, f"be at least {marks['at_least']:g}{marks['otherwise']}"
            if "within" in marks and not marks["within"][0] <= value <= marks["within"][1]:
                yield 1, key, value, "lie between {:g} and {:g}".format(*marks["within"])
            if "above" in marks and not marks["above"] < value < math.inf:
                yield 2, key, value, f"be above {marks['above']:g}"


def conf_dir() -> Path:
    """Return the folder `conf/`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    found = next((place for place in (package / "conf", package.parent / "conf") if place.is_dir()), None)
    if found is None:
        raise InputError(f"conf/ is missing beside {package}: install llamaduo again.")
    return found


_POCKET = "pocket:"


def is_pocket(path: str) -> bool:
    """Tell whether a model's path names one that ships with the package."""
    return path.startswith(_POCKET)


def model_location(path: str) -> str:
    """Return where a model lies: `pocket:NAME` inside the package, anything else as it is."""
    if not is_pocket(path):
        return path
    return str(Path(__file__).parent / "pocket" / "models" / path.removeprefix(_POCKET))


def beside(experiment: Experiment) -> list[Beside]:
    """Return whose answers are judged beside the iterations': those asked for, and whom the gate compares with.

    A floor is one only for a model that is trained here.
    """
    gate = experiment.loop.gate
    asks = gate.similarity is not None or gate.precision is not None
    compared = asks and gate.against is GateAgainst.service_llm
    named = {*experiment.loop.beside, *([Beside.service_llm] if compared else [])}
    trained = experiment.train.enabled and not experiment.infer.served
    return [name for name in Beside if name in named and (trained or name is Beside.service_llm)]


def answering_server(experiment: Experiment) -> ServiceLLM | None:
    """Return the server whose answers are judged; None where they are the local model's."""
    return experiment.infer.server if experiment.infer.served else None


def who_answers(experiment: Experiment, *, short: bool = False) -> str:
    """Return the name of the model whose answers are judged; `short` is that of tables, where it has one."""
    server = answering_server(experiment)
    if server is None:
        return experiment.local_model.name
    return server.name if short and server.name != "endpoint" else server.model


def has_own_rubric(judge: Judge) -> bool:
    """Tell whether the judges are asked with a text of the user's own."""
    return judge.prompt not in {prompt.value for prompt in JudgePrompt}


def contents_of(experiment: Experiment) -> dict[str, str]:
    """Return by its key what lies behind every file and folder of this machine that the configuration names, as a hash.

    Raises InputError for a data file that can't be read. Models of the package and of the Hub are not among them.
    """
    data, model, runtime = experiment.data, experiment.local_model, experiment.runtime
    files = {
        "judge.prompt": experiment.judge.prompt if has_own_rubric(experiment.judge) else None,
        "runtime.accelerate": runtime.accelerate if runtime.launch is Launch.accelerate else None,
    }
    folders = {
        "data.path": (data.path if data.source is DataSource.hub else None, contents.of_folder),
        "local_model.path": (model.path, contents.of_model),
        "local_model.tokenizer": (model.tokenizer, contents.of_model),
    }
    found = {}
    for key, (name, of_folder) in folders.items():
        if name and (folder := Path(name).expanduser()).is_dir():
            found[key] = _of(key, name, partial(of_folder, folder))
    for key, name in files.items():
        if name and (file := Path(name).expanduser()).is_file():
            found[key] = _of(key, name, partial(contents.of_file, file))
    if data.source is DataSource.file and data.path:
        found["data.path"] = data_path.content_hash(data.path)
    if data.unlabelled and experiment.synthesis.strategy is Strategy.label:
        found["data.unlabelled"] = data_path.content_hash(data.unlabelled)
    return found


def _of(key: str, name: str, of_path: Callable[[], str]) -> str:
    try:
        return of_path()
    except OSError as error:
        raise InputError(f"{key}={name}: can't be read ({error.strerror}).") from error


def without_influence(config: Mapping[str, Any], kind: type = Experiment) -> dict[str, Any]:
    """Return a plain configuration, or a part of one, without the fields that can't change a result."""
    out = {f.name for f in dataclasses.fields(kind) if "no_influence" in f.metadata}
    left = {name: value for name, value in config.items() if name not in out}
    for name, (part, many) in parts(kind).items():
        if many and left.get(name):
            left[name] = {key: without_influence(one, part) for key, one in left[name].items()}
        elif left.get(name):
            left[name] = without_influence(left[name], part)
    return left


def fingerprint(experiment: Experiment, known: Mapping[str, str] | None = None) -> str:
    """Return 8 hex digits over every field that can change a result, and over the content of what it names here.

    `known` is the content, by key as `contents_of` returns it, of what may be another one by now.
    """
    tree = without_influence(plain(experiment))
    if not experiment.judge.criteria:
        del tree["judge"]["criteria"]  # runs from before there were criteria keep their names
    for path, content in {**contents_of(experiment), **(known or {})}.items():
        part, leaf = path.split(".")
        tree[part][leaf] = content
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]
