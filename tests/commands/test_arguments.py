"""Arguments of commands: words, flags and options with values are told apart, in any order."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamaduo.commands.arguments import told_apart
from llamaduo.errors import ConfigError

VALUES = ("--archive", "service.journal")


@pytest.mark.parametrize("archive", [["--archive", "x"], ["--archive=x"]])
def test_options_stand_before_or_behind_words(archive: list[str]) -> None:
    for arguments in ([*archive, "a", "--json"], ["--json", "a", *archive]):
        given = told_apart(arguments, flags=("--json",), values=VALUES)
        assert (given.words, given.options) == (["a"], {"--json": "", "--archive": "x"})
        assert (given.place("usage"), given.path("--archive")) == ("a", Path("x"))
        assert given.path("service.journal") is None


def test_what_a_command_does_not_know_stays_a_word() -> None:
    arguments = ["task=coding", "--other", "service.journal", "--json=1"]
    assert told_apart(arguments, flags=("--json",), values=VALUES).words == arguments


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--other"]])
def test_one_place_is_what_there_has_to_be(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match="the usage"):
        told_apart(arguments).place("the usage")


def test_an_option_without_its_value_is_named() -> None:
    with pytest.raises(ConfigError, match="--archive: needs a value"):
        told_apart(["a", "--archive"], values=VALUES)
