"""Make the three pocket base models from nothing but a seed.

    python -m llamaduo.pocket.pretrain --architecture llama --out llamaduo/pocket/models/llama

Reads nothing. Writes one model folder (config, safetensors, tokenizer with its chat template).
Two phases, both on made-up words, none of them one of the four pocket tasks:

1. *echo*: random tokens that repeat after a short gap; the loss counts the second half only. This
   is the densest signal there is for learning to copy.
2. *skills*: short chats about lists of made-up words: repeat, look up a key, first and last, what
   comes before and after, fill a gap, swap, and continue a pattern of which one or two examples
   are shown. The loss counts the answer, and every eighth step the whole text.

The result can copy and compose, and answers none of the pocket tasks: that is left to fine-tuning.
One thread, float32 and a fixed number of steps make it reproducible on one machine type.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaduo.pocket.skills import SKILLS
from llamaduo.pocket.words import ENGLISH, made_up_word

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 1024
CONTEXT = 512
SPECIAL_TOKENS = ("<|pad|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAYOUT: dict[str, int] = {"hidden_size": 160, "num_hidden_layers": 3, "num_attention_heads": 8, "head_dim": 32}
# Llama's heads have keys and values of their own, Gemma's and Mistral's share them by twos: 0.97 million parameters.
LAYOUTS: dict[str, dict[str, Any]] = {
    "llama": {**LAYOUT, "num_key_value_heads": 8, "intermediate_size": 224},
    "gemma": {**LAYOUT, "num_key_value_heads": 4, "intermediate_size": 304},
    "mistral": {**LAYOUT, "num_key_value_heads": 4, "intermediate_size": 304, "sliding_window": 256},
}
SKILL_STEPS = {"llama": 6500, "gemma": 8000, "mistral": 8000}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the byte-level BPE tokenizer that all three models share (1,024 pieces, no unknowns)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(0)
    corpus = []
    for _ in range(20_000):
        words = [made_up_word(rng) for _ in range(8)]
        corpus.append(" ".join(w.capitalize() if rng.random() < 0.4 else w for w in words))
    english = ENGLISH.split()
    for _ in range(10_000):
        corpus.append(" ".join(rng.choice(english) for _ in range(12)))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=8,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL_TOKENS[0],
        eos_token=SPECIAL_TOKENS[2],
        model_max_length=CONTEXT,
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )


def build_model(architecture: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Return an untrained model of one million parameters in the named architecture."""
    import transformers

    kinds = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "gemma": (transformers.GemmaConfig, transformers.GemmaForCausalLM),
        "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    }
    config_class, model_class = kinds[architecture]
    config = config_class(
        **LAYOUTS[architecture],
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )
    return model_class(config)


_LEARNING_RATE = 3e-3


def _echo_batch(rng: random.Random, batch: int) -> tuple[list[list[int]], list[list[int]]]:
    rows, labels = [], []
    length = rng.randint(6, 28)
    gap = rng.randint(0, 6)
    for _ in range(batch):
        first = [rng.randrange(len(SPECIAL_TOKENS), VOCABULARY) for _ in range(length)]
        between = [rng.randrange(len(SPECIAL_TOKENS), VOCABULARY) for _ in range(gap)]
        rows.append([*first, *between, *first])
        labels.append([-100] * (length + gap + 1) + first[1:])
    return rows, labels


