"""Run methods x data sets, one cell after the other, each in a folder of its own; resumable at any moment.

    DIR/cells/METHOD--DATA/          what `evaluate` writes, and cell.json, written last: settings, state, reason;
                                     before that unfinished/, from which a stopped cell goes on at the next image
    DIR/results.md, .csv, .html      the tables, written after every run, also an interrupted one

A cell that finished under the same settings is kept; one that failed, or that ran with other settings, weights or
data, is run again. Settings hold everything that decides a number: options, weights, version, the evaluation's own
settings, and the size and time of every file of the data set.
"""

import re
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from importlib import resources
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from anomalens._version import __version__
from anomalens.datasets import catalog
from anomalens.datasets.layouts import Dataset, open_dataset
from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector, split_options
from anomalens.errors import ConfigError, one_line
from anomalens.evaluation.benchmark_plan import BenchmarkData, BenchmarkMethod, BenchmarkPlan, refuse_repeated
from anomalens.evaluation.evaluator import EvaluationConfig, evaluate, steps
from anomalens.evaluation.repeats import mean_of_runs
from anomalens.evaluation.stored import checked_metrics
from anomalens.evaluation.unfinished import Unfinished
from anomalens.files import atomic_write, digest, file_digest, json_ready, stamp, write_json
from anomalens.locks import held_folder
from anomalens.methods.published.table import with_checkpoint
from anomalens.options import BUNDLED, LoadOptions
from anomalens.typed_values import checked_value
from anomalens.untrusted import read_json

State = Literal["done", "failed", "not run"]
Value = TypeVar("Value")

BUNDLED_FILES = Path(str(resources.files("anomalens"))) / BUNDLED
"""What is shipped with the package: its weights, their calibration, and prompts learned with them."""


@dataclass(frozen=True)
class BenchmarkCell:
    """Hold one method on one data set, and what came of it."""

    # As it was asked for, which may be "auto".
    method: str
    # Label of the method and name of the data set, as the tables show them.
    label: str
    data: str
    # Data set whose published numbers to compare with.
    published: str
    folder: Path
    state: State = "not run"
    # Why it failed, in one line.
    reason: str = ""
    # The content of metrics.json.
    metrics: dict[str, Any] | None = None
    # What the data lacks of the complete published set, a line each.
    incomplete: tuple[str, ...] = ()
    # Name of the method's runs that differ by their seed alone; None where it has one run.
    group: str | None = None


class BenchmarkProgress(Protocol):
    """Follow how a benchmark goes on."""

    def begin(self, cell: BenchmarkCell, images: int) -> None:
        """Note that a cell of so many images starts."""

    def image(self) -> None:
        """Note that an image is done."""

    def end(self, cell: BenchmarkCell, kept: bool) -> None:
        """Note that a cell is over; `kept`: it had finished in an earlier run."""


@dataclass(frozen=True)
class _Attempt(Generic[Value]):
    """Hold the value of a step, or the error that ended it. Cells ask for the value and fail with the error."""

    value: Value | None = None
    error: Exception | None = None

    @classmethod
    def of(cls, step: Callable[[], Value]) -> "_Attempt[Value]":
        """Take the step. Only an interrupt passes through."""
        try:
            return cls(step())
        except Exception as error:
            return cls(error=error)

    def get(self) -> Value:
        """Return the value, or raise the error."""
        if self.value is None:
            raise self.error or ValueError("a step gave no value")
        return self.value


