"""Checks of a composed configuration: ranges and combinations, all of them at once, before anything heavy loads."""

from __future__ import annotations

import datetime
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from llamaduo.config import (
    Backend,
    Beside,
    Curation,
    DataSource,
    Experiment,
    GateAgainst,
    GateSplit,
    Isolation,
    JudgeKind,
    Keep,
    Launch,
    Pick,
    Quantization,
    Strategy,
    beside,
    is_pocket,
    model_location,
    out_of_range,
    plain,
)
from llamaduo.environment import gpus
from llamaduo.errors import PICKLE, InputError, not_there
from llamaduo.files import data_path
from llamaduo.pocket.tasks import TASKS
from llamaduo.privacy import search
from llamaduo.redaction import literal_key, name_secret, refusal
from llamaduo.service import rubric, settings
from llamaduo.service.prices import ended, is_price


def problems(experiment: Experiment) -> list[str]:
    """Return every reason why this experiment can't work, a sentence each; none if it can."""
    for llm in filter(None, (experiment.service_llm, experiment.infer.server, *experiment.judge.panel.values())):
        name_secret(llm.api_key_env or "")
    return [
        *_literal_keys(plain(experiment)),
        *out_of_range(experiment),
        *_folder_name_problems(experiment),
        *_data_problems(experiment),
        *_service_problems(experiment),
        *rubric.problems(experiment.judge),
        *_strategy_problems(experiment),
        *_tier_problems(experiment),
        *_loop_problems(experiment),
        *_curation_problems(experiment.curation),
        *_training_problems(experiment),
        *_model_problems(experiment),
        *_infer_problems(experiment),
        *search.problems(experiment.privacy),
    ]


def _literal_keys(tree: Any, path: str = "") -> list[str]:
    """Return a sentence for every name and value of the configuration that is a key or holds one."""
    if isinstance(tree, dict):
        named = [text for name in tree for text in _literal_keys(str(name), f"a name in {path}")]
        return named + [
            text for name, value in tree.items() for text in _literal_keys(value, f"{path}.{name}" if path else name)
        ]
    if isinstance(tree, list):
        return [text for at, value in enumerate(tree) for text in _literal_keys(value, f"{path}.{at}")]
    variable = literal_key(tree) if isinstance(tree, str) else None
    return [refusal(path, variable)] if variable else []


def _folder_name_problems(experiment: Experiment) -> list[str]:
    found = []
    for path, value in (("study", experiment.study), ("name", experiment.name)):
        if not value or value in (".", "..") or any(mark in value for mark in "/\\\0"):
            found.append(f"{path}={value}: must be a plain folder name.")
        else:
            found += _name_problems(path, value)
    return found


_LONGEST_NAME = 200
"""Bytes: file systems take 255, and a hash, a machine's name or an ending follow."""


def _name_problems(path: str, name: str) -> list[str]:
    """Look whether a file system can have a folder of that name, which is known before anything is bought."""
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError:
        return [f"{path}={name!a}: this machine's locale has no such file names; take others, or set LC_ALL=C.UTF-8."]
    if size > _LONGEST_NAME:
        return [f"{path}={name[:40]}...: {size} bytes are too long for a folder's name; take {_LONGEST_NAME} at most."]
    return []


def _data_problems(experiment: Experiment) -> list[str]:
    data, found = experiment.data, []
    if data.source is DataSource.pocket and experiment.task.name not in TASKS:
        found.append(f"task.name={experiment.task.name}: data=pocket has {', '.join(sorted(TASKS))} only.")
    if data.source is DataSource.file:
        if not data.path:
            found.append("data=file needs data.path=FILE.")
        else:
            try:
                data_path.named(data.path)
            except InputError as error:
                found.append(f"data.path={error}")
    if data.source is DataSource.hub and not data.path:
        found.append("data=hub needs data.path=OWNER/NAME.")
    if data.source is DataSource.hub and not data.revision:
        found.append("data.revision is missing: pin the data set's commit, so that the run can be repeated.")
    if data.source is not DataSource.hub and data.dev_fraction + data.test_fraction >= 1:
        found.append("data.dev_fraction + data.test_fraction leave no rows to train on: lower them.")
    if experiment.protocol.gate_split is GateSplit.dev and not _dev_rows(experiment):
        found.append("protocol=clean gates on the dev split, which is empty: raise data.dev_rows or data.dev_fraction.")
    return found


