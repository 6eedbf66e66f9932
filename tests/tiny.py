"""Tiny models and tokenizers of five architectures, made on the spot: what the real ones are, but for their size.

    model = tiny("gemma3")                  # a LocalModel whose path is a folder; made once in a test session
    chat, base = load_chat(model), load_base(model, runtime, Quantization.none)

A tokenizer has its family's class, pre-tokenizer, special tokens and chat template, and 400 pieces or so; a model
has 2 to 4 layers of 48 hidden units and random weights from a fixed seed. `FAMILIES` says what there is.
"""

from __future__ import annotations

import atexit
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from chat_templates import GEMMA, GEMMA3, GEMMA_CHATML, LLAMA3, MISTRAL, QWEN

from llamaduo.config import Infer, LocalModel, Quantization, Runtime, Train
from llamaduo.records import Adapter, Example, Prediction, prompt_id

CONTEXT = 256
"""Tokens that a prompt and its answer may have together."""

CORPUS = (
    "Classify this support ticket as billing, delivery, access or product. The answer is one word.",
    "Which city is the parcel in? The parcel is in Lima, and the invoice went to Oslo last Monday.",
    "You are a careful assistant. Be brief, be exact, and do not repeat the question of the user.",
    "Summarise the report in a sentence: sales rose, costs fell, and the team hired three people.",
    "Write a function that adds two numbers and returns the result. def add(a, b): return a + b",
)
"""What the tokenizers' merges are learned from."""


@dataclass(frozen=True)
class Family:
    """One kind of model: its architecture, its tokenizer and what its chats look like."""

    architecture: str
    """Prefix of transformers' classes: `Llama` stands for LlamaConfig and LlamaForCausalLM."""
    pieces: str
    """How text becomes tokens: `gemma` or `mistral` (▁ and byte fallback), `llama` or `qwen` (byte level)."""
    special: tuple[str, ...]
    """Special tokens; their ids are their places."""
    named: dict[str, str]
    """Which of them are what: bos_token, eos_token, pad_token, unk_token."""
    template: str | None
    layout: dict[str, Any] = field(default_factory=dict)
    """What the model's configuration has of its own."""
    added: tuple[str, ...] = ()
    """Special tokens that the tokenizer got later: the model has no rows for them."""
    chat_template: str | None = None
    """`LocalModel.chat_template`."""


