"""Training rows as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llamaduo.data.chat import Chat
from llamaduo.records import Example


@dataclass
class Rows:
    """Training rows as tokens."""

    ids: np.ndarray
    starts: np.ndarray
    prompts: np.ndarray
    kept: np.ndarray

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        return self.ids[self.starts[row] : self.starts[row + 1]], int(self.prompts[row])

    @property
    def lengths(self) -> np.ndarray:
        """Return the tokens of each row."""
        return np.diff(self.starts)


def tokenised(examples: Sequence[Example], chat: Chat, max_length: int, cache: Path | None) -> Rows:
    """Return the examples that can be trained on, as tokens."""
    made, kept = [], []
    for at, example in enumerate(examples):
        prompt, response = chat.prompt_ids(example.messages), chat.response_ids(example.messages, example.response)
        if response is not None and len(prompt) + len(response) <= max_length:
            made.append((prompt, response))
            kept.append(at)
    ids = np.concatenate([np.array(p + r) for p, r in made]) if made else np.zeros(0, dtype=np.int64)
    starts = np.cumsum([0, *(len(p) + len(r) for p, r in made)])
    return Rows(ids, starts, np.array([len(p) for p, _ in made]), np.array(kept))
