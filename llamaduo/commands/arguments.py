"""What stands behind a command's name, told apart.

    given = told_apart(["results", "--archive", "x.tar.xz"], values=("--archive", "service.journal"))
    given.words, given.options            ["results"], {"--archive": "x.tar.xz"}

Keys of the configuration are written with `=` (`service.journal=PATH`), options with `=` or with a space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llamaduo.errors import ConfigError


@dataclass
class Given:
    """The arguments of a command."""

    words: list[str] = field(default_factory=list)
    """What is none of the command's options."""
    options: dict[str, str] = field(default_factory=dict)
    """The options that are given, by name; a flag's value is empty."""

    def place(self, usage: str) -> str:
        """Return the one word that there has to be, a folder or a file; raises ConfigError."""
        if len(self.words) != 1 or self.words[0].startswith("-"):
            raise ConfigError(usage)
        return self.words[0]

    def path(self, option: str) -> Path | None:
        """Return the path that an option names, None where it isn't given."""
        return Path(self.options[option]).expanduser() if option in self.options else None


def told_apart(arguments: Sequence[str], *, flags: Sequence[str] = (), values: Sequence[str] = ()) -> Given:
    """Return the arguments of a command whose options are these; raises ConfigError for one without its value."""
    given, left = Given(), list(arguments)
    while left:
        name, equals, value = left.pop(0).partition("=")
        if name in values and (equals or name.startswith("-")):
            if not equals and not left:
                raise ConfigError(f"{name}: needs a value. See llamaduo --help.")
            given.options[name] = value if equals else left.pop(0)
        elif name in flags and not equals:
            given.options[name] = ""
        else:
            given.words.append(f"{name}{equals}{value}")
    return given
