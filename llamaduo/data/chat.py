r"""From messages to tokens: what the model reads, what it is trained to write, and where it stops.

A response is rendered with the prompt's own template and cut off behind the first end mark, so that
training shows exactly what inference will see: prompt tokens, response tokens, end mark.

    <|im_start|>user\nClassify ...<|im_end|>\n<|im_start|>assistant\n  |  billing<|im_end|>
    ------------------------------- prompt -------------------------------- | ---- response ----
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llamaduo.errors import InputError

CHATML = (
    "{{ bos_token if bos_token else '' }}"
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}<|im_end|>{% endif %}{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML for a tokenizer that has no template: its own end-of-text token ends a response."""


class Chat:
    """Renders chats with one tokenizer (any of transformers' fast tokenizers)."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            raise InputError("the tokenizer has no chat template: set local_model.chat_template=chatml.")
        ask = [{"role": "user", "content": "x"}]
        behind = self._text([*ask, {"role": "assistant", "content": "x"}])[len(self._text(ask)) :]
        suffix = self._ids(behind.strip().removeprefix("x"))
        self.end_ids = {tokenizer.eos_token_id}
        if suffix and suffix[0] in set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder):
            self.end_ids.add(suffix[0])
        self._ends = sum(token in self.end_ids for token in suffix)

    def _text(self, messages: Sequence[dict[str, str]]) -> str:
        asks = messages[-1]["role"] != "assistant"
        try:
            return str(self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asks))
        except Exception as error:  # templates raise whatever they like
            raise InputError(f"the chat template refuses these turns ({error}): change the rows' roles.") from error

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt_ids(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Return the tokens of a prompt, up to where the response begins."""
        return self._ids(self._text(messages))

    def response_ids(self, messages: Sequence[dict[str, str]], response: str) -> list[int] | None:
        """Return the tokens of the response to a prompt, the end mark last; None if an end mark is in its text."""
        asked = self._text(messages)
        whole = self._text([*messages, {"role": "assistant", "content": response}])
        if not whole.startswith(asked):
            raise InputError("the chat template changes a prompt when a response follows: no loss mask can be made.")
        ids = self._ids(whole[len(asked) :])
        ends = [index for index, token in enumerate(ids) if token in self.end_ids]
        if len(ends) > self._ends:
            return None
        return ids[: ends[0] + 1] if ends else [*ids, self.tokenizer.eos_token_id]
