"""What the run says on its way, in a sentence."""

from __future__ import annotations

import pytest
from sample_records import iteration

from llamaduo.display import Display


def test_an_iteration_says_how_much_of_it_was_judged(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display.iteration(iteration(0, answers=16, unjudged=48, spared=96))
    display.iteration(iteration(1, answers=64, spared=48))
    display.iteration(iteration(2, answers=64))
    first, second, third = " ".join(capsys.readouterr().out.split()).split("iteration ")[1:]
    assert ", 16 of 64 answers judged: it can't pass any more, " in first
    assert ", 48 repeats not needed, " in second
    assert "unscored, $0.00" in third
