"""Measure the page of a run of many images: how long it is drawn, its size, how soon a browser shows it and scrolls.

    python benchmarks/report_page.py --images 1000

Images are patterns of 640 x 480 pixels with noise, which compress worse than photographs. The time of the browser is
its own (from the start of the navigation to the end of the load event), as a ratio to an empty page in the same
browser. Needs Playwright and a Chromium.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomalens.prediction import Prediction
from anomalens.reporting.run_page import write_run_pages
from anomalens.runs.folder import JsonLines, file_stem, make_folders, write_pictures
from anomalens.runs.store import RunSummary
from anomalens.runs.stored_run import read_run
from anomalens.threads import map_ordered

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_WIDTH, _HEIGHT = 640, 480
_REPEATS = 5
# Scroll to the end in so many steps, a frame each.
_STEPS = 60
_SCROLL = """async (steps) => {
  const gaps = [];
  let before = performance.now();
  for (let step = 1; step <= steps; step++) {
    scrollTo(0, document.documentElement.scrollHeight * step / steps);
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    gaps.push(now - before);
    before = now;
  }
  return gaps;
}"""
_LOADED = "() => performance.getEntriesByType('navigation')[0].loadEventEnd"


def write_run(root: Path, count: int) -> Path:
    """Write images and their run below `root`; return the run's folder."""
    paths = [root / "photos" / f"{number:05d}.jpg" for number in range(count)]
    (root / "photos").mkdir()
    store = JsonLines(root / "run", {"method": "none", "backbone": "none", "size": 448}, paths)
    make_folders(store.folder, "none")
    rows, columns = np.mgrid[:_HEIGHT, :_WIDTH]
    blank = np.zeros((_HEIGHT // 8, _WIDTH // 8), np.float32)

    def draw(number: int) -> dict[str, Any]:
        random = np.random.default_rng(number)
        pattern = 120 + 60 * np.sin(columns / (3 + number % 17)) * np.cos(rows / (5 + number % 11))
        noise = random.integers(-25, 26, (_HEIGHT, _WIDTH, 3))
        Image.fromarray(np.clip(pattern[..., None] + noise, 0, 255).astype(np.uint8)).save(paths[number], quality=90)
        heat, score = blank.copy(), float(random.random())
        heat[10:30, 10 + number % 40 : 30 + number % 40] = score
        prediction = Prediction(
            str(paths[number]),
            _WIDTH,
            _HEIGHT,
            score,
            0.5,
            "this script",
            0.4,
            heat,
            (0.0, 1.0),
            "part",
            "none",
            "none",
        )
        stem = file_stem(number, paths[number])
        return prediction.to_dict() | write_pictures(store.folder, prediction, stem, "none")

    for _, row in map_ordered(range(count), draw):
        if isinstance(row, Exception):
            raise row
        store.append([row])
    store.finish(RunSummary(count, store.done()))
    return store.folder


def measure(page: Path, empty: Path) -> dict[str, float]:
    """Return milliseconds that a browser takes for both pages, their ratio, and frames a second while it scrolls."""
    from playwright.sync_api import sync_playwright

    browser = next(program for name in _BROWSERS if (program := shutil.which(name)))
    with sync_playwright() as programs:
        chromium = programs.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        loads: dict[str, list[float]] = {"page": [], "empty": []}
        for _ in range(_REPEATS):
            for name, path in (("empty", empty), ("page", page)):
                tab = chromium.new_page(viewport={"width": 1240, "height": 900})
                tab.goto(path.as_uri(), wait_until="load")
                tab.wait_for_timeout(100)
                loads[name].append(tab.evaluate(_LOADED))
                gaps = tab.evaluate(_SCROLL, _STEPS)
                tab.close()
        chromium.close()
    page_ms, empty_ms = (statistics.median(loads[name]) for name in ("page", "empty"))
    return {
        "page, ms": page_ms,
        "empty page, ms": empty_ms,
        "ratio": page_ms / empty_ms,
        "median frame while scrolling, ms": statistics.median(gaps),
        "longest frame while scrolling, ms": max(gaps),
    }


def main() -> None:
    """Make the run and its page, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = write_run(root, count)
        begin = time.perf_counter()
        [page, *others] = write_run_pages(read_run(folder), root / "report.html")
        seconds = time.perf_counter() - begin
        (root / "empty.html").write_text("<!doctype html><title>empty</title>", encoding="utf-8")
        print(f"{count} images: {count / seconds:.0f} images/s drawn, {page.stat().st_size / 1e6:.1f} MB", end="")
        print(f", {len(others)} further pages" if others else "")
        for words, value in measure(page, root / "empty.html").items():
            print(f"{words:36} {value:10.1f}")


if __name__ == "__main__":
    main()
