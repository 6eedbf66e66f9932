"""The hours of a quote: worked out by hand, measured where there are runs, unknown where nobody can tell."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import configuration, make_run
from omegaconf import OmegaConf
from rich.console import Console
from sample_records import example

from llamaduo.config import Backend, Experiment, Growth, conf_dir, model_location
from llamaduo.data.dataset import CoverageDataset
from llamaduo.quote import hours
from llamaduo.quote.hours import Rates, Work, measured_rates, parameters, rendered, work

GIVEN = Rates((100.0, 200.0), (10.0, 20.0), 4.0, "given.")


def dataset(train: int = 10, dev: int = 5, test: int = 5) -> CoverageDataset:
    """Return rows of 100 characters to read and 60 to answer."""
    rows = [example(f"{n:0100d}", "a" * 60) for n in range(train + dev + test)]
    return CoverageDataset(tuple(rows[:train]), tuple(rows[train : train + dev]), tuple(rows[train + dev :]))


@pytest.fixture
def small(experiment: Experiment) -> Experiment:
    """Return an experiment of 3 epochs that triples its rows, with 4 answers a prompt."""
    experiment.loop.growth = Growth(factor=3.0)
    experiment.train.epochs, experiment.train.min_steps = 3, 1
    experiment.infer.samples = 4
    return experiment


class TestHours:
    def test_the_range_goes_from_one_iteration_at_best_to_all_at_worst(self, small: Experiment) -> None:
        found = work(small, dataset(), 3, GIVEN)
        tokens = [3 * rows * 160 / 4 for rows in (10, 30, 90)]
        assert found.train_hours == pytest.approx((tokens[0] / 200 / 3600, sum(tokens) / 100 / 3600))
        answers = 4 * 5 * 60 / 4
        assert found.answer_hours == pytest.approx((2 * answers / 20 / 3600, 4 * answers / 10 / 3600))

    def test_small_data_train_for_more_epochs(self, small: Experiment) -> None:
        small.train.min_steps, small.train.batch_size, small.train.accumulation = 10, 5, 1
        found = work(small, dataset(), 1, GIVEN)
        assert found.train_hours == pytest.approx((5 * 10 * 40 / 200 / 3600, 5 * 10 * 40 / 100 / 3600))

    def test_the_paper_protocol_has_no_answers_besides(self, compose_experiment: Callable[..., Experiment]) -> None:
        paper = compose_experiment("protocol=paper", "infer.samples=1")
        found = work(paper, dataset(), 2, GIVEN)
        assert found.answer_hours == pytest.approx((5 * 15 / 20 / 3600, 2 * 5 * 15 / 10 / 3600))

    def test_a_baseline_is_not_trained_and_a_server_answers_elsewhere(self, small: Experiment) -> None:
        small.train.enabled = False
        small.infer.backend = Backend.endpoint
        found = work(small, dataset(), 1, GIVEN)
        assert (found.train_hours, found.answer_hours) == ((0.0, 0.0), (0.0, 0.0))

    def test_a_model_that_nobody_knows_has_no_hours(self, small: Experiment) -> None:
        small.local_model.path = "somebody/something"
        found = work(small, dataset(), 1, None)
        assert (found.train_hours, found.answer_hours) == (None, None)
        assert "not known" in found.basis


class TestEstimate:
    def test_it_takes_size_peak_and_bandwidth(self, compose_experiment: Callable[..., Experiment]) -> None:
        real = compose_experiment("preset=service", "local_model=llama3_8b", "service.replay=true", "serving=l4")
        rates = hours._assumed(real)
        assert rates is not None
        assert rates.train == pytest.approx([share * 121e12 / 6 / 8_030_261_248 for share in (0.2, 0.4)])
        assert rates.answer == pytest.approx([share * 8 * 300e9 / 2 / 8_030_261_248 for share in (0.2, 0.6)])
        real.train.gradient_checkpointing = False
        faster = hours._assumed(real)
        assert faster is not None
        assert faster.train[0] == pytest.approx(1.5 * rates.train[0])
        for told in ("L4", "8.0B", "6 FLOP", "20% to 40% of 121 TFLOPS", "300 GB/s"):
            assert told in rates.basis

    def test_every_local_model_of_conf_has_a_size_or_is_a_pocket_model(self) -> None:
        files = sorted((conf_dir() / "local_model").glob("*.yaml"))
        models = [OmegaConf.load(file) for file in files]
        assert len(models) == 13
        assert [model.path.startswith("pocket:") for model in models] == ["size" not in model for model in models]

    def test_a_folder_is_counted_by_the_headers_of_its_files(self, tmp_path: Path) -> None:
        for number, shape in enumerate(([3, 4], [5])):
            header = json.dumps({"__metadata__": {"a": "b"}, "w": {"dtype": "F32", "shape": shape}}).encode()
            content = struct.pack("<Q", len(header)) + header
            (tmp_path / f"model-{number}.safetensors").write_bytes(content)
        assert parameters(str(tmp_path)) == 17
        (tmp_path / "model-1.safetensors").write_bytes(b"short")
        assert parameters(str(tmp_path)) is None
        assert parameters(str(tmp_path / "nothing")) is None

    def test_a_pocket_models_size_is_that_of_its_file(self) -> None:
        folder = model_location("pocket:llama")
        counted = parameters(folder)
        assert counted is not None
        assert 4 * counted == pytest.approx((Path(folder) / "model.safetensors").stat().st_size, rel=0.01)  # float32


def timed_run(name: str, seconds: float, config: dict[str, object]) -> None:
    folder = make_run(Path(f"results/study/{name}"), config=config, gains=(0.0,))
    for here in folder.glob("iterations/*"):
        (here / "predictions.jsonl.done").write_text(json.dumps({"seconds": seconds}))
    (folder / "iterations/00/adapter").mkdir()
    (folder / "iterations/00/adapter/record.json").write_text('{"tokens": 1000}')
    (folder / "iterations/00/adapter.done").write_text(json.dumps({"seconds": seconds}))
    (folder / "environment.json").write_text('{"hardware": {"gpus": ["H100"]}}')


class TestMeasured:
    def test_finished_runs_of_the_same_model_give_the_range(self) -> None:
        config = configuration("preset=service", "judge=paper_panel", "service.replay=true")
        timed_run("a", 10.0, config)
        timed_run("b", 20.0, config)
        (path, rates), *others = measured_rates(Path("results")).items()
        assert (path, others) == ("google/gemma-2b", [])
        assert rates.train == pytest.approx((50, 100))
        answers = 2 * 15 * 4 * 24
        assert rates.answer == pytest.approx((answers / 40, answers / 20))
        assert rates.basis == (
            "measured on H100: 50 to 100 tokens/s trained (n = 2 finished runs), "
            f"{answers / 40:,.0f} to {answers / 20:,.0f} tokens/s answered (n = 2 finished runs)."
        )

    def test_what_an_endpoint_answers_says_nothing_of_the_local_model(self) -> None:
        given = ("preset=service", "judge=paper_panel", "service.replay=true")
        config = configuration(*given)
        timed_run("local", 10.0, config)
        timed_run("ceiling", 0.1, configuration(*given, "infer=service_llm", "synthesis=none"))
        (rates,) = measured_rates(Path("results")).values()
        answers = 2 * 15 * 4 * 24
        assert rates.answer == pytest.approx((answers / 20, answers / 20))
        assert rates.train == pytest.approx((100, 10_000))
        assert "trained (n = 2 finished runs)" in rates.basis
        assert "answered (n = 1 finished run)" in rates.basis

    def test_a_tokens_characters_are_those_of_all_runs_together(self) -> None:
        config = configuration("preset=service", "judge=paper_panel", "service.replay=true")
        timed_run("a", 10.0, config)
        timed_run("b", 10.0, config)
        characters = tokens = 0
        for file in sorted(Path("results").rglob("predictions.jsonl")):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            for row in rows if file.is_relative_to("results/study/b") else ():
                row["text"] = "long " * 100
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            characters += sum(len(row["text"]) for row in rows)
            tokens += sum(row["completion_tokens"] for row in rows)
        (rates,) = measured_rates(Path("results")).values()
        assert rates.characters_a_token == pytest.approx(characters / tokens)

    def test_runs_that_are_not_finished_or_have_no_times_say_nothing(self) -> None:
        config = configuration("preset=service", "judge=paper_panel", "service.replay=true")
        make_run(Path("results/study/no-times"), config=config, gains=(0.0,))
        timed_run("running", 10.0, config)
        state = Path("results/study/running/state.json")
        state.write_text(json.dumps(json.loads(state.read_text()) | {"status": "running"}))
        assert measured_rates(Path("results")) == {}

    def test_no_folder_and_a_damaged_run_are_no_experience(self) -> None:
        assert measured_rates(Path("nothing")) == {}
        Path("results/run").mkdir(parents=True)
        Path("results/run/state.json").write_text("{")
        Path("results/run/config.yaml").write_text("{")
        assert measured_rates(Path("results")) == {}


def shown(*works: Work) -> str:
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False, markup=False)
    for part in rendered(works):
        console.print(part)
    return out.getvalue()


class TestShown:
    def test_hours_add_up_over_runs_and_are_priced(self, experiment: Experiment) -> None:
        one = Work("gemma_2b", experiment.serving, (1.0, 2.0), (0.5, 1.0), "gemma_2b: given.", True)
        text = shown(one, one)
        assert "2.0 to 4.0 h" in text
        assert "1.0 to 2.0 h" in text
        assert f"${3 * 3.78:.2f} to ${6 * 3.78:.2f}" in text
        assert "H100 SXM, $3.78 (Lambda's list price on 2026-05-07" in text
        assert text.count("given.") == 1

    def test_minutes_of_a_cpu_have_no_price(self, experiment: Experiment) -> None:
        text = shown(Work("pocket_llama", experiment.serving, (0.1, 0.2), (0.0, 0.01), "b", False))
        assert "6.0 to 12.0 min" in text
        assert "$" not in text

    def test_one_run_that_is_not_known_leaves_its_model_open(self, experiment: Experiment) -> None:
        known = Work("m", experiment.serving, (1.0, 2.0), (0.0, 0.0), "b", True)
        unknown = Work("m", experiment.serving, None, None, "m: not known", True)
        text = shown(known, unknown)
        assert "not known" in text
        assert "2.0 h" not in text

    def test_nothing_to_do_shows_nothing(self) -> None:
        assert shown() == ""


def test_the_quote_shows_hours_even_where_nothing_is_to_be_paid_and_loads_no_torch() -> None:
    code = (
        "import sys; from llamaduo.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'litellm', 'wandb'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "quote", "judge=reference", "synthesis=none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nothing is to be paid" in done.stdout
    assert "two CPU cores" in done.stdout
