"""Measure the page of a run with 10,000 answers in a headless browser, and take pictures of the pages.

    python benchmarks/page.py                             three rounds, about a minute
    python benchmarks/page.py --quick                     one round
    python benchmarks/page.py --screenshots docs/images   pages of a rehearsal, light and dark, as PNG

The run is made up: 2,500 prompts x 4 answers of some 40 words, three judges with reasons of their own, in each of two
iterations and on the test split; the page holds them all. Measured from outside of the page, in Chromium by playwright:

    view      from the navigation's start to the first answers in the list, target below 1 s; `ready` when what changed
              since the iteration before is there too
    filter    from a change of a filter to the list behind it, drawn: the score, a search, a slice, and sorting by
              change; the slowest of them, target below 100 ms
    write     making a page of 60 answers x 3 judges x 10 repeats, two iterations and the test split, target below 15 ms

The figure is the median of `view` in seconds. Without a browser nothing is measured.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import ROOT, Options, Result, conclude, folder, options, say, summary

sys.path.insert(0, str(ROOT / "tests"))

VIEW_S, FILTER_S, WRITE_S = 1.0, 0.1, 0.015
TARGET = f"first view < {VIEW_S:g} s; filter < {FILTER_S * 1e3:g} ms; writing a page < {WRITE_S * 1e3:g} ms (medians)"
PROMPTS, SAMPLES = 2_500, 4
HIGHEST = 2_700  # pixels of a picture
REHEARSAL = ROOT / "results" / "pocket_main_table" / "runs.tar.xz"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run"]  # fmt: skip
TOPICS = ("Llama", "adapter", "refund", "invoice", "template", "corner case", "tone", "unit", "date", "name")


def main() -> None:
    if sys.argv[1:2] == ["--screenshots"]:
        screenshots(Path(sys.argv[2]))
        return
    wanted = options(__doc__)
    load = os.getloadavg()
    if wanted.overrides:
        sys.exit("page: there is no run here whose settings could be changed; leave them out.")
    if browser_path() is None:
        note = f"skipped: none of {', '.join(BROWSERS)} is there"
        conclude(Result("page", None, "s", TARGET, None, 0, {}, note), None, replace(wanted, save=False), load)
        return
    with folder() as place, browser() as driver:
        page = large_page(place)
        say(f"page of {3 * PROMPTS * SAMPLES:,} answers, {page.stat().st_size / 1e6:.1f} MB")
        rounds = [measured(driver, page) for _ in range(1 if wanted.quick else 3)]
        writing = written(place, 10 if wanted.quick else 50)
        size = page.stat().st_size
    raw = {"rounds": rounds, "write_s": writing, "bytes": size}
    conclude(result(raw, wanted), raw, wanted, load)


# What is looked at


def large_page(place: Path) -> Path:
    """Make the run and write its page; returns the page."""
    from made_runs import make_run

    from llamaduo.studies.pages.page import write_run_page

    run = make_run(place / "large", *SERVICE, prompts=PROMPTS, samples=SAMPLES, repeats=1)
    rng = random.Random(1)
    for name in ("00", "01", "test"):
        say(f"iteration {name} made up")
        lengthened(run / "iterations" / name, rng)
    start = time.perf_counter()
    write_run_page(run)
    say(f"its page written in {time.perf_counter() - start:.2f} s")
    return run / "report.html"


SERVICE = ("preset=service", "judge=paper_panel", "service.replay=true")


def lengthened(iteration: Path, rng: random.Random) -> None:
    """Give every answer a text, and every verdict reasons, that no other has."""
    for name in ("predictions", "verdicts"):
        path = iteration / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for number, row in enumerate(rows):
            if name == "predictions":
                row["text"] += f" {number} " + said(rng, 20)
            elif row["unscored"] is None:
                row["reasons"] = {score: f"{said(rng, 14)} ({number})" for score in ("similarity", "precision")}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def said(rng: random.Random, count: int) -> str:
    return " ".join(
        rng.choices([*TOPICS, "the", "of", "is", "misses", "keeps", "adds", "a", "but", "and", "well"], k=count)
    )


# Measuring


def browser_path() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Any]:
    """Lend a headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser_path(), args=FLAGS)
        try:
            yield opened
        finally:
            opened.close()


FILTERS = {
    "score": "form.elements.low.value = 80; form.elements.low.dispatchEvent(new Event('input', {bubbles: true}))",
    "search": "form.elements.text.value = 'corner case refund'; "
    "form.elements.text.dispatchEvent(new Event('input', {bubbles: true}))",
    "slice": "form.elements.slice.value = 'prompt long'; "
    "form.elements.slice.dispatchEvent(new Event('input', {bubbles: true}))",
    "sort": "document.querySelector('[data-sort=change]').click()",
}
"""What is done to the page, in its own language."""
DRAWN = "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
"""The time, in ms, when what was changed has been drawn."""


