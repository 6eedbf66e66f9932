"""Kill a study of twelve runs with all its processes, resume it, and compare it with an undisturbed one.

    python benchmarks/study_kills.py            12 cells, killed three times at random moments: some fifteen minutes
    python benchmarks/study_kills.py --quick    4 cells that need no model, killed once

The study is a sweep through joblib, two runs at once: three pocket models by four tasks, each shrunk to seconds
(`preset=smoke`, real training and answering), judged and taught by the pocket LLM over HTTP with a median latency of
0.1 s. Each kill is a SIGKILL to the process group and to every process that descends from it; then the same command is
given again. Another study is ended as often by a SIGHUP to the process group, once a random share of its calls has come
to the server: in peace, with no call left in flight. At the end every file of every run has to be that of the
undisturbed study (times, and what lost calls may have cost, apart), no reply that was recorded at a kill may have been
bought again, no request may have two paid replies in the journal, and the server may have billed no more requests twice
than were in flight at the kills. The figure is the number of violations.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from dataclasses import asdict

from measure import ROOT, Result, conclude, folder, options, private, say

sys.path.insert(0, str(ROOT / "tests"))

from study_killing import LIGHT, WHOLE, Calls, Study
from wire_double import Settings, serving

KILLS = 3
STEADY = {"HF_HUB_OFFLINE": "1"}
SEED = 1
MODELS = "local_model=pocket_llama,pocket_gemma,pocket_mistral"
TASKS = "task=summarization,classification,coding,closed_qa"
TARGET = "0 violations: the same tables as undisturbed, nothing bought twice but what was in flight at a kill"


def main() -> None:
    wanted = options(__doc__)
    if wanted.overrides:
        sys.exit(
            f"study_kills: {' '.join(wanted.overrides)}: the study is part of the proof; nothing can be overridden."
        )
    load = os.getloadavg()
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        del os.environ[name]
    kills, rng = 1 if wanted.quick else KILLS, random.Random(SEED)
    with folder() as place, serving(Settings(says="pocket", median_s=0.1, sigma=0.5)) as double:
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        os.environ.update(private(place / "home") | STEADY | {"PYTHONPATH": paths})
        (place / "studies").mkdir()
        study = Study(
            place / "studies", double, LIGHT if wanted.quick else WHOLE, [TASKS] if wanted.quick else [MODELS, TASKS]
        )
        whole = study.undisturbed
        say(f"undisturbed: {whole.bought} calls billed, {whole.seconds:.1f} s")
        moments = [rng.uniform(0.15, 0.6) * whole.seconds for _ in range(kills)]
        found = study.killed_at(moments)
        calls = [Calls(int(rng.uniform(0.1, 0.9) / kills * whole.bought)) for _ in range(kills)]
        ended = study.killed_at(calls, signal.SIGHUP)
    runs = len({name.split("/")[0] for name in study.expected})
    say(f"killed after {', '.join(f'{moment:.1f}' for moment in moments)} s: {asdict(found)}")
    say(f"ended by SIGHUP after {', '.join(str(one.number) for one in calls)} calls: {asdict(ended)}")
    violations = whole.violations + found.violations + ended.violations
    spread = {"undisturbed": asdict(whole), "killed": asdict(found) | {"after_s": [round(m, 1) for m in moments]}}
    spread["ended"] = asdict(ended) | {"after_calls": [one.number for one in calls]}
    note = (
        f"{runs} runs, {found.kills} kills, {found.in_flight} calls in flight at them, {found.again} of {found.bought} "
        f"bought again; {ended.kills} times ended by SIGHUP, {ended.again} of {ended.bought} bought again"
    )
    if wanted.quick:
        note = f"quick: light runs, one kill; {note}"
    holds = not violations and (wanted.quick or (runs == 12 and found.kills == ended.kills == KILLS))
    conclude(
        Result("study_kills", len(violations), "violations", TARGET, holds, found.kills + ended.kills, spread, note),
        spread,
        wanted,
        load,
    )


if __name__ == "__main__":
    main()
