"""The quote: a server's answers are counted as they will be asked, and those that are there are not bought again."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator

import pytest
from fakes import quiet
from wire_double import Double, serving

from llamaduo.config import Experiment, Price
from llamaduo.loop import run
from llamaduo.quote.calls import Line
from llamaduo.quote.quote import Quote, quote
from llamaduo.quote.shown import rendered

Compose = Callable[..., Experiment]
TODAY = datetime.date(2026, 1, 1)


@pytest.fixture(scope="module")
def running() -> Iterator[Double]:
    with serving() as double:
        yield double


@pytest.fixture
def answered_elsewhere(running: Double, compose_experiment: Compose) -> Callable[..., Experiment]:
    """Return a function that composes a run whose answers a server with a price gives."""

    def composed(*overrides: str) -> Experiment:
        experiment = compose_experiment(
            "preset=smoke", "train=none", "synthesis=none", "judge=reference", "infer=endpoint", "infer.samples=3",
            f"infer.server.base_url={running.url('openai')}", "infer.server.model=their-model", *overrides,
        )  # fmt: skip
        assert experiment.infer.server is not None
        experiment.infer.server.unbounded_usage = True  # the double keeps to no limit
        experiment.infer.server.price = Price(input=10.0, output=40.0, as_of="test")
        return experiment

    return composed


def line_of(made: Quote) -> Line:
    (line,) = made.lines
    assert line.stage == "infer"
    return line


def test_a_server_is_asked_k_times_for_every_prompt_of_dev_and_test(answered_elsewhere: Compose) -> None:
    made = quote([answered_elsewhere()], today=TODAY)
    line = line_of(made)
    assert line.calls == [3 * (4 + 4)] * 2
    assert line.held == [0, 0]
    assert line.llm.max_tokens == 16, "infer.max_new_tokens"
    prompt, completion = made.tokens(line, 1)
    assert made.usd(line, 1, batch=False) == pytest.approx((10 * prompt + 40 * completion) / 1e6)
    assert 0 < completion <= 24 * 16
    assert line.ceiling_usd > 24 * 16 * 40 / 1e6


def test_pairs_before_a_prompt_are_paid_for(answered_elsewhere: Compose) -> None:
    bare, longer = (line_of(quote([answered_elsewhere(*more)], today=TODAY)) for more in ((), ("infer.shots=2",)))
    assert longer.calls == bare.calls
    assert longer.characters[0] > 2 * bare.characters[0]


def test_runs_of_a_sweep_share_answers_and_another_seed_gets_its_own(answered_elsewhere: Compose) -> None:
    runs = [answered_elsewhere(), answered_elsewhere("loop.max_iterations=1"), answered_elsewhere("runtime.seed=7")]
    line = line_of(quote(runs, today=TODAY))
    assert line.calls == [3 * 24] * 2
    assert line.held == [24] * 2


def test_what_the_journal_holds_is_not_bought_again(answered_elsewhere: Compose, running: Double) -> None:
    running.control(reset=True)
    run(answered_elsewhere(), display=quiet())
    assert len(running.bill()["calls"]) == line_of(quote([answered_elsewhere("runtime.seed=7")], today=TODAY)).calls[0]
    line = line_of(quote([answered_elsewhere("loop.max_iterations=1")], today=TODAY))
    assert (line.calls, line.held, line.characters) == ([24, 24], [24, 24], [0, 0])


def test_a_finished_run_costs_nothing_more(answered_elsewhere: Compose) -> None:
    run(answered_elsewhere(), display=quiet())
    assert quote([answered_elsewhere()], today=TODAY).lines == ()


def test_answers_that_this_machine_gives_have_no_line(compose_experiment: Compose) -> None:
    made = quote([compose_experiment("preset=smoke")], today=TODAY)
    assert {line.stage for line in made.lines} == {"synthesize", "judge"}


def test_the_quote_tells_what_judging_in_rounds_is_expected_to_leave_out(compose_experiment: Compose) -> None:
    rows = ("data.train_rows=64", "data.dev_rows=64", "data.test_rows=46", "infer.samples=1", "judge.repeats=2")
    made = quote([compose_experiment(*rows, "loop.max_iterations=3", "loop.beside=[]")], today=TODAY)
    (line,) = [line for line in made.lines if line.stage == "judge"]
    assert line.calls == [2 * 64 + 2 * 46, 3 * 2 * 64 + 2 * 46]
    assert line.spared == [128 - 64 - 16, 3 * (128 - 32 - 16)]
    (told,) = [text for text in rendered(made) if "These are bounds" in str(text)]
    assert "48 to 240 are expected to be left out" in str(told)
    everything = quote([compose_experiment(*rows, "judge.economy=off")], today=TODAY)
    assert all(line.spared == [0, 0] for line in everything.lines)
    assert not [text for text in rendered(everything) if "These are bounds" in str(text)]
