"""All strategies by name, as `synthesis.strategy` and `conf/synthesis/` spell them."""

from __future__ import annotations

from llamaduo.config import Strategy as Name
from llamaduo.config import Synthesis, SynthesisPrompt
from llamaduo.synthesis import correct, default, evolve, label, paper, self_instruct, targeted
from llamaduo.synthesis.strategy import Strategy

STRATEGIES: dict[Name, Strategy] = {
    Name.paper: paper,
    Name.default: default,
    Name.targeted: targeted,
    Name.evolve: evolve,
    Name.self_instruct: self_instruct,
    Name.label: label,
    Name.correct: correct,
}
LOOKS = (Name.targeted, Name.correct)
"""Those that look at the last student."""
UNKNOWN = (*LOOKS, Name.self_instruct)
"""Those whose requests aren't known before the run, but for the first growth's."""


def named(config: Synthesis) -> Name:
    """Return the name of the configured strategy; without one, the prompt tells."""
    if config.strategy is not None:
        return config.strategy
    return Name.paper if config.prompt is SynthesisPrompt.paper else Name.default
