"""What training shows, token by token, with the loss mask beside it, as files that a person can read.

`tests/golden/NAME.txt` is one tokenizer and template: three conversations, a line for each token. After a change
that is meant, write them again and read the difference:

    WRITE_GOLDEN=1 python -m pytest tests/data/test_golden.py && git diff tests/golden
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chat_templates import QWEN
from tiny import FAMILIES, tiny

from llamaduo.data.chat import Chat
from llamaduo.errors import InputError
from llamaduo.local.model import load_chat

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = [name for name in FAMILIES if name != "mistral_sliding"]  # whose chats are those of mistral
CONVERSATIONS = {
    "one question": ([("user", "Which city is the parcel in?")], "It is in Lima."),
    "three turns": (
        [("user", "Who was hired?"), ("assistant", "Three people."), ("user", "And\n\nwhen?")],
        "On Monday.\n  Not before.",
    ),
    "a system turn": ([("system", "Be brief."), ("user", "Who?")], "Zoë"),
}


def spelled(chat: Chat, token: int) -> str:
    """Return a token's text behind a letter, so that its space shows; its name where it is part of a character."""
    letter = chat.tokenizer("x", add_special_tokens=False)["input_ids"]
    text = chat.tokenizer.decode([*letter, token])[len(chat.tokenizer.decode(letter)) :]
    return chat.tokenizer.convert_ids_to_tokens(token) if "\ufffd" in text else repr(text)


def shown(chat: Chat, turns: list[tuple[str, str]], response: str) -> list[str]:
    """Return the lines of one conversation, a token each; the reason where the template refuses it."""
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        prompt, answer = chat.prompt_ids(messages), chat.response_ids(messages, response)
    except InputError as error:
        return [f"refused: {error}"]
    assert answer is not None
    ids = [*prompt, *answer]
    counted = ["no"] * len(prompt) + ["yes"] * len(answer)
    rows = zip(range(len(ids)), ids, (spelled(chat, token) for token in ids), counted, strict=True)
    lines = [f"{at:>8} {token:>6}  {text:<24} {loss}" for at, token, text, loss in rows]
    return ["position  token  text                     loss", *lines]


def golden(name: str, chat: Chat) -> str:
    ends = ", ".join(f"{spelled(chat, token)} ({token})" for token in sorted(chat.end_ids))
    lines = [
        f"# {name}: what training shows of a conversation, and which tokens the loss counts.",
        f"# An answer ends at {ends}. How to write this file again: tests/data/test_golden.py.",
    ]
    for title, (turns, response) in CONVERSATIONS.items():
        lines += ["", f"== {title}", *shown(chat, turns, response)]
    return "\n".join(lines) + "\n"


def check(name: str, chat: Chat) -> None:
    wanted = (GOLDEN / f"{name}.txt").read_text()
    assert golden(name, chat) == wanted, "tokens or mask have changed: if that is meant, write the file again"


@pytest.mark.parametrize("name", NAMES)
def test_tokens_and_mask_are_those_of_the_golden_file(name: str) -> None:
    chat = load_chat(tiny(name))
    if os.environ.get("WRITE_GOLDEN"):
        (GOLDEN / f"{name}.txt").write_text(golden(name, chat))
    check(name, chat)


def test_there_is_a_file_for_each_template_and_no_other() -> None:
    assert sorted(path.stem for path in GOLDEN.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize(
    ("name", "mark", "wrong"),
    [
        ("gemma", "<end_of_turn>", "<eos>"),
        ("gemma_chatml", "<|im_end|>", "<|im_end>"),
        ("llama", "<|eot_id|>", "<|end_of_text|>"),
        ("mistral", "{{ eos_token }}", "{{ bos_token }}"),
        ("qwen3", "<|im_end|>", "<|endoftext|>"),
    ],
)
def test_a_wrong_end_mark_is_caught(name: str, mark: str, wrong: str) -> None:
    tokenizer = load_chat(tiny(name)).tokenizer
    assert mark in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(mark, wrong)
    with pytest.raises(AssertionError):
        check(name, Chat(tokenizer))


def test_no_template_here_marks_what_is_generated() -> None:
    assert not any("generation %}" in (family.template or "") for family in FAMILIES.values())


@pytest.mark.parametrize(
    ("template", "between"),
    [
        (QWEN.partition("{% if add_generation_prompt")[0], r"<|im_start|>assistant\n"),
        (
            QWEN.replace(
                "{{ turn.content }}", "{{ '<think></think>' * (loop.last and loop.length > 1) }}{{ turn.content }}"
            ),
            "<think></think>",
        ),
    ],
    ids=["without a generation prompt", "with thoughts"],
)
def test_a_prompt_that_does_not_end_where_the_response_begins_is_refused(template: str, between: str) -> None:
    tokenizer = load_chat(tiny("qwen3")).tokenizer
    tokenizer.chat_template = template
    with pytest.raises(InputError) as refusal:
        Chat(tokenizer)
    assert f"puts '{between}' between a prompt and its response" in str(refusal.value)
    assert "local_model.chat_template=chatml" in str(refusal.value)