_GEMMA_NAMED = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
_GEMMA_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
_GEMMA3_LAYOUT = {
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "sliding_window": 16,
    "query_pre_attn_scalar": 16,
}
_MISTRAL = Family(
    "Mistral",
    "mistral",
    ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
    {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    MISTRAL,
    {"sliding_window": None, "tie_word_embeddings": False},
)
_GEMMA = Family("Gemma", "gemma", (*_GEMMA_SPECIAL, "<start_of_turn>", "<end_of_turn>"), _GEMMA_NAMED, GEMMA)
_LLAMA = Family(
    "Llama",
    "llama",
    ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    LLAMA3,
    {"tie_word_embeddings": False},
)
FAMILIES = {
    "gemma": _GEMMA,
    "gemma_chatml": replace(_GEMMA, special=(*_GEMMA_SPECIAL, "<|im_start|>", "<|im_end|>"), template=GEMMA_CHATML),
    "gemma3": replace(_GEMMA, architecture="Gemma3", template=GEMMA3, layout=_GEMMA3_LAYOUT),
    "mistral": _MISTRAL,
    "mistral_sliding": replace(_MISTRAL, layout={"sliding_window": 16, "tie_word_embeddings": False}),
    "mistral_chatml": replace(_MISTRAL, template=None, chat_template="chatml"),
    "llama": _LLAMA,
    "qwen3": Family(
        "Qwen3",
        "qwen",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        QWEN,
    ),
}

WIDENED = {
    "llama_widened": replace(_LLAMA, template=QWEN, added=("<|im_start|>", "<|im_end|>")),
    "gemma_widened": replace(_GEMMA, template=QWEN, added=("<|im_start|>", "<|im_end|>")),
    "gemma3_widened": replace(FAMILIES["gemma3"], template=QWEN, added=("<|im_start|>", "<|im_end|>")),
}
"""Tokenizers with more tokens than their models have rows; Llama's output head has rows of its own."""


def row(question: str, answer: str) -> Example:
    """Return an example of one question."""
    messages = ({"role": "user", "content": question},)
    return Example(prompt_id(messages), messages, answer)


ROWS = (
    row("Which city is the parcel in?", "It is in Lima."),
    row("Classify this ticket: the invoice is wrong.", "billing"),
    row("Write a function that adds.", "def add(a, b):\n    return a + b"),
    row("Be brief. Who was hired last Monday?", "Three people: Zoë, Li and Mo."),
)
"""What a tiny model can learn by heart in 60 steps."""
RUNTIME = Runtime(threads=1, device="cpu")


def fine_tune(model: LocalModel, folder: Path, rows: Sequence[Example] = ROWS, **options: Any) -> Adapter:
    """Train an adapter into a folder, by default until the model knows the rows by heart."""
    from llamaduo.training.fit import train
    from llamaduo.training.job import TrainJob

    start_from = options.pop("start_from", None)
    known = {"learning_rate": 1e-2, "epochs": 1, "min_steps": 60, "batch_size": 4, "max_length": CONTEXT}
    lora = {"lora_r": 32, "lora_alpha": 32, "lora_dropout": 0.0}
    folder.mkdir(parents=True, exist_ok=True)
    return train(
        TrainJob(folder, model, Train(**{**known, **lora, **options}), RUNTIME, start_from=start_from),
        rows,
        progress=lambda done, total: None,
    )


def answers(
    model: LocalModel,
    adapter: Path | None,
    rows: Sequence[Example] = ROWS,
    quantization: Quantization = Quantization.none,
    **options: Any,
) -> list[Prediction]:
    """Answer the rows' prompts, each once and by greedy decoding unless the options say otherwise."""
    from llamaduo.local.job import AnswerJob
    from llamaduo.stages.infer import infer

    known = {"samples": 1, "temperature": 0.0, "max_new_tokens": 48, "batch_size": 4}
    return infer(
        AnswerJob(model, Infer(**{**known, **options}), RUNTIME, quantization, adapter and str(adapter)),
        rows,
        progress=lambda done, total: None,
    )


def tokenizer_of(family: Family) -> Any:
    """Return the family's tokenizer, of transformers' class for it, with its chat template."""
    import transformers

    vocabulary, merges = _learned(family)
    options = {**family.named, "chat_template": family.template, "model_max_length": CONTEXT}
    others = [token for token in (*family.special, *family.added) if token not in family.named.values()]
    if family.pieces == "llama":
        made = transformers.PreTrainedTokenizerFast(tokenizer_object=_llama3(vocabulary, merges), **options)
    else:
        kind = {"gemma": "GemmaTokenizer", "mistral": "LlamaTokenizer", "qwen": "Qwen2Tokenizer"}[family.pieces]
        made = getattr(transformers, kind)(vocab=vocabulary, merges=merges, **options)
    made.add_special_tokens({"additional_special_tokens": others})
    return made


def _learned(family: Family) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return a vocabulary of special tokens, bytes and merges, and these merges, learned from `CORPUS`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bytes_fall_back = family.pieces in ("gemma", "mistral")
    learner = Tokenizer(models.BPE())
    alphabet = []
    if bytes_fall_back:
        learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    else:
        learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=len(family.special) + 256 + (144 if bytes_fall_back else 96),
        special_tokens=[*family.special, *alphabet],
        initial_alphabet=[] if bytes_fall_back else pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(CORPUS, trainer)
    model = json.loads(learner.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def _llama3(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    """Return Llama 3's kind of tokenizer: byte-level BPE behind a split into words and numbers."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    words = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    return made


def model_of(family: Family, tokenizer: Any, **layout: Any) -> Any:
    """Return the family's model with random weights; `layout` overrides its configuration."""
    import torch
    import transformers

    own = {
        "vocab_size": len(tokenizer) - len(family.added),
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    name = family.architecture
    config = getattr(transformers, f"{name}TextConfig" if name == "Gemma3" else f"{name}Config")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, f"{name}ForCausalLM")(config(**{**own, **family.layout, **layout}))


@cache
def _place() -> Path:
    """Return the folder of this test session's models; it goes when the session ends."""
    folder = tempfile.TemporaryDirectory(prefix="tiny-models-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@cache
def tiny(name: str) -> LocalModel:
    """Return a family's model and tokenizer, saved to a folder."""
    family = {**FAMILIES, **WIDENED}[name]
    return save(name, family, model_of(family, tokenizer := tokenizer_of(family)), tokenizer)


def save(name: str, family: Family, model: Any, tokenizer: Any) -> LocalModel:
    """Save a model and its tokenizer to a folder of this session, and return it as configuration names it."""
    folder = _place() / name
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return LocalModel(name=name, path=str(folder), context=CONTEXT, chat_template=family.chat_template)
