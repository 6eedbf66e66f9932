"""The loop: each rule stops it for its own reason, and a run that is broken off comes out the same.

Stages between the service and the folder are real; training and answering are `fakes.quick_stages`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fakes import JUDGED_BY_SCRIPT, SMALL, quick_infer, quick_stages, quick_train, quiet, rows_of, script_judge, verdict

from llamaduo.config import Experiment
from llamaduo.curation.order import ORDER
from llamaduo.data.coverage import load_coverage
from llamaduo.display import Display
from llamaduo.errors import ConfigError, CurationError, InputError, ServiceError
from llamaduo.loop import run
from llamaduo.runs.finished import finished, run_folder
from llamaduo.runs.folder import read_state
from llamaduo.runs.state import RunState

__all__ = ["quick_stages"]

Compose = Callable[..., Experiment]
SCRIPTED = (*SMALL, *JUDGED_BY_SCRIPT)


def by_rows(scores: dict[int, float]) -> None:
    """Judge by the rows trained on: the score of the largest volume that was reached."""
    script_judge(lambda prompt, _: verdict(scores[max(rows for rows in scores if rows <= rows_of(prompt))]))


def metrics(experiment: Experiment) -> list[dict[str, Any]]:
    lines = (run_folder(experiment) / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


@pytest.mark.usefixtures("quick_stages")
class TestStopping:
    def test_passes_at_iteration_0(self, compose_experiment: Compose) -> None:
        by_rows({0: 95})
        experiment = compose_experiment(*SCRIPTED)
        state = run(experiment, display=quiet())
        assert (state.stop_reason, state.iterations, state.accepted_iteration) == ("passed", 1, 0)
        assert not (run_folder(experiment) / "iterations/00/synthetic.jsonl").exists()

    def test_passes_after_two_rounds_of_data(self, compose_experiment: Compose) -> None:
        by_rows({0: 20, 16: 60, 32: 95})
        experiment = compose_experiment(*SCRIPTED)
        state = run(experiment, display=quiet())
        assert (state.stop_reason, state.iterations, state.accepted_iteration) == ("passed", 3, 2)
        found = metrics(experiment)
        assert [line["similarity_mean"] for line in found] == [20, 60, 95]
        assert [line["train_rows"] for line in found] == [8, 16, 32]
        assert [line["synthetic_rows"] for line in found] == [0, 8, 24]

    def test_never_passes(self, compose_experiment: Compose) -> None:
        by_rows({0: 20, 16: 40, 32: 60})
        state = run(compose_experiment(*SCRIPTED, "loop.max_iterations=3"), display=quiet())
        assert (state.stop_reason, state.accepted_iteration, state.best_iteration) == ("max_iterations", None, 2)
        assert state.verdict is not None
        assert state.verdict.startswith("Don't switch")

    def test_plateau(self, compose_experiment: Compose) -> None:
        by_rows({0: 50, 16: 51, 32: 51.5, 64: 99})
        state = run(compose_experiment(*SCRIPTED), display=quiet())
        assert (state.stop_reason, state.iterations) == ("plateau", 3)

    def test_no_synthesis_is_no_new_data(self, compose_experiment: Compose) -> None:
        by_rows({0: 50})
        state = run(compose_experiment(*SCRIPTED, "synthesis=none"), display=quiet())
        assert (state.stop_reason, state.iterations) == ("no_new_data", 1)

    def test_curation_that_leaves_nothing_is_no_new_data(self, compose_experiment: Compose) -> None:
        by_rows({0: 50})
        state = run(compose_experiment(*SCRIPTED, "curation.contamination_jaccard=0.01"), display=quiet())
        assert (state.stop_reason, state.iterations) == ("no_new_data", 1)

    def test_a_named_filter_that_takes_everything_ends_the_run_with_its_name(self, compose_experiment: Compose) -> None:
        by_rows({0: 50})
        named = ("curation.filters=[near,exact,contamination]", "curation.contamination_jaccard=0.01")
        with pytest.raises(CurationError) as found:
            run(compose_experiment(*SCRIPTED, *named), display=quiet())
        said = str(found.value)
        assert said.startswith("curation left none of ")
        assert "that reached the filter contamination were removed by it (" in said
        assert said.count(" matches ") == 3
        assert "If they are good rows, set curation.contamination_jaccard higher; if not, look" in said

    def test_named_filters_tell_what_each_of_them_saw(self, compose_experiment: Compose) -> None:
        by_rows({0: 20, 16: 60, 32: 95})
        named = compose_experiment(*SCRIPTED, "curation.filters=[near,exact,contamination]")
        run(named, display=quiet())
        told = json.loads((run_folder(named) / "iterations/00/curation.json").read_text())
        assert [report["name"] for report in told["filters"]] == ["contamination", "exact", "near"]
        assert told["filters"][0]["rows_in"] == told["parsed"]
        assert told["filters"][-1]["rows_out"] == told["kept"]
        unnamed = compose_experiment(*SCRIPTED, "curation.dressed=true")
        run(unnamed, display=quiet())
        assert "filters" not in json.loads((run_folder(unnamed) / "iterations/00/curation.json").read_text())
        assert (run_folder(named) / "iterations/00/synthetic.jsonl").read_bytes() == (
            run_folder(unnamed) / "iterations/00/synthetic.jsonl"
        ).read_bytes()

    @pytest.mark.parametrize(
        ("named", "asked"),
        [
            ("curation.filters=[near,shape]", ["shape", "contamination", "near"]),
            ("curation=strict", [one.name.value for one in ORDER]),
        ],
    )
    def test_filters_are_named_in_a_command(self, named: str, asked: list[str], compose_experiment: Compose) -> None:
        by_rows({0: 20, 16: 60, 32: 95})
        experiment = compose_experiment(*SCRIPTED, named)
        run(experiment, display=quiet())
        told = json.loads((run_folder(experiment) / "iterations/00/curation.json").read_text())
        assert [report["name"] for report in told["filters"]] == asked
        assert told["filters"][-1]["rows_out"] == told["kept"] > 0

    def test_what_curation_takes_is_said_before_more_is_bought(
        self, compose_experiment: Compose, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        by_rows({0: 50})
        from llamaduo.steps import growth

        told: list[str] = []
        display = quiet()
        monkeypatch.setattr(display, "note", told.append)
        bought = growth.synthesize
        monkeypatch.setattr(growth, "synthesize", lambda *a, **more: (told.append("bought"), bought(*a, **more))[1])
        some = compose_experiment(*SCRIPTED, "curation.contamination_jaccard=0.01", "loop.gate.rule=mean")
        run(some, display=display)
        events = [
            note.split(" of this")[0].rstrip("0123456789") for note in told if "bought" in note or "round" in note
        ]
        assert events == ["bought", "curation removed "] * 3
        assert any("like dev or test: 'Classify" in note or "like dev or test: '..." in note for note in told)

    def test_budget_stops_and_a_larger_one_goes_on(self, compose_experiment: Compose) -> None:
        by_rows({0: 20, 16: 95})
        priced = (
            "+judge.panel.endpoint.price={input: 0, output: 1000, as_of: test}",
            "judge.panel.endpoint.max_tokens=100",
        )
        poor = compose_experiment(*SCRIPTED, *priced, "loop.budget_usd=0.15")
        state = run(poor, display=quiet())
        assert (state.status, state.stop_reason, state.iterations) == ("done", "budget", 0)
        rich = compose_experiment(*SCRIPTED, *priced, "loop.budget_usd=100")
        assert run_folder(rich) == run_folder(poor)
        assert finished(rich) is None
        assert run(rich, display=quiet()).stop_reason == "passed"

    def test_the_studys_budget_stops_the_run_that_would_pass_it(self, compose_experiment: Compose) -> None:
        by_rows({0: 95})
        priced = (
            "+judge.panel.endpoint.price={input: 0, output: 1000, as_of: test}",
            "judge.panel.endpoint.max_tokens=100",
        )
        first = compose_experiment(*SCRIPTED, *priced, "service.study_budget_usd=100")
        state = run(first, display=quiet())
        assert state.stop_reason == "passed"
        cap = f"service.study_budget_usd={state.cost_usd + 0.15}"
        second = compose_experiment(*SCRIPTED, *priced, cap, "data.seed=7")
        assert run_folder(second) != run_folder(first)
        stopped = run(second, display=quiet())
        assert (stopped.stop_reason, stopped.iterations) == ("budget", 0)
        assert stopped.cost_usd <= 0.15
        another = compose_experiment(*SCRIPTED, *priced, cap, "data.seed=7", "study=another")
        assert run(another, display=quiet()).stop_reason != "budget"

    def test_fixed_volumes_without_coverage_rows_and_without_a_gate(self, compose_experiment: Compose) -> None:
        by_rows({0: 50, 10: 60, 20: 55})
        experiment = compose_experiment(*SCRIPTED, "loop=scaling", "loop.growth.volumes=[5,10,20]")
        state = run(experiment, display=quiet())
        assert (state.stop_reason, state.accepted_iteration, state.best_iteration) == ("max_iterations", None, 1)
        found = metrics(experiment)
        assert [(line["train_rows"], line["synthetic_rows"]) for line in found] == [(5, 5), (10, 10), (20, 20)]

    def test_paper_protocol_gates_on_test_and_reports_it_only_once(self, compose_experiment: Compose) -> None:
        by_rows({0: 95})
        experiment = compose_experiment(*SCRIPTED, "protocol=paper", "train.quantization=none", "train.max_length=512")
        state = run(experiment, display=quiet())
        assert state.stop_reason == "passed"
        assert state.test is None
        assert not (run_folder(experiment) / "iterations/test").exists()


GATED = (
    *JUDGED_BY_SCRIPT,
    "data.train_rows=8",
    "data.dev_rows=48",
    "data.test_rows=40",
    "loop.growth.factor=2",
    "loop.beside=[]",
    "infer.samples=1",
)
"""A run with enough prompts for a gate of limits."""


def dev_and_test(experiment: Experiment) -> tuple[set[str], set[str]]:
    """Return the prompts of both splits, as the judge reads them."""
    dataset = load_coverage(experiment)
    return {row.prompt for row in dataset.dev}, {row.prompt for row in dataset.test}


@pytest.mark.usefixtures("quick_stages")
class TestVerdict:
    def test_dev_proposes_and_test_confirms(self, compose_experiment: Compose) -> None:
        by_rows({0: 20, 16: 100})
        state = run(compose_experiment(*GATED), display=quiet())
        assert (state.stop_reason, state.accepted_iteration) == ("passed", 1)
        assert (state.decision, state.confirmation) == ("switch", "confirmed")
        assert state.test_gate is not None
        assert state.test_gate["error"] == 0.05
        assert (state.verdict or "").startswith(
            "Switch: pocket_llama of iteration 1 (16 rows) takes over classification."
        )

    @pytest.mark.parametrize(
        ("on_test", "said", "decision", "accepted"),
        [
            (100, "confirmed", "switch", 0),
            (91, "undecided", "switch_with_fallback", 0),
            (40, "contradicted", "stay", None),
        ],
    )
    def test_the_test_split_disposes(
        self, compose_experiment: Compose, on_test: float, said: str, decision: str, accepted: int | None
    ) -> None:
        experiment = compose_experiment(*GATED)
        _, test = dev_and_test(experiment)
        script_judge(lambda prompt, _: verdict(on_test if any(text in prompt for text in test) else 100))
        state = run(experiment, display=quiet())
        assert (state.stop_reason, state.best_iteration) == ("passed", 0)
        assert (state.confirmation, state.decision, state.accepted_iteration) == (said, decision, accepted)
        assert said in (state.verdict or "") or "contradicts" in (state.verdict or "")

    @pytest.mark.parametrize("rows", [2, 28, 43])
    def test_too_few_dev_prompts_are_refused_before_anything_is_trained(
        self, rows: int, compose_experiment: Compose
    ) -> None:
        by_rows({0: 100})
        experiment = compose_experiment(*GATED, f"data.dev_rows={rows}")
        with pytest.raises(
            InputError, match=rf"has {rows} prompts: 44 are needed to pass a gate of 90 at up to 5 looks"
        ):
            run(experiment, display=quiet())
        assert not list(run_folder(experiment).glob("iterations/*"))

    def test_without_synthesis_too_few_prompts_are_told_and_measured(
        self, compose_experiment: Compose, capsys: pytest.CaptureFixture[str]
    ) -> None:
        by_rows({0: 100})
        experiment = compose_experiment(*GATED, "data.dev_rows=2", "synthesis=none")
        with Display() as display:
            state = run(experiment, display=display)
        assert (state.stop_reason, state.decision, state.accepted_iteration) == ("no_new_data", "stay", None)
        assert "No model can pass: the dev split has 2 prompts: 29 are needed" in " ".join(
            capsys.readouterr().out.split()
        )

    def test_the_looks_share_the_error(self, compose_experiment: Compose) -> None:
        by_rows({0: 20, 16: 100})
        experiment = compose_experiment(*GATED, "loop.max_iterations=2")
        run(experiment, display=quiet())
        looks = [line["gate"] for line in metrics(experiment)]
        assert [look["error"] for look in looks] == [0.025, 0.025]
        assert [look["passed"] for look in looks] == [False, True]
        assert looks[1]["values"]["precision"] == pytest.approx(100 * 0.025 ** (1 / 48), abs=1e-3)

    def test_missing_answers_are_counted_against_the_model(self, compose_experiment: Compose) -> None:
        """4 of 48 answers, the worst, can't be read: the mean of the rest would pass."""
        experiment = compose_experiment(*GATED, "loop.max_iterations=1", "judge.economy=false")
        dev, _ = dev_and_test(experiment)
        worst = sorted(dev)[:4]
        script_judge(lambda prompt, _: "no" if any(text in prompt for text in worst) else verdict(100))
        state = run(experiment, display=quiet())
        (line,) = metrics(experiment)
        assert (line["similarity_mean"], line["unscored"], line["gate"]["passed"]) == (100, 4, False)
        assert state.accepted_iteration is None
        assert "44 of 48 verdicts scored" in (state.verdict or "")

    def test_a_budget_spent_before_the_test_split_leaves_it_undecided(self, compose_experiment: Compose) -> None:
        by_rows({0: 100})
        priced = (
            "+judge.panel.endpoint.price={input: 0, output: 1000, as_of: test}",
            "judge.panel.endpoint.max_tokens=100",
            "judge.panel.endpoint.concurrency=1",
        )
        rich = run(compose_experiment(*GATED, *priced, "study=rich"), display=quiet())
        each = rich.cost_usd / 88
        budget = f"loop.budget_usd={each * 60 + 0.1}"
        poor = compose_experiment(*GATED, *priced, budget, "study=poor", "service.journal=poor.sqlite")
        state = run(poor, display=quiet())
        assert (state.stop_reason, state.accepted_iteration, state.decision) == ("budget", None, "stay")
        assert (state.verdict or "").startswith("Not decided: ")
        more = compose_experiment(*GATED, *priced, "study=poor", "service.journal=poor.sqlite")
        assert run(more, display=quiet()).decision == "switch"


