"""A Llama of 4.3 million parameters with random weights, and real conversations of a length that it takes.

The rows are the 283 of No Robots' category Coding; the tokenizer is a byte-level BPE of 4,096 tokens trained on them,
with ChatML around. They lie beside the project, not in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from measure import ROOT

DATA = ROOT.parent / "shared" / "data" / "no_robots_coding.jsonl"
CONTEXT = 2048
VOCABULARY = 4096
SPECIAL = ("<|pad|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML with nothing behind the last end mark, so that every trainer renders the same tokens."""

Turns = tuple[dict[str, str], ...]


def conversations() -> list[Turns]:
    """Return the conversations, the response last; white space around it is cut off."""
    lines = DATA.read_text(encoding="utf-8").splitlines()
    found = [json.loads(line)["messages"] for line in lines]
    return [(*turns[:-1], turns[-1] | {"content": turns[-1]["content"].strip()}) for turns in found]


def make(folder: Path) -> str:
    """Save the model and its tokenizer to a folder, and say what it is."""
    tokenizer = make_tokenizer(text for turns in conversations() for text in (turn["content"] for turn in turns))
    network = make_network(len(tokenizer))
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return f"Llama, {network.num_parameters():,} parameters, {len(tokenizer):,} tokens"


def make_tokenizer(texts: Any, vocabulary: int = VOCABULARY) -> Any:
    """Train a byte-level BPE tokenizer; a vocabulary of 256 and the special tokens learns nothing and takes bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[0], eos_token=SPECIAL[2], chat_template=TEMPLATE
    )


def make_network(vocabulary: int) -> Any:
    """Return the model, seeded. Its weights are large enough for its context to matter to what it predicts."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            initializer_range=0.1,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=2,
        )
    )
