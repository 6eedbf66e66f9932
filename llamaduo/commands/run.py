"""`llamaduo run`: one experiment, or a sweep of them; `-h` and `--cfg` are Hydra's."""

from __future__ import annotations

from collections.abc import Sequence

from llamaduo.compose import compose


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments ask for and return the exit code; raises ConfigError before anything heavy is loaded."""
    composed = compose(arguments)
    if composed is None:
        return 0
    if composed.sweep is not None:
        from llamaduo.sweeps.sweep import run_all

        return run_all(composed)
    from llamaduo.sweeps.job import exit_code, run_one

    return exit_code(run_one(composed.experiments[0]))
