"""Pages of a large run: 2,048 units, 1,200 concepts, a million samples. How long a report takes to write, in how much
memory, how large it is, and how soon a browser shows its pages from disk.

The runs are made up (benchmarks/made_run.py), of 100,000 and of 1,000,000 samples, and so large that a fast disk and
7 GB of it are needed. Each report is written by a process of its own without torch, and each page is opened in a new
browser that has seen nothing, after the system was told to forget the report's files. `SAMPLES=20000,200000` takes
other sizes, `UNITS=512` other layers; `FOLDER=/tmp/pages` keeps the runs, for the next time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.made_run import IMAGES, LAYER, Size, write_run
from microtome.reports.sizes import report_sizes
from microtome.storage.run import Run

CHROMIUM = "/usr/bin/chromium"
VIEW = {"width": 1280, "height": 900}
REPEATS = 5
TIMEOUT = 120_000

_WATCH = """
window.seen = {};
const note = (name) => { if (!(name in window.seen)) window.seen[name] = performance.now(); };
new PerformanceObserver((list) => { for (const one of list.getEntries()) window.seen[one.name] ??= one.startTime; })
  .observe({ type: "paint", buffered: true });
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) window.seen.longest = Math.max(window.seen.longest ?? 0, one.duration);
}).observe({ type: "longtask", buffered: true });
const look = () => {
  if (document.querySelector(WANTED)) requestAnimationFrame(() => setTimeout(() => note("drawn")));
  else requestAnimationFrame(look);
};
look();
"""
"""Notes when the first frame with what is WANTED has been drawn."""

_TYPE = """
([selector, text, answer]) => new Promise((done) => {
  const field = document.querySelector(selector), before = document.querySelector(answer).textContent;
  const begun = performance.now();
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  const look = () => document.querySelector(answer).textContent === before
    ? requestAnimationFrame(look) : setTimeout(() => done([performance.now(), performance.now() - begun]));
  requestAnimationFrame(look);
})
"""
"""Types a text; gives when the answer was drawn, since the navigation and since it was typed."""

PAGES = {
    "index": ("index.html", ".teaser .patch", None),
    "layer, 2,048 units": (f"layers/{LAYER}.html", "#cards .card .patch", ("#controls [name=q]", "ba", "#shown")),
    "concepts": ("concepts.html", "main a", None),
    "concept": ("concept.html#concept=1", 'main a[href^="unit.html"]', None),
}
"""Of each page its address, what has to be there, and what is typed where to be answered where."""


def run(quick: bool) -> dict[str, Any]:
    """Reports of both sizes, and the pages of the larger one."""
    counts = [int(n) for n in os.environ.get("SAMPLES", "2000,20000" if quick else "100000,1000000").split(",")]
    units = int(os.environ.get("UNITS", "256" if quick else "2048"))
    with _room() as folder:
        reports = []
        for count in counts:
            where = folder / f"run-{count}-{units}"
            if not Run.exists(where):
                write_run(where, Size(count, units))
            reports.append(_built(where))
        sizes = [
            {"samples": row["samples"], "part": part, "files": files, "MB": size / 1e6}
            for row in reports
            for part, files, size in _with_sum(Path(row["index"]).parent)
        ]
        pages = _pages(Path(reports[-1].pop("index")).parent, 1 if quick else REPEATS)
    first = reports[0]
    for row in reports:
        row.pop("index", None)
        row["MB more"] = row["peak MB"] - first["peak MB"]
    return {"units": units, "reports": reports, "sizes": sizes, "pages": pages}


@contextmanager
def _room() -> Iterator[Path]:
    if kept := os.environ.get("FOLDER"):
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _built(where: Path) -> dict[str, Any]:
    """What writing the report of the run in `where` took."""
    command = [sys.executable, "-m", "benchmarks.built_report", str(where), str(where / IMAGES)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _with_sum(report: Path) -> list[tuple[str, int, int]]:
    parts = [tuple(part) for part in report_sizes(report)]
    return [*parts, ("all", sum(part[1] for part in parts), sum(part[2] for part in parts))]


def _pages(report: Path, repeats: int) -> list[dict[str, Any]]:
    """How soon each page is there: the median of some visits."""
    rows = []
    for name, (address, wanted, question) in PAGES.items():
        visits = [_visit(report, address, wanted, question) for _ in range(repeats)]
        middle = sorted(visits, key=lambda visit: visit["first view ms"])[len(visits) // 2]
        slowest = max(visit["first view ms"] for visit in visits)
        rows.append({"page": name, **middle, "slowest first view ms": slowest, "load": os.getloadavg()[0]})
    return rows


def _visit(report: Path, address: str, wanted: str, question: tuple[str, str, str] | None) -> dict[str, Any]:
    """One page in a new browser. Milliseconds since the navigation began, but for the answer's own and those of CPU."""
    from playwright.sync_api import sync_playwright

    _forget(report)
    with sync_playwright() as playwright:
        options = {"executable_path": CHROMIUM, "args": ["--no-sandbox", "--disable-gpu"]}
        browser = playwright.chromium.launch(**options)
        page = browser.new_page(viewport=VIEW)
        page.set_default_timeout(TIMEOUT)
        devtools = page.context.new_cdp_session(page)
        devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.add_init_script(_WATCH.replace("WANTED", json.dumps(wanted)))
        path, _, state = address.partition("#")
        page.goto((report / path).as_uri() + (f"#{state}" if state else ""), wait_until="commit")
        page.wait_for_function("window.seen && window.seen.drawn")
        worked = [_work(devtools)]
        answered = page.evaluate(_TYPE, list(question)) if question else [None, None]
        worked.append(_work(devtools))
        seen = page.evaluate("window.seen")
        heap, nodes = page.evaluate("[performance.memory.usedJSHeapSize, document.getElementsByTagName('*').length]")
        browser.close()
    return {
        "first paint ms": seen.get("first-contentful-paint"),
        "first view ms": seen["drawn"],
        "of it CPU": worked[0],
        "interactive ms": answered[0],
        "answer ms": answered[1],
        "CPU of the answer": worked[1] - worked[0] if question else None,
        "longest task ms": seen.get("longest"),
        "elements": nodes,
        "heap MB": heap / 1e6,
    }


def _work(devtools: Any) -> float:
    """Milliseconds of CPU that the page's main thread has used, scripts, style, layout and painting together."""
    metrics = {one["name"]: one["value"] for one in devtools.send("Performance.getMetrics")["metrics"]}
    return 1000 * float(metrics["TaskDuration"])


def _forget(report: Path) -> None:
    """Have the system drop the report's files from its cache, those that a page opens at once."""
    for file in [
        *report.glob("*.html"),
        *report.glob("layers/*"),
        *report.glob("static/*"),
        *report.glob("data/**/*.js"),
    ]:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
