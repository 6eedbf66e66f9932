"""Run folders of any size, made without a model: the files that a run writes, with drawn scores.

    make_run(Path("results/study/gemma-coding-00000000"), task="coding", local_model="gemma_2b")
    make_study(Path("results/study"), models=("gemma_2b", "llama3_8b"), tasks=("coding", "closed_qa"))

An answer's quality is drawn from its run's level and its prompt; a judge adds its strictness and noise. The
scorecards are the project's own (`evidence.scorecard`), so the numbers of a folder agree with each other.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from llamaduo.compose import compose
from llamaduo.config import plain
from llamaduo.evidence.scorecard import score
from llamaduo.records import Prediction, Scorecard, Verdict, to_json
from llamaduo.runs.state import Iteration

STRICTNESS = {"gpt_4o": 0.0, "claude_3_sonnet": -4.0, "gemini_1_5_flash": 5.0}
WORDS = ("the", "model", "takes", "over", "a", "prompt", "when", "its", "answers", "are", "as", "good", "as", "before")


def answers(prompts: int, samples: int, rng: random.Random) -> list[Prediction]:
    """Return K made-up answers to each prompt."""
    made = []
    for number in range(prompts):
        prompt = f"Prompt {number}: " + " ".join(rng.choices(WORDS, k=12))
        reference = " ".join(rng.choices(WORDS, k=18))
        for sample in range(samples):
            text = " ".join(rng.choices(WORDS, k=20))
            made.append(Prediction(f"{number:016x}", sample, prompt, reference, text, "stop", 30, 24))
    return made


def verdicts(
    predictions: Sequence[Prediction], level: float, rng: random.Random, *, judges: Sequence[str], repeats: int
) -> list[Verdict]:
    """Return what each judge makes of each answer; one in 200 verdicts can't be read."""
    made = []
    hardness = {p.prompt_id: random.Random(p.prompt_id).gauss(0, 12) for p in predictions}
    for p in predictions:
        quality = level + hardness[p.prompt_id] + rng.gauss(0, 8)
        for judge in judges:
            for repeat in range(repeats):
                seen = quality + STRICTNESS.get(judge, 0.0) + rng.gauss(0, 3)
                similarity, precision = (float(round(min(100, max(0, seen + d)))) for d in (-3, 3))
                lost = rng.random() < 0.005
                made.append(
                    Verdict(
                        p.prompt_id, p.sample, judge, repeat, None if lost else similarity,
                        None if lost else precision,
                        {} if lost else {"similarity": "Says most of it.", "precision": "Does what was asked."},
                        "not_json" if lost else None, "0" * 16, None, 0.0004,
                    )
                )  # fmt: skip
    return made


def _iteration(number: int, card: Scorecard, rows: int, synthetic: int) -> Iteration:
    scores = {
        f"{name}_{limit}": getattr(getattr(card, name), limit)
        for name in ("similarity", "precision")
        for limit in ("mean", "low", "high")
    }
    return Iteration(
        iteration=number, train_rows=rows + synthetic, synthetic_rows=synthetic, skipped_rows=0, **scores,
        coverage=card.coverage, answers=card.answers, unanswered=card.unanswered, scored=card.scored,
        unscored=card.unscored, train_loss=1.0 / (number + 1), cost_usd=round(card.cost_usd, 10), seconds=30.0,
        judges=card.judges, prompts=card.similarity.prompts,
    )  # fmt: skip


def _write_rows(path: Path, records: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(to_json(record) + "\n" for record in records), encoding="utf-8")


