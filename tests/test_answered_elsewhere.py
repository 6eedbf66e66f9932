"""A whole run whose answers come from a server: pocket data, the real service layer, and a double as the server."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator

import pytest
from fakes import quiet
from wire_double import Double, serving

from llamaduo.config import Experiment, Price
from llamaduo.data.coverage import load_coverage
from llamaduo.errors import ServiceError
from llamaduo.loop import run
from llamaduo.runs.finished import run_folder

Compose = Callable[..., Experiment]


@pytest.fixture(scope="module")
def running() -> Iterator[Double]:
    with serving() as double:
        yield double


@pytest.fixture
def experiment(running: Double, compose_experiment: Compose) -> Experiment:
    running.control(reset=True, scripts={}, bodies={})
    return compose_experiment(
        "preset=smoke", "train=none", "synthesis=none", "judge=reference", "infer=endpoint", "infer.samples=2",
        f"infer.server.base_url={running.url('openai')}", "infer.server.model=their-model",
        "infer.server.max_attempts=1", "infer.max_new_tokens=64",
    )  # fmt: skip


def break_one_prompt(running: Double, experiment: Experiment) -> None:
    """Let the server fail whenever it is asked the first prompt of dev."""
    running.control(scripts={load_coverage(experiment).dev[0].prompt: ["500"] * 99})


def rows(experiment: Experiment, name: str) -> list[dict[str, object]]:
    path = run_folder(experiment) / "iterations" / name
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_server_answers_from_dev_to_test(running: Double, experiment: Experiment) -> None:
    state = run(experiment, display=quiet())
    assert state.status == "done"
    assert state.verdict is not None
    assert "their-model" in state.verdict
    assert "pocket_llama" not in state.verdict
    predictions = rows(experiment, "00/predictions.jsonl")
    assert len(predictions) == 4 * 2
    assert all(row["text"] == f"echo: {row['prompt']}" for row in predictions)
    assert all(row["similarity"] is not None for row in rows(experiment, "00/verdicts.jsonl"))
    assert len(running.bill()["calls"]) == 2 * (4 + 4)
    assert state.cost_usd == 0.0


def test_what_a_servers_answers_cost_counts_as_the_iterations(running: Double, experiment: Experiment) -> None:
    priced = copy.deepcopy(experiment)
    assert priced.infer.server is not None
    priced.infer.server.price = Price(input=100_000.0, output=1_000_000.0, as_of="test")
    assert run_folder(priced) == run_folder(experiment), "a price changes no result"
    state = run(priced, display=quiet())
    calls = running.bill()["calls"]
    cost = {
        place: sum(row["cost_usd"] for row in rows(priced, f"{place}/predictions.jsonl")) for place in ("00", "test")
    }
    answers = [row for place in cost for row in rows(priced, f"{place}/predictions.jsonl")]
    assert len({row["request"] for row in answers}) == len(calls) == 2 * (4 + 4)
    for row in answers:
        tokens = 0.1 * row["prompt_tokens"] + row["completion_tokens"]
        assert tokens > 0
        assert row["cost_usd"] == pytest.approx(tokens)
    (line,) = [json.loads(text) for text in (run_folder(priced) / "metrics.jsonl").read_text().splitlines()]
    assert line["cost_usd"] == pytest.approx(cost["00"])
    assert state.cost_usd == pytest.approx(cost["00"] + cost["test"])


@pytest.mark.usefixtures("waits")
def test_an_outage_is_no_artifact_and_what_came_is_not_asked_again(running: Double, experiment: Experiment) -> None:
    break_one_prompt(running, experiment)
    with pytest.raises(ServiceError, match=r"2 of 8 answers did not come \(no_reply 2\); with more than 10%") as caught:
        run(experiment, display=quiet())
    assert "Last failure: endpoint: The server had an error while processing your request." in str(caught.value)
    assert not list(run_folder(experiment).rglob("predictions.jsonl*"))
    running.control(scripts={}, reset=True)
    assert run(experiment, display=quiet()).status == "done"
    assert len(running.bill()["calls"]) == 2 + 8


def test_thoughts_without_answers_are_judged_by_nobody_and_the_way_on_is_said(
    running: Double, experiment: Experiment
) -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": "so the label is billing"}
    body = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
    running.control(bodies={load_coverage(experiment).dev[0].prompt: json.dumps(body)})
    with pytest.raises(ServiceError, match=r"2 of 8 answers did not come \(no_content 2\).*Raise infer.max_new_tokens"):
        run(experiment, display=quiet())
    assert not list(run_folder(experiment).rglob("predictions.jsonl*"))


@pytest.mark.usefixtures("waits")
def test_a_few_answers_that_do_not_come_are_unscored_and_count_as_such(running: Double, experiment: Experiment) -> None:
    experiment.judge.max_unscored = 0.9
    break_one_prompt(running, experiment)
    run(experiment, display=quiet())
    missing = [row for row in rows(experiment, "00/predictions.jsonl") if row["finish_reason"] == "no_reply"]
    assert [row["text"] for row in missing] == ["", ""]
    unscored = [row for row in rows(experiment, "00/verdicts.jsonl") if row["unscored"] == "no_reply"]
    assert len(unscored) == 2 * len(missing)  # two metrics
    assert all(row["similarity"] is None for row in unscored)
    (line,) = [json.loads(text) for text in (run_folder(experiment) / "metrics.jsonl").read_text().splitlines()]
    assert (line["unscored"], line["scored"]) == (4, 12)
