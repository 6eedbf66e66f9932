"""Code: what doesn't parse goes, pieces and what can't be told stay."""

from __future__ import annotations

import pytest
from sample_records import example

from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.curate import curate
from llamaduo.curation.parsing import LANGUAGES, parses
from llamaduo.records import Example

RIGHT = {
    "python": ["def f(x):\n    return x", "    x = 1\n    y = 2", ">>> f(\n... 1)\n1\n>>> 2\n2", "def f(x):",
               "x = [1, ...]",
               "await f()", "%matplotlib inline\nx = 1", "!pip install x", "s = '\\d'",
               "if x:\n    ...\nelse:\n    y()",
               "class A:\n    ...", "return 1", "while True:\n\tx()\n",
               "def f():\n    # your code\n\n    # and more", "def f(a, ...):\n    pass",
               "x = ('%s'\n     % y)", "if x:\n    !ls\n    y()", "$ python x.py"],
    "javascript": ["const a = <p>x</p>;", "await f();", "return 1;", "f(...args);", "f(...);", "{name: 'x'}",
                   "foo() { return 1; }"],
    "typescript": ["let a: number = 1;", "type X<T> = T | null;", "a: string;\nb?: number;"],
    "tsx": ["const a: JSX.Element = <p/>;"],
    "java": ["int x = 1;", "System.out.println(1)", "public class A { void f() { } }",
             "@Override\npublic int f() { return 1; }",
             "public A(int x) { this.x = x; }"],
    "c": ["#include <stdio.h>\nint main(void) { return 0; }", "printf(\"x\");\n...\nreturn 0;"],
    "cpp": ["std::vector<int> v{1, 2};", "public: int x;", "auto f = [](int x) { return x; };"],
    "go": ["x := 1\nfmt.Println(x)", "package main\nfunc main() { }"],
    "rust": ["let x = 1;", "x.iter().map(|y| y + 1).sum()", "pub fn f(&self) -> i32 { 1 }"],
    "bash": ["ls -la | grep x", "$ ls\nfile (1).txt\n$ cd x", "git clone <your-repository>"],
    "html": ["<ul><li>a<li>b</ul>"],
    "css": ["a { color: red; }", "color: red;"],
    "json": ['{"a": 1}', '{"a": 1}\n{"a": 2}', '"a": 1', '{"a": ...}'],
    "ruby": ["def f\n  1\nend", "[1].each do |x| puts x end"],
    "php": ["<?php echo 1; ?>", "$x = [1, 2];", "public function f() { return 1; }"],
    "c_sharp": ["Console.WriteLine(1);", "public int X { get; set; }"],
    "kotlin": ["class A(val x: Int) { fun f() = x }", "val x = listOf(1).map { it + 1 }", "override fun f() = 1"],
    "swift": ["guard let x = y else { return }"],
    "sql": ["SELECT a FROM t WHERE b = 1;"],
}  # fmt: skip
WRONG = {
    "python": ["def f(:", "x = (1", "print 'a'", "if x:\ny()", ">>> f(", "x = 1 +\n..."],
    "javascript": ["function f( {", "if (x) {"],
    "typescript": ["let a: = 1;"],
    "tsx": ["const a = <p;"],
    "java": ["class A { void f() { int x = ; } }", "int f( {"],
    "c": ["int main( { return 0; }", "int f() { for (;;"],
    "cpp": ["class A { public: int x"],
    "go": ["func main() { x := }"],
    "rust": ["fn f() { let x = ; }"],
    "bash": ["if [ -f x ]; then", "echo 'a"],
    "html": ["<div"],
    "css": ["a { color: red"],
    "json": ['{"a": 1,}', "{a: 1}", '{"a": [1}'],
    "ruby": ["def f\n  1"],
    "php": ["<?php echo ;"],
    "c_sharp": ["class A { int x = ; }"],
    "kotlin": ["fun f( { }"],
    "swift": ["func f( {"],
    "sql": ["SELCT a FROM t"],
}


def test_every_language_is_tried() -> None:
    assert RIGHT.keys() == WRONG.keys() == set(LANGUAGES.values())


