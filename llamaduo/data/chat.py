r"""From messages to tokens: what the model reads, what it is trained to write, and where it stops.

A response is rendered with the prompt's own template and cut off behind the first end mark, so that
training shows exactly what inference will see: prompt tokens, response tokens, end mark.

    <|im_start|>user\nClassify ...<|im_end|>\n<|im_start|>assistant\n  |  billing<|im_end|>
    ------------------------------- prompt -------------------------------- | ---- response ----
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import date
from functools import cached_property
from importlib.metadata import version
from typing import Any

from llamaduo.errors import InputError
from llamaduo.records import Example

CHATML = (
    "{{ bos_token if bos_token else '' }}"
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}<|im_end|>{% endif %}{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML for a tokenizer that has no template: its own end-of-text token ends a response."""


def chatml(tokenizer: Any) -> str:
    """Return ChatML for a tokenizer: where it has no end-of-text token, `<|im_end|>` ends a response, too."""
    return CHATML if tokenizer.eos_token_id is not None else CHATML.replace("{{ eos_token }}", "<|im_end|>")


class RefusedError(InputError):
    """The template can't make a row's prompt and response of its turns."""

    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(f"{reason}{mend}")
        self.reason = reason


PROBE = "x"
"""The response by which it is found out what a template writes behind one."""
_TOLD = 160
"""Characters of a template's own message, at most."""
Turns = Sequence[dict[str, Any]]
"""`{"role", "content"}` turns; those that call tools have `tool_calls`, as `records.Example` has them."""
_TOOL = "probe_tool"
_TOOLS = [{"type": "function", "function": {"name": _TOOL, "description": "", "parameters": {"type": "object",
          "properties": {}}}}]  # fmt: skip


class Offered(tuple[dict[str, Any], ...]):
    """The turns of a prompt whose request offers functions."""

    tools: tuple[dict[str, Any], ...]


def asked(example: Example) -> Turns:
    """Return the turns of a prompt, with the functions that its request offers."""
    if not example.tools:
        return example.messages
    turns = Offered(example.messages)
    turns.tools = example.tools
    return turns


def conversation(example: Example) -> tuple[Turns, str | dict[str, Any]]:
    """Return the turns of a prompt and its response: a text, or a turn that calls tools."""
    return asked(example), example.answer if example.calls else example.response


def _with(turns: Turns, response: str | dict[str, Any]) -> Turns:
    answer = response if isinstance(response, dict) else {"role": "assistant", "content": response}
    if not isinstance(turns, Offered):
        return [*turns, answer]
    whole = Offered((*turns, answer))
    whole.tools = turns.tools
    return whole


def _with_values(turns: Turns) -> list[dict[str, Any]]:
    """Return turns as templates take them: arguments of calls are objects."""
    return [_valued(turn) if "tool_calls" in turn else turn for turn in turns]