def _service_problems(experiment: Experiment) -> list[str]:
    found = []
    judge, teacher = experiment.judge, experiment.service_llm
    if judge.kind is JudgeKind.service and not judge.panel:
        found.append("judge.panel is empty: name at least one service LLM, or take judge=reference.")
    journal = experiment.service.journal
    if journal and Path(journal).is_dir():
        found.append(f"service.journal={not_there(journal, 'file')}")
    found += [
        f"prices.{name}: must not be negative." for name, price in experiment.prices.items() if not is_price(price)
    ]
    llms = {f"judge.panel.{name}": llm for name, llm in judge.panel.items()}
    if experiment.synthesis.enabled or Beside.service_llm in beside(experiment):
        llms["service_llm"] = teacher
    if experiment.infer.served and experiment.infer.server:
        llms["infer.server"] = experiment.infer.server
    for path, llm in llms.items():
        found += settings.problems(path, llm)
        if llm.retired and llm.retired <= datetime.date.today().isoformat() and not experiment.service.replay:
            gone = f"{llm.model} no longer answers since {llm.retired}"
            found.append(f"{path}: {gone}; conf/service_llm names a successor (service.replay=true needs no answer).")
        over = ended(llm, experiment.prices, datetime.date.today())
        if over and not experiment.service.replay:
            found.append(f"{path}: {over}.")
    if experiment.data.source is not DataSource.pocket:
        pocket = [path for path, llm in llms.items() if llm.provider == "pocket"]
        if pocket:
            mend = "judge=reference synthesis=none, or real service LLMs"
            found.append(f"{', '.join(pocket)}: the pocket LLMs know the four pocket tasks only; take {mend}.")
    return found


def _strategy_problems(experiment: Experiment) -> list[str]:
    """Look at what a strategy of synthesis needs."""
    synthesis, found = experiment.synthesis, []
    if not synthesis.enabled:
        return []
    name = synthesis.strategy
    if name in (Strategy.targeted, Strategy.correct) and experiment.infer.served:
        found.append(f"synthesis={name}: looks at the model that is trained here; drop infer=endpoint.")
    if name is Strategy.targeted and not synthesis.even:
        found.append("synthesis.even=0: clusters of training rows that the student knows would die out; take 0.3.")
    if name is Strategy.label:
        if not experiment.data.unlabelled:
            found.append("synthesis=label needs data.unlabelled=FILE: real prompts without answers.")
        else:
            try:
                data_path.named(experiment.data.unlabelled)
            except InputError as error:
                found.append(f"data.unlabelled={error}")
    if synthesis.candidates > 1 and synthesis.pick is Pick.judge and experiment.judge.kind is JudgeKind.reference:
        found.append("synthesis.pick=judge: judge=reference asks nobody; take synthesis.pick=agreement.")
    return found


def _tier_problems(experiment: Experiment) -> list[str]:
    """Look at who of the panel is dear: who judges some answers only."""
    judge, found = experiment.judge, []
    if not judge.dear:
        return []
    if judge.kind is not JudgeKind.service:
        return [f"judge.dear={judge.dear}: judge=reference asks nobody; drop it, or take a service LLM."]
    members = ", ".join(judge.panel)
    found += [
        f"judge.dear: {name!r} is no member of the panel; take from {members}."
        for name in judge.dear
        if name not in judge.panel
    ]
    if set(judge.panel) <= set(judge.dear):
        found.append(
            f"judge.dear={judge.dear}: nobody is left to judge every answer; leave out the cheapest of {members}."
        )
    if not 0 < judge.dear_share <= 1:
        found.append(f"judge.dear_share={judge.dear_share}: must lie above 0, and be at most 1.")
    if experiment.loop.gate.against is GateAgainst.service_llm and Beside.service_llm in beside(experiment):
        found.append(
            "judge.dear: a difference between two models, each judged by two tiers, has no limit here that would hold; "
            "take loop.gate.against=threshold, or no dear judges."
        )
    return found


def _curation_problems(curation: Curation) -> list[str]:
    """Return what is named as a language and has no such code."""
    odd = [name for name in curation.languages if not re.fullmatch(r"[A-Za-z]{2,3}(?:[-_]\w+)?", name)]
    return [f"curation.languages: {name!r} is no language code; write it as in ISO 639, such as de." for name in odd]


def _loop_problems(experiment: Experiment) -> list[str]:
    found, loop = [], experiment.loop
    volumes = loop.growth.volumes
    if any(volume < 1 for volume in volumes) or volumes != sorted(set(volumes)):
        found.append(f"loop.growth.volumes={volumes}: must be rising numbers above 0.")
    if not loop.growth.include_coverage and not volumes:
        found.append("loop.growth.include_coverage=false needs loop.growth.volumes.")
    if (
        experiment.judge.kind is JudgeKind.reference
        and experiment.synthesis.enabled
        and loop.gate.precision is not None
    ):
        found.append(
            "judge=reference gives no precision, so no synthetic data can make the gate pass: "
            "add synthesis=none or loop.gate.precision=null."
        )
    if volumes and not experiment.synthesis.enabled:
        found.append("loop.growth.volumes needs synthetic rows: drop synthesis=none.")
    return found


