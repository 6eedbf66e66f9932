"""The gate accepts what its limits show and nothing else: too few prompts, looks and missing answers never help."""

from __future__ import annotations

import random

import numpy as np
import pytest
from test_scorecard import spoilt, verdict

from llamaduo.config import Experiment, Gate, GateAgainst, GateMethod, GateRule
from llamaduo.evidence.bounded import lower_limit
from llamaduo.evidence.gate import confirmation, error_at_a_look, look, looks, method_for, supported_margin
from llamaduo.evidence.scorecard import by_tier
from llamaduo.evidence.two_tier import combined
from llamaduo.records import GateLook, Verdict


def scores(values: list[float], **fields: float) -> list[Verdict]:
    return [
        verdict(f"p{n:03d}", k, similarity=v, precision=v, **fields) for n, v in enumerate(values) for k in range(2)
    ]


def seen(
    verdicts: list[Verdict], gate: Gate | None = None, *, error: float = 0.05, theirs: list[Verdict] | None = None
) -> GateLook:
    return look(verdicts, gate or Gate(), error=error, clusters={}, service_llm=theirs)


class TestThreshold:
    def test_29_perfect_prompts_pass_and_28_do_not(self) -> None:
        assert seen(scores([100.0] * 29)).passed
        assert not seen(scores([100.0] * 28)).passed

    def test_the_number_is_the_one_sided_limit_at_the_looks_error(self) -> None:
        values = [100.0 - n % 7 for n in range(60)]
        found = seen(scores(values), error=0.01)
        assert found.values["precision"] == pytest.approx(lower_limit(values, [1] * 60, 0.01), abs=1e-4)
        assert (found.rule, found.method, found.prompts, found.needed["similarity"]) == (
            "lower",
            "guaranteed",
            60,
            90.0,
        )

    def test_every_score_has_to_reach_it(self) -> None:
        weak = [verdict(f"p{n}", similarity=99, precision=80) for n in range(60)]
        assert not seen(weak).passed
        assert seen(weak, Gate(precision=None)).passed
        assert not seen(weak, Gate(similarity=None)).passed

    def test_a_score_that_does_not_exist_never_passes(self) -> None:
        found = seen([verdict(f"p{n}", similarity=100, precision=None) for n in range(60)], Gate(0.0, 0.0))
        assert not found.passed
        assert found.values == {"similarity": pytest.approx(100 * 0.05 ** (1 / 60), abs=1e-4), "precision": None}

    def test_a_gate_that_asks_for_nothing_is_never_passed(self) -> None:
        assert not seen(scores([100.0] * 60), Gate(None, None)).passed

    def test_the_mean_rule_looks_at_means_and_promises_nothing(self) -> None:
        found = seen(scores([100.0, 80.0]), Gate(rule=GateRule.mean))
        assert (found.passed, found.values["similarity"], found.error, found.method) == (True, 90.0, None, None)
        assert not seen(scores([100.0, 79.0]), Gate(rule=GateRule.mean)).passed

    def test_near_copies_of_a_prompt_are_no_evidence(self) -> None:
        copies = {f"p{n:03d}": f"p{n % 10:03d}" for n in range(60)}
        assert seen(scores([100.0] * 60)).passed
        found = look(scores([100.0] * 60), Gate(), error=0.05, clusters=copies)
        assert (found.passed, found.prompts) == (False, 10)


