"""Make pages about a run of `detect`: every image with its pictures, the worst first, and what the run was.

A page is one file that fetches nothing: pictures are data URIs, and its own policy forbids the browser everything but
its own script, which it knows by its hash. A page holds at most 1,000 images in at most 20 MB; further images lie on
further pages beside it. Without the script all can be read and printed; filters and the threshold need it.
"""

import base64
import hashlib
import heapq
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from anomalens.files import atomic_write
from anomalens.names import on_one_line
from anomalens.reporting.charts import Mark, histogram
from anomalens.reporting.rendering import Progress, render, setting_lines
from anomalens.reporting.thumbnails import Thumbnails, draw_thumbnails
from anomalens.runs.store import Row, RunCounts
from anomalens.runs.stored_run import Run
from anomalens.threads import map_or_raise

PAGE = 1000
"""Images on a page."""

_MOST_PAGES = 20
# Bytes of the pictures of a page (in base64 they take a third more), and of an image where there are few.
_PICTURE_BYTES, _MOST_OF_AN_IMAGE = 13_500_000, 90_000
# Longest side of a picture in pixels, on a page of few images and of many.
_LARGE, _SMALL, _FEW = 560, 288, 200
# Images that failed and are named; the rows have all.
_FAILURES_NAMED = 200
# Scores that the page counts with: all of them, or so many evenly spaced in their order.
_LEVELS = 4000
# Letters of a path that are shown.
_LONGEST_NAME = 1000
# Folders and objects that can be chosen.
_CHOICES = 200
_ORDER = {"anomalous": 0, "unusable": 1, "normal": 2}


@dataclass
class _Overview:
    """Hold what one reading of all rows gives: counts, scores, and the rows to be shown."""

    counts: RunCounts = field(default_factory=RunCounts)
    # Distances of the scores of judged images to their thresholds.
    distances: "array[float]" = field(default_factory=lambda: array("d"))
    # Scores by label, "normal" and "anomalous".
    scores: dict[str, "array[float]"] = field(default_factory=lambda: {"normal": array("d"), "anomalous": array("d")})
    thresholds: Counter[float] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    # How many judged images have each of the numbers that need explaining.
    measures: Counter[str] = field(default_factory=Counter)

    def judged(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield the rows that are no failures; count all."""
        for row in rows:
            self.counts += RunCounts.of(row)
            if "error" in row:
                if len(self.failures) < _FAILURES_NAMED:
                    self.failures.append((_shown(row["path"]), on_one_line(row["error"])))
                continue
            if row["label"] != "unusable":
                self.distances.append(row["score"] - row["threshold"])
                self.scores[row["label"]].append(row["score"])
                self.thresholds[row["threshold"]] += 1
                self.sources[row.get("threshold_source", "")] += 1
                self.measures.update({"p_value", "confidence"} & row.keys())
            yield row


def write_run_pages(run: Run, out: Path, progress: Progress | None = None) -> list[Path]:
    """Write the page of a run to `out`, further ones beside it as `NAME-2.html`; return their paths in order.

    The first page is written last. `progress` is called with the number of images drawn and of images to draw.
    Raises InputError where a row is damaged, OSError where a page cannot be written.
    """
    overview = _Overview()
    rows = heapq.nsmallest(_MOST_PAGES * PAGE, overview.judged(run.rows()), key=standing_out)
    cuts = [rows[start : start + PAGE] for start in range(0, len(rows), PAGE)] or [[]]
    paths = [out, *(out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(2, len(cuts) + 1))]
    shared = _shared_values(run, overview, rows)
    for number in range(len(cuts), 0, -1):
        done = sum(map(len, cuts[number:]))
        cards = []
        for card in _cards(run, cuts[number - 1], shared["common"]):
            cards.append(card)
            if progress:
                progress(done + len(cards), len(rows))
        page = render("run.html", cards=cards, number=number, pages=[path.name for path in paths], **shared)
        atomic_write(paths[number - 1], page)
    return paths


def standing_out(row: Row) -> tuple[int, float]:
    """Return a key by which the worst images come first, and those that could not be judged before the normal ones."""
    return _ORDER[row["label"]], row["threshold"] - row["score"]


def _cards(run: Run, rows: Sequence[Row], common: int) -> Iterator[dict[str, Any]]:
    """Yield what the page shows of each image; pictures are drawn in background threads."""
    most = min(_MOST_OF_AN_IMAGE, _PICTURE_BYTES // max(len(rows), 1))
    draw = partial(draw_thumbnails, run, side=_LARGE if len(rows) <= _FEW else _SMALL, most_bytes=most)
    for row, pictures in map_or_raise(rows, draw):
        yield _card(row, pictures, common)


def _card(row: Row, pictures: Thumbnails, common: int) -> dict[str, Any]:
    *folders, name = _parts(row["path"])
    if "frame" in row:
        name = f"{name}, frame {row['frame']} at {row.get('time', 0):.2f} s"
    return {
        "row": row,
        "pictures": pictures,
        "name": name,
        "folder": "/".join(folders[common:]),
        "object": _shown(row.get("object") or ""),
        "reason": on_one_line(row.get("reason") or ""),
        "note": on_one_line(row.get("note") or ""),
    }


def _parts(path: str) -> list[str]:
    """Return the folders and the name of a path in text form, each on one line."""
    return _shown(path).replace(os.sep, "/").split("/")


def _shown(name: str) -> str:
    """Return a name on one line, its middle left out where it is longer than any file's."""
    half = _LONGEST_NAME // 2
    line = on_one_line(name)
    return line if len(line) <= _LONGEST_NAME else f"{line[:half]} … {line[-half:]}"


def _common(folders: Sequence[Sequence[str]]) -> int:
    """Return how many of the first parts all folders share."""
    return sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False)))