@pytest.mark.usefixtures("quick_stages")
class TestBeside:
    AGAINST = ("loop.gate.against=service_llm", "data.dev_rows=120", "data.test_rows=120", "synthesis=none")

    @pytest.mark.parametrize(("ours", "decision"), [(84, "switch"), (70, "stay")])
    def test_the_gate_compares_with_the_service_llm(
        self, ours: float, decision: str, compose_experiment: Compose
    ) -> None:
        by_rows({0: ours, 1000: 85})
        experiment = compose_experiment(*GATED, *self.AGAINST)
        state = run(experiment, display=quiet())
        assert state.decision == decision
        (line,) = metrics(experiment)
        assert line["gate"]["rule"] == "service_llm"
        assert line["gate"]["method"] == "guaranteed"
        assert line["gate"]["needed"] == {"similarity": -5, "precision": -5}
        assert {split: card["precision"]["mean"] for split, card in state.beside["service_llm"].items()} == {
            "gate": 85,
            "test": 85,
        }
        assert any("of its precision" in text for text in state.details)

    def test_ceiling_and_floor_are_judged_on_both_splits_and_told(self, compose_experiment: Compose) -> None:
        by_rows({0: 10, 8: 100, 1000: 95})
        experiment = compose_experiment(*GATED, "loop.beside=[base,few_shot,service_llm]")
        state = run(experiment, display=quiet())
        assert set(state.beside) == {"service_llm", "base", "few_shot"}
        folders = {path.name for path in (run_folder(experiment) / "iterations").iterdir()}
        assert {"base", "few_shot", "service_llm", "test_base", "test_few_shot", "test_service_llm"} <= folders
        told = "\n".join(state.details)
        assert "Ceiling, pocket_teacher: similarity 95.0" in told
        assert "Floor, the base model: similarity 10.0" in told
        assert "0 of 0 prompts that were right went wrong, and 40 of 40 that were wrong came right" in told

    def test_what_is_bought_beside_is_no_cost_of_an_iteration(self, compose_experiment: Compose) -> None:
        by_rows({0: 10, 8: 100})
        priced = ("+judge.panel.endpoint.price={input: 0, output: 1000, as_of: test}",)
        experiment = compose_experiment(*GATED, *priced, "loop.beside=[base]")
        state = run(experiment, display=quiet())
        (line,) = metrics(experiment)
        assert 0 < line["cost_usd"] < state.cost_usd
        cards = [card for splits in state.beside.values() for card in splits.values()]
        beside = sum(card["cost_usd"] for card in cards) + (state.test or {})["cost_usd"]
        assert state.cost_usd == pytest.approx(line["cost_usd"] + beside)


