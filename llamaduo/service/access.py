"""Which service LLMs an experiment asks, whether their keys are there, and the way to them.

    service = open_service(experiment, folder)       keys and prices checked, the journal opened; None if it asks nobody

The pocket LLM is registered here, a program like any other: nothing else of `service/` knows of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llamaduo.config import Beside, Experiment, JudgeKind, ServiceLLM, beside
from llamaduo.pocket import teacher
from llamaduo.privacy.hiding import Hider
from llamaduo.privacy.secret import secret_of
from llamaduo.privacy.tally import Tally
from llamaduo.runs import layout
from llamaduo.runs.folder import write_kept
from llamaduo.service import loading, transport
from llamaduo.service.addresses import address, headers
from llamaduo.service.client import Service
from llamaduo.service.concealing import Concealing
from llamaduo.service.journal import Journal, default_path
from llamaduo.service.prices import tariff


def open_service(experiment: Experiment, folder: Path, llms: Sequence[ServiceLLM] | None = None) -> Service | None:
    """Return access to service LLMs, by default all of the experiment's, keys and prices checked; None for nobody."""
    llms = asked_llms(experiment) if llms is None else llms
    if not llms:
        return None
    settings = experiment.service
    refuse_missing_keys(experiment, llms)
    for llm in llms:
        tariff(llm, experiment.prices)
    return Service(
        Journal(journal_path(experiment), read_only=settings.replay, imported=settings.replay or settings.imported),
        run=f"{folder.parent.name}/{folder.name}",
        budget_usd=experiment.loop.budget_usd,
        study_budget_usd=settings.study_budget_usd,
        prices=experiment.prices,
        replay=settings.replay,
        reasks=settings.reasks,
        concealing=_concealing(experiment, folder),
    )


def refuse_missing_keys(experiment: Experiment, llms: Sequence[ServiceLLM] | None = None) -> None:
    """Raise ConfigError where a key is missing of a service LLM, by default of all that the experiment asks."""
    loading.register("pocket", teacher.reply)
    if not experiment.service.replay:
        for llm in asked_llms(experiment) if llms is None else llms:
            transport.api_key(llm)
            address(llm)
            headers(llm)


def asked_llms(experiment: Experiment) -> list[ServiceLLM]:
    """Return every service LLM that the experiment asks."""
    llms = list(experiment.judge.panel.values()) if experiment.judge.kind is JudgeKind.service else []
    llms += [experiment.service_llm] if experiment.synthesis.enabled or Beside.service_llm in beside(experiment) else []
    server = experiment.infer.server
    return llms + ([server] if experiment.infer.served and server else [])


def journal_path(experiment: Experiment) -> Path:
    """Return where the experiment's journal lies."""
    named = experiment.service.journal
    return Path(named).expanduser() if named else default_path()


def hider_of(experiment: Experiment, folder: Path | None = None, *, keep: bool = False) -> Hider | None:
    """Return what hides an experiment's texts, None with privacy=off; `keep` writes a new secret down."""
    if not experiment.privacy:
        return None
    return Hider(experiment.privacy, secret_of(folder, journal_path(experiment).parent, keep=keep))


def _concealing(experiment: Experiment, folder: Path) -> Concealing | None:
    hider = hider_of(experiment, folder, keep=True)
    return Concealing(hider, Tally(folder / layout.PRIVACY, write_kept)) if hider else None