def _training_problems(experiment: Experiment) -> list[str]:
    found, train, runtime = [], experiment.train, experiment.runtime
    if train.enabled and runtime.dtype == "float16":
        found.append(
            "runtime.dtype=float16: gradients would vanish in it; take auto, bfloat16 or float32 for training."
        )
    if not train.enabled and experiment.synthesis.enabled:
        found.append("train=none: more data make no difference to a model that isn't trained; add synthesis=none.")
    if train.enabled and experiment.infer.shots:
        found.append("infer.shots: a model is trained on prompts without pairs before them; add train=none.")
    if train.keep is Keep.best and not _dev_rows(experiment):
        found.append("train.keep=best needs dev rows: raise data.dev_rows or data.dev_fraction, or take keep=last.")
    wanted = {"liger_kernel": train.liger and "train.liger=true"}
    if runtime.launch is Launch.accelerate:
        wanted["deepspeed"] = runtime.accelerate == "deepspeed" and "runtime.accelerate=deepspeed"
        if runtime.isolation is Isolation.none:
            found.append("runtime.launch=accelerate starts processes: runtime.isolation=none can't be had with it.")
        if runtime.accelerate == "fsdp" and train.enabled and train.quantization is not Quantization.none:
            found.append(
                f"runtime.accelerate=fsdp can't spread weights of train.quantization={train.quantization.value}: take "
                "train.quantization=none, or runtime.accelerate=ddp."
            )
    found += [
        f"{setting} needs the package {package.replace('_', '-')}, which is not installed."
        for package, setting in wanted.items()
        if setting and importlib.util.find_spec(package) is None
    ]
    return found


def _dev_rows(experiment: Experiment) -> bool:
    data = experiment.data
    return not (data.dev_rows == 0 or (data.dev_rows is None and data.dev_fraction == 0))


def _model_problems(experiment: Experiment) -> list[str]:
    found = []
    quantization = experiment.train.quantization
    if quantization is not Quantization.none and importlib.util.find_spec("bitsandbytes") is None:
        found.append(f"train.quantization={quantization.value} needs bitsandbytes, which is not installed: take none.")
    runtime = experiment.runtime
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", runtime.device):
        found.append(f"runtime.device={runtime.device}: take auto, cpu, cuda or cuda:N.")
    if runtime.dtype not in ("auto", "float32", "bfloat16", "float16"):
        found.append(f"runtime.dtype={runtime.dtype}: take auto, float32, bfloat16 or float16.")
    if (quantization is Quantization.int8 or runtime.device.startswith("cuda")) and not gpus():
        found.append(
            f"runtime.device={runtime.device}, train.quantization={quantization.value}: this machine has no GPU; take "
            "runtime.device=cpu with nf4 or none."
        )
    path = experiment.local_model.path
    if is_pocket(path) and not Path(model_location(path)).is_dir():
        shipped = sorted(f"pocket:{folder.name}" for folder in Path(model_location(path)).parent.glob("*"))
        found.append(f"local_model.path={path}: no such pocket model; the package has {', '.join(shipped)}.")
    if experiment.local_model.tokenizer_revision and not experiment.local_model.tokenizer:
        found.append(
            "local_model.tokenizer_revision has no local_model.tokenizer to be of: "
            "the model's own tokenizer comes with local_model.revision."
        )
    for key in ("path", "tokenizer"):
        found += _folder_problems(f"local_model.{key}", getattr(experiment.local_model, key), key == "path")
    if experiment.train.max_length > experiment.local_model.context:
        found.append(
            f"train.max_length={experiment.train.max_length} exceeds the model's context of "
            f"{experiment.local_model.context} tokens: lower it."
        )
    here = not experiment.infer.served
    if here and experiment.infer.max_new_tokens >= experiment.local_model.context:
        found.append(
            f"infer.max_new_tokens={experiment.infer.max_new_tokens} leaves no room for a prompt in "
            f"{experiment.local_model.context} tokens of context: lower it."
        )
    if not all(experiment.infer.stop):
        found.append("infer.stop: an empty string would end every answer before it begins; take it out.")
    return found


def _folder_problems(key: str, path: str | None, is_model: bool) -> list[str]:
    """Look at a model's or a tokenizer's folder; what is on the Hub is seen when it is loaded."""
    if not path or is_pocket(path):
        return []
    folder = Path(path)
    if not folder.is_dir():
        looks_like_one = path.startswith(("/", ".", "~")) or path.count("/") > 1
        return [f"{key}={not_there(path, 'folder')}"] if looks_like_one or folder.exists() else []
    if is_model and not (folder / "config.json").is_file():
        return [f"{key}={path}: this folder has no config.json, so it is no model's."]
    if is_model and any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        return [f"{key}={path} has no safetensors weights: {PICKLE}; convert them."]
    return []


def _infer_problems(experiment: Experiment) -> list[str]:
    infer, found = experiment.infer, []
    if infer.temperature is None and not infer.served:
        found.append(
            "infer.temperature=null: only an endpoint has one of its own; set a number, 0 for greedy decoding."
        )
    if infer.served:
        if infer.server is None:
            found.append(
                "infer.backend=endpoint needs infer=endpoint infer.server.base_url=URL infer.server.model=NAME."
            )
        elif "stop" in infer.server.parameters:
            found.append("infer.server.parameters.stop: has a field of its own, infer.stop.")
        if experiment.synthesis.enabled:
            found.append(
                "infer.backend=endpoint: the server answers with its own model, which no synthetic data changes: "
                "add synthesis=none, or take infer=vllm."
            )
    if infer.backend is Backend.vllm and experiment.train.quantization is Quantization.int8:
        found.append("infer.backend=vllm: vLLM can't hold train.quantization=int8 weights; take nf4 or none.")
    return found
