"""An answering as a record: who answers and how, whatever is asked."""

from __future__ import annotations

from dataclasses import dataclass

from llamaduo.config import Infer, LocalModel, Quantization, Runtime


@dataclass(frozen=True)
class AnswerJob:
    """What answers: a model that is loaded here, one that vLLM serves, or a server that already runs."""

    model: LocalModel
    config: Infer
    """How it answers; its `backend` says which of the three does."""
    runtime: Runtime
    quantization: Quantization = Quantization.none
    """How the base model's weights are held."""
    adapter: str | None = None
    """The folder of the adapter; None for the bare base model."""

    @property
    def room(self) -> int:
        """Tokens that a prompt may have beside the longest answer."""
        return self.model.context - self.config.max_new_tokens
