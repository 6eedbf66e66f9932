"""Many chats at once come to what each comes to alone, done as transformers does it: any tokenizer, any template."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llamaduo.config import LocalModel
from llamaduo.data.chat import CHATML, Chat
from llamaduo.errors import InputError
from llamaduo.local.model import load_chat
from llamaduo.pocket.tasks import make_pairs

Pair = tuple[list[int], list[int] | None]

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
UNMARKED = (
    "{% for m in messages %}{{ m['role'] }}:\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL, "no end mark": UNMARKED}
MARKS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|eot_id|>", "<start_of_turn>"]
MARKS += ["<end_of_turn>", "[INST]", "[/INST]"]
PIECES = [
    "a",
    "Invoice 17",
    " is wrong",
    "\n\n",
    "    return x",
    "\t",
    "  ",
    "Zürich",
    "東京",
    "😀",
    "e\u0301",
    "[INST]",
    "'s",
]


def byte_level() -> Tokenizer:
    """As Llama 3, Qwen and GPT-2 have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(tokenizer, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))


def cut() -> Tokenizer:
    """The same from a file that cuts and pads whatever it is given."""
    tokenizer = byte_level()
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=64)
    return tokenizer


def metaspace() -> Tokenizer:
    """As Llama 2, Mistral and Gemma have it: a space is a letter, and a text's first word gets one."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return trained(tokenizer, trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False))


def unigram() -> Tokenizer:
    """As T5 has it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    special = {"special_tokens": ["<unk>"], "unk_token": "<unk>"}
    return trained(tokenizer, trainers.UnigramTrainer(vocab_size=200, show_progress=False, **special))


def word_pieces() -> Tokenizer:
    """As BERT has it: lower case, no accents."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return trained(tokenizer, trainers.WordPieceTrainer(vocab_size=200, special_tokens=["<unk>"], show_progress=False))


def trained(tokenizer: Tokenizer, trainer: Any) -> Tokenizer:
    tokenizer.train_from_iterator([text for pair in make_pairs("coding", 40, seed=2) for text in pair], trainer)
    return tokenizer


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    made.__name__: made for made in (byte_level, cut, metaspace, unigram, word_pieces)
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    backend = TOKENIZERS[request.param]()
    special = {"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": MARKS[2:]}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def conversations(seed: int, count: int = 60) -> list[tuple[list[dict[str, str]], str]]:
    """Return prompts of one to five turns and responses, some of them with the marks of templates in their texts."""
    rng = random.Random(seed)

    def text() -> str:
        marks = MARKS if rng.random() < 0.2 else []
        return "".join(rng.choices(PIECES + marks, k=rng.randint(1, 12)))

    roles = ["user", "assistant"]
    return [
        ([{"role": roles[at % 2], "content": text()} for at in range(rng.choice([1, 1, 3, 5]))], text())
        for _ in range(count)
    ]


def alone(chat: Chat, messages: list[dict[str, str]], response: str) -> Pair:
    """Return the tokens of one chat by transformers' calls for one chat.

    A response's are those that it has behind its prompt, unless the two have grown together.
    """
    tokenizer = chat.tokenizer
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": response}], tokenize=False)
    prompt, rest, both = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, whole[len(asked) :], whole)
    )
    if both[: len(prompt)] == prompt:
        rest = both[len(prompt) :]
    ends = [at for at, token in enumerate(rest) if token in chat.end_ids]
    if len(ends) > chat._ends:
        return prompt, None
    return prompt, rest[: ends[0] + 1] if ends else [*rest, tokenizer.eos_token_id]


def expected(chat: Chat, chats: list[tuple[list[dict[str, str]], str]]) -> list[Pair]:
    return [alone(chat, messages, response) for messages, response in chats]


@pytest.mark.parametrize("template", TEMPLATES)
def test_many_are_what_each_is_alone(tokenizer: Any, template: str) -> None:
    tokenizer.chat_template = TEMPLATES[template]
    chat, chats = Chat(tokenizer), conversations(seed=3)
    found = chat.pairs(chats)
    assert found == expected(chat, chats)
    assert found == [(chat.prompt_ids(messages), chat.response_ids(messages, text)) for messages, text in chats]
    kept = [response for _, response in found if response is not None]
    assert chat._backend is not None
    assert all(response[-1] in chat.end_ids for response in kept)
    assert 30 < len(kept) <= 60
    if template != "no end mark":
        assert len(kept) < 60  # end marks in the text of some


@pytest.mark.parametrize("model", ["llama", "gemma", "mistral"])
def test_so_it_is_with_the_models_that_come_with_the_package(model: str) -> None:
    chat = load_chat(LocalModel(name=model, path=f"pocket:{model}", context=512))
    pairs = make_pairs("summarization", 40, seed=1)
    chats = [([{"role": "user", "content": prompt}], response) for prompt, response in pairs] + conversations(seed=4)
    assert chat.pairs(chats) == expected(chat, chats)
    assert chat.pairs([]) == []


def test_a_tokenizer_with_a_call_of_its_own_is_called() -> None:
    class Marked(PreTrainedTokenizerFast):
        def _encode_plus(self, text: Any, **options: Any) -> Any:
            mark = "(own)"
            return super()._encode_plus(mark + text if isinstance(text, str) else [mark + t for t in text], **options)

    plain, chat = (
        Chat(kind(tokenizer_object=byte_level(), bos_token="<s>", eos_token="</s>", chat_template=CHATML))
        for kind in (PreTrainedTokenizerFast, Marked)
    )
    chats = conversations(seed=5)
    assert chat.pairs(chats) == expected(chat, chats)
    assert chat.pairs(chats) != plain.pairs(chats)
    assert chat.fingerprint() is None  # nobody knows what such a class does
    assert plain.fingerprint() is not None


def test_many_refuse_what_one_refuses(tokenizer: Any) -> None:
    chats = conversations(seed=6)
    changes = "{% if messages | length > 2 %}{{ messages | length }}{% endif %}{% for"
    tokenizer.chat_template = CHATML.replace("{% for", changes, 1)
    chat = Chat(tokenizer)
    with pytest.raises(InputError, match="no loss mask can be made"):
        chat.pairs(chats)
    tokenizer.chat_template = "{% if messages | length > 5 %}{{ raise_exception('too long') }}{% endif %}" + CHATML
    chat = Chat(tokenizer)
    with pytest.raises(InputError, match=r"refuses these turns \(too long\)"):
        chat.pairs(chats)
