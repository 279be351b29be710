"""One page about one evaluation: numbers, curves, histograms, and the images worth looking at.

The page is one file that fetches nothing: charts are inline SVG, pictures data URIs, and its own policy forbids the
browser anything else. It is made from what `evaluate` wrote, so it costs no pass through the network.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from anomalens.errors import InputError
from anomalens.evaluation.gallery import MASK_COLOURS
from anomalens.extras import optional
from anomalens.files import atomic_write
from anomalens.metrics.summary import SUMMARY_KEYS, Interval, image_intervals
from anomalens.reporting.benchmark_tables import METRIC_NAMES
from anomalens.reporting.charts import Line, Mark, curves, histogram
from anomalens.reporting.page import page, table, template

_GROUPS = (
    ("Worst", ("lowest anomalous", "highest normal"), "What the scores get most wrong, or least right."),
    ("Borderline", ("nearest threshold",), "Nearest to the threshold the detector decided by."),
    ("Best", ("highest anomalous", "lowest normal"), "What the scores get most clearly right."),
)
_TILES = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")
_FAILURES = 50  # failed images named on the page; scores.parquet has all

Row = dict[str, Any]


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Make the page of the evaluation in `folder`; returns its path, `folder`/report.html unless `out` is given.

    Raises:
        InputError: `folder` holds no evaluation, or a damaged one.
        MissingExtraError: pyarrow is missing. OSError: the page cannot be written.
    """
    root = Path(folder)
    metrics, kept, rows = _read(root)
    target = Path(out) if out is not None else root / "report.html"
    atomic_write(target, render(metrics, kept, rows, root / "gallery"))
    return target


def render(metrics: dict[str, Any], kept: dict[str, Any], rows: Sequence[Row], gallery: Path) -> str:
    """The page as text: the contents of metrics.json and report.json, the rows of scores.parquet, the pictures."""
    intervals = {name: _intervals(_of(rows, name)) for name in metrics["classes"]}
    names = list(metrics["classes"])
    sections = [_section(i, name, metrics, kept, _of(rows, name), gallery) for i, name in enumerate(names)]
    links = "".join(f'<li><a href="#class-{i}">{escape(name)}</a></li>' for i, name in enumerate(names))
    body = template("report.html").substitute(
        dataset=escape(metrics["dataset"]),
        method=escape(metrics["method"]),
        backbone=escape(metrics["backbone"]),
        size=metrics["protocol"]["image_size"],
        images=len(rows),
        classes="one class" if len(names) == 1 else f"{len(names)} classes",
        nav=f'<nav aria-label="classes"><ul>{links}</ul></nav>' if len(names) > 1 else "",
        tiles=_tiles(metrics, intervals),
        table=_class_table(metrics, intervals),
        sections="\n".join(sections),
        failures=_failures(rows),
        settings="\n".join(_settings(metrics["protocol"])),
    )
    colours = {name: f"rgb({red} {green} {blue})" for name, (red, green, blue) in MASK_COLOURS.items()}
    style = template("report.css").substitute(colours)
    return page(f"{metrics['dataset']}: {metrics['method']}", body, style)


def _read(root: Path) -> tuple[dict[str, Any], dict[str, Any], list[Row]]:
    parquet = optional("pyarrow.parquet", "data")
    if not (root / "metrics.json").is_file():
        below = sorted(path.parent for path in root.glob("**/metrics.json")) if root.is_dir() else []
        hint = f"; there is one in: {', '.join(map(str, below[:5]))}" if below else ""
        raise InputError(f"{root}: no evaluation in this folder (metrics.json is missing){hint}; run evaluate first")
    try:
        metrics = json.loads((root / "metrics.json").read_text(encoding="utf-8"))
        kept = json.loads((root / "report.json").read_text(encoding="utf-8"))
        rows = parquet.read_table(root / "scores.parquet").to_pylist()
    except (OSError, ValueError) as error:
        raise InputError(f"{root}: this evaluation is damaged ({error}); run evaluate again") from error
    return metrics, kept, rows


def _of(rows: Sequence[Row], name: str) -> list[Row]:
    return [row for row in rows if row["class_name"] == name]


def _intervals(rows: Sequence[Row]) -> dict[str, Interval | None]:
    good = [row for row in rows if row["score"] is not None]
    return image_intervals([row["score"] for row in good], [row["label"] for row in good])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _range(found: Interval | None) -> str:
    return "" if found is None else f"<small>{100 * found.low:.1f} to {100 * found.high:.1f}</small>"


def _tiles(metrics: dict[str, Any], intervals: dict[str, dict[str, Interval | None]]) -> str:
    only = next(iter(intervals.values())) if len(intervals) == 1 else {}
    return "\n".join(
        f"<div><dt>{METRIC_NAMES[key]}</dt><dd>{_number(metrics['mean'][key])}{_range(only.get(key))}</dd></div>"
        for key in _TILES
    )


def _class_table(metrics: dict[str, Any], intervals: dict[str, dict[str, Interval | None]]) -> str:
    rows = []
    for name, values in metrics["classes"].items():
        numbers = [f"{_number(values[key])} {_range(intervals[name].get(key))}" for key in SUMMARY_KEYS]
        rows.append([escape(name), str(values["n_normal"]), str(values["n_anomalous"]), *numbers])
    foot = ["mean", "", "", *(_number(metrics["mean"][key]) for key in SUMMARY_KEYS)]
    head = ("class", "normal", "anomalous", *METRIC_NAMES.values())
    return table(head, rows, foot if len(rows) > 1 else None, caption="numbers per class")