def make_run(
    folder: Path,
    *overrides: str,
    level: float = 80.0,
    gains: Sequence[float] = (0.0, 8.0),
    prompts: int = 15,
    samples: int = 4,
    judges: Sequence[str] = tuple(STRICTNESS),
    repeats: int = 2,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    beside: Mapping[str, float] | None = None,
    seed_beside: int = 0,
) -> Path:
    """Write one finished run: an iteration for each gain over `level`, then the test split; return its folder.

    `overrides` are Hydra's; `config` takes a configuration composed before instead, which is much faster.
    `beside` names who was judged beside the iterations, and their levels: the same scores for the same `seed_beside`.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    if config is None:
        config = configuration(*overrides)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps({"seeds": {"runtime": 42, "data": 42}}))
    history = []
    for number, gain in enumerate(gains):
        made = answers(prompts, samples, rng)
        judged = verdicts(made, level + gain, rng, judges=judges, repeats=repeats)
        here = folder / "iterations" / f"{number:02d}"
        _write_rows(here / "predictions.jsonl", made)
        _write_rows(here / "verdicts.jsonl", judged)
        card = score(judged, coverage_cut=70.0)
        (here / "scorecard.json").write_text(json.dumps(plain(card)))
        history.append(_iteration(number, card, 334, 334 * (4**number - 1)))
    _write_rows(folder / "metrics.jsonl", history)
    made = answers(prompts, samples, rng)
    judged = verdicts(made, level + gains[-1], rng, judges=judges, repeats=repeats)
    _write_rows(folder / "iterations" / "test" / "predictions.jsonl", made)
    _write_rows(folder / "iterations" / "test" / "verdicts.jsonl", judged)
    card = score(judged, coverage_cut=70.0)
    (folder / "iterations" / "test" / "scorecard.json").write_text(json.dumps(plain(card)))
    draw = random.Random(seed_beside)
    shape: dict[str, Any] = {"prompts": prompts, "samples": samples, "judges": judges, "repeats": repeats}
    others = {name: _make_beside(folder, name, height, draw, **shape) for name, height in (beside or {}).items()}
    last = len(gains) - 1
    state: dict[str, Any] = {
        "status": "done", "stop_reason": "plateau", "iterations": len(gains), "accepted_iteration": None,
        "best_iteration": last, "cost_usd": round(sum(line.cost_usd for line in history) + card.cost_usd, 10),
        "verdict": "Not passed: plateau.", "error": None, "test": plain(card),
    }  # fmt: skip
    if others:
        state["beside"] = others
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def _make_beside(
    folder: Path,
    name: str,
    level: float,
    rng: random.Random,
    *,
    prompts: int,
    samples: int,
    judges: Sequence[str],
    repeats: int,
) -> dict[str, Any]:
    """Write the answers and verdicts of one who stands beside; return the scorecards by split."""
    cards = {}
    for split, prefix in (("gate", ""), ("test", "test_")):
        made = answers(prompts, samples, rng)
        judged = verdicts(made, level, rng, judges=judges, repeats=repeats)
        here = folder / "iterations" / f"{prefix}{name}"
        _write_rows(here / "predictions.jsonl", made)
        _write_rows(here / "verdicts.jsonl", judged)
        cards[split] = plain(score(judged, coverage_cut=70.0))
    return cards


def configuration(*overrides: str) -> dict[str, Any]:
    """Return a composed configuration as plain values; keys in the environment are not needed."""
    composed = compose(list(overrides))
    assert composed is not None
    config: dict[str, Any] = plain(composed.experiments[0])
    return config


LEVELS = {"gemma_2b": 62.0, "gemma_7b": 74.0, "mistral_7b_v0_3": 77.0, "llama3_8b": 80.0}


def make_study(
    folder: Path,
    *,
    models: Sequence[str] = tuple(LEVELS),
    tasks: Sequence[str] = ("summarization", "classification", "coding", "closed_qa"),
    **settings: Any,
) -> Path:
    """Write a finished run for each model and task; return the study's folder."""
    known = configuration("preset=service", "judge=paper_panel", "service.replay=true", f"study={folder.name}")
    for at, model in enumerate(models):
        for number, task in enumerate(tasks):
            config = json.loads(json.dumps(known))
            config["local_model"]["name"], config["task"]["name"] = model, task
            make_run(
                folder / f"{model}-{task}-{at:04x}{number:04x}",
                level=LEVELS.get(model, 70.0) + 3 * number,
                seed=100 * at + number,
                config=config,
                **settings,
            )
    return folder