def _shared_values(run: Run, overview: _Overview, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what all pages of a run show."""
    script = render("run.js")
    folders = [_parts(row["path"])[:-1] for row in rows]
    common = _common(folders)
    threshold = overview.thresholds.most_common(1)[0][0] if overview.thresholds else None
    chart = histogram(
        "Scores",
        overview.scores["normal"],
        overview.scores["anomalous"],
        [Mark(threshold, "threshold", "decision")] if threshold is not None else [],
    )
    return {
        "title": run.name,
        "counts": overview.counts,
        "shown": len(rows),
        "inputs": max(run.total, overview.counts.rows),
        "common": common,
        "folders": sorted({"/".join(parts[common:]) for parts in folders})[:_CHOICES],
        "objects": sorted({_shown(row.get("object") or "") for row in rows})[:_CHOICES],
        "chart": chart,
        "threshold": threshold,
        "several_thresholds": len(overview.thresholds) > 1,
        "recount": _recount(overview, threshold, chart.axes),
        "words": _in_words(run, overview, threshold),
        "settings": [*setting_lines(run.settings), *setting_lines(run.versions, "version: ")],
        "failures": overview.failures,
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    }


def _recount(overview: _Overview, threshold: float | None, axes: Any) -> dict[str, Any] | None:
    """Return what the page needs to count again at another threshold; None where no image was judged.

    Scores are sorted, and moved by as much as an image's own threshold differs from the usual one.
    """
    if threshold is None:
        return None
    scores = np.sort(np.asarray(overview.distances)) + threshold
    if len(scores) > _LEVELS:
        scores = scores[np.linspace(0, len(scores) - 1, _LEVELS).round().astype(int)]
    low, high = float(min(scores[0], threshold)), float(max(scores[-1], threshold))
    margin = (high - low or 1.0) * 0.01
    return {
        "threshold": threshold,
        "scores": [float(f"{score:.7g}") for score in scores],
        "judged": len(overview.distances),
        "anomalous": overview.counts.anomalous,
        "low": low - margin,
        "high": high + margin,
        "axis": [axes[0].low, axes[0].high, axes[0].start, axes[0].end],
    }


def _in_words(run: Run, overview: _Overview, threshold: float | None) -> list[str]:
    """Say in sentences how the images were judged."""
    settings = run.settings
    further = settings.get("extra_sizes")
    sides = [settings.get("size"), *(further if isinstance(further, list) else ())]
    seen = " and ".join(str(side) for side in sides if isinstance(side, int))
    words = []
    if "method" in settings:
        backbone = settings.get("backbone", "unknown")
        words.append(f"The method {settings['method']} judged the images with the backbone {backbone}.")
    if "history" in settings:
        words.append("These are inspections of a history; each was judged as the service was set at its time.")
    if seen:
        words.append(f"It looks at every image with {seen} pixels a side.")
    if seen and settings.get("tile"):
        words[-1] += f" Large images are cut into tiles of {settings['tile']} pixels."
    if "set" in settings:
        words.append("The images of the run were compared with each other: what few of them show stands out.")
    if threshold is not None:
        source = overview.sources.most_common(1)[0][0]
        origin = f" This threshold comes from: {source}." if source else ""
        words.append(f"An image is called anomalous where its score is above {threshold:.4g}.{origin}")
    if overview.measures["p_value"]:
        words.append("A p-value says how rare so high a score is among good images: 0.05 is one of twenty.")
    if overview.measures["confidence"]:
        words.append(
            "Confidence says how far a score lies from the threshold, from 50 (at it) to 100; it is no probability."
        )
    if overview.counts.unusable:
        words.append("An image that cannot be judged is called unusable, never normal.")
    return [on_one_line(sentence) for sentence in words]
