"""What is wrong with an override or a configuration, in words of ours: one or two lines, with the nearest valid option.

refuse_unknown(["train.epoch"])      raises ConfigError: there is no such key. Did you mean train.epochs?
explained(error)                     what Hydra or OmegaConf has raised
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from hydra.errors import OverrideParseException

from llamaduo.config import marks
from llamaduo.errors import ConfigError
from llamaduo.overrides.grammar import several, unread

KEYS = tuple(key for key, _ in marks() if not key.startswith("infer.server.") and ".price." not in key)
"""Every key of the schema, dotted; below a server or a price, which may be null, any name may stand at first."""
_PACKAGES = {
    "joblib": "hydra-joblib-launcher",
    "submitit_slurm": "hydra-submitit-launcher submitit",
    "submitit_local": "hydra-submitit-launcher submitit",
    "ray": "hydra-ray-launcher 'cloudpickle<3'",
}
"""What has to be installed for each of Hydra's launchers."""


def refuse_unknown(keys: Iterable[str]) -> None:
    """Raise ConfigError for keys that the schema hasn't."""
    told = [f"{key}: {_unknown(key)}" for key in dict.fromkeys(keys) if key not in KEYS and not _is_free(key)]
    if told:
        raise ConfigError("\n".join(told))


def _unknown(key: str) -> str:
    if "api_key" in key:
        return "keys come from the environment alone; name the variable with api_key_env."
    return f"there is no such key.{_nearest(key, KEYS)}"


def _is_free(key: str) -> bool:
    """Tell whether a key lies where any name may stand."""
    return (
        key.startswith(("judge.panel.", "infer.server.", "prices.", "privacy.patterns."))
        or ".parameters." in key
        or ".headers_env." in key
        or key.endswith(".price")
        or ".price." in key
    )


def _nearest(word: str, choices: Iterable[str]) -> str:
    choices = list(choices)
    near = difflib.get_close_matches(word, choices, n=3, cutoff=0.5)
    if not near:
        leaf = {choice.rsplit(".", 1)[-1]: choice for choice in choices}
        near = [leaf[match] for match in difflib.get_close_matches(word.rsplit(".", 1)[-1], leaf, n=3, cutoff=0.5)]
    return f" Did you mean {' or '.join(near)}?" if near else ""


def no_option(group: str, name: str, options: Sequence[str]) -> str:
    """Return what is said of an option that its group hasn't."""
    return f"{group}={name}: there is no such option.{_nearest(name, options)} Options: {', '.join(options)}."


def _wrong_kind(said: str, key: str) -> str:
    """Return what OmegaConf says of a value that can't be a key's, in words of ours where it has none for people."""
    if "is not Optional" in said:
        return "it can't be null; give it a value, or leave it out"
    if "is not a ListConfig" in said or "DictConfig with ListConfig" in said:
        return f"it holds a list; write {key}=[VALUE,...]"
    return said.strip().rstrip(".")


def explained(error: Exception) -> str:  # noqa: PLR0911
    """Return one or two lines for one of Hydra's or OmegaConf's errors."""
    if isinstance(error, OverrideParseException):
        return f"{unread(error.override)}"
    if ambiguous := re.match(r"Ambiguous value for argument '([^=']+)=(.*)'\n", f"{error}"):
        return several(*ambiguous.groups())
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    text = "\n".join(str(link) for link in chain)
    if secret := re.search(r"(\$\{oc\.env:[^\n]+)\n\s+full_key: (\S+)", text):
        return f"{secret[2]}: {secret[1]}."
    if option := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, name = option.groups()
        if group == "hydra/launcher" and name in _PACKAGES:
            return f"hydra/launcher={name}: its package is missing; pip install {_PACKAGES[name]}"
        listed = text.split(f"Available options in '{group}':", 1)
        options = re.split(r"\n\s*\n|Config search", listed[1])[0].split() if len(listed) > 1 else []
        return no_option(group, name, options)
    key = re.search(r"Could not override '([^']+)'", text)
    if key and ("is not in struct" in text or "not in '" in text):
        return f"{key[1]}: {_unknown(key[1])}"
    if group := re.search(r"Could not find '([^']+)'|Cannot find primary config '([^']+)'", text):
        return f"{group[1] or group[2]}: there is no such configuration; see -cd and -cn."
    if named := re.search(r"Interpolation key '([^']+)' not found(?:\n\s+full_key: (\S+))?", text):
        where = f"{named[2]}: " if named[2] else ""
        mended = f"write \\${{{named[1]}}} where the text itself is meant"
        return f"{where}${{{named[1]}}} refers to a key that there isn't; {mended}."
    if wrong := re.search(r"([^\n]+)\n\s+full_key: (\S+)", text):
        return f"{wrong[2]}: {_wrong_kind(wrong[1], wrong[2])}."
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(dict.fromkeys(lines))[:400]
