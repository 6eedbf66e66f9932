"""Replies that are of no use: a run says what they are, how one begins and what to set, and the same run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes import JUDGED_BY_SCRIPT, SMALL, quick_stages, quiet, script_judge, verdict

from llamaduo.config import Experiment, fingerprint
from llamaduo.errors import ServiceError
from llamaduo.loop import run
from llamaduo.runs.finished import run_folder
from llamaduo.runs.folder import read_state
from llamaduo.service.unusable import quoted
from llamaduo.verify.verify import verify

__all__ = ["quick_stages"]
pytestmark = pytest.mark.usefixtures("quick_stages")

Compose = Callable[..., Experiment]
SCRIPTED = (*SMALL, *JUDGED_BY_SCRIPT)
TAUGHT_BY_SCRIPT = (
    "service_llm=endpoint", "service_llm.provider=scripted", "service_llm.base_url=http://localhost:9",
    "service_llm.model=teacher",
)  # fmt: skip
UNREADABLE = "It says billing,\nwhich is right: 90 of 100."


class Script:
    """Judge and teacher by one program, which counts what it is asked."""

    def __init__(self, judge: Callable[[str], str], teacher: str = "I can't.") -> None:
        self.judge, self.teacher = judge, teacher
        self.judged = self.taught = 0
        script_judge(self.reply)

    def reply(self, prompt: str, _: Mapping[str, Any]) -> str:
        if "new pairs" in prompt:
            self.taught += 1
            return self.teacher
        self.judged += 1
        return self.judge(prompt)


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("iterations/*/*.done")}


def test_unreadable_verdicts_are_quoted_and_the_same_run_goes_on_with_service_reasks(
    compose_experiment: Compose,
) -> None:
    script = Script(lambda _: UNREADABLE)
    experiment = compose_experiment(*SCRIPTED)
    with pytest.raises(ServiceError, match=r"unscored \(not_json \d+\)") as caught:
        run(experiment, display=quiet())
    assert 'endpoint replied: "It says billing, which is right: 90 of 100."' in str(caught.value)
    assert "judge.panel.endpoint.json_schema" in str(caught.value)
    assert "service.reasks=1" in str(caught.value)
    asked = script.judged
    script.judge = lambda _: verdict(95)
    with pytest.raises(ServiceError, match="unscored"):
        run(compose_experiment(*SCRIPTED), display=quiet())
    assert script.judged == asked
    again = compose_experiment(*SCRIPTED, "service.reasks=1")
    assert run_folder(again) == run_folder(experiment)
    assert run(again, display=quiet()).stop_reason == "passed"
    assert run(compose_experiment(*SCRIPTED), display=quiet()).stop_reason == "passed"
    found = verify(run_folder(experiment))
    assert found.differences == []


def test_how_often_is_asked_again_stays_with_the_run(compose_experiment: Compose) -> None:
    script = Script(lambda _: UNREADABLE)
    wanted = (*SCRIPTED, *TAUGHT_BY_SCRIPT, "loop.max_iterations=2")
    experiment = compose_experiment(*wanted)
    with pytest.raises(ServiceError, match="unscored"):
        run(experiment, display=quiet())
    script.judge = lambda _: verdict(20)
    with pytest.raises(ServiceError, match="holds a pair"):
        run(compose_experiment(*wanted, "service.reasks=1"), display=quiet())
    pairs = [
        {"instruction": f"Ticket {n}: parcel {n * 31} never came.", "response": f"shipping {n}"} for n in range(30)
    ]
    script.teacher = json.dumps({"contents": pairs})
    with pytest.raises(ServiceError, match="holds a pair"):
        run(compose_experiment(*wanted), display=quiet())
    assert run(compose_experiment(*wanted, "service.reasks=2"), display=quiet()).status == "done"
    assert "reasks: 2" in (run_folder(experiment) / "config.yaml").read_text()
    assert verify(run_folder(experiment)).differences == []


def test_a_teacher_whose_replies_are_all_unreadable_is_a_failure(compose_experiment: Compose) -> None:
    script = Script(lambda _: verdict(20), "I would rather not.")
    experiment = compose_experiment(*SCRIPTED, *TAUGHT_BY_SCRIPT)
    with pytest.raises(ServiceError, match="holds a pair") as caught:
        run(experiment, display=quiet())
    assert caught.value.exit_code == 4
    assert '"I would rather not."' in str(caught.value)
    state = read_state(run_folder(experiment))
    assert (state.status, state.stop_reason) == ("failed", None)
    asked = script.taught
    with pytest.raises(ServiceError, match="holds a pair"):
        run(experiment, display=quiet())
    assert script.taught == asked


UNIT = json.dumps({"similarity": {"reason": "alike", "score": 0.97}, "precision": {"reason": "right", "score": 0.99}})


def test_a_judge_on_another_scale_ends_the_run_before_data_are_bought(compose_experiment: Compose) -> None:
    script = Script(lambda _: UNIT)
    experiment = compose_experiment(*SCRIPTED, *TAUGHT_BY_SCRIPT)
    with pytest.raises(ServiceError, match="a scale up to 1, not on the one from 0 to 100") as caught:
        run(experiment, display=quiet())
    assert all(words in str(caught.value) for words in ("endpoint seems", "0.97 to 0.99", quoted(UNIT)))
    assert script.taught == 0
    assert "verdicts.jsonl.done" not in kept(run_folder(experiment))
    asked = script.judged
    meant = compose_experiment(*SCRIPTED, "judge.any_scale=true", "synthesis=none")
    assert fingerprint(meant) == fingerprint(compose_experiment(*SCRIPTED, "synthesis=none"))
    state = run(meant, display=quiet())
    assert (state.status, state.decision) == ("done", "stay")
    assert script.judged >= asked
    assert verify(run_folder(meant)).differences == []


@pytest.mark.parametrize("score", [0, 1])
def test_a_judge_that_finds_everything_bad_is_heard(score: int, compose_experiment: Compose) -> None:
    Script(lambda _: verdict(score))
    state = run(compose_experiment(*SCRIPTED, "synthesis=none"), display=quiet())
    assert (state.status, state.decision) == ("done", "stay")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "nothing"),
        (" \n", "nothing"),
        ("a\n\tb", '"a b"'),
        ("\x1b[31mred\u202e", '"[31mred"'),
        ("x" * 161, f'"{"x" * 160}..."'),
    ],
)
def test_a_reply_is_quoted_on_one_line(text: str, told: str) -> None:
    assert quoted(text) == told
