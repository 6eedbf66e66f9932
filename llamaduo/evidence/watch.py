"""The watch over one split's judging: what to ask next, and when the gate's decision no longer depends on the rest.

    watch = Watch(gate, 0.01, predictions, repeats=2, size=16, seed=42)
    for part in watch.rounds: ...          ask; `part.prompts` x `part.repeats`, all answers and judges
        if watch.enough(verdicts): break     all verdicts so far

What it says depends on the stored verdicts alone, so that a resumed run, and one that is derived again, comes to the
same. Missing answers count as the gate counts them: against the model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llamaduo.config import Experiment, Gate, GateAgainst, GateSplit, JudgeKind
from llamaduo.evidence.economy import Claim, Known, Round, enough, ordered, rounds
from llamaduo.evidence.gate import above, asked, error_at_a_look, number
from llamaduo.evidence.scorecard import Answer, clusters, of_answers
from llamaduo.records import Prediction, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def judges_in_rounds(experiment: Experiment) -> bool:
    """Tell whether iterations are judged in rounds: service LLMs judge them for a gate that looks at dev.

    With dear judges they aren't: what ends the rounds knows no limit of two tiers.
    """
    judges = experiment.judge
    dev = experiment.protocol.gate_split is GateSplit.dev
    service = judges.kind is JudgeKind.service and not judges.dear
    return judges.economy and dev and service and bool(asked(experiment.loop.gate))


class Watch:
    """Watches the judging of one model's answers."""

    def __init__(
        self,
        gate: Gate,
        error: float,
        predictions: Sequence[Prediction],
        *,
        repeats: int,
        size: int,
        seed: int,
        service_llm: Sequence[Verdict] | None = None,
    ) -> None:
        """`service_llm` are the verdicts on the service LLM's answers, for a gate that compares with them."""
        named = clusters(predictions)
        groups = {p.prompt_id: named.get(p.prompt_id, p.prompt_id) for p in predictions}
        self._clusters = ordered(groups, seed)
        self._answers = Counter(p.prompt_id for p in predictions)
        self._repeats = repeats
        self._names = asked(gate)
        compares = gate.against is GateAgainst.service_llm
        self._theirs = (service_llm or []) if compares else None
        known_error, limit = number(gate, error, len(self._clusters))
        low = -100.0 if compares else 0.0
        self._claims = {
            name: Claim(-gate.margin if compares else float(getattr(gate, name)), known_error, limit, low)
            for name in self._names
        }
        self.rounds: list[Round] = rounds(self._clusters, repeats=repeats, size=size)

    @classmethod
    def of(cls, experiment: Experiment, predictions: Sequence[Prediction], theirs: Sequence[Verdict] | None) -> Watch:
        """Return the watch over an iteration's judging; `theirs` are the verdicts on the service LLM's answers."""
        settings, error = experiment.judge, error_at_a_look(experiment)
        return cls(
            experiment.loop.gate,
            error,
            predictions,
            repeats=settings.repeats,
            size=settings.round_prompts,
            seed=experiment.runtime.seed,
            service_llm=theirs,
        )

    def enough(self, verdicts: Sequence[Verdict]) -> bool:
        """Tell whether the gate's decision stands, whatever the rest would bring."""
        counts = _repeats_of(verdicts)
        known = {name: self._known(name, verdicts, counts) for name in self._names}
        if any(found is None for found in known.values()):
            return False
        there = {name: found for name, found in known.items() if found is not None}
        return enough(there, self._claims, done=min(counts.values()), repeats=self._repeats)

    def _known(self, name: str, verdicts: Sequence[Verdict], counts: Mapping[str, int]) -> Known | None:
        """Return what is known of a score; None where no judge gives it."""
        import numpy as np

        values = self._values(verdicts, name)
        if not values:
            return None
        sums, sizes = self._by_cluster(values)
        judged = sizes > 0
        twice = [v for v in verdicts if counts[v.prompt_id] > 1]
        by_repeat = [self._by_cluster(self._values([v for v in twice if v.repeat == at], name)) for at in (0, 1)]
        both = (by_repeat[0][1] > 0) & (by_repeat[1][1] > 0)
        best = self._best(name)
        left = np.array([sum(self._answers[prompt] for prompt in cluster) for cluster in self._clusters], dtype=float)
        return Known(
            sums=sums[judged],
            sizes=sizes[judged],
            left=left[~judged],
            pairs=np.column_stack([by_repeat[0][0][both], by_repeat[1][0][both]]),
            best=None if best is None else best[~judged],
        )

    def _values(self, verdicts: Sequence[Verdict], name: str) -> dict[Answer, float]:
        values = of_answers(verdicts, name, missing=0.0)
        return values if self._theirs is None else above(values, of_answers(self._theirs, name, missing=100.0))

    def _best(self, name: str) -> Floats | None:
        """Return what each cluster can come to at best, above the service LLM's answers."""
        if self._theirs is None:
            return None
        perfect = {(prompt, at): 100.0 for prompt, count in self._answers.items() for at in range(count)}
        return self._by_cluster(above(perfect, of_answers(self._theirs, name, missing=100.0)))[0]

    def _by_cluster(self, values: Mapping[Answer, float]) -> tuple[Floats, Floats]:
        """Return sums and counts of all clusters, in the order of asking."""
        import numpy as np

        groups: dict[str, list[float]] = defaultdict(list)
        for (prompt, _), value in values.items():
            groups[prompt].append(value)
        sums = [sum(sum(groups[prompt]) for prompt in cluster if prompt in groups) for cluster in self._clusters]
        sizes = [sum(len(groups[prompt]) for prompt in cluster if prompt in groups) for cluster in self._clusters]
        return np.array(sums, dtype=float), np.array(sizes, dtype=float)


def _repeats_of(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Return how many repeats each judged prompt has."""
    seen: dict[str, set[int]] = defaultdict(set)
    for verdict in verdicts:
        seen[verdict.prompt_id].add(verdict.repeat)
    return {prompt: len(repeats) for prompt, repeats in seen.items()}