def measured(driver: Any, path: Path) -> dict[str, float]:
    """Return seconds: till the first answers are drawn, and of each filter till the list is drawn again."""
    page = driver.new_page(viewport={"width": 1240, "height": 900})
    try:
        page.goto(path.as_uri(), wait_until="commit")
        page.wait_for_selector("#row-0", state="attached")
        view = page.evaluate(DRAWN) / 1e3
        page.wait_for_selector("#list[data-ready]", state="attached")
        ready = page.evaluate(DRAWN) / 1e3
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1e3
        found = {"view": view, "paint": paint, "ready": ready}
        for name, act in FILTERS.items():
            page.evaluate("document.getElementById('filters').reset()")
            page.wait_for_timeout(200)
            start = "const form = document.getElementById('filters'), start = performance.now();"
            found[name] = page.evaluate(f"async () => {{ {start} {act}; return await {DRAWN} - start }}") / 1e3
    finally:
        page.close()
    say(", ".join(f"{name} {1e3 * value:.0f} ms" for name, value in found.items()))
    return found


def written(place: Path, times: int) -> list[float]:
    """Return how long it takes to make the page of a run of the report's size, in seconds."""
    from made_runs import make_run

    from llamaduo.runs.record import read_runs
    from llamaduo.studies.pages.page import run_page

    (run,) = read_runs(make_run(place / "usual", *SERVICE, prompts=15, samples=4, repeats=10))
    run_page(run)
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run_page(run)
        found.append(time.perf_counter() - start)
    say(f"writing {statistics.median(found) * 1e3:.1f} ms")
    return found


def result(raw: dict[str, Any], wanted: Options) -> Result:
    """Sum the rounds up."""
    views = [found["view"] for found in raw["rounds"]]
    filters = [max(found[name] for name in FILTERS) for found in raw["rounds"]]
    view, slowest, writing = (statistics.median(values) for values in (views, filters, raw["write_s"]))
    holds = view < VIEW_S and slowest < FILTER_S and writing < WRITE_S
    spread = {name: summary([found[name] for found in raw["rounds"]]) for name in raw["rounds"][0]}
    note = (
        f"slowest filter {slowest * 1e3:.0f} ms, writing {writing * 1e3:.1f} ms; a file of {raw['bytes'] / 1e6:.1f} MB "
        f"with {3 * PROMPTS * SAMPLES:,} answers, {PROMPTS * SAMPLES:,} of them in view; {os.cpu_count()} cores"
    )
    if wanted.quick:
        note = f"quick: one round; {note}"
    return Result(
        "page", round(view, 3), "s", TARGET, None if wanted.quick else holds, len(views),
        spread | {"write": summary(raw["write_s"])}, note,
    )  # fmt: skip


# Pictures


def screenshots(out: Path) -> None:
    """Write the upper part of the pages of a rehearsal, and of one of its runs, as PNG below 300 kB."""
    from llamaduo.studies.report import write_report
    from llamaduo.studies.study import read_study
    from llamaduo.verify.archive import unpacked

    out.mkdir(parents=True, exist_ok=True)
    with unpacked(REHEARSAL) as (runs, _), folder() as place, browser() as driver:
        study = read_study(runs)
        write_report(study, place)
        pages = {"study": place / "report.html", "run": place / study.runs[0].name / "report.html"}
        for name, page in pages.items():
            for scheme in ("light", "dark"):
                picture(driver, page, scheme, out / f"page-{name}-{scheme}.png")
        picture(driver, pages["study"], "light", out / "page-study-figures-light.png", "#figures")


def picture(driver: Any, path: Path, scheme: str, out: Path, start: str = "body") -> None:
    """Take what is on the page from an element on, as far as a picture goes."""
    page = driver.new_page(viewport={"width": 1240, "height": 900}, color_scheme=scheme)
    page.goto(path.as_uri())
    if page.locator("#list").count():
        page.wait_for_selector("#list[data-ready]", state="attached")
    page.wait_for_timeout(300)
    top = page.evaluate(f"document.querySelector('{start}').getBoundingClientRect().top")
    height = min(HIGHEST, page.evaluate("document.documentElement.scrollHeight") - top)
    page.screenshot(path=out, full_page=True, clip={"x": 0, "y": top, "width": 1240, "height": height})
    page.close()
    fewer_colours(out)
    say(f"{out}, {out.stat().st_size / 1e3:.0f} kB")


def fewer_colours(path: Path) -> None:
    """Make a picture smaller: 256 colours are enough for a page of text and lines."""
    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


if __name__ == "__main__":
    main()
