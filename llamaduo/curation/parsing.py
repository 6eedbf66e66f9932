r"""Whether code parses: Python by `ast`, which runs nothing, other languages by tree-sitter.

    parses("python", "def f(:")         False
    parses("python", ">>> 1 + 1\n2")    True: a session's input is what counts
    parses("java", "int x = f();")      True: a piece of a method

A piece is taken for what it is: statements without a function around them, members without a class, lines that stand
for what was left out (`...`), a signature without a body. What can't be told (a text of more than 100,000 characters,
code nested too deeply to read) parses. tree-sitter accepts much that wouldn't compile. Syntax that is newer than the
Python that runs this doesn't parse.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

_LONGEST = 100_000
_ALIASES = {
    "python": "python py python3 py3", "javascript": "javascript js jsx node mjs", "typescript": "typescript ts",
    "tsx": "tsx", "java": "java", "c": "c h", "cpp": "cpp c++ cc cxx hpp", "go": "go golang", "rust": "rust rs",
    "bash": "bash sh shell zsh", "html": "html htm", "css": "css", "json": "json", "ruby": "ruby rb", "php": "php",
    "c_sharp": "csharp c# cs", "kotlin": "kotlin kt", "swift": "swift", "sql": "sql mysql postgresql sqlite",
}  # fmt: skip
LANGUAGES = {alias: name for name, aliases in _ALIASES.items() for alias in aliases.split()}
"""By what stands behind a fence: the language."""
_GRAMMARS = {"typescript": ("typescript", "language_typescript"), "tsx": ("typescript", "language_tsx"),
             "php": ("php", "language_php")}  # fmt: skip
_WHOLES = {
    "javascript": ("({%s})", "class A {\n%s\n}", "async function* f() {\n%s\n}"),
    "typescript": ("({%s})", "class A {\n%s\n}", "interface A {\n%s\n}"),
    "tsx": ("({%s})", "class A {\n%s\n}"),
    "java": ("class A {\n%s\n}", "class A { void f() {\n%s\n} }", "class A { void f() {\n%s;\n} }"),
    "c": ("void f() {\n%s\n}", "void f() {\n%s;\n}"),
    "cpp": ("void f() {\n%s\n}", "class A {\n%s\n};"),
    "go": ("func f() {\n%s\n}",),
    "rust": ("fn f() {\n%s\n}", "impl A {\n%s\n}"),
    "json": ("{%s}", "[%s]"),
    "c_sharp": ("class A {\n%s\n}", "class A { void F() {\n%s\n} }"),
    "kotlin": ("class A {\n%s\n}",),
    "swift": ("class A {\n%s\n}",),
    "php": ("<?php\n%s", "<?php class A {\n%s\n}"),
}
"""What a piece may be a part of."""
_LEFT_OUT = re.compile(r"^[ \t]*(?://|#|--|/\*)?[ \t]*(?:\.{3,}|\u2026)[ \t]*(?:\*/)?[ \t]*$", re.MULTILINE)
_OPEN_ENDS = re.compile(r"\.\.\.(?![\w\[({$.])|\u2026")
"""Three dots that stand for something, and not before a name as JavaScript has them."""
_AND_SO_ON = re.compile(r",\s*\.\.\.(?=\s*[)\]}])")
_COMMAND = re.compile(r"\s*(?:\$ )?(?:pip3?|python3?|npm|npx|yarn|node|cargo|go|dotnet|git|cd) [\w./-][^\n(=]*\s*")
"""A line for a shell behind a fence that names the language that it starts."""
_ENDS = re.compile(r"(?<=\S)[ \t]+\}")
"""The end of a block on a line with what it has, where Kotlin's grammar wants a new line."""
_PLACE = re.compile(r"<[A-Za-z][\w .-]*>")
_PROMPTED = re.compile(r"^[ \t]*\$ ", re.MULTILINE)
_MAGIC = re.compile(r"^([ \t]*)[%!?].*$", re.MULTILINE)
_DOCTEST = re.compile(r"^[ \t]*>>>(?: |$)", re.MULTILINE)


def parses(language: str, code: str) -> bool:
    """Tell whether code is of a language, one of the values of `LANGUAGES`."""
    if len(code) > _LONGEST or not code.strip() or _COMMAND.fullmatch(code):
        return True
    if language == "python":
        return any(_is_python(one) for one in _python_readings(code))
    code = _LEFT_OUT.sub("", code)
    if _OPEN_ENDS.search(code) or (language == "bash" and _PLACE.search(code)):
        return True
    if language == "kotlin":
        code = _ENDS.sub("\n}", code)
    if language == "bash" and _PROMPTED.search(code):
        code = "\n".join(_PROMPTED.sub("", line) for line in code.split("\n") if _PROMPTED.match(line))
    return any(_has_no_error(language, one) for one in (code, *(part % (code,) for part in _WHOLES.get(language, ()))))


def _python_readings(code: str) -> Iterator[str]:
    """Yield what Python may be meant."""
    code = textwrap.dedent(code.replace("\r\n", "\n").expandtabs(8)).strip("\n")
    if _DOCTEST.search(code):
        lines = (line.lstrip() for line in code.split("\n"))
        yield "\n".join(line[4:] for line in lines if line.startswith((">>>", "...")))
        return
    yield code
    code = _MAGIC.sub(r"\1pass", code)
    yield code
    if _OPEN_ENDS.search(code):
        yield _AND_SO_ON.sub("", _LEFT_OUT.sub("", code))
    rows = [line.rstrip() for line in code.split("\n")]
    while rows and (not rows[-1] or rows[-1].lstrip().startswith("#")):
        rows.pop()
    if rows and rows[-1].endswith(":"):
        begin = len(rows[-1]) - len(rows[-1].lstrip())
        yield "\n".join([*rows, f"{' ' * begin}    pass"])


def _is_python(code: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(code)
        except (RecursionError, MemoryError):
            return True
        except (SyntaxError, ValueError):
            return False
    return True


@cache
def _parser(language: str) -> Any:
    from tree_sitter import Language, Parser

    module, function = _GRAMMARS.get(language, (language, "language"))
    return Parser(Language(getattr(import_module(f"tree_sitter_{module}"), function)()))


def _has_no_error(language: str, code: str) -> bool:
    return not _parser(language).parse(code.encode(errors="replace")).root_node.has_error
