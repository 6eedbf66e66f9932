"""Answers and verdicts of one split, packed for the explorer of a page.

    section = pack(run.folder / "iterations" / "00")     None where nothing was answered
    section.text                                         zlib, then base64: goes into the page as it is

Reads `predictions.jsonl` and `verdicts.jsonl` as columns, never record by record. What the browser unpacks is, all
numbers little-endian:

    4 bytes     length of the header, with its padding
    header      JSON: {"answers": 60, "repeats": 10, "judges": [...], "columns": {"sample": [offset, count], ...}}
    columns     32-bit numbers, each at its offset behind the header; a text column is `NAME.offsets` and `NAME.bytes`

`sample`, `prompt`, `reference`, `tokens` and `finish` are (answers,), the three in the middle and the last as places in
text columns; `similarity`, `precision` (float32, nan without a score), `unscored` and three columns of reasons (places
in text columns, -1 for none) are (answers, judges, repeats).
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaduo.runs.layout import PREDICTIONS, VERDICTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Whole = NDArray[np.int32]

SCORES = ("similarity", "precision")
_LEVEL = 1  # of zlib: 6 takes four times as long for a fifth less
_BLOCK = 1 << 28
_MOST_INFLATED = 1 << 30
_PACKED = re.compile(r'(<script type="text/plain" id="pack-[^"]*">)([A-Za-z0-9+/=]*)(?=</script>)')


@dataclass(frozen=True)
class Packed:
    """What a page holds of one split."""

    answers: int
    """Answers asked for."""
    text: str
    """Base64 of the zlib stream."""


def pack(folder: Path) -> Packed | None:
    """Return the answers in an iteration's folder; raises OSError or ValueError where they can't be read."""
    path = folder / PREDICTIONS
    if not path.exists() or path.stat().st_size == 0:
        return None
    answers = _read(path, _ANSWER)
    columns, ids = _of_answers(answers)
    judges: list[str] = []
    repeats = 0
    verdicts = folder / VERDICTS
    if verdicts.exists() and verdicts.stat().st_size:
        judged, judges, repeats = _of_verdicts(_read(verdicts, _VERDICT), columns, ids)
        columns |= judged
    head = {"answers": answers.num_rows, "judges": judges, "repeats": repeats}
    return Packed(answers.num_rows, base64.b64encode(zlib.compress(_joined(head, columns), _LEVEL)).decode())


def inflated(page: str) -> str:
    """Return a page with its packed data as they were before compression, which differs between builds of zlib.

    Raises ValueError for data that come to more than a page of ours would hold.
    """
    left = _MOST_INFLATED

    def inflate(found: re.Match[str]) -> str:
        nonlocal left
        data = zlib.decompressobj().decompress(base64.b64decode(found[2]), left)
        left -= len(data)
        if left <= 0:
            raise ValueError(f"its data come to more than {_MOST_INFLATED >> 20:,} MiB")
        return found[1] + base64.b64encode(data).decode()

    return _PACKED.sub(inflate, page)


_ANSWER = {"prompt_id": "text", "sample": "whole", "prompt": "text", "reference": "text", "text": "text",
           "finish_reason": "text", "completion_tokens": "whole"}  # fmt: skip
_VERDICT = {"prompt_id": "text", "sample": "whole", "judge": "text", "repeat": "whole", "similarity": "number",
            "precision": "number", "reasons": "reasons", "unscored": "text"}  # fmt: skip
_REASONS = (*SCORES, "unscored")


def _read(path: Path, wanted: dict[str, str]) -> Any:
    """Return the wanted columns of a JSONL file as an arrow table."""
    import pyarrow
    import pyarrow.json

    text = pyarrow.string()
    kinds = {"text": text, "whole": pyarrow.int64(), "number": pyarrow.float64(),
             "reasons": pyarrow.struct([(name, text) for name in _REASONS])}  # fmt: skip
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in wanted.items()])
    size = path.stat().st_size
    return pyarrow.json.read_json(
        path,
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=min(size + 1, _BLOCK)),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    ).combine_chunks()


def _of_answers(table: Any) -> tuple[dict[str, Any], Any]:
    """Return the columns of answers, and the prompts' ids by the places that `prompt` holds."""
    import numpy as np

    prompt, ids = _coded(table["prompt_id"])
    _, first = np.unique(prompt, return_index=True)
    reference, references = _coded(table["reference"])
    finish, reasons = _coded(table["finish_reason"])
    columns = {"sample": _whole(table["sample"]), "prompt": prompt, "reference": reference, "finish": finish}
    columns |= {"tokens": _whole(table["completion_tokens"])} | _texts("id", ids) | _texts("finishes", reasons)
    columns |= _texts("prompts", _array(table["prompt"]).take(first)) | _texts("references", references)
    return columns | _texts("text", _array(table["text"])), ids


