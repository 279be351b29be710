"""Make one page about one evaluation: numbers, curves, histograms, and the images worth looking at.

The page is one file that fetches nothing: charts are inline SVG, pictures data URIs, and its own policy forbids the
browser anything else. It is made from what `evaluate` wrote, so it costs no pass through the network.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomalens.errors import ConfigError
from anomalens.evaluation.gallery import MASK_COLOURS
from anomalens.evaluation.result import ImageRow
from anomalens.evaluation.stored import StoredEvaluation, read_evaluation
from anomalens.files import atomic_write
from anomalens.reporting.charts import Chart, Mark, curve_chart, histogram
from anomalens.reporting.rendering import render, setting_lines
from anomalens.untrusted import read_bytes

_GROUPS = (
    ("Worst", ("lowest anomalous", "highest normal"), "What the scores get most wrong, or least right."),
    ("Borderline", ("nearest threshold",), "Nearest to the threshold the detector decided by."),
    ("Best", ("highest anomalous", "lowest normal"), "What the scores get most clearly right."),
)
_LARGEST_PICTURE = 2**22  # bytes; the gallery's are about 40 kB
_PICTURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n": "png"}  # how a file of each kind begins
_FAULTS_NAMED = 50  # images that could not be used and are named on the page; scores.csv has all


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Make the page of the evaluation in `folder`; return its path, `folder`/report.html unless `out` is given.

    Raises InputError where `folder` holds no evaluation or a damaged one, OSError where the page cannot be written.
    """
    target = Path(out) if out is not None else Path(folder) / "report.html"
    atomic_write(target, _page(read_evaluation(Path(folder))))
    return target


def _page(stored: StoredEvaluation) -> str:
    metrics = stored.metrics
    return render(
        "evaluation.html",
        metrics=metrics,
        columns=list(metrics["mean"]),
        # Draws have a row each for the same image.
        images=len({(row.class_name, row.path) for row in stored.rows}),
        classes=[_class_values(stored, name) for name in metrics["classes"] if name in stored.curves],
        numbers=metrics["classes"],
        decided=any("decisions" in numbers for numbers in metrics["classes"].values()),
        unmeasured={name: row["reason"] for name, row in metrics["classes"].items() if row.get("reason")},
        shots=metrics["protocol"].get("shots"),
        draws=metrics["protocol"].get("draws"),
        unusable=[(_short(row.path), row.unusable) for row in stored.rows if row.unusable and not row.draw],
        faults=[
            (_short(path), error)
            for path, error in dict.fromkeys((row.path, row.error) for row in stored.rows)
            if error
        ],
        faults_named=_FAULTS_NAMED,
        settings=list(setting_lines(metrics["protocol"])),
        mask_colours={name: f"rgb({red} {green} {blue})" for name, (red, green, blue) in MASK_COLOURS.items()},
    )


def _short(path: str) -> str:
    """Name an image by its last folder and file: files of different folders often have the same name."""
    return "/".join(Path(path).parts[-2:])


def _threshold(stored: StoredEvaluation, name: str) -> float:
    """Return the threshold that a class was decided by; earlier versions knew of one for all classes."""
    threshold: float = stored.metrics["protocol"]["calibration"]["threshold"]
    own: float | None = stored.curves[name].get("threshold")
    return threshold if own is None else own


def _class_values(stored: StoredEvaluation, name: str) -> dict[str, Any]:
    """Return what the page shows of one class."""
    # Of several draws the first one is shown.
    rows = [row for row in stored.rows if row.class_name == name and row.score is not None and not row.draw]
    normal, anomalous = ([row for row in rows if row.label == label] for label in (0, 1))
    threshold = _threshold(stored, name)
    calibration = stored.metrics["protocol"]["calibration"]
    cases = [case for case in stored.cases if case["class"] == name]
    return {
        "name": name,
        "numbers": stored.metrics["classes"][name],
        "intervals": stored.metrics.get("intervals", {}).get(name, {}),
        "threshold": f"{threshold:.4g}",
        # A class that was taught for this evaluation has a threshold of its own.
        "source": calibration.get("source") if calibration["threshold"] == threshold else None,
        "normal": len(normal),
        "anomalous": len(anomalous),
        "unusable": sum(row.decision == "unusable" for row in rows),
        "alarms": sum(row.decision == "anomalous" for row in normal),
        "found": sum(row.decision == "anomalous" for row in anomalous),
        "charts": _charts(stored, name, normal, anomalous, threshold),
        "groups": [
            (title, words, [_case_values(case, stored.folder / "gallery") for case in chosen])
            for title, sorts, words in _GROUPS
            if (chosen := [case for sort in sorts for case in cases if case["sort"] == sort])
        ],
    }


def _charts(
    stored: StoredEvaluation, name: str, normal: list[ImageRow], anomalous: list[ImageRow], threshold: float
) -> list[Chart]:
    kept = stored.curves[name]
    roc, precision_recall = (
        [(kept[f"image_{curve}"], "images", "first"), (kept[f"pixel_{curve}"], "pixels", "second")]
        for curve in ("roc", "pr")
    )
    marks = [Mark(threshold, "threshold", "decision")]
    if kept["image_f1max_threshold"] is not None:
        marks.append(Mark(kept["image_f1max_threshold"], "best F1 at", "best"))
    normal_scores, anomalous_scores = (
        [row.score for row in rows if row.score is not None] for rows in (normal, anomalous)
    )
    limit = stored.metrics["protocol"]["aupro_limit"]
    return [
        curve_chart("ROC", roc, "false-positive rate", "true-positive rate"),
        curve_chart("Precision and recall", precision_recall, "recall", "precision"),
        curve_chart("Per-region overlap", [(kept["pro"], "", "first")], "false-positive rate", "overlap", limit),
        histogram("Image scores", normal_scores, anomalous_scores, marks),
    ]


def _case_values(case: Mapping[str, Any], gallery: Path) -> dict[str, Any]:
    """Return what the page shows of one example case."""
    called = case.get("decision") or ("anomalous" if case["score"] > case["threshold"] else "normal")
    label = "anomalous" if case["label"] else "normal"
    return {
        "name": Path(case["path"]).name,
        "truth": case["kind"] or label,
        "called": called,
        "right": called == label,
        "score": f"{case['score']:.4g}",
        "has_truth": "masks" in case,
        **{picture: _data_uri(gallery, case[picture]) for picture in ("image", "heatmap", "masks") if picture in case},
    }


def _data_uri(gallery: Path, name: str) -> str | None:
    """Return a picture of the gallery as a data URI; None where it cannot be read, or is no picture of the gallery."""
    picture = gallery / name
    try:
        # A name, or a link, could lead to any file of whoever makes the page.
        if Path(name).name != name or picture.resolve().parent != gallery.resolve():
            return None
        content = read_bytes(picture, named="picture", most_bytes=_LARGEST_PICTURE)
    except (ConfigError, OSError, ValueError):
        return None
    kind = next((kind for start, kind in _PICTURES.items() if content.startswith(start)), None)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}" if kind else None
