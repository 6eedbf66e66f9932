"""The data set card: README.md with the Hub's front matter, and what a reader has to know before training on the rows.

    text = card(run, given, files, license_told="cc-by-4.0")

What the run doesn't say is said to be unknown; no licence and no term is guessed. The same run gives the same text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from llamaduo.config import DataSource
from llamaduo.display import pocket_note
from llamaduo.export.rows import Rows
from llamaduo.export.sent import sent_to
from llamaduo.privacy.tally import lines
from llamaduo.redaction import one_line
from llamaduo.runs import layout
from llamaduo.runs.record import RunRecord
from llamaduo.studies.funnel import Funnel, Step, funnel

LICENSES = frozenset((
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "ecl-2.0", "epl-1.0", "epl-2.0",
    "eupl-1.1", "eupl-1.2", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "mit",
    "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1", "osl-3.0", "pddl", "postgresql", "unlicense",
    "wtfpl", "zlib",
))  # fmt: skip
"""Names of licences that the Hub knows; any other is `other` there, with its own name beside."""
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def card(run: RunRecord, given: Rows, files: Mapping[str, bytes], license_told: str) -> str:
    """Return the README of a data set; `files` are its Parquet files by split."""
    import yaml

    front = yaml.safe_dump(_front(run, given, files, license_told), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n" + "\n".join(_body(run, given, license_told)) + "\n"


def file_name(split: str) -> str:
    """Return where a split's rows lie."""
    return f"data/{split}-00000-of-00001.parquet"


def _front(run: RunRecord, given: Rows, files: Mapping[str, bytes], license_told: str) -> dict[str, Any]:
    count = sum(map(len, given.splits.values()))
    splits = [
        {"name": name, "num_bytes": len(files[name]), "num_examples": len(rows)} for name, rows in given.splits.items()
    ]
    size = sum(map(len, files.values()))
    places = [{"split": name, "path": f"data/{name}-*"} for name in given.splits]
    return {
        "pretty_name": f"{one_line(run.experiment.task.name)}, rows of a llamaduo run",
        **_licence(license_told),
        "size_categories": [next((name for limit, name in _SIZES if count < limit), "n>10M")],
        "task_categories": ["text-generation"],
        "tags": ["llamaduo", *(["synthetic"] if any(row.source == "synthetic" for row in given.train) else [])],
        "configs": [{"config_name": "default", "data_files": places}],
        "dataset_info": {"splits": splits, "download_size": size, "dataset_size": size},
    }


def _licence(told: str) -> dict[str, str]:
    """Return what the front matter says of the licence; nothing where none is known."""
    if not told:
        return {}
    if told.lower() in LICENSES:
        return {"license": told.lower()}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", told.lower()).strip("-") or "other"}


def _body(run: RunRecord, given: Rows, license_told: str) -> Iterator[str]:
    who = run.experiment
    yield f"# {plain(who.task.name)}: rows of a llamaduo run\n"
    if note := pocket_note(who):
        yield f"**Pocket profile: a rehearsal.** {note[0].upper()}{note[1:]}\n"
    counts = Counter((row.source, row.example.generator) for row in given.train)
    for (source, generator), count in sorted(counts.items()):
        by = _kept_by(run) if source == "coverage" else f"written by {plain(generator)}"
        yield f"- {count:,} {source} rows, {by}"
    for name in ("dev", "test"):
        if rows := given.splits.get(name):
            yield f"- {len(rows):,} rows of coverage in the split {name}: the evaluation; don't train on them"
    for note in given.notes:
        yield f"\n{plain(note)}"
    yield from ("", "## How it came out", "", *_outcome(run))
    found = funnel(run, examples=False)
    yield from _funnel(found) if found else ()
    yield from ("", "## What was sent to whom", "", *sent_to(run))
    yield from _privacy(run)
    yield from ("", "## Licences and terms", "", *_terms(run, license_told))


