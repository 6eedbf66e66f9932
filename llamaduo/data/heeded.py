"""What a row, a log's response, a choice or a turn says about its own answer: cut, filtered, failed, a call of tools.

    heed({"response": "Li", "finish_reason": "length"}, "log.jsonl:7")     raises SetAside, which says why
    is_heeded("finishReason")                                              whether such a field is looked at

Providers, gateways and exports write `finish_reason`, `finishReason` or `Finish Reason`: names are compared by their
letters alone. A field that is null, or one of the words that tables have for null, says nothing; a finish reason that
isn't known to mean "finished" means that it isn't.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from llamaduo.data.unusable import SetAside

_FINISHED = {"stop", "end_turn", "stop_sequence", "eos", "eos_token", "complete", "completed"}
_TOOLS = {"tool_calls", "tool_call", "tool_use", "function_call", "malformed_function_call"}
_CALLED = _TOOLS - {"malformed_function_call"}
_FILTERED = {"content_filter", "content_filtered", "refusal", "safety", "recitation", "prohibited_content", "blocklist",
             "spii", "blocked", "guardrail_intervened", "sensitive", "image_safety"}  # fmt: skip
_CUT = {"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded", "incomplete"}
_FAILED = {"failed", "failure", "error", "errored", "cancelled", "canceled", "timeout", "timed_out", "expired",
           "aborted", "abort", "rejected"}  # fmt: skip
_UNDER_WAY = {"incomplete", "in_progress", "queued"}
_NULLS = {"", "null", "none", "nan", "n/a", "<na>", "[]", "{}"}
"""What tables have for null."""
_NO = {"false", "no", "0", "0.0"}
_LONGEST = 40

_REASONS = {"finishreason": "finish_reason", "stopreason": "stop_reason", "donereason": "done_reason"}
_NATIVE = "nativefinishreason"
"""A gateway's word for its provider's own finish reason; it comes beside one that is known."""
_ERRORS = {"error", "exception", "iserror", "errormessage", "errorstr", "errorcode", "errortype", "errorinformation"}
_STATUSES = {"status", "statuscode", "httpstatus", "httpstatuscode", "responsestatus", "responsestatuscode",
             "responsecode", "level"}  # fmt: skip
_WHOLE, _BROKEN = {"success", "succeeded", "ok", "done", "finished"}, {"truncated", "istruncated", "incompletedetails"}
_CALLS = {"toolcalls", "functioncall"}
_FILTERS = {"contentfilterresults", "contentfilterresult", "promptfilterresults", "safetyratings", "promptfeedback"}
_ABOUT = {"metadata", "responsemetadata"}
"""Objects that may have a finish reason in them."""
_HEEDED = {_NATIVE, "refusal", *_REASONS, *_ERRORS, *_STATUSES, *_WHOLE, *_BROKEN, *_CALLS, *_FILTERS}
_LOOKED_AT = _HEEDED | _ABOUT


def is_heeded(name: str) -> bool:
    """Tell whether a field of that name is looked at."""
    return _letters(name) in _HEEDED


def heed(said: Any, place: str, *, tells: bool = False, calls: bool = False) -> None:
    """Raise SetAside where something is said against an answer; in what `tells`, null is no finish reason.

    Where the answer `calls` tools in a form that is known, nothing is said against it by that.
    """
    if not isinstance(said, Mapping):
        return
    fields = [(_letters(name), name, value) for name, value in said.items() if _letters(name) in _LOOKED_AT]
    if not fields:
        return
    told = {key for key, _, value in fields if not is_null(value)}
    if not calls and any(key in told & _CALLS and str(value).strip().lower() not in _NO for key, _, value in fields):
        raise SetAside(place, "the answer is a call of tools")
    if any(_is_filtered(value) for key, _, value in fields if key in _FILTERS):
        raise SetAside(place, "the answer is held back by a filter")
    for key, name, value in fields:
        if key == "stopreason" and "finishreason" in told:  # vLLM's: the text at which it stopped
            continue
        if calls and key in {*_REASONS, _NATIVE} and str(value).strip().lower() in _CALLED:
            continue
        against = _against(key, name, value) if key in told or (tells and key in _REASONS) else ""
        if against:
            raise SetAside(place, against)
        if key in _ABOUT and isinstance(value, dict):
            heed({inner: what for inner, what in value.items() if _letters(inner) in _REASONS}, place)


@lru_cache(maxsize=4096)
def _letters(name: str) -> str:
    """Return a name's letters and digits alone, in lower case."""
    return re.sub(r"[\W_]+", "", str(name)).lower()


def _against(key: str, name: str, value: Any) -> str:  # noqa: PLR0911 (a case each)
    """Return what a field says against an answer; nothing where it doesn't."""
    word = str(value).strip().lower()
    if key in _REASONS:
        return _unfinished(_REASONS[key], value)
    if key == _NATIVE:
        return _unfinished(name, value) if word in _CUT | _FILTERED | _TOOLS | _FAILED else ""
    if key in _STATUSES:
        code = re.match(r"(\d{3}|-\d+)(\.0)?(?=$|[\s:])", word)
        bad = not 200 <= int(code[1]) < 300 if code else word in _FAILED | _UNDER_WAY
        told = f"the log says status {word.removesuffix('.0')[:_LONGEST]}"
        return (told if key == "status" else f"{told} ({name})") if bad else ""
    if key in _ERRORS:
        return "" if word in _NO else f"the log says that the call failed ({name})"
    if key == "refusal":
        return "" if word in _NO else "the answer is a refusal"
    if key in _WHOLE and word in _NO:
        return f"the log says {name} {word}"
    if key in _BROKEN and word not in _NO:
        return f"the answer is cut off ({name})"
    return ""


def _unfinished(name: str, reason: Any) -> str:
    """Return what a finish reason says, unless it says that the answer is finished."""
    word = str(reason).strip().lower().removeprefix("finishreason.") if isinstance(reason, str) else ""
    if word in _FINISHED:
        return ""
    shown = json.dumps(reason, default=str)[:_LONGEST].strip('"')
    kinds = ((_CUT, "cut off"), (_FILTERED, "held back by a filter"), (_TOOLS, "a call of tools"))
    what = next((what for words, what in kinds if word in words), "not known to be finished")
    return "the call failed" if word in _FAILED else f"the answer is {what} ({name}: {shown})"


def is_null(value: Any) -> bool:
    """Tell whether a value says nothing; an object of such values says nothing either."""
    if isinstance(value, str):
        return value.strip().lower() in _NULLS
    if isinstance(value, dict):
        return all(map(is_null, value.values()))
    return value is None or value == [] or value != value  # noqa: PLR0124 (NaN)


def _is_filtered(found: Any) -> bool:
    """Tell whether a filter's findings, as deep as they go, say that something was held back."""
    if isinstance(found, list):
        return any(map(_is_filtered, found))
    if not isinstance(found, dict):
        return False
    told = {_letters(name): value for name, value in found.items()}
    if told.get("filtered") is True or told.get("blocked") is True or not is_null(told.get("blockreason")):
        return True
    return any(map(_is_filtered, found.values()))
