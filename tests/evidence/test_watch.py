"""The watch over judging: it asks for what can change the gate's decision, and its word depends on verdicts alone."""

from dataclasses import replace

import numpy as np
import pytest

from llamaduo.config import Gate, GateAgainst, GateMethod, GateRule
from llamaduo.evidence.gate import look
from llamaduo.evidence.scorecard import score
from llamaduo.evidence.watch import Watch
from llamaduo.records import Prediction, Verdict

PROMPTS, SAMPLES, JUDGES = [f"p{at:02d}" for at in range(64)], 2, ("a", "b")


def predictions(cluster=None):
    return [
        Prediction(p, s, p, "reference", "text", "stop", 1, 1, cluster=cluster and cluster(p))
        for p in PROMPTS
        for s in range(SAMPLES)
    ]


def verdicts(value, repeats=1, unscored=()):
    """Return every judge's verdicts; `value` maps (prompt's number, repeat) to both scores."""
    made = []
    for at, prompt in enumerate(PROMPTS):
        for sample in range(SAMPLES):
            for judge in JUDGES:
                for repeat in range(repeats):
                    score, reason = (None, "no_reply") if prompt in unscored else (value(at, repeat), None)
                    made.append(Verdict(prompt, sample, judge, repeat, score, score, {}, reason, None, None))
    return made


def handed_out(watch, there):
    asked = []
    for part in watch.rounds:
        asked += [v for v in there if v.prompt_id in part.prompts and v.repeat in part.repeats]
        if watch.enough(asked):
            break
    return asked


def watching(gate=None, **changed):
    answers = changed.pop("answers", None) or predictions()
    return Watch(gate or Gate(), 0.01, answers, **{"repeats": 1, "size": 8, "seed": 1} | changed)


def test_a_good_model_is_judged_in_full_and_passes():
    there = verdicts(lambda at, repeat: 99.0)
    asked = handed_out(watching(), there)
    assert len(asked) == len(there)
    assert look(asked, Gate(), error=0.01, clusters={}).passed


def test_a_poor_model_costs_one_round():
    there = verdicts(lambda at, repeat: 50.0 + at % 7)
    assert len(handed_out(watching(), there)) == 8 * SAMPLES * len(JUDGES)


def test_repeats_are_bought_where_noise_matters_and_nowhere_else():
    quiet = handed_out(watching(repeats=5), verdicts(lambda at, repeat: 98.0 + repeat % 2, 5))
    assert len(quiet) == (64 + 8) * SAMPLES * len(JUDGES)
    near = verdicts(lambda at, repeat: 97.5 - 3 * (repeat % 2), 5)  # limits: 90.7 by one repeat, 89.3 by two
    assert len(handed_out(watching(repeats=5), near)) >= 2 / 5 * len(near)


def test_missing_scores_count_against_as_they_do_at_the_gate():
    there = verdicts(lambda at, repeat: 99.0, unscored=PROMPTS[::4])
    assert not look(there, Gate(), error=0.01, clusters={}).passed
    assert len(handed_out(watching(), there)) < len(there)


def test_what_it_says_does_not_depend_on_the_order_of_verdicts():
    there = verdicts(lambda at, repeat: 93.0 if at % 5 else 60.0)
    watch = watching()
    prompts = {prompt for part in watch.rounds[:3] for prompt in part.prompts}
    some = [v for v in there if v.prompt_id in prompts]
    assert watch.enough(some) == watch.enough(some[::-1]) == watching().enough(some)


def test_near_copies_are_judged_in_the_same_round():
    watch = watching(answers=predictions(lambda p: p[:2]))
    for part in watch.rounds:
        for group in {prompt[:2] for prompt in part.prompts}:
            assert {p for p in PROMPTS if p[:2] == group} <= set(part.prompts)


@pytest.mark.parametrize("method", list(GateMethod))
def test_against_the_service_llm_it_is_the_difference_that_counts(method):
    gate = Gate(against=GateAgainst.service_llm, margin=20.0, method=method)
    theirs = verdicts(lambda at, repeat: 80.0)
    for ours, passes in ((85.0, True), (30.0, False)):
        there = verdicts(lambda at, repeat, ours=ours: ours + at % 3)
        asked = handed_out(watching(gate, service_llm=theirs), there)
        assert (len(asked) == len(there)) is passes
        full = look(there, gate, error=0.01, clusters={}, service_llm=theirs)
        assert full.passed is passes


def test_a_gate_that_looks_at_means_is_watched_too():
    gate = Gate(rule=GateRule.mean)
    there = verdicts(lambda at, repeat: 91.0)
    assert len(handed_out(watching(gate), there)) == len(there)
    assert len(handed_out(watching(gate), verdicts(lambda at, repeat: 20.0))) < len(there)


def test_a_score_that_no_judge_gives_ends_nothing():
    there = [replace(v, precision=None) for v in verdicts(lambda at, repeat: 10.0)]
    assert len(handed_out(watching(), there)) == len(there)


def test_decisions_are_those_of_all_verdicts():
    rng = np.random.default_rng(2)
    passed, saved = 0, []
    for _ in range(12):
        lost = rng.gamma(0.2, 10 ** rng.uniform(0, 2), 64)
        there = verdicts(lambda at, repeat, lost=lost: float(max(0, 100 - lost[at])))
        asked = handed_out(watching(), there)
        full = look(there, Gate(), error=0.01, clusters={}).passed
        whole = len({v.prompt_id for v in asked}) == 64
        assert full == (whole and look(asked, Gate(), error=0.01, clusters={}).passed)
        passed += full
        saved.append(1 - len(asked) / len(there))
    assert 1 <= passed <= 11
    assert max(saved) > 0.5


def test_a_model_of_which_prompts_are_left_out_never_passes():
    some = [v for v in verdicts(lambda at, repeat: 100.0) if v.prompt_id in PROMPTS[:60]]
    assert look(some, Gate(), error=0.01, clusters={}).passed
    seen = look(some, Gate(), error=0.01, clusters={}, unjudged=4)
    assert not seen.passed
    assert seen.unjudged == 4


def test_the_scorecard_tells_what_was_left_out():
    there = verdicts(lambda at, repeat: 50.0, repeats=2)
    asked = handed_out(watching(repeats=2), there)
    card = score(asked, coverage_cut=70, there=(128, len(there)))
    assert (card.answers, card.unjudged) == (16, 112)
    assert (len(asked), card.spared) == (64, 448)
    full = score(there, coverage_cut=70, there=(128, len(there)))
    assert (full.answers, full.unjudged, full.spared) == (128, 0, 0)