@pytest.mark.parametrize("language", RIGHT)
def test_what_is_right_and_pieces_of_it_parse(language: str) -> None:
    assert [code for code in RIGHT[language] if not parses(language, code)] == []


@pytest.mark.parametrize("language", WRONG)
def test_what_is_broken_does_not(language: str) -> None:
    assert [code for code in WRONG[language] if parses(language, code)] == []


@pytest.mark.parametrize("code", ["(" * 5000 + ")" * 5000, "x = 1\0", "\ud800 = 1", "1" * 9999, "x" * 100_001 + "("])
@pytest.mark.parametrize("language", ["python", "javascript"])
def test_odd_text_ends_nothing(language: str, code: str, recwarn: pytest.WarningsRecorder) -> None:
    assert parses(language, code) in (True, False)
    assert parses(language, "x" * 100_001 + "(")
    assert not recwarn.list


def fence(language: str, code: str) -> str:
    return f"Like this:\n```{language}\n{code}\n```\nThat is all."


def taken(response: str, known: list[str] | None = None, **config: float) -> str:
    """Return why a row with that response goes beside coverage rows with those; empty where it stays."""
    code = Curation(filters=[CurationFilter.code], **config)  # type: ignore[arg-type]
    coverage: list[Example] = [example(f"prompt {n}", text) for n, text in enumerate(known or [])]
    removed = curate([example("new", response)], known=coverage, held_out=[], config=code).removed
    return removed[0].why if removed else ""


def test_fenced_code_is_read_by_its_language() -> None:
    assert taken(fence("Python", "def f(:")) == "Python that does not parse"
    assert taken(fence("py", "x = 1") + fence("c++", "int f( {")) == "C++ that does not parse"
    assert taken(fence("cobol", "def f(:")) == taken(fence("", "def f(:")) == taken("def f(:") == ""


def test_nothing_of_it_is_executed() -> None:
    assert taken(fence("python", "import sys\nsys.exit('executed')")) == ""


def test_a_language_whose_coverage_does_not_parse_is_not_asked() -> None:
    right, wrong = fence("java", "int x = 1;"), fence("java", "int f( {")
    assert taken(wrong, [wrong] * 2 + [right] * 6) == ""
    assert taken(wrong, [wrong] * 2 + [right] * 6, parses=0.7) == "Java that does not parse"
    assert taken(wrong, [wrong] + [right] * 6) == "Java that does not parse"
    assert taken(fence("python", "def f(:"), [wrong] * 9) == "Python that does not parse"


def test_sql_is_asked_where_coverage_shows_that_it_parses() -> None:
    right, wrong = fence("sql", "SELECT a FROM t;"), fence("sql", "SELCT a FROM t;")
    assert taken(wrong) == taken(wrong, [right] * 7) == ""
    assert taken(wrong, [right] * 8) == "SQL that does not parse"


@pytest.mark.parametrize(
    ("known", "right", "wrong", "name"),
    [
        ("SELECT a, {} FROM t WHERE b > 1", "SELECT 1", "SELECT a FRM t WHERE", "SQL"),
        ("def f{}(x):\n    return g(x)", "f(1)", "def f(:\n    pass", "Python"),
        ("const a{} = (x) => {{ return x; }};", "f();", "const a = (x => {", "JavaScript"),
    ],
)
def test_code_without_a_fence_or_a_language_is_read_as_coverages_is(
    known: str, right: str, wrong: str, name: str
) -> None:
    texts = [known.format(f"n{n}") for n in range(10)]
    assert (taken(right, texts), taken(wrong, texts)) == ("", f"{name} that does not parse")
    fences = [fence("", text) for text in texts]
    assert (taken(fence("", right), fences), taken(fence("", wrong), fences)) == ("", f"{name} that does not parse")
    assert taken(wrong, texts[:7]) == ""


@pytest.mark.parametrize(
    "known", [["billing", "returns"] * 9, ["Yes, it is (well, mostly)."] * 9, [f"{n}" for n in range(9)]]
)
def test_prose_and_labels_are_not_taken_for_code(known: list[str]) -> None:
    assert taken("out of stock, isn't it", known) == ""
