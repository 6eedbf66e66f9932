"""Why a model can't be had: from what transformers and the Hub's client raise to one sentence with the way out.

    refused(error, "local_model.path", "google/gemma-2b")
    -> "local_model.path=google/gemma-2b is gated: accept the Gemma Terms of Use on https://..., and put ... HF_TOKEN."

transformers raises OSError for nearly everything; what happened is in the chain of causes.
"""

from __future__ import annotations

from collections.abc import Iterator

from llamaduo.errors import PICKLE

_LICENCES = {
    "google": "the Gemma Terms of Use",
    "meta-llama": "Meta's Llama Community License",
    "mistralai": "the sharing of contact details",
}
"""What the organisations of gated models ask to accept."""


def refused(error: Exception, field: str, path: str) -> str:
    """Return why what a configuration field names can't be loaded, and what to do."""
    from huggingface_hub import errors
    from safetensors import SafetensorError

    given, page = f"{field}={path}", f"https://huggingface.co/{path}"
    licence = _LICENCES.get(path.partition("/")[0], "its licence")
    reasons: list[tuple[tuple[type[Exception], ...], str]] = [
        (
            (errors.GatedRepoError,),
            f"{given} is gated: accept {licence} on {page}, and put a token of that account into HF_TOKEN.",
        ),
        (
            (errors.RepositoryNotFoundError,),
            f"{given}: neither a folder here nor a model on the Hub; check its spelling, or, if it is private, put a "
            "token that may read it into HF_TOKEN.",
        ),
        (
            (errors.RevisionNotFoundError,),
            f"{given}: the Hub has no such revision; take one of {page}/commits/main for local_model.revision.",
        ),
        (
            (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError),
            f"{given} is not in the Hub's cache on this machine, and the Hub can't be reached: run once with a network "
            f"(hf download {path}; HF_HUB_OFFLINE unset), or name a folder.",
        ),
        ((errors.HFValidationError,), f"{given}: no such folder, and no Hub id looks like that; check its spelling."),
        ((SafetensorError,), f"{given}: a weights file is cut off or damaged ({_reason(error)}); download it again."),
    ]
    causes = list(_causes(error))
    for kinds, sentence in reasons:
        if any(isinstance(cause, kinds) for cause in causes):
            return sentence
    return f"{given} {_from_words(_reason(error))}"


def _from_words(reason: str) -> str:
    """Return what is wrong where no exception of its own says it."""
    if "safetensors" in reason and ("no file named" in reason or "does not appear to have" in reason):
        return f"has no safetensors weights: {PICKLE}; take a revision with safetensors, or convert them."
    if "backend tokenizer" in reason:
        return "has no tokenizer that can be read: name one by local_model.tokenizer."
    return f"can't be loaded: {reason}"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:240]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
