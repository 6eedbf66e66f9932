"""The shape of the package, counted: `make check` fails where it has grown past its limits.

    python benchmarks/shape.py

Top-level modules, lines of each file (the schema, `config.py`, may be longer), lines of each function, and spans of at
least six equal lines of code that stand in two places. Blank lines and imports are no part of a span.
"""

from __future__ import annotations

import ast
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

PACKAGE = Path(__file__).parents[1] / "llamaduo"
SPAN = 6
MOST = {"top_level_modules": 13, "longest_file": 350, "median": 8, "p90": 22, "longest_function": 50, "equal_spans": 10}
SCHEMA = "config.py"

Line = tuple[str, int, str]
"""File, number and text of a line of code."""


def main() -> int:
    """Count, print and compare."""
    files = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    sizes = sorted((size, f"{name}:{line} {of}") for name, text in files.items() for size, line, of in functions(text))
    lines = {name: text.count("\n") for name, text in files.items()}
    longest = max((size, name) for name, size in lines.items() if name != SCHEMA)
    spans = equal_spans([line for name in sorted(files) for line in code(name, files[name])])
    counted = {
        "top_level_modules": sum("/" not in name for name in files),
        "longest_file": longest[0],
        "median": median(size for size, _ in sizes),
        "p90": sizes[int(0.9 * len(sizes))][0],
        "longest_function": sizes[-1][0],
        "equal_spans": len(spans),
    }
    over = {name: figure for name, figure in counted.items() if figure > MOST[name]}
    if over:
        print("\n".join(f"{one[0]}:{one[1]} = {other[0]}:{other[1]}" for one, other in spans))
        print(f"{longest[1]}: {longest[0]} lines; {sizes[-1][1]}: {sizes[-1][0]} lines")
        print(f"past the limit: {', '.join(f'{name} {figure} > {MOST[name]}' for name, figure in over.items())}")
    print(json.dumps({"files": len(files), "lines": sum(lines.values()), "functions": len(sizes), **counted}))
    return int(bool(over))


def functions(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield lines, place and name of every function."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1, node.lineno, node.name


def code(name: str, text: str) -> list[Line]:
    """Return the lines of a file that say something, imports left out."""
    nodes = ast.walk(ast.parse(text))
    imports = {
        line
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    numbered = enumerate((line.strip() for line in text.splitlines()), 1)
    return [(name, number, line) for number, line in numbered if line and number not in imports]


def equal_spans(lines: list[Line]) -> list[tuple[Line, Line]]:
    """Return where two spans of at least `SPAN` equal lines begin, each of which is counted once."""
    places = defaultdict(list)
    for at in range(len(lines) - SPAN + 1):
        span = lines[at : at + SPAN]
        if span[0][0] == span[-1][0]:
            places[tuple(text for _, _, text in span)].append(at)
    pairs = {(one, other) for found in places.values() for one in found for other in found if other - one >= SPAN}
    return [(lines[one], lines[other]) for one, other in sorted(pairs) if (one - 1, other - 1) not in pairs]


if __name__ == "__main__":
    sys.exit(main())