class TestMissing:
    @pytest.mark.parametrize("rule", list(GateRule))
    @pytest.mark.parametrize("reason", ["not_json", "no_reply", "prompt_too_long", "refused"])
    def test_missing_answers_count_as_0_for_panel_and_judge(self, reason: str, rule: GateRule) -> None:
        """The worst 6 of 60 prompts unscored turn a failing mean into a passing one where they are left out."""
        whole = scores([99.0] * 54 + [5.0] * 6)
        lost = whole[:108] + [spoilt(v.prompt_id, reason, sample=v.sample) for v in whole[108:]]
        gate = Gate(rule=rule)
        assert seen(whole[:108], gate).passed
        assert not seen(whole, gate).passed
        found = seen(lost, gate)
        assert not found.passed
        assert found.values == found.judges["j"]
        assert (found.values["precision"] or 0) <= (seen(whole, gate).values["precision"] or 0)

    def test_losing_the_worst_tenth_never_turns_a_failure_into_a_pass(self) -> None:
        rng, turned, failed = random.Random(5), 0, 0
        for _ in range(300):
            count = rng.choice([30, 48, 64])
            values = [max(0.0, 100 - rng.gammavariate(0.5, rng.uniform(4, 14))) for _ in range(count)]
            whole = scores(values)
            worst = set(sorted(range(count), key=values.__getitem__)[: count // 10])
            lost = [spoilt(v.prompt_id, sample=v.sample) if int(v.prompt_id[1:]) in worst else v for v in whole]
            before, after = seen(whole, error=0.2).passed, seen(lost, error=0.2).passed
            failed += not before
            turned += after and not before
        assert turned == 0
        assert failed > 20

    def test_a_repeat_without_a_score_counts_too(self) -> None:
        twice = [verdict(f"p{n}", repeat=r, similarity=95, precision=95) for n in range(80) for r in range(2)]
        spoiled = [spoilt(v.prompt_id, repeat=1) if v.repeat and int(v.prompt_id[1:]) < 20 else v for v in twice]
        assert seen(twice).values["precision"] == pytest.approx(95 * 0.05 ** (1 / 80), abs=1e-3)
        assert (seen(spoiled).values["precision"] or 0) < 85

    def test_a_judge_that_fails_wholly_counts_as_0(self) -> None:
        kind = [verdict(f"p{n}", judge="a", similarity=99, precision=99) for n in range(64)]
        silent = [spoilt(f"p{n}", "refused", judge="b") for n in range(64)]
        assert seen(kind).passed
        found = seen([*kind, *silent])
        assert not found.passed
        assert (found.values["precision"] or 0) < 50
        assert found.judges["b"]["precision"] == 0.0

    def test_missing_answers_alone_do_not_show_that_a_model_falls_short(self) -> None:
        lost = [spoilt(f"p{n}") if n < 6 else verdict(f"p{n}", similarity=95, precision=95) for n in range(60)]
        found = seen(lost)
        assert not found.passed
        assert confirmation(found) == "undecided"
        assert (found.upper["precision"] or 0) > 95


class TestServiceLLM:
    GATE = Gate(against=GateAgainst.service_llm)

    def test_an_equal_model_passes_with_enough_prompts(self) -> None:
        ours, theirs = scores([85.0] * 100), scores([85.0] * 100)
        found = seen(ours, self.GATE, theirs=theirs)
        assert found.passed
        assert found.values["precision"] == pytest.approx(-100 * (1 - 0.05 ** (1 / 100)), abs=1e-3)
        assert (found.rule, found.method, found.needed["precision"]) == ("service_llm", "guaranteed", -5.0)

    def test_it_is_a_paired_difference(self) -> None:
        hard = [100.0 if n % 2 else 20.0 for n in range(120)]
        assert seen(scores([v - 1 for v in hard]), self.GATE, theirs=scores(hard)).passed
        assert not seen(scores([v - 9 if v > 50 else v for v in hard]), self.GATE, theirs=scores(hard)).passed

    def test_missing_answers_of_the_service_llm_do_not_help(self) -> None:
        ours, theirs = scores([80.0] * 120), scores([80.0] * 120)
        assert seen(ours, self.GATE, theirs=theirs).passed
        lost = [spoilt(v.prompt_id, sample=v.sample) if int(v.prompt_id[1:]) < 12 else v for v in theirs]
        assert (seen(ours, self.GATE, theirs=lost).values["precision"] or 0) < (
            seen(ours, self.GATE, theirs=theirs).values["precision"] or 0
        )

    def test_with_few_prompts_the_limit_is_assumed_and_labelled_unless_a_guarantee_is_asked_for(self) -> None:
        rng = random.Random(1)
        theirs = [rng.uniform(60, 95) for _ in range(48)]
        ours = [v + rng.uniform(-3, 3) for v in theirs]
        found = seen(scores(ours), self.GATE, theirs=scores(theirs))
        assert (found.method, found.passed) == ("assumed", True)
        sure = Gate(against=GateAgainst.service_llm, method=GateMethod.guaranteed)
        assert not seen(scores(ours), sure, theirs=scores(theirs)).passed

    def test_few_equal_answers_are_no_certainty(self) -> None:
        assert not seen(scores([85.0] * 44), self.GATE, theirs=scores([85.0] * 44)).passed

    def test_without_the_service_llms_answers_nothing_passes(self) -> None:
        assert not seen(scores([100.0] * 100), self.GATE, theirs=[]).passed
        assert not seen(scores([100.0] * 100), self.GATE, theirs=None).passed

    def test_a_judge_that_is_silent_about_the_service_llm_does_not_help(self) -> None:
        ours = [verdict(f"p{n}", judge=j, similarity=95, precision=95) for n in range(100) for j in "ab"]
        theirs = [verdict(f"p{n}", judge="a", similarity=95, precision=95) for n in range(100)]
        lost = [spoilt(f"p{n}", judge="b") for n in range(100)]
        assert (seen(ours, self.GATE, theirs=[*theirs, *lost]).values["precision"] or 0) < -4

    def test_about_100_prompts_support_a_margin_of_5(self) -> None:
        assert supported_margin(100, 0.05) < 5 < supported_margin(50, 0.05)
        assert method_for(self.GATE, 0.05, 100) is GateMethod.guaranteed
        assert method_for(self.GATE, 0.05, 60) is GateMethod.assumed


class TestConfirmation:
    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ([99.0] * 64, "confirmed"),
            ([70.0] * 64, "contradicted"),
            ([99.0] * 10, "undecided"),
            ([91.0] * 64, "undecided"),
        ],
    )
    def test_by_one_look_at_the_test_split(self, values: list[float], said: str) -> None:
        assert confirmation(seen(scores(values))) == said

    def test_a_missing_score_contradicts(self) -> None:
        assert confirmation(seen([verdict(f"p{n}", precision=None) for n in range(60)])) == "contradicted"

    def test_means_confirm_or_contradict(self) -> None:
        gate = Gate(rule=GateRule.mean)
        assert confirmation(seen(scores([90.0]), gate)) == "confirmed"
        assert confirmation(seen(scores([89.0]), gate)) == "contradicted"


