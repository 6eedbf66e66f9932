"""Check: every coverage row as the model will see it, before anything is bought or trained.

    account = check(dataset, model=local_model, train=train, infer=infer, learned=dataset.train)

The template has to take a row's turns, and its response has to come out whole and once: rows for which that is not so
are refused, all at once, with their places. What is too long or holds an end mark inside its response is left out of
training and counted; prompts that leave no room for an answer get none, and are counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from llamaduo.config import Backend, Infer, LocalModel, TooLong, Train
from llamaduo.data.chat import Chat
from llamaduo.data.dataset import Account, CoverageDataset, without
from llamaduo.data.shown import Lengths, shown
from llamaduo.errors import InputError
from llamaduo.local.model import load_chat, refuse_if_absent
from llamaduo.records import Example

_NAMED = 5
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
    answers, learns = not infer.served, train.enabled
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


NO_CALLS = "the chat template takes no calls of tools"
NOT_ASKED = "a call of tools, which a server is not asked for"
NOT_SHOWN = "the chat template does not take this row's calls of tools"
OF_TOOLS = (NO_CALLS, NOT_ASKED, NOT_SHOWN)
"""Why rows that call tools are left out of a run."""


def usable(dataset: CoverageDataset, *, model: LocalModel, train: Train, infer: Infer) -> CoverageDataset:
    """Return the data without rows that call tools, where the model's template or the server can't do with them."""
    rows = {name: [row for row in getattr(dataset, name) if row.with_tools] for name in ("train", "dev", "test")}
    if not any(rows.values()):
        return dataset
    here = infer.backend is Backend.transformers
    chat = None
    if here or train.enabled:
        refuse_if_absent(model)
        chat = load_chat(model)
    reasons: dict[str, str] = {}
    for name, of_tools in rows.items():
        learns = name == "train" and train.enabled
        if name != "train" and not here:
            reasons |= dict.fromkeys(_places(dataset, of_tools), NOT_ASKED)
        elif chat and not chat.takes_tools:
            reasons |= dict.fromkeys(_places(dataset, of_tools), NO_CALLS)
        elif chat:
            told = shown(of_tools, chat, learns=learns or name != "train")
            lost = [row for row, one in zip(of_tools, told, strict=True) if isinstance(one, str)]
            reasons |= dict.fromkeys(_places(dataset, lost), NOT_SHOWN)
    return without(dataset, reasons)


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
        for row, told in zip(rows, shown(rows, chat, learns=learns), strict=True):
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
