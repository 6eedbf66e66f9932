"""What a key looks like: the shapes that well-known services give theirs, and that hardly anything else has.

    shape_in("export AWS_ID=AKIA...")      "an AWS access key"; None for a text without any
    without_keys("the key sk-...")         "the key [key]"

Words with hyphens between them (`sk-learn-pipelines-2024`), hashes and numbers are no keys.
"""

from __future__ import annotations

import re

_SHAPES = {
    "sk-": (
        "an API key (sk-...)",
        r"\bsk-(?:[A-Za-z0-9_]+-)*?(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{16,}[\w-]*",
    ),
    "AIza": ("a Google API key", r"\bAIza[A-Za-z0-9_-]{30,}"),
    "ya29.": ("a Google access token", r"\bya29\.[A-Za-z0-9_-]{20,}"),
    "hf_": ("a Hugging Face token", r"\bhf_[A-Za-z0-9]{20,}"),
    "gsk_": ("a Groq key", r"\bgsk_[A-Za-z0-9]{20,}"),
    "r8_": ("a Replicate token", r"\br8_[A-Za-z0-9]{20,}"),
    "xai-": ("an xAI key", r"\bxai-[A-Za-z0-9]{20,}"),
    "AKIA": ("an AWS access key", r"\bAKIA[A-Z0-9]{16}\b"),
    "ASIA": ("an AWS access key", r"\bASIA[A-Z0-9]{16}\b"),
    "gh": ("a GitHub token", r"\bgh[opusr]_[A-Za-z0-9]{36,}"),
    "github_pat_": ("a GitHub token", r"\bgithub_pat_[A-Za-z0-9_]{22,}"),
    "glpat-": ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    "xox": ("a Slack token", r"\bxox[abeprs]-[A-Za-z0-9-]{10,}"),
    "k_": ("a Stripe key", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    "npm_": ("an npm token", r"\bnpm_[A-Za-z0-9]{36}"),
    "eyJ": ("a JSON web token", r"\beyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*)?"),
    "PRIVATE KEY": (
        "a private key",
        r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:.{0,9999}?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----)?",
    ),
}
"""By a text that is in every key of the shape: what it is called, and the shape."""
_COMPILED = {mark: (name, re.compile(shape, re.ASCII | re.DOTALL)) for mark, (name, shape) in _SHAPES.items()}


def shape_in(text: str) -> str | None:
    """Return what a key in a text is called; None without one."""
    return next((name for mark, (name, shape) in _COMPILED.items() if mark in text and shape.search(text)), None)


def key_in(text: str) -> str | None:
    """Return a key that is in a text; None without one."""
    found = (shape.search(text) for mark, (_, shape) in _COMPILED.items() if mark in text)
    return next((match[0] for match in found if match), None)


def without_keys(text: str) -> str:
    """Return a text with `[key]` in place of everything that has a key's shape."""
    for mark, (_, shape) in _COMPILED.items():
        if mark in text:
            text = shape.sub("[key]", text)
    return text