@pytest.mark.usefixtures("quick_stages")
class TestData:
    def test_restart_and_continue_start_from_different_places(self, compose_experiment: Compose) -> None:
        by_rows({0: 20, 16: 95})
        starts = {}
        for start in ("base", "last"):
            experiment = compose_experiment(*SCRIPTED, f"loop.start={start}")
            run(experiment, display=quiet())
            weights = run_folder(experiment) / "iterations/01/adapter/weights.json"
            starts[start] = json.loads(weights.read_text())["start_from"]
        assert starts["base"] is None
        assert starts["last"].endswith("iterations/00/adapter")

    def test_nothing_of_dev_and_test_reaches_training(self, compose_experiment: Compose) -> None:
        by_rows({0: 20, 16: 30, 32: 40})
        experiment = compose_experiment(*SCRIPTED, "loop.max_iterations=3")
        run(experiment, display=quiet())
        folder = run_folder(experiment)
        held_out = {
            json.loads(line)["prompt_id"]
            for path in (folder / "iterations/00/predictions.jsonl", folder / "iterations/test/predictions.jsonl")
            for line in path.read_text().splitlines()
        }
        assert len(held_out) == 12
        for number in (0, 1):
            here = folder / f"iterations/{number:02d}"
            curation = json.loads((here / "curation.json").read_text())
            kept = [json.loads(line) for line in (here / "synthetic.jsonl").read_text().splitlines()]
            assert len(kept) == curation["kept"] == curation["parsed"] - len(curation["removed"]) > 0
            assert not held_out & {row["prompt_id"] for row in kept}
            assert not held_out & {row["seed_id"] for row in kept}