def _section(
    index: int, name: str, metrics: dict[str, Any], kept: dict[str, Any], rows: Sequence[Row], gallery: Path
) -> str:
    curve = kept["curves"][name]
    limit = metrics["protocol"]["aupro_limit"]
    scores: dict[int, list[float]] = {0: [], 1: []}
    for row in rows:
        if row["score"] is not None:
            scores[row["label"]].append(row["score"])
    threshold = metrics["protocol"]["calibration"]["threshold"]
    marks = [Mark(threshold, "threshold", "decision")]
    if curve["image_f1max_threshold"] is not None:
        marks.append(Mark(curve["image_f1max_threshold"], "best F1 at", "best"))
    charts = [
        curves("ROC", _lines(curve, "roc"), "false-positive rate", "true-positive rate"),
        curves("Precision and recall", _lines(curve, "pr"), "recall", "precision"),
        curves("Per-region overlap", [Line(curve["pro"], "", "first")], "false-positive rate", "overlap", limit),
        histogram("Image scores", scores[0], scores[1], marks),
    ]
    parts = [
        f'<section class="class" id="class-{index}">',
        f"<h2>{escape(name)}</h2>",
        f"<p>{_decisions(rows, threshold)}</p>",
        f'<div class="charts">{"".join(charts)}</div>',
        *_groups([case for case in kept["gallery"] if case["class"] == name], gallery),
        "</section>",
    ]
    return "\n".join(parts)


def _lines(curve: dict[str, Any], which: str) -> list[Line]:
    return [Line(curve[f"image_{which}"], "images", "first"), Line(curve[f"pixel_{which}"], "pixels", "second")]


def _decisions(rows: Sequence[Row], threshold: float) -> str:
    good = [row for row in rows if row["score"] is not None]
    normal = [row for row in good if not row["label"]]
    anomalous = [row for row in good if row["label"]]
    found = sum(row["decision"] == "anomalous" for row in anomalous)
    alarms = sum(row["decision"] == "anomalous" for row in normal)
    return (
        f"At the threshold {threshold:.4g} the detector found {found} of {len(anomalous)} anomalous images and "
        f"called {alarms} of {len(normal)} normal ones anomalous."
    )


def _groups(cases: Sequence[Row], gallery: Path) -> Iterator[str]:
    if not cases:
        return
    legend = {"both": "defect found", "missed": "defect missed", "extra": "marked without a defect"}
    keys = "".join(f'<li class="key {kind}">{words}</li>' for kind, words in legend.items())
    yield f'<ul class="legend" aria-label="colours of the mask pictures">{keys}</ul>'
    for title, sorts, words in _GROUPS:
        chosen = [case for sort in sorts for case in cases if case["sort"] == sort]
        if chosen:
            yield f'<h3>{title}</h3><p class="soft">{words}</p>'
            yield f'<div class="cases">{"".join(_case(case, gallery) for case in chosen)}</div>'


def _case(case: Row, gallery: Path) -> str:
    called = case["score"] > case["threshold"]
    right = called == bool(case["label"])
    name = Path(case["path"]).name
    truth = case["kind"] or ("anomalous" if case["label"] else "normal")
    pictures = [
        _picture(gallery / case["image"], f"{name}, {truth}"),
        _picture(gallery / case["heatmap"], f"heatmap over {name}, score {case['score']:.4g}"),
        _picture(gallery / case["masks"], f"mask of {name} against the truth")
        if "masks" in case
        else '<div class="none">no mask<br>given</div>',
    ]
    verdict = f'<span class="verdict {"right" if right else "wrong"}">{"anomalous" if called else "normal"}</span>'
    caption = f"{escape(name)}: called {verdict}, is {escape(truth)}; score {case['score']:.4g}"
    shown = f'<div class="pictures">{"".join(pictures)}</div>'
    return f'<figure class="case">{shown}<figcaption>{caption}</figcaption></figure>'


def _picture(path: Path, alt: str) -> str:
    kind = "image/png" if path.suffix == ".png" else "image/jpeg"
    try:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return '<div class="none">picture<br>missing</div>'
    return f'<img src="data:{kind};base64,{data}" alt="{escape(alt, quote=True)}">'


def _failures(rows: Sequence[Row]) -> str:
    failed = [row for row in rows if row["error"]]
    if not failed:
        return ""
    lines = [[escape(Path(row["path"]).name), escape(row["error"])] for row in failed[:_FAILURES]]
    more = f", of which the first {_FAILURES} are named" if len(failed) > _FAILURES else ""
    return f"<h2>Faults</h2><p>{len(failed)} images or masks could not be used{more}.</p>" + table(
        ("image", "reason"), lines, caption="faults", wordy=("reason",)
    )


def _settings(protocol: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in protocol.items():
        words = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _settings(value, f"{words}: ")
            continue
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        shown = "none" if value is None or text == "" else text
        yield f"<dt>{escape(words)}</dt><dd>{escape(shown)}</dd>"
