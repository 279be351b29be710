"""Methods x data sets, one cell after the other, each in a folder of its own; resumable at any moment.

    DIR/cells/METHOD--DATA/          what `evaluate` writes, and cell.json, written last: settings, state, reason
    DIR/results.md, .csv, .html      the tables (see tables.py), written after every run, also an interrupted one

A cell that finished under the same settings is kept; one that failed, or that ran with other settings, weights or
data, is run again. Settings hold everything that decides a number: method, options, sizes, prompts, weights, version,
and the size and time of every file of the data set.
"""

import hashlib
import json
import re
import time
import traceback
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Protocol

from anomalens._version import __version__
from anomalens.datasets import catalog
from anomalens.datasets.layouts import Dataset, open_dataset
from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.errors import AnomalensError, ConfigError
from anomalens.evaluation.evaluator import check_folder, evaluate, tested
from anomalens.evaluation.plan import DataPlan, MethodPlan, Plan
from anomalens.files import atomic_write, file_digest, stamp, write_json
from anomalens.options import BUNDLED

State = Literal["done", "failed", "not run"]

BUNDLED_FILES = Path(str(resources.files("anomalens"))) / BUNDLED
"""What is shipped with the package: its weights, their calibration, and prompts learned with them."""


@dataclass(frozen=True)
class Cell:
    """One method on one data set, and what came of it."""

    method: str  # name of the method
    label: str  # of the method in the tables
    data: str  # name of the data set in the tables
    published: str  # key of the published numbers
    folder: Path
    state: State = "not run"
    reason: str = ""  # why it failed, in one line
    metrics: dict[str, Any] | None = None  # the content of metrics.json
    incomplete: tuple[str, ...] = ()  # what sets the data apart from the complete benchmark


class Watcher(Protocol):
    """What is told of progress."""

    def begin(self, cell: Cell, images: int) -> None:
        """A cell starts, of so many images."""

    def image(self) -> None:
        """An image is done."""

    def end(self, cell: Cell, kept: bool) -> None:
        """A cell is over; `kept`: it had finished before."""


def run(plan: Plan, out: str | Path, watcher: Watcher | None = None) -> list[Cell]:
    """Run all unfinished cells of `plan` and return all cells, methods in the outer order.

    Whatever goes wrong with a method or a data set is the reason of its cells; the others are run. An interrupt
    passes through, and what had finished stays.

    Raises:
        ConfigError: `out` cannot be written, two data sets share a name; MissingExtraError: pyarrow is missing.
    """
    root = Path(out)
    check_folder(root)
    opened = [(data, _open(data)) for data in plan.data]
    names = [_name(data, found) for data, found in opened]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"several data sets are called {twice[0]!r}; give each [[data]] a name of its own")
    cells = []
    for method in plan.methods:
        detector: Detector | str | None = None  # loaded when the first cell needs it; a str is why it cannot be
        for (data, dataset), name in zip(opened, names, strict=True):
            cell = _cell(root, method, data, dataset, name)
            wanted = None if isinstance(dataset, str) else _settings(method, plan, dataset)
            before = _finished(cell, wanted)
            if before:
                cells.append(before)
                if watcher:
                    watcher.end(before, True)
                continue
            if detector is None and not isinstance(dataset, str):
                detector = _load(method)
            done = _run(cell, detector, dataset, wanted, plan, watcher)
            cells.append(done)
            if watcher:
                watcher.end(done, False)
    return cells


def collect(plan: Plan, out: str | Path) -> list[Cell]:
    """All cells of `plan` as they stand on disk, without running any."""
    cells = []
    for method in plan.methods:
        for data in plan.data:
            dataset = _open(data)
            cell = _cell(Path(out), method, data, dataset, _name(data, dataset))
            wanted = None if isinstance(dataset, str) else _settings(method, plan, dataset)
            cells.append(_finished(cell, wanted) or _read(cell, wanted) or cell)
    return cells