class TestLooks:
    def test_the_error_is_split_over_as_many_looks_as_there_may_be(self, experiment: Experiment) -> None:
        assert (looks(experiment), error_at_a_look(experiment)) == (5, pytest.approx(0.01))
        experiment.loop.growth.volumes = [100, 200]
        assert looks(experiment) == 2
        experiment.synthesis.enabled = False
        assert (looks(experiment), error_at_a_look(experiment)) == (1, 0.05)

    def test_six_looks_together_accept_a_model_that_falls_short_in_at_most_5_of_100_runs(self) -> None:
        """Truth 89 and a gate of 90: independent looks, which is the worst case."""
        accepted = accepted_unsplit = 0
        runs, rng = 400, np.random.default_rng(3)
        for _ in range(runs):
            worlds = [np.where(rng.random(64) < 10 / 79, 20.0, 99.0) for _ in range(6)]
            worlds = [values + (89.0 - (99 - 10)) for values in worlds]
            accepted += any(seen(scores(list(values)), error=0.05 / 6).passed for values in worlds)
            accepted_unsplit += any(seen(scores(list(values)), error=0.05).passed for values in worlds)
        assert accepted / runs <= 0.05
        assert accepted_unsplit > accepted


class TestTwoTiers:
    """A cheap judge `c` on four answers a prompt, a dear one `d` on the second of them."""

    @staticmethod
    def judged(cheap: float, dear: float, prompts: int = 60) -> list[Verdict]:
        made = []
        for n in range(prompts):
            off = [3.0, 1.0, -1.0, -3.0] if n % 2 else [-3.0, -1.0, 1.0, 3.0]
            made += [
                verdict(f"p{n:02d}", k, judge="c", similarity=cheap + off[k], precision=cheap + off[k])
                for k in range(4)
            ]
            made.append(verdict(f"p{n:02d}", 1, judge="d", similarity=dear + off[1], precision=dear + off[1]))
        return made

    @staticmethod
    def seen(verdicts: list[Verdict], error: float = 0.05) -> GateLook:
        return look(verdicts, Gate(), error=error, clusters={}, dear=["d"])

    def test_the_number_is_the_one_sided_limit_of_both_tiers(self) -> None:
        made = self.judged(70.0, 98.0)
        found = self.seen(made, error=0.01)
        cheap, dear = by_tier(made, "precision", ["d"])
        both = combined(cheap, dear, error=0.02)
        assert (found.method, found.prompts, found.error) == ("combined", 60, 0.01)
        assert found.values["precision"] == pytest.approx(both.low, abs=1e-4)
        assert found.upper["precision"] == pytest.approx(both.high, abs=1e-4)
        assert 90 < both.low < 98
        assert found.passed
        assert found.judges["c"]["precision"] == pytest.approx(lower_limit([280.0] * 60, [4] * 60, 0.01), abs=1e-4), (
            "each judge's own"
        )

    def test_the_cheap_judge_lets_nobody_pass(self) -> None:
        assert not self.seen(self.judged(97.0, 85.0)).passed
        assert look(self.judged(97.0, 85.0), Gate(), error=0.05, clusters={}).passed, "a mean over all judges would"

    @pytest.mark.parametrize("tiers", ["d", "cd"])
    def test_missing_answers_count_as_0(self, tiers: str) -> None:
        whole = self.judged(95.0, 98.0)
        some = [
            spoilt(v.prompt_id, sample=v.sample, judge=v.judge) if v.prompt_id < "p06" and v.judge in tiers else v
            for v in whole
        ]
        assert self.seen(whole).passed
        found = self.seen(some)
        assert not found.passed
        assert found.prompts == 60
        without = [v for v in some if v.prompt_id >= "p06"]
        assert self.seen(without).passed, "were they left out, it would pass"

    def test_without_any_dear_score_nothing_passes(self) -> None:
        found = self.seen([v if v.judge == "c" else spoilt(v.prompt_id, judge="d") for v in self.judged(95.0, 95.0)])
        assert (found.passed, found.values["precision"]) == (False, 0.0)

    def test_the_mean_rule_takes_the_mean_of_both_tiers(self) -> None:
        found = look(self.judged(70.0, 95.0), Gate(rule=GateRule.mean), error=0.05, clusters={}, dear=["d"])
        assert found.method is None
        assert found.values["precision"] == pytest.approx(95.0, abs=0.5)

    def test_a_model_that_falls_short_passes_no_more_often_than_promised(self) -> None:
        """Truth 89, a cheap judge that is 8 points too kind, by whom alone twice as many as promised would pass."""
        rng = np.random.default_rng(3)
        passed = believed = 0
        for _ in range(150):
            quality = np.clip(100 - rng.gamma(0.5, 22, (60, 1)) + 4 * rng.standard_normal((60, 4)), 0, 100)
            made = []
            for n, row in enumerate(quality + (89 - 89.3)):
                drawn = int(rng.integers(4))
                kind = np.clip(row + 8 + 3 * rng.standard_normal(4), 0, 100)
                made += [verdict(f"p{n}", k, judge="c", similarity=None, precision=float(kind[k])) for k in range(4)]
                made.append(verdict(f"p{n}", drawn, judge="d", similarity=None, precision=float(max(row[drawn], 0))))
            gate = Gate(similarity=None, precision=90.0)
            passed += look(made, gate, error=0.05, clusters={}, dear=["d"]).passed
            believed += look([v for v in made if v.judge == "c"], gate, error=0.05, clusters={}).passed
        assert passed <= 0.05 * 150
        assert believed > 2 * 0.05 * 150