def _kept_by(run: RunRecord) -> str:
    return source_of(run) if run.experiment.data.source is DataSource.pocket else "kept by people"


def plain(text: str) -> str:
    """Return somebody's text so that it is text in Markdown and in HTML, on one line and without secrets."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", one_line(" ".join(str(text).split())))


def _outcome(run: RunRecord) -> Iterator[str]:
    state = run.state
    mark = re.fullmatch(r".*-([0-9a-f]{8})", run.folder.resolve().name)
    name = run.folder.resolve().name
    yield f"Run `{one_line(name).replace('`', '')}`" + (f", fingerprint `{mark[1]}`." if mark else ".")
    yield ""
    if state.status != "done":
        yield f"The run is not finished ({plain(state.status)}): these are the rows that it has made so far."
        return
    yield f"{plain(state.verdict or 'It has no verdict.')} Stopped by: {plain(state.stop_reason or 'nothing')}."
    judges = plain(", ".join(run.judges))
    yield f"\nThat is what the judges ({judges}) say of the model trained on such rows, not of each row."


def _funnel(found: Funnel) -> Iterator[str]:
    yield from ("", "## From requests to trained rows", "")
    yield "| made for iteration | requests | replies | pairs read | curated rows | newly trained on |"
    yield "|---|---:|---:|---:|---:|---:|"
    for number, step in found.steps.items():
        yield _line(str(number), step)
    if len(found.steps) > 1:
        yield _line("all", found.total)
    if found.left:
        yield f"\n{found.left:,} curated rows were not trained on: more than were wanted, or left out by training."
    yield from ("", "Removed by curation: ", "") if found.removed else ("", "Curation removed none.")
    for one in found.removed:
        yield f"- {one.count:,}: {plain(one.legend)}"
    if found.total.dropped:
        yield f"\nItems in replies that were no whole pair: {found.total.dropped:,}."


def _line(name: str, step: Step) -> str:
    counts = (step.requests, step.replies, step.parsed, step.kept, step.trained)
    return f"| {name} | " + " | ".join(f"{count:,}" for count in counts) + " |"


def _privacy(run: RunRecord) -> Iterator[str]:
    path = run.folder / layout.PRIVACY
    if not path.exists():
        return
    found = lines(path)
    if not found:
        yield "\nPrivacy was on, and nothing was found to be replaced in what was sent."
        return
    yield "\nPersonal data were replaced before anything was sent, and put back in what returned:\n"
    yield "| type | values in coverage | rows with any | replaced | put back | lost |"
    yield "|---|---:|---:|---:|---:|---:|"
    for one in found:
        counts = (one.values, one.rows, one.replaced, one.restored, one.lost)
        yield f"| {plain(one.type)} | " + " | ".join(f"{count:,}" for count in counts) + " |"
    yield "\n**The rows of this data set hold the original values, not what was sent in their place.**"


def _terms(run: RunRecord, license_told: str) -> Iterator[str]:
    yield (
        f"- Coverage ({plain(source_of(run))}): {plain(license_told)}, as the owner of the run says (`data.license`)."
        if license_told
        else f"- Coverage ({plain(source_of(run))}): unknown; `data.license` was not given."
    )
    llm = run.experiment.service_llm
    if llm.provider == "pocket":
        yield f"- Synthetic rows by {plain(llm.name)}: a program of llamaduo's, no provider's."
    elif run.experiment.synthesis.enabled:
        yield (
            f"- Synthetic rows by {plain(llm.name)}: see the provider's terms on training on outputs "
            f"({plain(llm.provider)}, {plain(llm.model)})."
        )


def source_of(run: RunRecord) -> str:
    """Return what the coverage rows are, without the folders of this machine."""
    data = run.experiment.data
    name = str(data.path or "")
    if data.source is DataSource.pocket:
        return "made up by the pocket profile"
    if data.source is DataSource.hub:
        return f"Hub data set {name} at {data.revision}"
    return f"own file {name.rstrip('/').rpartition('/')[2]}"