def _of_verdicts(table: Any, answers: dict[str, Any], ids: Any) -> tuple[dict[str, Any], list[str], int]:
    """Return the columns (answers, judges, repeats) of verdicts, the judges and the number of repeats."""
    import numpy as np

    judge, names = _coded(table["judge"])
    repeat = _whole(table["repeat"])
    shape = (len(answers["sample"]), len(names), int(repeat.max()) + 1)
    owner, known = _owners(table, answers, ids)
    place = ((owner * shape[1] + judge) * shape[2] + repeat)[known]

    def spread(values: Any, empty: Any) -> Any:
        full = np.full(shape[0] * shape[1] * shape[2], empty, dtype=values.dtype)
        full[place] = values[known]
        return full

    unscored, why = _coded(table["unscored"])
    columns = {"unscored": spread(unscored, np.int32(-1))} | _texts("whys", why)
    for name in SCORES:
        values = _array(table[name]).to_numpy(zero_copy_only=False).astype("<f4")
        columns[name] = spread(np.where(unscored < 0, values, np.float32("nan")), np.float32("nan"))
    reasons = _array(table["reasons"])
    for name in _REASONS:
        said, words = _coded(reasons.field(name))
        columns[f"said_{name}"] = spread(said, np.int32(-1))
        columns |= _texts(f"words_{name}", words)
    return columns, names.to_pylist(), shape[2]


def _owners(table: Any, answers: dict[str, Any], ids: Any) -> tuple[Any, Any]:
    """Return which answer each verdict is about, and whether that answer is there."""
    import numpy as np
    import pyarrow.compute

    prompt = pyarrow.compute.index_in(_array(table["prompt_id"]), value_set=ids).fill_null(-1).to_numpy()
    sample = _whole(table["sample"])
    stride = 1 + max(int(sample.max()), int(answers["sample"].max()))
    wanted = prompt.astype(np.int64) * stride + sample
    there = answers["prompt"].astype(np.int64) * stride + answers["sample"]
    order = np.argsort(there, kind="stable")
    owner = order[np.minimum(np.searchsorted(there[order], wanted), len(order) - 1)]
    return owner, there[owner] == wanted


def _array(column: Any) -> Any:
    """Return a column as one array."""
    import pyarrow

    if not isinstance(column, pyarrow.ChunkedArray):
        return column
    joined = column.combine_chunks()
    return joined.chunk(0) if isinstance(joined, pyarrow.ChunkedArray) else joined


def _whole(column: Any) -> Whole:
    numbers: Whole = _array(column).to_numpy().astype("<i4")
    return numbers


def _coded(column: Any) -> tuple[Whole, Any]:
    """Return each text's place among the distinct ones, -1 for null, and these in order of appearance."""
    coded = _array(column).dictionary_encode()
    return _whole(coded.indices.fill_null(-1)), coded.dictionary


def _texts(name: str, array: Any) -> dict[str, Any]:
    """Return a text column: (n + 1,) offsets, and the bytes that they cut."""
    import numpy as np

    array = array.fill_null("")
    _, offsets, data = array.buffers()
    if len(array) == 0:
        return {f"{name}.offsets": np.zeros(1, dtype="<i4"), f"{name}.bytes": b""}
    cuts = np.frombuffer(offsets, dtype="<i4")[array.offset : array.offset + len(array) + 1]
    used = memoryview(data)[int(cuts[0]) : int(cuts[-1])] if data else b""
    return {f"{name}.offsets": cuts - cuts[0], f"{name}.bytes": used}


def _joined(head: dict[str, Any], columns: dict[str, Any]) -> bytes:
    """Return header and columns as the bytes that the page unpacks, each column at a multiple of 4."""
    places, parts, at = {}, [], 0
    for name, values in columns.items():
        part = bytes(values) if name.endswith(".bytes") else values.tobytes()
        places[name] = [at, len(part) if name.endswith(".bytes") else len(part) // 4]
        part += b"\0" * (-len(part) % 4)
        parts.append(part)
        at += len(part)
    header = json.dumps(head | {"columns": places}, ensure_ascii=False).encode()
    header += b" " * (-len(header) % 4)
    return b"".join([len(header).to_bytes(4, "little"), header, *parts])