@dataclass(frozen=True)
class _Data:
    """Hold a data set of the plan as it lies on disk."""

    plan: BenchmarkData
    dataset: _Attempt[Dataset]

    @classmethod
    def open(cls, plan: BenchmarkData, max_pixels: int) -> "_Data":
        opening = partial(
            open_dataset,
            plan.path,
            exclude=plan.exclude,
            normal_names=plan.normal_names,
            max_pixels=max_pixels,
        )
        if plan.limit is None:
            return cls(plan, _Attempt.of(opening))
        limit = plan.limit
        return cls(plan, _Attempt.of(lambda: opening().first(limit)))

    @property
    def name(self) -> str:
        """Return the name in the tables: the plan's, else the data set's, else its folder's."""
        if self.plan.name:
            return self.plan.name
        if self.dataset.value:
            return self.dataset.value.name
        return Path(self.plan.path.rpartition(":")[2]).name or self.plan.path

    @property
    def published(self) -> str:
        """Return the name of the data set whose published numbers to compare with."""
        return self.plan.published or (self.dataset.value.name if self.dataset.value else self.name)

    def options(self, method: BenchmarkMethod) -> LoadOptions:
        """Return the options of `method`, with what its authors published and did not learn from this data."""
        dataset = self.dataset.value
        return with_checkpoint(method.options, [self.published, *(catalog.keys_of(dataset) if dataset else ())])

    def cell(self, method: BenchmarkMethod, root: Path) -> BenchmarkCell:
        """Return the cell of `method` on this data, as it is before it is run."""
        dataset = self.dataset.value
        published = self.published
        try:
            incomplete = catalog.differences(published, dataset) if dataset else ()
        except ConfigError:  # a set of the user's own has no published numbers either
            incomplete = ()
        if self.plan.limit is not None:
            incomplete = (f"at most {self.plan.limit} images of each label and class", *incomplete)
        folder = root / "cells" / f"{_slug(method.label)}--{_slug(self.name)}"
        return BenchmarkCell(
            method.options.method, method.label, self.name, published, folder, incomplete=incomplete, group=method.group
        )


def run(plan: BenchmarkPlan, out: str | Path, progress: BenchmarkProgress | None = None) -> list[BenchmarkCell]:
    """Run all unfinished cells of `plan` and return all cells, methods in the outer order.

    Whatever goes wrong with a method or a data set is the reason of its cells; the others are run. An interrupt
    passes through, and what had finished stays.

    Raises ConfigError when `out` cannot be written, another run is writing to it, or two data sets share a name.
    """
    with held_folder(Path(out), "benchmark"):
        everything = [_Data.open(data, plan.max_pixels) for data in plan.data]
        refuse_repeated([data.name for data in everything], "data sets", "[[data]] a name")
        cells = []
        for method in plan.methods:
            # Loaded when the first cell needs it, and once for all that take the same checkpoint.
            config = method.evaluation(plan.evaluation)
            load = lru_cache(maxsize=1)(partial(_load, method.options, config))
            for data in everything:
                cell = data.cell(method, Path(out))
                options = data.options(method)
                detector, settings = partial(load, options.checkpoint), _settings(options, data, config)
                finished = _read(cell, settings)
                kept = finished.state == "done"
                if not kept:
                    finished = _run(cell, detector, data.dataset, settings, config, progress)
                cells.append(finished)
                if progress:
                    progress.end(finished, kept)
        return cells


def collect(plan: BenchmarkPlan, out: str | Path) -> list[BenchmarkCell]:
    """Return all cells of `plan` as they stand on disk, without running any."""
    everything = [_Data.open(data, plan.max_pixels) for data in plan.data]
    cells = []
    for method in plan.methods:
        for data in everything:
            cell = data.cell(method, Path(out))
            options = data.options(method)
            cells.append(_read(cell, _settings(options, data, method.evaluation(plan.evaluation))))
    return cells


def with_means(cells: Sequence[BenchmarkCell]) -> list[BenchmarkCell]:
    """Return the cells with one more behind the last run of each group and data set: the mean of all its runs.

    There is none where a run has not finished.
    """
    everything: list[BenchmarkCell] = []
    for cell in cells:
        everything.append(cell)
        runs = [other for other in cells if cell.group and (other.group, other.data) == (cell.group, cell.data)]
        finished = [run.metrics for run in runs if run.metrics is not None]
        if len(runs) > 1 and cell is runs[-1] and len(finished) == len(runs):
            label = f"{cell.group}, mean of {len(runs)} seeds"
            everything.append(replace(cell, label=label, group=None, metrics=mean_of_runs(finished)))
    return everything


@dataclass(frozen=True)
class _Measured:
    """Hold a detector, and the options that it is taught with where classes are taught."""

    detector: Detector
    fit_options: dict[str, Any]


def _load(options: LoadOptions, config: EvaluationConfig, checkpoint: str | None) -> _Attempt[_Measured]:
    """Build the detector of a method, with one of its checkpoints."""

    def load() -> _Measured:
        own, others = split_options(options) if config.shots else ({}, options)
        return _Measured(load_detector(others.replace(checkpoint=checkpoint)), own)

    return _Attempt.of(load)


