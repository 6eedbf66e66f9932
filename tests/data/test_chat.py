"""Chats: prompt tokens and response tokens together are the template's rendering, up to the end mark.

What training shows is what inference will see: the prompt with nothing cut, the response, one end mark.
"""

from __future__ import annotations

from typing import Any

import pytest

from llamaduo.config import LocalModel
from llamaduo.data.chat import CHATML, Chat
from llamaduo.errors import InputError
from llamaduo.local.model import load_chat
from llamaduo.pocket.tasks import TASKS, make_pairs

ASK = [{"role": "user", "content": "Classify this ticket: my invoice is wrong."}]
LONG = [
    {"role": "user", "content": "Who ordered?"},
    {"role": "assistant", "content": "Roma"},
    {"role": "user", "content": "And\n\nwhen?"},
]


@pytest.fixture(scope="module")
def own() -> Chat:
    return load_chat(LocalModel(name="m", path="pocket:mistral", context=512))


@pytest.fixture(scope="module")
def chatml() -> Chat:
    return load_chat(LocalModel(name="m", path="pocket:mistral", context=512, chat_template="chatml"))


@pytest.fixture(params=["own", "chatml"])
def chat(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def rendered(chat: Chat, messages: list[dict[str, str]], response: str) -> str:
    turns = [*messages, {"role": "assistant", "content": response}]
    return str(chat.tokenizer.apply_chat_template(turns, tokenize=False))


@pytest.mark.parametrize("messages", [ASK, LONG], ids=["one turn", "three turns"])
@pytest.mark.parametrize(
    "response", ["billing", "Roma (Taveno): bako late, wants refund", "two\nlines  ", "Zürich 東京 😀"]
)
def test_prompt_and_response_are_the_templates_rendering_up_to_the_end_mark(
    chat: Chat, messages: list[dict[str, str]], response: str
) -> None:
    prompt, answer = chat.prompt_ids(messages), chat.response_ids(messages, response)
    assert answer is not None
    whole = rendered(chat, messages, response)
    text = chat.tokenizer.decode(prompt + answer, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert whole.startswith(text)
    assert not whole[len(text) :].strip()  # nothing but white space follows the end mark
    assert prompt + answer == chat.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_prompt_ids_are_the_rendering_with_the_assistants_turn_opened(chat: Chat) -> None:
    asked = chat.tokenizer.apply_chat_template(ASK, tokenize=False, add_generation_prompt=True)
    assert chat.prompt_ids(ASK) == chat.tokenizer(asked, add_special_tokens=False)["input_ids"]
    assert ASK[0]["content"] in asked


def test_the_end_mark_is_last_and_once(chat: Chat) -> None:
    for task in TASKS:
        for prompt, response in make_pairs(task, 20, seed=1):
            ids = chat.response_ids([{"role": "user", "content": prompt}], response)
            assert ids is not None
            assert ids[-1] in chat.end_ids
            assert not set(ids[:-1]) & chat.end_ids
            assert chat.tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False) == response


def test_a_response_that_writes_an_end_mark_can_not_be_learned(chat: Chat) -> None:
    mark = chat.tokenizer.eos_token
    assert chat.response_ids(ASK, f"billing{mark} and more") is None
    assert chat.response_ids(ASK, f"billing{mark}") is None
    assert chat.response_ids(ASK, "billing") is not None


def test_the_response_does_not_change_the_prompts_tokens(chat: Chat) -> None:
    before = chat.prompt_ids(LONG)
    chat.response_ids(LONG, "on monday")
    assert chat.prompt_ids(LONG) == before


def test_chatml_is_a_fallback_for_tokenizers_without_a_template(chatml: Chat) -> None:
    assert chatml.tokenizer.chat_template == CHATML
    assert chatml.end_ids == {chatml.tokenizer.eos_token_id}
    assert (
        rendered(chatml, ASK, "billing")
        .rstrip()
        .endswith(f"<|im_start|>assistant\nbilling{chatml.tokenizer.eos_token}")
    )


def test_chatml_is_chatml_to_the_letter(chatml: Chat) -> None:
    assert rendered(chatml, ASK, "billing") == (
        f"<|im_start|>user\n{ASK[0]['content']}<|im_end|>\n<|im_start|>assistant\nbilling{chatml.tokenizer.eos_token}\n"
    )


def test_the_models_own_ends_count_if_they_are_marks(own: Chat) -> None:
    tokenizer = own.tokenizer
    mark = min(set(tokenizer.added_tokens_decoder) - own.end_ids)
    other = next(token for token in range(len(tokenizer)) if token not in tokenizer.added_tokens_decoder)
    chat = Chat(tokenizer, [mark, other, tokenizer.eos_token_id])
    assert chat.end_ids == own.end_ids | {mark}
    assert chat.fingerprint() != own.fingerprint()
    assert chat.response_ids(ASK, f"billing{tokenizer.decode([mark])} and more") is None


def test_a_tokenizer_without_a_template_is_refused_with_the_way_out(own: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own.tokenizer, "chat_template", None)
    with pytest.raises(InputError, match=r"local_model\.chat_template=chatml"):
        Chat(own.tokenizer)


def test_a_template_that_refuses_turns_is_an_input_error(chatml: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML
    monkeypatch.setattr(chatml.tokenizer, "chat_template", refuses)
    with pytest.raises(InputError, match=r"the chat template refuses these turns \(no system turn\)"):
        chatml.prompt_ids([{"role": "system", "content": "Be brief."}, *ASK])


def test_a_template_that_changes_the_prompt_afterwards_is_refused(
    chatml: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = CHATML.replace("{% for", "{{ messages | length }}{% for", 1)
    monkeypatch.setattr(chatml.tokenizer, "chat_template", changes)
    with pytest.raises(InputError, match="no loss mask can be made"):
        chatml.response_ids(ASK, "billing")


@pytest.mark.parametrize("messages", [ASK, LONG], ids=["one turn", "three turns"])
def test_the_mask_is_the_one_of_a_template_that_marks_what_is_generated(
    own: Chat, messages: list[dict[str, str]]
) -> None:
    turns = [*messages, {"role": "assistant", "content": "On Monday."}]
    marked = own.tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    answer = own.response_ids(messages, "On Monday.")
    assert answer is not None
    start = len(own.prompt_ids(messages))
    assert marked["input_ids"][start : start + len(answer)] == answer
    assert marked["assistant_masks"][start - 1 :] == [0] + [1] * len(answer)
