"""Every error that llamaduo raises on purpose.

    LlamaduoError
    ├── ConfigError          2    an option, a value or a combination that can't work
    ├── InputError           2    a file, a folder or a row that can't be used
    │   └── RunFolderError   2    the run's folder is locked, read-only or full
    ├── BudgetError          3    the next call could pass the budget
    ├── ServiceError         4    a service LLM failed for good, or can't be read
    │   └── TransientError   4    it failed in a way that waiting may mend
    ├── CurationError        4    a filter took all rows that there were to train on
    └── DifferenceError      4    what is stored is not what it was made from

The number is the command's exit code. A message is one or two lines: what was given, why it can't
work, what to do. `cli.main` prints it without a traceback.

    try:
        state = run(experiment)
    except LlamaduoError as error:
        sys.exit(error.exit_code)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PICKLE = "pickle can run code when it is read, so it is refused"
"""Why weights have to be safetensors."""


def not_there(path: Path | str, wanted: str) -> str:
    """Return why a path is not the `file` or the `folder` that is wanted there."""
    if not os.path.exists(path):
        return f"{path}: no such {wanted}."
    other, where = ("folder", "in it") if wanted == "file" else ("file", "that holds it")
    return f"{path}: this is a {other}; name the {wanted} {where}."


class LlamaduoError(Exception):
    """The root; `exit_code` is what the command line returns for it."""

    exit_code = 1


class ConfigError(LlamaduoError):
    """The configuration can't work; the message lists every problem, one a line."""

    exit_code = 2


class InputError(LlamaduoError):
    """A file, a folder or a row that the user named can't be used."""

    exit_code = 2


class RunFolderError(InputError):
    """The run's folder can't be written, or another process is working in it."""


class BudgetError(LlamaduoError):
    """The next call could pass the budget, so it was not sent."""

    exit_code = 3


class ServiceError(LlamaduoError):
    """A service LLM refused for good, or its replies can't be used."""

    exit_code = 4


class TransientError(ServiceError):
    """A service LLM failed in a way that waiting may mend; `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CurationError(LlamaduoError):
    """A filter took every new row, so that there is nothing to go on with."""

    exit_code = 4


class DifferenceError(LlamaduoError):
    """Numbers derived again from what they were made of are not those that are stored."""

    exit_code = 4
