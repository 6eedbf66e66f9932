"""Identity: which models and data a run is made with, so that others under the same names don't go on with it.

    remember(experiment, folder)       at the start, and after each time that a model was loaded
    refuse_others(experiment, folder)  raises InputError where a name has come to mean something else

Writes and reads `identity.json` in the run's folder, where there is anything to say: the content of models and data
that are folders here, and the commit that a Hub name stood for in the Hub's cache of this machine. No network is asked.

    {"local_model.path": "commit 9cf48e52b224239de00d483ec8eb84fb8d0f3a3a"}

A folder's content is part of the fingerprint: another one is another run. A commit can't be, since it is known only
when the cache has it.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from llamaduo.config import DataSource, Experiment, contents_of, is_pocket
from llamaduo.errors import InputError
from llamaduo.files.regular import read_json
from llamaduo.runs.folder import write_kept
from llamaduo.runs.layout import IDENTITY
from llamaduo.runs.marks import kept_fault

_COMMIT = re.compile(r"[0-9a-f]{40}")
_READ_LATER = ("local_model.path", "local_model.tokenizer", "runtime.accelerate")
"""What a run reads again and again, and whoever verifies it needn't have."""


def identity(experiment: Experiment) -> dict[str, str]:
    """Return by key what stands behind the names of models and data, as far as that is known here."""
    data = experiment.data
    if data.source is DataSource.file:  # it is read once, and its content is in the fingerprint
        experiment = replace(experiment, data=replace(data, source=DataSource.pocket))
    found = {key: f"sha256 {of}" for key, of in contents_of(experiment).items() if key in (*_READ_LATER, "data.path")}
    for key, (kind, name, revision) in _on_hub(experiment).items():
        commit = None if key in found else _cached_commit(kind, name, revision)
        if commit:
            found[key] = f"commit {commit}"
    return found


def _on_hub(experiment: Experiment) -> dict[str, tuple[str, str, str | None]]:
    """Return what may be a name of the Hub's: its kind in the cache, the name and the revision."""
    model, data = experiment.local_model, experiment.data
    named = {"local_model.path": ("models", model.path, model.revision)}
    if model.tokenizer:
        named["local_model.tokenizer"] = ("models", model.tokenizer, model.tokenizer_revision)
    if data.source is DataSource.hub and data.path:
        named["data.path"] = ("datasets", data.path, data.revision)
    return {key: one for key, one in named.items() if not is_pocket(one[1])}


def _cached_commit(kind: str, name: str, revision: str | None) -> str | None:
    """Return the commit that a branch or a tag stands for in the Hub's cache; None for a commit, which can't move."""
    if revision is not None and _COMMIT.fullmatch(revision):
        return None
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}"
    try:
        found = (folder / "refs" / (revision or "main")).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return found if _COMMIT.fullmatch(found) else None


def recorded(folder: Path) -> dict[str, str]:
    """Return what a run's folder says of its models and data; nothing for a run of an earlier version."""
    file = folder / IDENTITY
    if not file.exists():
        return {}
    fault = kept_fault(file)
    try:
        tree = read_json(file)
    except (OSError, ValueError) as error:
        tree, fault = None, fault or f"can't be read: {error}"
    if fault or not isinstance(tree, dict):
        raise InputError(f"{file}: damaged ({fault or 'no object'}). If models and data are as they were, remove it.")
    return {str(key): str(what) for key, what in tree.items()}


def read_later(experiment: Experiment, folder: Path) -> dict[str, str]:
    """Return by key what a run's fingerprint has of its models: the content of folders, else the given name."""
    before = recorded(folder)
    known = {key: what.removeprefix("sha256 ") for key, what in before.items() if what.startswith("sha256 ")}
    given = {key: known.get(key, _given(experiment, key)) for key in _READ_LATER}
    return {key: name for key, name in given.items() if name}


def _given(experiment: Experiment, key: str) -> str | None:
    part, leaf = key.split(".")
    given: str | None = getattr(getattr(experiment, part), leaf)
    return given


def remember(experiment: Experiment, folder: Path) -> None:
    """Write down what is known of models and data; raises InputError where one is another than the run began with."""
    known = refuse_others(experiment, folder)
    if known != recorded(folder):
        write_kept(folder / IDENTITY, f"{json.dumps(known, indent=1)}\n".encode())


def refuse_others(experiment: Experiment, folder: Path) -> dict[str, str]:
    """Return what stands behind the names now and what did; raises InputError where that isn't the same."""
    before, now = recorded(folder), identity(experiment)
    for key, what in before.items():
        if now.get(key, what) != what:
            given = f"{key}={_given(experiment, key)}"
            raise InputError(
                f"{given} is not what {folder} was begun with ({_short(what)} then, {_short(now[key])} now): its "
                f"numbers are not about it. {_way_on(key, what, now[key])}"
            )
    return {**before, **now}


def _short(what: str) -> str:
    kind, _, digits = what.partition(" ")
    return f"{kind} {digits[:12]}"


def _way_on(key: str, before: str, now: str) -> str:
    if before.startswith("commit ") and now.startswith("commit "):
        pin = {"local_model.tokenizer": "local_model.tokenizer_revision"}.get(key, key.replace(".path", ".revision"))
        return f"Pin what you mean, which is a run of its own: {pin}={now.split()[1]}, or ={before.split()[1]}."
    return "Put the old files back to go on; the same command begins a run of its own with the new ones."