def _valued(turn: dict[str, Any]) -> dict[str, Any]:
    calls = [
        {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
        for call in turn["tool_calls"]
    ]
    return {**turn, "tool_calls": calls}


class Chat:
    """Renders chats with one tokenizer (transformers' fast tokenizers are fast here, too)."""

    def __init__(self, tokenizer: Any, stops: Iterable[int] = ()) -> None:
        """Take a tokenizer, and the tokens at which its model's own generation settings stop.

        Only those count that are marks to the tokenizer: it may be another one than the model was made with.
        """
        self.tokenizer = tokenizer
        self._backend = _backend(tokenizer)
        self._leads: dict[str, list[int]] = {}
        """Tokens of what stands before responses."""
        if not tokenizer.chat_template:
            raise InputError("the tokenizer has no chat template: set local_model.chat_template=chatml.")
        (asked,), (rest,) = self.rendered([([{"role": "user", "content": PROBE}], PROBE)])
        opening, _, suffix = rest.partition(PROBE)
        if opening.strip():
            raise InputError(
                f"the chat template puts {opening!r} between a prompt and its response, where inference would not: "
                "set local_model.chat_template=chatml."
            )
        self._lead = self._needed_lead(asked)
        ends = self._behind(asked + opening + PROBE, suffix.strip())
        marks = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        own = {token for token in (tokenizer.eos_token_id,) if token is not None}
        self.end_ids = own | marks.intersection(ends[:1])
        self._stops = marks.intersection(stops) - self.end_ids
        self.end_ids |= self._stops
        if not self.end_ids:
            raise InputError(
                "the tokenizer has no end-of-text token, and its chat template ends a response with no token of its "
                "own: nothing would end an answer. Name one as `eos_token` in its tokenizer_config.json, or take "
                "another local_model.tokenizer."
            )
        self.closing = tokenizer.eos_token_id if own else min(marks.intersection(ends[:1]) or self.end_ids)
        """The end mark that is put behind a response where the template puts none."""
        self.suffix = suffix.strip()
        """What the template writes behind a response."""
        self._ends = sum(token in self.end_ids for token in ends)

    def prompt_ids(self, messages: Turns) -> list[int]:
        """Return the tokens of a prompt, up to where the response begins."""
        return self._ids(self._text(messages))

    def prompts(self, chats: Sequence[Turns]) -> tuple[list[str], list[list[int]]]:
        """Return the text of each prompt, and its tokens as `prompt_ids` does, but sooner."""
        texts = self._texts(chats)
        return texts, self._many_ids(texts)

    def response_ids(self, messages: Turns, response: str) -> list[int] | None:
        """Return the tokens of the response to a prompt, the end mark last; None if an end mark is in its text."""
        (asked,), (behind,) = self.rendered([(messages, response)])
        return self._ended(self._behind(asked, behind))

    @cached_property
    def takes_tools(self) -> bool:
        """Whether the template shows a call of a tool, its arguments, and what the tool replies."""
        call = {"id": "callprobe", "type": "function",
                "function": {"name": _TOOL, "arguments": '{"argument": "probe_value"}'}}  # fmt: skip
        turns: list[dict[str, Any]] = [
            {"role": "user", "content": PROBE},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "probe_reply", "tool_call_id": "callprobe", "name": _TOOL},
        ]
        try:
            text = self._text(turns)
        except RefusedError:
            return False
        return all(word in text for word in (_TOOL, "probe_value", "probe_reply"))

    @cached_property
    def _shows_offers(self) -> bool:
        """Whether the template shows the functions that a request offers."""
        try:
            turns = [{"role": "user", "content": PROBE}]
            return _TOOL in self.tokenizer.apply_chat_template(turns, tools=_TOOLS, tokenize=False)
        except Exception:  # templates raise whatever they like
            return False

    def pairs(
        self, conversations: Sequence[tuple[Turns, str | dict[str, Any]]]
    ) -> list[tuple[list[int], list[int] | None]]:
        """Return what `prompt_ids` and `response_ids` return for each (prompt, response), but sooner.

        Threads that call this work side by side: the interpreter is free while texts become tokens.
        """
        return self.tokens(*self.rendered(conversations))

    def rendered(self, conversations: Sequence[tuple[Turns, str | dict[str, Any]]]) -> tuple[list[str], list[str]]:
        """Return the text of each prompt, and the text that the template puts behind it for its response."""
        asked = self._texts([messages for messages, _ in conversations])
        answered = [_with(messages, response) for messages, response in conversations]
        behind = []
        for text, whole in zip(asked, self._texts(answered), strict=True):
            if not whole.startswith(text):
                raise RefusedError(
                    "the chat template changes a prompt when a response follows: no loss mask can be made",
                    "; leave system turns out of the rows, or set local_model.chat_template=chatml.",
                )
            behind.append(whole[len(text) :])
        return asked, behind

    def tokens(self, asked: Sequence[str], behind: Sequence[str]) -> list[tuple[list[int], list[int] | None]]:
        """Return the tokens of prompts and of what stands behind them, as `pairs` does."""
        leads = [self._lead_of(text) for text in asked]
        ids = self._many_ids([*asked, *(lead + text for lead, text in zip(leads, behind, strict=True))])
        rests = map(self._without, leads, behind, ids[len(asked) :])
        return [(prompt, self._ended(rest)) for prompt, rest in zip(ids[: len(asked)], rests, strict=True)]

    def fingerprint(self) -> str | None:
        """Return a hash of all that decides which tokens turns become; None if it can't be told.

        That is the tokenizer, its template, the libraries' versions, and the day if the template shows it.
        """
        if self._backend is None:
            return None
        template = json.dumps(self.tokenizer.chat_template)
        told = {
            "tokenizer": self._backend.to_str(),
            "template": template,
            "special": self.tokenizer.special_tokens_map,
            "stops": sorted(self._stops),
            "versions": [version(name) for name in ("transformers", "tokenizers", "jinja2")],
            "day": date.today().isoformat() if "strftime_now" in template else None,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def _text(self, messages: Turns) -> str:
        return self._texts([messages])[0]

    def _texts(self, chats: Sequence[Turns]) -> list[str]:
        """Render chats; the assistant's turn is opened in each that doesn't end with one."""
        texts = [""] * len(chats)
        for asks in (True, False):
            chosen = [at for at, turns in enumerate(chats) if (turns[-1]["role"] != "assistant") is asks]
            for at, text in zip(chosen, self._applied([chats[at] for at in chosen], asks), strict=True):
                texts[at] = text
        return texts

    def _applied(self, chats: list[Turns], asks: bool) -> list[str]:
        offers = [isinstance(turns, Offered) and self._shows_offers for turns in chats]
        if not any(offers):
            return self._shown(chats, asks)
        return [self._shown([turns], asks, list(turns.tools) if isinstance(turns, Offered) and offered else None)[0]
                for turns, offered in zip(chats, offers, strict=True)]  # fmt: skip

    def _shown(self, chats: list[Turns], asks: bool, tools: list[dict[str, Any]] | None = None) -> list[str]:
        if not chats:
            return []
        plain = [_with_values(turns) for turns in chats]
        offered = {"tools": tools} if tools else {}
        try:
            rendered = self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=asks, **offered)
        except Exception as error:  # templates raise whatever they like
            told = " ".join(str(error).split())[:_TOLD]
            raise RefusedError(
                f"the chat template refuses these turns ({told})", ": change the rows' roles."
            ) from error
        return list(rendered)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _many_ids(self, texts: list[str]) -> list[list[int]]:
        """Return the tokens of each text, as `_ids` does."""
        if self._backend is None:
            return [self._ids(text) for text in texts]
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    # SentencePiece tokenizers put a space in front of a text, and a response is no text of its own

    def _needed_lead(self, asked: str) -> str:
        """Return what a prompt ends with, if a response has to stand behind it to get its own tokens; else nothing."""
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values()]
        lead = max((text for text in added if asked.endswith(text)), key=len, default=asked[-1:])
        return "" if self._without(lead, "x", self._ids(f"{lead}x")) == self._ids("x") else lead

    def _lead_of(self, asked: str) -> str:
        return self._lead if asked.endswith(self._lead) else asked[-1:]

    def _without(self, lead: str, text: str, ids: list[int]) -> list[int]:
        """Return the tokens of a text out of those of lead and text; its own, where the two have grown together."""
        if not lead:
            return ids
        before = self._leads.get(lead) or self._leads.setdefault(lead, self._ids(lead))
        return ids[len(before) :] if ids[: len(before)] == before else self._ids(text)

    def _behind(self, asked: str, text: str) -> list[int]:
        lead = self._lead_of(asked)
        return self._without(lead, text, self._ids(lead + text))

    def _ended(self, ids: list[int]) -> list[int] | None:
        """Cut off what the template writes behind a response's end mark; None if there are marks in the response."""
        if sum(ids.count(end) for end in self.end_ids) > self._ends:
            return None
        ends = [ids.index(end) for end in self.end_ids if end in ids]
        return ids[: min(ends) + 1] if ends else [*ids, self.closing]


def _backend(tokenizer: Any) -> Any:
    """Return the Rust tokenizer that a call of the tokenizer comes down to; None if its class adds to that."""
    methods = [getattr(type(tokenizer), name) for name in ("__call__", "_encode_plus")]
    plain = all(method.__module__.startswith("transformers.tokenization_utils_") for method in methods)
    return tokenizer.backend_tokenizer if plain else None