def _run(
    cell: BenchmarkCell,
    detector: Callable[[], _Attempt[_Measured]],
    dataset: _Attempt[Dataset],
    settings: dict[str, Any] | None,
    config: EvaluationConfig,
    progress: BenchmarkProgress | None,
) -> BenchmarkCell:
    """Run one cell and write its files. Whatever goes wrong is its reason."""
    began = time.perf_counter()
    cell.folder.mkdir(parents=True, exist_ok=True)
    # Without cell.json the cell counts as unfinished.
    for stale in ("cell.json", "error.txt"):
        (cell.folder / stale).unlink(missing_ok=True)
    try:
        images = steps(dataset.get(), config)
        measured = detector().get()
        if progress:
            progress.begin(cell, images)
        result = evaluate(
            measured.detector,
            dataset.get(),
            config,
            fit_options=measured.fit_options,
            progress=progress.image if progress else None,
            unfinished=Unfinished(cell.folder / "unfinished", settings),
        )
        result.write(cell.folder)
        finished = replace(cell, state="done", metrics=result.to_dict())
    except Exception as error:  # one broken cell must not cost the others
        atomic_write(cell.folder / "error.txt", traceback.format_exc())
        finished = replace(cell, state="failed", reason=one_line(error))
    record = {
        "method": cell.label,
        "data": cell.data,
        "state": finished.state,
        "reason": finished.reason,
        "seconds": round(time.perf_counter() - began, 3),
        "settings": settings,
    }
    write_json(cell.folder / "cell.json", record)
    return finished


def _read(cell: BenchmarkCell, settings: dict[str, Any] | None) -> BenchmarkCell:
    """Return the cell as an earlier run under the same settings left it; as it is where there is none, or a damaged."""
    try:
        record = read_json(cell.folder / "cell.json")
        if record["settings"] != json_ready(settings):
            return cell
        state: State = checked_value("state", record["state"], State)
        reason = checked_value("reason", record["reason"], str)
        metrics = checked_metrics(read_json(cell.folder / "metrics.json")) if state == "done" else None
        return replace(cell, state=state, reason=reason, metrics=metrics)
    except (ConfigError, KeyError, TypeError):
        return cell


def _settings(options: LoadOptions, data: _Data, config: EvaluationConfig) -> dict[str, Any] | None:
    """Return all that decides a cell's numbers; None where the data cannot be opened.

    Options left at their default are not named, so that a cell stays finished when a new option is added.
    """
    dataset = data.dataset.value
    if dataset is None:
        return None
    shipped = None
    if options.backbone == BUNDLED:
        # The calibration names the hash of the weights it was made with, so it stands for them too.
        prompts = [
            path for path in BUNDLED_FILES.glob("prompts/*.safetensors") if options.method in ("auto", path.stem)
        ]
        shipped = {path.name: file_digest(path) for path in (BUNDLED_FILES / "calibration.json", *sorted(prompts))}
    files = {name: stamp(getattr(options, name)) for name in ("backbone", "checkpoint", "calibration")}
    # Cells of earlier versions, which knew of neither, stay finished.
    files |= {name: stamp(path) for name in ("recipe", "roi") if (path := getattr(options, name)) is not None}
    # An exported detector; a folder that happens to be called as a method is, is not meant.
    files["method"] = stamp(options.method) if Path(options.method).is_file() else None
    speed = LoadOptions.names("speed")
    return {
        "options": {name: value for name, value in options.chosen().items() if name not in speed},
        "files": files,
        "shipped": shipped,
        "evaluation": _named(config),
        "data": {"layout": dataset.layout, "content": _fingerprint(dataset)},
        "version": __version__,
    }


def _named(config: EvaluationConfig) -> dict[str, Any]:
    """Return the settings of an evaluation; draws are named only where there are any, as in earlier versions."""
    return {name: value for name, value in asdict(config).items() if config.shots or name not in ("shots", "draws")}


def _fingerprint(dataset: Dataset) -> str:
    """Return a hash of names, labels, sizes and times of all images and masks."""
    samples = [
        (
            name,
            sample.id,
            sample.label,
            sample.split,
            sample.mask and sample.mask.name,
            stamp(sample.image),
            stamp(sample.mask),
        )
        for name, members in dataset.classes.items()
        for sample in members
    ]
    return digest(repr(samples))[:16]


def _slug(text: str) -> str:
    """Return a file name of letters, digits and a hash, because two labels may differ in other signs only."""
    plain = re.sub(r"[^\w.+-]+", "_", text, flags=re.ASCII).strip("._")[:60]
    return f"{plain}-{digest(text)[:6]}"