@pytest.mark.usefixtures("quick_stages")
class TestFailing:
    def test_judge_outage_fails_the_run_and_the_next_start_goes_on(
        self, compose_experiment: Compose, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def no_wait(_: float) -> None:
            return None

        def down(prompt: str, _: Any) -> str:
            import litellm

            raise litellm.ServiceUnavailableError("down", llm_provider="scripted", model="script")

        monkeypatch.setattr("llamaduo.service.buying.asyncio.sleep", no_wait)
        script_judge(down)
        experiment = compose_experiment(*SCRIPTED)
        with pytest.raises(ServiceError, match="out of reach"):
            run(experiment, display=quiet())
        state = read_state(run_folder(experiment))
        assert state.status == "failed"
        assert not (run_folder(experiment) / "iterations/00/verdicts.jsonl").exists()
        by_rows({0: 95})
        assert run(experiment, display=quiet()).stop_reason == "passed"

    def test_unreadable_judge_decides_nothing(self, compose_experiment: Compose) -> None:
        script_judge(lambda prompt, _: "I would say about 90 out of 100.")
        experiment = compose_experiment(*SCRIPTED)
        with pytest.raises(ServiceError, match=r"unscored \(not_json"):
            run(experiment, display=quiet())
        assert not (run_folder(experiment) / "metrics.jsonl").exists()

    def test_a_few_unreadable_replies_are_counted_and_left_out(self, compose_experiment: Compose) -> None:
        unreadable = []

        def judge(prompt: str, _: Any) -> str:
            if not unreadable or prompt in unreadable:
                unreadable.append(prompt)
                return '{"similarity": 9'
            return verdict(95)

        script_judge(judge)
        experiment = compose_experiment(*SCRIPTED)
        assert run(experiment, display=quiet()).stop_reason == "passed"
        line = metrics(experiment)[0]
        assert (line["unscored"], line["scored"], line["similarity_mean"]) == (1, 11, 95)

    def test_a_missing_key_is_named_before_anything_is_trained(self, compose_experiment: Compose) -> None:
        experiment = compose_experiment(*SMALL, "judge=gpt_6_luna")
        with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
            run(experiment, display=quiet())
        assert not list(run_folder(experiment).glob("iterations/*"))


def _in_a_process(work: Callable[[], None]) -> int:
    """Run `work` in a forked process and return its exit code; it shares what is imported already."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_in(stage: str, experiment: Experiment) -> None:
    """Run in this process until the named stage has done its work for the second time, then SIGKILL."""
    from llamaduo.steps import growth, steps

    owners: dict[str, Any] = {"synthesize": growth, "take": growth.Curator, "curate": Display}
    owner, name = owners.get(stage, steps), "stage" if stage == "curate" else stage
    real = getattr(owner, name)
    calls = []

    def deadly(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        calls.extend([stage] if stage != "curate" or stage in args else [])  # between what came and what is kept
        if len(calls) == 2:
            _die()
        return result

    setattr(owner, name, deadly)
    run(experiment, display=quiet())


@pytest.mark.usefixtures("quick_stages")
@pytest.mark.parametrize("stage", ["train", "infer", "judge", "synthesize", "take", "curate"])
def test_killed_in_a_stage_and_resumed_gives_the_same(stage: str, compose_experiment: Compose, tmp_path: Path) -> None:
    by_rows({0: 20, 16: 60, 32: 95})
    whole = compose_experiment(*SCRIPTED, f"service.journal={tmp_path}/whole.sqlite", "study=whole")
    expected = run(whole, display=quiet())
    broken = compose_experiment(*SCRIPTED, f"service.journal={tmp_path}/broken.sqlite", "study=broken")
    assert _in_a_process(lambda: _killed_in(stage, broken)) == -signal.SIGKILL
    assert finished(broken) is None
    state = run(broken, display=quiet())
    assert metrics(broken) == metrics(whole)
    assert state == expected
    for file in (f"iterations/0{at}/{name}" for at in (0, 1) for name in ("synthetic.jsonl", "curation.json")):
        assert (run_folder(broken) / file).read_bytes() == (run_folder(whole) / file).read_bytes()


@pytest.mark.usefixtures("quick_stages")
def test_killed_at_every_rename_and_resumed_gives_the_same(
    compose_experiment: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_rows({0: 20, 16: 95})
    whole = compose_experiment(*SCRIPTED, f"service.journal={tmp_path}/whole.sqlite", "study=whole")
    expected = run(whole, display=quiet())
    broken = compose_experiment(*SCRIPTED, f"service.journal={tmp_path}/broken.sqlite", "study=broken")
    real = os.replace

    def killed_at_next_rename_but(survived: int) -> None:
        left = [survived]

        def replace(*args: Any) -> None:
            if left[0] == 0:
                _die()
            left[0] -= 1
            real(*args)

        monkeypatch.setattr(os, "replace", replace)
        run(broken, display=quiet())

    kills = 0
    while _in_a_process(partial(killed_at_next_rename_but, kills // 3)) != 0:
        kills += 1
        assert kills < 200
    assert kills > 10
    assert metrics(broken) == metrics(whole)
    assert read_state(run_folder(broken)) == expected


@pytest.mark.usefixtures("quick_stages")
def test_two_runs_with_one_seed_are_identical_apart_from_times(compose_experiment: Compose, tmp_path: Path) -> None:
    by_rows({0: 20, 16: 60, 32: 95})
    first, second = (
        compose_experiment(*SCRIPTED, f"service.journal={tmp_path}/{name}.sqlite", f"study={name}") for name in "ab"
    )
    assert run(first, display=quiet()) == run(second, display=quiet())
    assert metrics(first) == metrics(second)


def test_the_loop_closes_with_four_bit_weights_on_a_cpu(
    compose_experiment: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is a stand-in here: the pocket model is trained and answers in 4 bits, its data are synthesised."""
    pytest.importorskip("bitsandbytes")
    from safetensors.torch import load_file

    from llamaduo.local.model import load_base

    loaded: list[set[str]] = []

    def watched(*args: Any) -> Any:
        base = load_base(*args)
        loaded.append({type(module).__name__ for name, module in base.named_modules() if name.endswith("_proj")})
        return base

    for module in ("training.fit", "stages.infer"):
        monkeypatch.setattr(f"llamaduo.{module}.load_base", watched)
    experiment = compose_experiment(
        "preset=smoke",
        "train.quantization=nf4",
        "runtime.device=cpu",
        "runtime.threads=1",
        "data.train_rows=8",
        "data.dev_rows=2",
        "data.test_rows=2",
        "infer.max_new_tokens=8",
        "train.min_steps=1",
    )
    state = run(experiment, display=quiet())
    assert (state.status, state.iterations) == ("done", 2)
    assert loaded == [{"Linear4bit"}] * 5  # two trainings, their answers on dev, and those of the best on test
    assert [line["train_rows"] for line in metrics(experiment)] == [8, 16]
    weights = []
    for number in (0, 1):
        here = run_folder(experiment) / f"iterations/{number:02d}"
        weights.append(load_file(here / "adapter" / "adapter_model.safetensors"))
        assert all(tensor.abs().max() > 0 for tensor in weights[-1].values()), "B starts at zero"
        answered = [json.loads(line) for line in (here / "predictions.jsonl").read_text().splitlines()]
        assert [row["finish_reason"] in ("stop", "length") for row in answered] == [True] * 2
        judged = [json.loads(line) for line in (here / "verdicts.jsonl").read_text().splitlines()]
        assert {(row["prompt_id"], row["sample"]) for row in judged} == {(row["prompt_id"], 0) for row in answered}
        assert all(row["similarity"] is not None for row in judged)
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])


