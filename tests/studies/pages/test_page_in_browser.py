"""Pages in a headless browser: what is drawn, typed and clicked, that nothing leaves the file and nothing hostile runs.

Skipped where there is no Chromium. How fast the page is with 10,000 answers is measured by `benchmarks/page.py`.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamaduo.runs.record import read_runs
from llamaduo.studies.pages.page import run_page, study_page
from llamaduo.studies.parts import Cell, Figure, Table
from llamaduo.studies.study import read_study
from tests.made_runs import configuration, make_run

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run"]  # fmt: skip
HOSTILE = (
    "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'>"
    "<svg onload='window.hurt = 3'> & \u2028 javascript:window.hurt=4"
)
PROMPTS, SAMPLES = 12, 2


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def rewrite(path: Path, change: Any) -> None:
    made = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | change(number, row)) + "\n" for number, row in enumerate(made)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run's folder: in iteration 1 answer 3 is hostile, judge 2 could not read answer 5, answer 7 is cut."""
    config = configuration("preset=service", "judge=paper_panel", "service.replay=true", "study=s")
    run = make_run(tmp_path_factory.mktemp("s") / "run", config=config, prompts=PROMPTS, samples=SAMPLES, repeats=1)
    here = run / "iterations" / "01"
    rewrite(here / "predictions.jsonl", lambda n, _: {"text": HOSTILE, "prompt": HOSTILE} if n // 2 == 1 else {})
    rewrite(here / "predictions.jsonl", lambda n, _: {"finish_reason": "length"} if n == 7 else {})
    rewrite(here / "verdicts.jsonl", said)
    (run / "report.html").write_text(run_page(read_runs(run)[0]), encoding="utf-8")
    return run


def said(number: int, row: dict[str, Any]) -> dict[str, Any]:
    if number == 3 * 5 + 2:
        return {"unscored": "not_json", "similarity": None, "precision": None, "reasons": {}}
    reasons = {"precision": f"Needle {number} in a haystack", "similarity": HOSTILE}
    return {"unscored": None, "similarity": row["similarity"] or 50.0, "precision": row["precision"] or 50.0,
            "reasons": reasons}  # fmt: skip


class Opened:
    """A page in the browser, with all that it said and asked for."""

    def __init__(self, browser: Any, path: Path, **settings: Any) -> None:
        self.page = browser.new_page(viewport={"width": 1240, "height": 900}, **settings)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.path = path

    def ready(self, split: str = "01") -> Any:
        self.page.wait_for_selector(f"#list[data-ready='{split}']", state="attached")
        return self.page

    def shown(self) -> int:
        """Return how many answers the filters leave."""
        return int(re.match(r"[\d,]+", self.page.inner_text("#told"))[0].replace(",", ""))  # type: ignore[index]

    def quiet(self) -> None:
        """Assert that it said nothing, and asked for nothing but its own file and what that holds."""
        assert self.said == []
        assert {url for url in self.asked if not url.startswith("data:")} == {self.path.as_uri()}


@pytest.fixture
def opened(browser: Any, folder: Path) -> Iterator[Opened]:
    made = Opened(browser, folder / "report.html")
    yield made
    made.quiet()
    assert made.page.evaluate("window.hurt") is None
    made.page.close()


def scores(folder: Path, number: int, name: str, split: str = "01") -> float:
    """Return the mean over judges of one answer's score, read from the run's folder."""
    lines = (folder / "iterations" / split / "verdicts.jsonl").read_text().splitlines()[3 * number : 3 * number + 3]
    values = [value for line in lines if (value := json.loads(line)[name]) is not None]
    return sum(values) / len(values)


def chosen(page: Any) -> str:
    return str(page.get_attribute("#list", "aria-activedescendant"))


def test_the_answers_of_the_best_iteration_are_there_with_their_scores(opened: Opened, folder: Path) -> None:
    page = opened.ready()
    assert opened.shown() == PROMPTS * SAMPLES
    numbers = page.locator("#row-0 .number").all_inner_texts()
    wanted = [scores(folder, 0, name) for name in ("precision", "similarity")]
    assert [float(text) for text in numbers[1:3]] == pytest.approx(wanted, abs=0.051)
    before, now = (
        sum(scores(folder, at, "precision", split) for at in range(SAMPLES)) / SAMPLES for split in ("00", "01")
    )
    assert float(numbers[3].replace("\N{MINUS SIGN}", "-")) == pytest.approx(now - before, abs=0.051)
    assert page.locator("#detail tbody tr").count() == 3
    assert "Needle 0 in a haystack" in page.inner_text("#detail")


def test_the_mean_of_all_answers_is_that_of_the_record(opened: Opened, folder: Path) -> None:
    opened.ready()
    wanted = sum(scores(folder, at, "precision") for at in range(24)) / 24
    told = opened.page.inner_text("#told")
    assert f"mean precision {wanted:.1f} (SD between prompts " in told
    assert f"n = {PROMPTS} prompts, 24 answers" in told


def test_hostile_texts_are_shown_and_do_not_run(opened: Opened) -> None:
    page = opened.ready()
    page.click("#row-3")
    assert page.inner_text("#detail .chosen pre") == HOSTILE
    assert page.locator("#detail img, #detail svg, #detail script, #list img").count() == 0
    page.wait_for_timeout(100)
    assert page.evaluate("window.hurt") is None


def test_a_verdict_that_could_not_be_read_says_why(opened: Opened) -> None:
    page = opened.ready()
    page.click("#row-5")
    assert page.inner_text("#detail td.lost") == "unscored: not json"
    page.keyboard.press("u")
    assert opened.shown() == 1
    page.select_option("[name=judge]", label="gpt_4o")
    assert opened.shown() == 0
    assert "No answer fits" in page.inner_text("#detail")


def test_it_filters_by_score_text_and_change(opened: Opened, folder: Path) -> None:
    page = opened.ready()
    values = [scores(folder, at, "precision") for at in range(24)]
    page.fill("[name=low]", "85")
    assert opened.shown() == sum(value >= 85 for value in values)
    page.fill("[name=high]", "90")
    assert opened.shown() == sum(85 <= value <= 90 for value in values)
    page.click("[type=reset]")
    page.get_by_text("24 of 24").first.wait_for()
    page.fill("[name=text]", "nEEDLE 7 in")
    assert opened.shown() == 1
    assert chosen(page) == "row-0"
    assert page.inner_text("#row-0 .number:first-child") == "3"  # three verdicts an answer
    page.fill("[name=text]", "")
    counts = []
    for change in ("up", "down", "flat", ""):
        page.select_option("[name=change]", change)
        counts.append(opened.shown())
    assert sum(counts[:3]) == counts[3] == 24


def test_it_filters_by_slice(opened: Opened, folder: Path) -> None:
    page = opened.ready()
    lines = (folder / "iterations" / "01" / "predictions.jsonl").read_text().splitlines()
    for name in ("prompt", "reference"):
        sizes = [len(json.loads(line)[name].encode()) for line in lines]
        cuts = [-1, *(sorted(sizes[::SAMPLES])[PROMPTS * third // 3 - 1] for third in (1, 2, 3))]
        counts = []
        for third, word in enumerate(("short", "middle", "long")):
            page.select_option("[name=slice]", f"{name} {word}")
            counts.append(opened.shown())
            assert f"{word} {name}s, to {cuts[third + 1]} bytes" in page.inner_text("[name=slice] option:checked")
        assert counts == [sum(low < size <= high for size in sizes) for low, high in itertools.pairwise(cuts)]
        assert sum(counts) == len(lines)
    page.select_option("[name=slice]", label="ended by length")
    assert opened.shown() == 1
    assert page.inner_text("#row-0 .number:first-child") == "8"
    page.keyboard.press("]")
    opened.ready("test")
    assert opened.shown() == 24  # no answer was cut there: the slice is gone
    page.select_option("[name=slice]", "prompt long")
    left = opened.shown()
    page.focus("#list")
    page.keyboard.press("[")
    opened.ready()
    assert page.input_value("[name=slice]") == "prompt long"
    assert 0 < left < 24
    page.click("[type=reset]")
    page.get_by_text("24 of 24").first.wait_for()


def test_the_list_sorts_both_ways(opened: Opened) -> None:
    page = opened.ready()
    for name, column in (("precision", 1), ("similarity", 2)):
        page.click(f"[data-sort={name}]")
        found = [float(page.locator(f"#row-{at} .number").nth(column).inner_text()) for at in range(6)]
        assert found == sorted(found, reverse=True)
        page.click(f"[data-sort={name}]")
        found = [float(page.locator(f"#row-{at} .number").nth(column).inner_text()) for at in range(6)]
        assert found == sorted(found)
    page.click("[data-sort=place]")
    assert page.inner_text("#row-0 .number:first-child") == "1"


def test_keys_move_search_and_help(opened: Opened) -> None:
    page = opened.ready()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert chosen(page) == "row-1"
    page.focus("#list")
    page.keyboard.press("ArrowDown")
    assert chosen(page) == "row-2"
    page.keyboard.press("End")
    assert chosen(page) == "row-23"
    assert page.get_attribute("#row-23", "aria-selected") == "true"
    page.keyboard.press("j")
    assert chosen(page) == "row-23"
    page.keyboard.press("Home")
    page.keyboard.press("/")
    page.keyboard.type("jk?u")
    assert page.input_value("[name=text]") == "jk?u"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.keyboard.press("Escape")
    assert not page.is_visible("#help")
    page.click("#keys")
    page.click("#help button")
    assert not page.is_visible("#help")


def test_keys_change_the_split(opened: Opened) -> None:
    page = opened.ready()
    page.keyboard.press("]")
    opened.ready("test")
    assert page.is_disabled("[name=change]")
    page.keyboard.press("[")
    page.keyboard.press("[")
    opened.ready("00")
    assert opened.shown() == 24


def test_focus_is_seen(opened: Opened) -> None:
    page = opened.ready()
    page.keyboard.press("Tab")
    style = page.evaluate(
        "(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle + s.outlineWidth })()"
    )
    assert style == "solid2px"


def test_only_what_is_seen_of_a_long_list_exists(browser: Any, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "long"
    shutil.copytree(folder, run)
    shutil.rmtree(run / "iterations" / "00")
    shutil.rmtree(run / "iterations" / "test")
    here = run / "iterations" / "01"
    (here / "verdicts.jsonl").unlink()
    row = json.loads((here / "predictions.jsonl").read_text().splitlines()[0])
    many = (row | {"sample": number, "text": f"answer {number}"} for number in range(20_000))
    (here / "predictions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in many))
    (run / "report.html").write_text(run_page(read_runs(run)[0]), encoding="utf-8")
    made = Opened(browser, run / "report.html")
    page = made.ready()
    assert page.locator("#rows > *").count() < 60
    page.focus("#list")
    page.keyboard.press("End")
    assert page.inner_text(f"#row-{20_000 - 1} .answer") == "answer 19999"
    page.evaluate("document.getElementById('list').scrollTop = 56 * 10000")
    page.wait_for_selector("#row-10003")
    assert page.locator("#rows > *").count() < 60
    made.quiet()
    page.close()


def test_dark_and_light(browser: Any, folder: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        made = Opened(browser, folder / "report.html", color_scheme=scheme)
        ground = "getComputedStyle(document.body).backgroundColor"
        grounds.append(made.page.evaluate(ground))
        made.page.click("#theme")
        assert made.page.inner_text("#theme") == "Colours: light"
        assert made.page.evaluate(ground) == grounds[0]
        made.page.click("#theme")
        assert made.page.evaluate(ground) != grounds[0]
        made.quiet()
        made.page.close()
    assert grounds[0] != grounds[1]


def test_it_fits_a_phone(browser: Any, folder: Path) -> None:
    made = Opened(browser, folder / "report.html")
    made.ready()
    made.page.set_viewport_size({"width": 390, "height": 800})
    made.page.wait_for_timeout(100)
    assert made.page.evaluate("document.documentElement.scrollWidth") <= 390
    made.page.close()


def test_tables_of_a_study_sort_and_its_figures_are_drawn(browser: Any, folder: Path, tmp_path: Path) -> None:
    values = {"a": 9.5, "b": None, "c": 81.0, "d": 10.0}
    rows = tuple((Cell(name), Cell("" if v is None else f"{v}", v)) for name, v in values.items())
    drawing = (
        "<svg xmlns='http://www.w3.org/2000/svg' width='40' height='20' onload='window.hurt = 5'>"
        "<script>parent.hurt = 6</script><rect width='40' height='20'/></svg>"
    )
    study = read_study(folder)
    page_file = tmp_path / "report.html"
    table, figure = Table("t", "T", "", ("Name", "Score"), rows), Figure("f", "F", "", [{"x": 1}], drawing, b"")
    page_file.write_text(study_page(study, [table], [figure]), encoding="utf-8")
    made = Opened(browser, page_file)
    page = made.page

    def order() -> str:
        return "".join(page.locator("#table-t ~ .wide tbody th").all_inner_texts())

    page.click("#table-t ~ .wide button:text('Score')")
    assert order() == "cdab"
    assert page.get_attribute("#table-t ~ .wide thead th:nth-child(2)", "aria-sort") == "descending"
    page.click("#table-t ~ .wide button:text('Score')")
    assert order() == "adcb"  # what is unknown stays last
    page.focus("#table-t ~ .wide thead th:first-child button")
    page.keyboard.press("Enter")
    assert order() == "abcd"
    assert page.evaluate("document.querySelector('#figure-f img').naturalWidth") == 40
    assert page.evaluate("window.hurt") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 1240
    made.quiet()
    page.close()


def test_the_funnel_is_drawn_and_removals_stay_text(browser: Any, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "grown"
    shutil.copytree(folder, run)
    rows = [{"prompt_id": f"{n:016x}", "messages": [{"role": "user", "content": HOSTILE}], "response": f"answer {n}"}
            for n in range(40)]  # fmt: skip
    gone = {"row": 3, "prompt_id": rows[3]["prompt_id"], "reason": "duplicate", "match": "0" * 16, "similarity": 0.81}
    counts = {"wanted": 30, "requests": 5, "failed": 1, "dropped": 2, "cost_usd": 0.0, "parsed": 40, "kept": 39}
    here = run / "iterations" / "00"
    (here / "curation.json").write_text(json.dumps(counts | {"removed": [gone]}))
    (here / "synthesis.json").write_text(json.dumps({"examples": rows}))
    (run / "report.html").write_text(run_page(read_runs(run)[0]), encoding="utf-8")
    made = Opened(browser, run / "report.html")
    drawing = made.page.locator("svg.funnel")
    assert drawing.locator("text").all_text_contents()[:2] == ["Requests5", "Replies41 failed"]
    whole, left = (drawing.locator("rect.rows").nth(n).bounding_box() for n in (0, 1))
    assert left["width"] / whole["width"] == pytest.approx(39 / 40, abs=0.01)
    removed = made.page.inner_text("section[aria-labelledby='funnel'] .removals")
    assert "</script><script>window.hurt" in removed
    assert "81% alike" in removed
    assert made.page.evaluate("window.hurt") is None
    made.quiet()
    made.page.close()
