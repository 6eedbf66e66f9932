"""What a configuration lets run here, and where it has prompts and keys sent: said as a run starts.

    trusted(experiment, llms)      a sentence each; none for the pocket profile

A configuration may be somebody else's, and each of these is a setting like any other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from llamaduo.config import Backend, Experiment, ServiceLLM
from llamaduo.service.transport import key_variable


def trusted(experiment: Experiment, llms: Sequence[ServiceLLM]) -> list[str]:
    """Return what of it can't be seen from the names of models; `llms` are those that are asked."""
    model, infer = experiment.local_model, experiment.infer
    told = []
    if model.trust_remote_code:
        told.append(f"code that comes with {model.path} is run (local_model.trust_remote_code=true).")
    if infer.backend is Backend.vllm and infer.vllm != type(infer).vllm:
        told.append(f"the program {infer.vllm} is run (infer.vllm).")
    return told + list(dict.fromkeys(sent for llm in llms if (sent := _sent(llm))))


def _sent(llm: ServiceLLM) -> str:
    """Say where requests go, and what of the environment with them; empty for a provider's own address."""
    place = llm.base_url or (llm.base_url_env and f"the address in {llm.base_url_env}")
    if llm.provider == "pocket" or not (place or llm.headers_env):
        return ""
    variable = key_variable(llm)
    key = [f"the key in {variable}"] if variable and os.environ.get(variable) else []
    carried = [*key, *(f"what {name} holds" for name in llm.headers_env.values())]
    with_it = f", with {' and '.join(carried)}" if carried else ""
    return f"{llm.name}: requests go to {place or llm.provider}{with_it}."
