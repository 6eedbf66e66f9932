"""What somebody else's configuration has run here, or sent away, is said before it happens."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fakes import SMALL, quick_stages

from llamaduo.config import Experiment
from llamaduo.display import Display
from llamaduo.loop import run
from llamaduo.service.access import asked_llms
from llamaduo.service.trusted import trusted

__all__ = ["quick_stages"]

Compose = Callable[..., Experiment]
THEIRS = ("judge=endpoint", "judge.panel.endpoint.model=m", "judge.panel.endpoint.base_url=http://127.0.0.1:9/v1")
SAID: dict[str, tuple[tuple[str, ...], str]] = {
    "code": (
        ("local_model.path=them/model", "local_model.trust_remote_code=true"),
        "code that comes with them/model is run (local_model.trust_remote_code=true).",
    ),
    "a program": (("infer=vllm", "infer.vllm=./vllm"), "the program ./vllm is run (infer.vllm)."),
    "an address": (THEIRS, "endpoint: requests go to http://127.0.0.1:9/v1."),
    "a key": (
        (*THEIRS, "judge.panel.endpoint.api_key_env=MINE_API_KEY", "judge.panel.endpoint.headers_env.X=OTHER"),
        "endpoint: requests go to http://127.0.0.1:9/v1, with the key in MINE_API_KEY and what OTHER holds.",
    ),
    "an address in a variable": (
        ("judge=endpoint", "judge.panel.endpoint.model=m", "+judge.panel.endpoint.base_url_env=WHERE"),
        "endpoint: requests go to the address in WHERE.",
    ),
}


@pytest.mark.parametrize("what", SAID)
def test_it_is_told(what: str, compose_experiment: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MINE_API_KEY", "OTHER"):
        monkeypatch.setenv(name, "0123456789abcdef")
    monkeypatch.setenv("WHERE", "http://127.0.0.1:9/v1")
    overrides, told = SAID[what]
    experiment = compose_experiment(*overrides)
    assert trusted(experiment, asked_llms(experiment)) == [told]


def test_the_pocket_profile_needs_no_trust(compose_experiment: Compose) -> None:
    experiment = compose_experiment()
    assert trusted(experiment, asked_llms(experiment)) == []


@pytest.mark.usefixtures("quick_stages")
def test_a_run_says_it_as_it_starts(compose_experiment: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = compose_experiment(*SMALL, "local_model.trust_remote_code=true")
    with Display() as display:
        run(experiment, display=display)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.index("trust_remote_code=true") < printed.index("iteration")