def _run(
    cell: Cell,
    detector: Detector | str | None,
    dataset: Dataset | str,
    wanted: dict[str, Any] | None,
    plan: Plan,
    watcher: Watcher | None,
) -> Cell:
    began = time.perf_counter()
    cell.folder.mkdir(parents=True, exist_ok=True)
    (cell.folder / "cell.json").unlink(missing_ok=True)  # from here on the cell is unfinished
    failed = dataset if isinstance(dataset, str) else detector if isinstance(detector, str) else None
    metrics = None
    if failed is None:
        assert isinstance(detector, Detector)
        assert isinstance(dataset, Dataset)
        try:
            images = sum(map(len, tested(dataset).values()))
            if watcher:
                watcher.begin(cell, images)
            found = evaluate(detector, dataset, plan.evaluation, progress=watcher.image if watcher else None)
            found.write(cell.folder)
            metrics = found.to_dict()
        except Exception as error:  # one broken cell must not cost the others
            failed = _reason(error)
            atomic_write(cell.folder / "error.txt", traceback.format_exc())
    state: State = "done" if failed is None else "failed"
    done = Cell(**{**_fields(cell), "state": state, "reason": failed or "", "metrics": metrics})
    record = {
        "method": cell.label,
        "data": cell.data,
        "state": state,
        "reason": done.reason,
        "seconds": round(time.perf_counter() - began, 3),
        "settings": wanted,
    }
    write_json(cell.folder / "cell.json", record)
    return done


def _finished(cell: Cell, wanted: dict[str, Any] | None) -> Cell | None:
    found = _read(cell, wanted)
    return found if found and found.state == "done" else None


def _read(cell: Cell, wanted: dict[str, Any] | None) -> Cell | None:
    """The cell as it was left by a run under the same settings; None where there is none, or it is damaged."""
    try:
        record = json.loads((cell.folder / "cell.json").read_text(encoding="utf-8"))
        if record["settings"] != json.loads(json.dumps(wanted)):
            return None
        metrics = None
        if record["state"] == "done":
            metrics = json.loads((cell.folder / "metrics.json").read_text(encoding="utf-8"))
        outcome = {"state": record["state"], "reason": record["reason"], "metrics": metrics}
        return Cell(**{**_fields(cell), **outcome})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fields(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in Cell.__dataclass_fields__}


def _cell(root: Path, method: MethodPlan, data: DataPlan, dataset: Dataset | str, name: str) -> Cell:
    own = name if isinstance(dataset, str) else dataset.name
    published = data.published or own
    incomplete: tuple[str, ...] = ()
    if not isinstance(dataset, str):
        try:
            incomplete = catalog.differences(published, dataset)
        except ConfigError:  # a set of the user's own has no published numbers either
            incomplete = ()
    folder = root / "cells" / f"{_slug(method.label)}--{_slug(name)}"
    return Cell(method.name, method.label, name, published, folder, incomplete=incomplete)


def _slug(text: str) -> str:
    """A file name of letters, digits and a hash, because two labels may differ in other signs only."""
    plain = re.sub(r"[^\w.+-]+", "_", text, flags=re.ASCII).strip("._")[:60]
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _name(data: DataPlan, dataset: Dataset | str) -> str:
    if data.name:
        return data.name
    return Path(data.path.rpartition(":")[2]).name or data.path if isinstance(dataset, str) else dataset.name


def _open(data: DataPlan) -> Dataset | str:
    try:
        return open_dataset(data.path)
    except AnomalensError as error:
        return _reason(error)


def _load(method: MethodPlan) -> Detector | str:
    try:
        return load_detector(method.name, **method.arguments)
    except Exception as error:  # a method that cannot be built is the reason of its cells
        return _reason(error)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, AnomalensError) else f"{type(error).__name__}: {text}"


def _settings(method: MethodPlan, plan: Plan, dataset: Dataset) -> dict[str, Any]:
    identity = method.identity
    files = {key: stamp(identity["settings"].get(key)) for key in ("backbone", "checkpoint")}
    shipped = None
    if identity["settings"].get("backbone", BUNDLED) == BUNDLED:
        # The calibration names the hash of the weights it was made with, so it stands for them too.
        prompts = [path for path in BUNDLED_FILES.glob("prompts/*.safetensors") if method.name in ("auto", path.stem)]
        shipped = {path.name: file_digest(path) for path in (BUNDLED_FILES / "calibration.json", *sorted(prompts))}
    return {
        **identity,
        "files": files,
        "shipped": shipped,
        "evaluation": asdict(plan.evaluation),
        "data": {"layout": dataset.layout, "content": _fingerprint(dataset)},
        "version": __version__,
    }


def _fingerprint(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for name, members in dataset.classes.items():
        for sample in members:
            stamps = [stamp(sample.image), stamp(sample.mask)]
            mask = sample.mask.name if sample.mask else None
            digest.update(repr((name, sample.id, sample.label, sample.split, mask, stamps)).encode())
    return digest.hexdigest()[:16]
