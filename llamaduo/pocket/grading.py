"""Grading by the truth: what share of the facts of a right response an answer has. Nothing is ever executed."""

from __future__ import annotations

import ast
import re
import warnings


def same(truth: str, answer: str) -> float:
    """Return 1.0 for the same words, whatever their case and a full stop at the end, else 0.0."""
    return float(answer.strip().rstrip(".").casefold() == truth.casefold())


_SUMMARY = re.compile(r"(\w+) \((\w+)\): (\w+) (\w+(?: and \w+)?), wants (\w+)")


def facts_of_summary(truth: str, answer: str) -> float:
    """Five facts and the form: an answer without the form has the form wrong, and its facts by presence.

    One line was asked for: several, such as the whole ticket copied, are no summary.
    """
    facts = _SUMMARY.fullmatch(truth)
    assert facts is not None  # a truth comes from the task's own solver
    found = _SUMMARY.fullmatch(answer.strip())
    if found:
        return (1 + sum(1 for a, b in zip(facts.groups(), found.groups(), strict=True) if a == b)) / 6
    words = set() if "\n" in answer.strip() else set(re.findall(r"\w+", answer))
    return sum(1 for fact in facts.groups() if words.issuperset(fact.split(" and "))) / 6


def _parts_of_function(code: str) -> tuple[str, ...] | None:
    """Name, parameters and body of a single function, by parsing alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser comments on odd escapes
            body = ast.parse(code.strip()).body
        if len(body) != 1 or not isinstance(body[0], ast.FunctionDef):
            return None
        function = body[0]
        return function.name, ast.dump(function.args), "".join(ast.dump(line) for line in function.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def parts_of_code(truth: str, answer: str) -> float:
    """Return the share of name, parameters and body that are right; 0.0 for what is no single function."""
    wanted, found = _parts_of_function(truth), _parts_of_function(answer)
    if wanted is None or found is None:
        return 0.0
    return sum(a == b for a, b in zip(wanted, found, strict=True)) / 3
