"""Check: every coverage row as the model will see it, before anything is bought or trained.

    account = check(dataset, model=local_model, train=train, infer=infer, learned=dataset.train)

The template has to take a row's turns, and its response has to come out whole and once: rows for which that is not so
are refused, all at once, with their places. What is too long or holds an end mark inside its response is left out of
training and counted; prompts that leave no room for an answer get none, and are counted.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from llamaduo.config import Backend, Infer, LocalModel, TooLong, Train
from llamaduo.data.chat import Chat, RefusedError
from llamaduo.data.dataset import Account, CoverageDataset
from llamaduo.errors import InputError
from llamaduo.local.model import load_chat, refuse_if_absent
from llamaduo.records import Example

_CHUNK = 128
"""Rows that are rendered and tokenised together."""
_THREADS = 4
_NAMED = 5
_SAYS_LITTLE = 8
"""Characters: a shorter response may be a part of what a template writes behind every response."""


class Lengths(NamedTuple):
    """A row as the model sees it."""

    prompt: int
    """Tokens of the prompt."""
    response: int | None
    """Tokens of the response, 0 if it isn't shown; None where an end mark is inside."""
    whole: bool
    """Whether all texts of the prompt are there that users and systems wrote."""


Seen = list[tuple[Example, Lengths]]


def check(
    dataset: CoverageDataset,
    account: Account,
    *,
    model: LocalModel,
    train: Train,
    infer: Infer,
    learned: bool,
    most_missing: Mapping[str, float] = MappingProxyType({}),
) -> Account:
    """Return the account of the data, with what the model here can't learn from or answer.

    `learned` tells whether coverage rows are trained on, `most_missing` by split which share of answers may be missing
    for it to be worth anything. Raises InputError for rows that can't be shown to the model, where more than that are
    too long, or all of a split, and where one is and `train.too_long` says refuse.
    """
    answers, learns = infer.backend is not Backend.endpoint, train.enabled
    if not answers and not learns:
        return account
    names = [*(["train"] if learns and learned else []), *(["dev", "test"] if answers else [])]
    refuse_if_absent(model)
    found = _seen(dataset, names, load_chat(model), learns=learns)
    account = _with_lost_turns(account, dataset, found)
    room = model.context - infer.max_new_tokens
    account = _without_what_is_not_learned(account, dataset, found.pop("train", []), train)
    for name, rows in found.items():
        where = _places(dataset, [row for row, lengths in rows if lengths.prompt > room])
        if where and len(where) == len(rows):
            raise InputError(
                f"no {name} prompt can be answered: all {len(where)} exceed the {room} tokens that "
                f"infer.max_new_tokens={infer.max_new_tokens} leaves of a context of {model.context}: {where[0]}; "
                "lower it, shorten them, or take a model with a longer context."
            )
        if len(where) > most_missing.get(name, 1.0) * len(rows):
            raise InputError(
                f"{len(where)} of {len(rows)} {name} prompts exceed the model's context ({_named(where)}), so "
                "it can't pass the gate. Take a longer context, a smaller infer.max_new_tokens, or synthesis=none."
            )
        if where:
            note = (
                f"{name}: {len(where)} of {len(rows)} prompts exceed the {room} tokens that the context leaves "
                f"for them, and get no answer: {_named(where)}."
            )
            account = replace(account, notes=(*account.notes, note))
    return account


def _with_lost_turns(account: Account, dataset: CoverageDataset, found: Mapping[str, Seen]) -> Account:
    """Return the account with a note on prompts of which the template leaves out a text."""
    lost = _places(dataset, [row for rows in found.values() for row, lengths in rows if not lengths.whole])
    if not lost:
        return account
    note = f"prompts of which the chat template leaves a turn's text out: {len(lost)} ({_named(lost)})."
    return replace(account, notes=(*account.notes, note))