def _skill_batches(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, batch: int
) -> Iterator[tuple[list[list[int]], list[list[int]]]]:
    """Yield (token ids, labels) for ever, rows of like length together; each eighth counts the whole text."""
    step = 0
    while True:
        pool = []
        for _ in range(batch * 16):
            prompt, answer = rng.choice(SKILLS)(rng)
            head = tokenizer.encode(f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n")
            tail = tokenizer.encode(f"{answer}<|im_end|>")
            pool.append((head, tail))
        pool.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
        starts = list(range(0, len(pool), batch))
        rng.shuffle(starts)
        for start in starts:
            chosen = pool[start : start + batch]
            whole = step % 8 == 0
            step += 1
            yield (
                [[*head, *tail] for head, tail in chosen],
                [[*head, *tail] if whole else [-100] * len(head) + tail for head, tail in chosen],
            )


def _tensors(
    rows: list[list[int]], labels: list[list[int]], pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    targets = torch.tensor([row + [-100] * (width - len(row)) for row in labels])
    return ids, mask, targets


class Muon:
    """Momentum with orthogonalised updates for weight matrices (Jordan 2024), in float32.

    It needs about half of AdamW's steps here. torch's own computes in bfloat16, which this CPU code
    can't afford.
    """

    def __init__(self, matrices: list[torch.Tensor], momentum: float = 0.95) -> None:
        import torch

        self._groups: dict[tuple[int, ...], list[torch.Tensor]] = {}
        for matrix in matrices:
            self._groups.setdefault(tuple(matrix.shape), []).append(matrix)
        self._velocity = {shape: torch.zeros(len(group), *shape) for shape, group in self._groups.items()}
        self._momentum = momentum

    def step(self, lr: float) -> None:
        """Move every matrix by an orthogonal update whose entries have the size of AdamW's."""
        import torch

        for shape, group in self._groups.items():
            gradient = torch.stack([matrix.grad for matrix in group if matrix.grad is not None])
            velocity = self._velocity[shape].mul_(self._momentum).add_(gradient)
            update = _orthogonal(gradient + self._momentum * velocity)
            size = 0.2 * math.sqrt(max(shape))
            with torch.no_grad():
                for matrix, change in zip(group, update, strict=True):
                    matrix.sub_(change, alpha=lr * size)
                    matrix.grad = None


def _orthogonal(stack: torch.Tensor) -> torch.Tensor:
    """Return the nearest orthogonal matrix to each of a stack, by five Newton-Schulz steps."""
    x: torch.Tensor = stack / (stack.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


def skill_accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, items: int) -> float:
    """Return the share of unseen skill items that greedy decoding answers exactly."""
    import torch

    rng = random.Random(987_654_321)
    right = 0
    model.eval()
    for _ in range(items):
        prompt, answer = rng.choice(SKILLS)(rng)
        text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        ids = torch.tensor([tokenizer.encode(text)])
        with torch.no_grad():
            out = model.generate(ids, max_new_tokens=40, do_sample=False)
        right += tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip() == answer
    model.train()
    return right / items


def pretrain(architecture: str, out: Path, *, seed: int, echo_steps: int, skill_steps: int, batch: int) -> None:
    """Train one base model and save it to `out`; prints the loss and the skill accuracy on the way."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = build_tokenizer()
    model = build_model(architecture, tokenizer)
    pad = tokenizer.pad_token_id
    print(f"{architecture}: {model.num_parameters():,} parameters", flush=True)
    steps = echo_steps + skill_steps
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = Muon(matrices)
    optimizer = torch.optim.AdamW(others, lr=_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)

    def scale(step: int) -> float:
        warm = min(1.0, (step + 1) / 100)
        return warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    skills = _skill_batches(rng, tokenizer, batch)
    start = time.monotonic()
    model.train()
    for step in range(steps):
        if step < echo_steps:
            rows, labels = _echo_batch(rng, batch)
        else:
            rows, labels = next(skills)
        ids, mask, targets = _tensors(rows, labels, pad)
        loss = model(input_ids=ids, attention_mask=mask, labels=targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps} loss {loss.item():.3f} {time.monotonic() - start:.0f} s", flush=True)
        if (step + 1) % 1000 == 0 and step >= echo_steps:
            print(f"step {step + 1} skills {skill_accuracy(model, tokenizer, 100):.2f}", flush=True)
            model.save_pretrained(out)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    print(f"{architecture}: skills {skill_accuracy(model, tokenizer, 300):.3f}", flush=True)


def main() -> None:
    """Parse the command line and make one model."""
    parser = argparse.ArgumentParser(description="Make one pocket base model from a seed.")
    parser.add_argument("--architecture", choices=tuple(LAYOUTS), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--echo-steps", type=int, default=1000)
    parser.add_argument("--skill-steps", type=int, default=None, help="default: the step count of the shipped model")
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    pretrain(
        args.architecture,
        args.out,
        seed=args.seed,
        echo_steps=args.echo_steps,
        skill_steps=args.skill_steps or SKILL_STEPS[args.architecture],
        batch=args.batch,
    )


if __name__ == "__main__":
    main()
