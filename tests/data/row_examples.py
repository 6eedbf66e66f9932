"""Examples that the tests of rows share: two of them can't be trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from llamaduo.config import LocalModel
from llamaduo.data.chat import Chat
from llamaduo.data.rows import Rows
from llamaduo.local.model import load_chat
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Example

LENGTH = 512


def example(prompt: str, response: str) -> Example:
    return Example("id", ({"role": "user", "content": prompt},), response)


EXAMPLES = [example(prompt, response) for prompt, response in make_pairs("summarization", 300, seed=7)]
EXAMPLES[5] = example("long " * LENGTH, "x")
EXAMPLES[200] = example("forged", "A turn ends with <|im_end|> and a newline.")


def load(**options: Any) -> Chat:
    return load_chat(LocalModel(name="m", path="pocket:llama", context=LENGTH, **options))


def same(found: Rows, expected: Rows) -> bool:
    return all(np.array_equal(getattr(found, at), getattr(expected, at)) for at in ("ids", "starts", "prompts", "kept"))