def _without_what_is_not_learned(account: Account, dataset: CoverageDataset, rows: Seen, train: Train) -> Account:
    limit = train.max_length
    marked = _places(dataset, [row for row, lengths in rows if lengths.response is None])
    longer = _places(
        dataset, [row for row, (prompt, response, _) in rows if response is not None and prompt + response > limit]
    )
    if longer and train.too_long is TooLong.refuse:
        raise InputError(
            f"train.too_long=refuse: {len(longer)} of {len(rows)} training rows exceed {limit} tokens: "
            f"{_named(longer)}. Raise train.max_length, shorten them, or take train.too_long=drop."
        )
    if rows and len(longer) + len(marked) == len(rows):
        raise InputError(
            f"all {len(rows)} training rows exceed {limit} tokens or hold an end mark ({(longer + marked)[0]}): raise "
            "train.max_length."
        )
    account = account.without("train", f"longer than train.max_length={limit} tokens", longer)
    return account.without("train", "an end mark of the chat inside the response", marked)


def _places(dataset: CoverageDataset, rows: Sequence[Example]) -> list[str]:
    return [dataset.places.get(row.prompt_id, row.prompt_id) for row in rows]


def _named(places: Sequence[str]) -> str:
    more = f" and {len(places) - _NAMED:,} more" if len(places) > _NAMED else ""
    return ", ".join(places[:_NAMED]) + more


def _seen(dataset: CoverageDataset, names: Sequence[str], chat: Chat, *, learns: bool) -> dict[str, Seen]:
    """Return the rows of each split with their lengths; raises InputError for those that can't be shown."""
    found: dict[str, Seen] = {name: [] for name in names}
    refused: dict[str, list[Example]] = defaultdict(list)
    for name in names:
        rows = getattr(dataset, name)
        for row, told in zip(rows, _each(rows, chat, learns=learns), strict=True):
            if isinstance(told, str):
                refused[told].append(row)
            else:
                found[name].append((row, told))
    if refused:
        count = sum(map(len, refused.values()))
        of = sum(len(getattr(dataset, name)) for name in names)
        told = "; ".join(f"{reason}: {_named(_places(dataset, rows))}" for reason, rows in refused.items())
        raise InputError(
            f"{count:,} of {of:,} rows can't be shown to the model ({told}). Change these rows, or take "
            "local_model.chat_template=chatml."
        )
    return found


def _each(rows: Sequence[Example], chat: Chat, *, learns: bool) -> Iterator[Lengths | str]:
    """Yield each row's lengths, or why it can't be shown to the model."""
    chunks = [rows[begin : begin + _CHUNK] for begin in range(0, len(rows), _CHUNK)]
    pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
    try:
        for told in pool.map(partial(_chunk, chat=chat, learns=learns), chunks):
            yield from told
    finally:
        pool.shutdown(cancel_futures=True)


def _chunk(rows: Sequence[Example], *, chat: Chat, learns: bool) -> list[Lengths | str]:
    try:
        return _lengths(rows, chat, learns=learns)
    except RefusedError as error:
        if len(rows) == 1:
            return [error.reason]
        return [told for row in rows for told in _chunk([row], chat=chat, learns=learns)]


def _lengths(rows: Sequence[Example], chat: Chat, *, learns: bool) -> list[Lengths | str]:
    """Return the lengths of rows, or what a template makes of a response; raises RefusedError for one of the rows."""
    if not learns:
        texts, prompts = chat.prompts([row.messages for row in rows])
        return [Lengths(len(ids), 0, _holds(text, row)) for row, text, ids in zip(rows, texts, prompts, strict=True)]
    asked, behind = chat.rendered([(row.messages, row.response) for row in rows])
    return [
        _changed(row.response, response, chat.suffix)
        or Lengths(len(prompt), None if ids is None else len(ids), _holds(text, row))
        for row, text, response, (prompt, ids) in zip(rows, asked, behind, chat.tokens(asked, behind), strict=True)
    ]


def _holds(text: str, row: Example) -> bool:
    return all(turn["content"].strip() in text for turn in row.messages if turn["role"] != "assistant")


def _changed(response: str, text: str, suffix: str) -> str:
    """Return what is wrong with how a response comes out of the template, white space around it left aside."""
    wanted, found = response.strip(), text.strip()
    rest = found[len(wanted) :].strip()
    if not found.startswith(wanted):
        return "the chat template changes the response"
    if rest != suffix and len(wanted) >= _SAYS_LITTLE and wanted in rest:
        return "the chat template writes the response twice"
    return ""
