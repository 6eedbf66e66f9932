"""The columns of an exported data set, and its Parquet files: the same rows give the same bytes.

`messages`: `messages` (the prompt's turns and the response), `source`, `generator`, `strategy`, `request`, `seeds`,
`iteration`, `round`, `filters`. What isn't known of a row is null. `paper`: the columns of the paper's own data sets:

    {"generator": "gpt-4o", "seed_prompt": "Generate a series of ...", "messages": [...], "category": "Coding"}

Where any request offered functions, `tools` has them as JSON behind `messages`.

A turn has `role` and `content`; further keys that any turn has are texts too, other values in them as JSON.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llamaduo.export.rows import Row

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("messages", "paper")
Prompts = Callable[[str], str | None]
"""From a request's key to the prompt that was sent; None where it isn't known."""


def parquet(rows: Sequence[Row], table: Callable[[Sequence[Row]], pa.Table]) -> bytes:
    """Return rows as a Parquet file."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table(rows), sink, compression="zstd")
    return sink.getvalue()


def turn_keys(rows: Sequence[Row]) -> list[str]:
    """Return the keys of the rows' turns: `role`, `content`, then others that any of them has."""
    others = {key for row in rows for turn in (*row.example.messages, row.example.answer) for key in turn}
    return ["role", "content", *sorted(others - {"role", "content"})]


def messages_table(rows: Sequence[Row], keys: Sequence[str], offers: bool) -> pa.Table:
    """Return rows with all that is known of them; with `offers`, the functions that requests offered as JSON, too."""
    import pyarrow as pa

    texts = pa.list_(pa.string())
    columns: list[tuple[str, pa.DataType, list[Any]]] = [
        ("messages", _turns_type(keys), [_turns(row, keys) for row in rows]),
        ("source", pa.string(), [row.source for row in rows]),
        ("generator", pa.string(), [row.example.generator for row in rows]),
        ("strategy", pa.string(), [row.provenance and row.provenance.strategy for row in rows]),
        ("request", pa.string(), [row.provenance and row.provenance.request for row in rows]),
        ("seeds", texts, [list(row.seeds) for row in rows]),
        ("iteration", pa.int32(), [row.iteration for row in rows]),
        ("round", pa.int32(), [row.provenance and row.provenance.round for row in rows]),
        ("filters", texts, [row.provenance and list(row.provenance.filters) for row in rows]),
    ]
    if offers:
        columns.insert(1, ("tools", pa.string(), [_text(row.example.tools or None) for row in rows]))
    return _table(columns)


def paper_table(rows: Sequence[Row], keys: Sequence[str], category: str, prompts: Prompts) -> pa.Table:
    """Return rows in the paper's columns; `seed_prompt` is null where the request isn't known."""
    import pyarrow as pa

    sent = [prompts(row.provenance.request) if row.provenance else None for row in rows]
    columns: list[tuple[str, pa.DataType, list[Any]]] = [
        ("generator", pa.string(), [row.example.generator for row in rows]),
        ("seed_prompt", pa.string(), sent),
        ("messages", _turns_type(keys), [_turns(row, keys) for row in rows]),
        ("category", pa.string(), [category] * len(rows)),
    ]
    return _table(columns)


def _table(columns: Sequence[tuple[str, pa.DataType, list[Any]]]) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema([(name, kind) for name, kind, _ in columns])
    return pa.table({name: pa.array(values, kind) for name, kind, values in columns}, schema)


def _turns_type(keys: Sequence[str]) -> pa.DataType:
    import pyarrow as pa

    return pa.list_(pa.struct([(key, pa.string()) for key in keys]))


def _turns(row: Row, keys: Sequence[str]) -> list[dict[str, str | None]]:
    """Return the prompt's turns and the response as turns with the same keys."""
    turns: list[Mapping[str, Any]] = [*row.example.messages, row.example.answer]
    return [{key: _text(turn.get(key)) for key in keys} for turn in turns]


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
