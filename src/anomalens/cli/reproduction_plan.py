"""Say beforehand what a reproduction fetches and runs, and how long it takes: `anomalens reproduce --plan`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalens.options import LoadOptions

if TYPE_CHECKING:
    from anomalens.evaluation.reproducing import Task

_TIMED = 3  # images that are looked at to know how long all take


def show_plan(chosen: "Sequence[Task]", *, as_json: bool) -> None:
    """Print what would be fetched, the data sets, and how long all takes on this machine."""
    from anomalens.cli.console import note, say, say_json, show
    from anomalens.datasets.catalog import differences
    from anomalens.datasets.layouts import open_dataset
    from anomalens.engines.needs import needs
    from anomalens.evaluation.evaluator import steps
    from anomalens.evaluation.published_numbers import published
    from anomalens.metrics.summary import SUMMARY_KEYS

    needed = {need.name: need for task in chosen for method in task.runs for need in needs(method.options)}
    files = [
        {"file": need.name, "here": need.present, "size": _size(need.bytes), "from": need.address, "place": need.place}
        for need in needed.values()
    ]
    rows, timed = [], dict[str, float | None]()
    total: float | None = 0.0
    sets: dict[str, Any] = {}
    for task in chosen:
        if task.data not in sets:
            sets[task.data] = open_dataset(task.data)
        dataset = sets[task.data]
        incomplete = differences(task.benchmark.key, dataset)
        images = steps(dataset.first(task.limit) if task.limit else dataset, task.config) * len(task.runs)
        # What was learned, and from which seed, changes no time.
        setting = repr(task.runs[0].options.replace(checkpoint=None, seed=0))
        if setting not in timed:
            images_timed = [sample.image for sample in dataset.samples()][:_TIMED]
            timed[setting] = _seconds(task.runs[0].options, images_timed)
        seconds = timed[setting]
        total = None if total is None or seconds is None else total + images * seconds
        rows.append(
            {
                "method": task.paper.method,
                "data set": task.benchmark.title,
                "checkpoint": "" if task.trainings else task.runs[0].options.checkpoint or "",
                "paper's numbers": sum(
                    bool(published(task.paper.method, task.benchmark.key, metric)) for metric in SUMMARY_KEYS
                ),
                "images": images,
                "s/image": seconds,
                "time": _duration(None if seconds is None else images * seconds),
                "trained first": ", ".join(f"seed {training.seed}" for training in task.trainings),
                "copy": "; ".join(incomplete) or "as the catalogue states",
            }
        )
    if as_json:
        say_json({"files": files, "runs": rows, "seconds": total})
        return
    show(files, typed=["file"], as_json=False)
    show(rows, typed=["method", "data set"], as_json=False)
    say(f"in all: {_duration(total)} on this machine, without fetching and training")
    note(f"seconds an image are the median of {_TIMED}, looked at one by one; larger batches on a GPU are faster")


def _seconds(options: LoadOptions, images: Sequence[Path]) -> float | None:
    """Return how many seconds an image takes, the median of a few; None where that cannot be known.

    Weights and checkpoint need not be here: random numbers take as long.
    """
    from statistics import median

    from anomalens.detection.loading import rehearsal_detector
    from anomalens.errors import AnomalensError

    try:
        detector = rehearsal_detector(options)
    except AnomalensError:
        return None
    times = []
    for image in images:
        began = time.perf_counter()
        detector.predict(image)
        times.append(time.perf_counter() - began)
    return median(times)


def _size(count: int | None) -> str:
    return "not known" if count is None else f"{count / 1e6:,.1f} MB"


def _duration(seconds: float | None) -> str:
    """Return a time in words: "40 s", "12 min", "3.5 h"."""
    if seconds is None:
        return "not measured"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