@pytest.mark.usefixtures("quick_stages")
class TestReplay:
    def test_a_replay_comes_to_the_same_and_asks_nobody(
        self, compose_experiment: Compose, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        by_rows({0: 20, 16: 60, 32: 95})
        first = compose_experiment(*SCRIPTED, "study=first")
        state = run(first, display=quiet())
        monkeypatch.setattr("llamaduo.service.buying.call", None)
        again = compose_experiment(*SCRIPTED, "study=again", "service.replay=true", "loop.budget_usd=0")
        assert run_folder(again).name == run_folder(first).name
        assert run(again, display=quiet()) == state
        assert metrics(again) == metrics(first)

    def test_what_the_journal_does_not_hold_ends_it(self, compose_experiment: Compose) -> None:
        by_rows({0: 20, 16: 95})
        run(compose_experiment(*SCRIPTED), display=quiet())
        other = compose_experiment(*SCRIPTED, "service.replay=true", "judge.panel.endpoint.max_tokens=77")
        with pytest.raises(ServiceError, match=r"^replay: .*another configuration\. Nothing was sent\."):
            run(other, display=quiet())
        assert read_state(run_folder(other)).status == "failed"

    def test_without_a_journal_there_is_nothing_to_replay(self, compose_experiment: Compose, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="unable to open database file"):
            run(compose_experiment(*SCRIPTED, "service.replay=true"), display=quiet())
        assert not list((tmp_path / "home").glob("*"))


@pytest.mark.usefixtures("quick_stages")
def test_an_error_is_written_into_the_state_without_any_key(
    compose_experiment: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "very-secret-words")

    def refused(prompt: str, _: Any) -> str:
        import litellm

        raise litellm.AuthenticationError("no such key: very-secret-words", llm_provider="scripted", model="script")

    script_judge(refused)
    experiment = compose_experiment(*SCRIPTED)
    with pytest.raises(ServiceError, match=r"no such key: \[SOME_API_KEY\]"):
        run(experiment, display=quiet())
    assert "[SOME_API_KEY]" in (read_state(run_folder(experiment)).error or "")
    assert not any(
        "very-secret-words" in path.read_text(errors="replace") for path in Path().rglob("*") if path.is_file()
    )


@pytest.mark.usefixtures("quick_stages")
def test_a_finished_run_is_not_run_again(compose_experiment: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    by_rows({0: 95})
    experiment = compose_experiment(*SCRIPTED)
    state = run(experiment, display=quiet())
    monkeypatch.setattr("llamaduo.loop.RunDir", None)
    assert run(experiment, display=quiet()) == state
    assert isinstance(state, RunState)


def test_stand_ins_have_the_stages_signatures() -> None:
    import inspect

    from llamaduo.stages.infer import infer
    from llamaduo.stages.train import train

    for real, fake in ((train, quick_train), (infer, quick_infer)):
        names = [name for name, p in inspect.signature(fake).parameters.items() if p.kind is not p.VAR_KEYWORD]
        assert set(names) <= set(inspect.signature(real).parameters)
