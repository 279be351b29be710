"""What runs in every actor: a detector that is loaded once and does one part of the inputs after another.

A worker can be killed by an image (a decoder that crashes, memory that runs out) as well as by its machine. The ledger
tells the two apart: a part that has taken down several workers is done image by image, and an image that takes down
the worker again and again gets a row that says so, instead of taking down the whole run.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from anomalens.detection.detector import Detector, Result
from anomalens.prediction import Failure
from anomalens.runs.ray_parts import Counts, Part, encode
from anomalens.runs.ray_store import fetch
from anomalens.threads import map_ordered

_WHOLE = 2  # attempts at a part as a whole; those after it go image by image
_FATAL = 2  # deaths of a worker at one image alone, after which it is not tried again
_FETCHES = 8  # objects read at the same time; the network is waited for, not computed with
_OBJECTS = 32  # detectors for other objects that are kept; they share all weights

Row = dict[str, Any]
Loader = Callable[[], Detector]


class Ledger:
    """Who died at what. One for all workers; it holds a few numbers a part and nothing of the results."""

    def __init__(self) -> None:
        self._attempts: dict[int, int] = {}
        self._under_way: dict[int, int] = {}  # part -> image done alone at this moment
        self._deaths: dict[tuple[int, int], int] = {}

    def start(self, part: int) -> tuple[int, list[int]]:
        """A worker begins `part`: the number of this attempt, from 1, and the images not to be tried any more."""
        self._attempts[part] = self._attempts.get(part, 0) + 1
        image = self._under_way.pop(part, None)
        if image is not None:  # its worker never came back from it
            self._deaths[part, image] = self._deaths.get((part, image), 0) + 1
        condemned = [image for (of, image), deaths in self._deaths.items() if of == part and deaths >= _FATAL]
        return self._attempts[part], condemned

    def begin(self, part: int, image: int | None) -> None:
        """A worker does `image` of `part` alone from now on; None: it is through."""
        if image is None:
            self._under_way.pop(part, None)
        else:
            self._under_way[part] = image


class Record(Protocol):
    """The ledger as a worker sees it."""

    def start(self, part: int) -> tuple[int, list[int]]:
        """See Ledger."""

    def begin(self, part: int, image: int | None) -> None:
        """See Ledger."""


class RemoteLedger:
    """A Ledger that lives in an actor of its own."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def start(self, part: int) -> tuple[int, list[int]]:
        """See Ledger."""
        import ray

        attempt, condemned = ray.get(self._handle.start.remote(part))
        return attempt, condemned

    def begin(self, part: int, image: int | None) -> None:
        """See Ledger. Waits, because what is not noted before the worker dies is not known after."""
        import ray

        ray.get(self._handle.begin.remote(part, image))


class Worker:
    """A callable for `Dataset.map_batches`: tables of one part a row in, tables of one finished part a row out.

    A part is one row on both sides, so whatever the engine does with blocks, it can neither split nor merge parts.
    """

    def __init__(self, load: Loader, threads: int, ledger: Record, root: str) -> None:
        self._load, self._threads, self._ledger, self._root = load, threads, ledger, root
        self._detectors: dict[str | None, Detector] = {}

    def __call__(self, batch: Any) -> Any:
        """Columns in: number, paths, objects. Out: number, data, counts, problem (null unless the run must stop)."""
        import pyarrow as pa

        out = []
        for row in batch.to_pylist():
            part = Part(row["number"], row["paths"], row["objects"])
            found: Row = {"number": part.number}
            try:
                rows = self.rows(part)
                counts = Counts.of(rows)
                found |= {"data": encode(rows, counts), "counts": json.dumps(vars(counts))}
            except Exception as error:  # raised here it would be retried, and then buried in the engine's own
                found["problem"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            out.append(found)
        columns = [("number", pa.int64()), ("data", pa.binary()), ("counts", pa.string()), ("problem", pa.string())]
        return pa.Table.from_pylist(out, pa.schema(columns))

    def rows(self, part: Part) -> list[Row]:
        """One row an input, in order. Where an object was given, failed rows say so too: they can be a manifest."""
        attempt, condemned = self._ledger.start(part.number)
        found = self._together(part) if attempt <= _WHOLE else self._alone(part, condemned)
        return [row | ({"object": name} if name else {}) for row, name in zip(found, part.objects, strict=True)]

    def _alone(self, part: Part, condemned: Sequence[int]) -> list[Row]:
        rows = []
        for image, (path, name) in enumerate(zip(part.paths, part.objects, strict=True)):
            if image in condemned:
                rows.append(Failure(path, f"{path!r}: the worker process died of this image {_FATAL} times").to_dict())
                continue
            self._ledger.begin(part.number, image)
            rows += self._predict(self._detector(name), [path])
        self._ledger.begin(part.number, None)
        return rows

    def _together(self, part: Part) -> list[Row]:
        rows: dict[int, Row] = {}
        for name in dict.fromkeys(part.objects):
            chosen = [index for index, other in enumerate(part.objects) if other == name]
            found = self._predict(self._detector(name), [part.paths[index] for index in chosen])
            rows |= dict(zip(chosen, found, strict=True))
        return [rows[index] for index in range(len(part.paths))]

    def _detector(self, name: str | None) -> Detector:
        if None not in self._detectors:
            self._detectors[None] = self._loaded()
        if name not in self._detectors:
            own = self._detectors[None]
            while len(self._detectors) > _OBJECTS:
                del self._detectors[next(one for one in self._detectors if one is not None)]
            self._detectors[name] = own if name == own.config.object_name else own.for_object(str(name))
        return self._detectors[name]

    def _loaded(self) -> Detector:
        os.environ["OMP_NUM_THREADS"] = str(self._threads)
        detector = self._load()
        if "torch" in sys.modules:  # a detector may do without
            sys.modules["torch"].set_num_threads(self._threads)
        return detector

    def _predict(self, detector: Detector, paths: Sequence[str]) -> list[Row]:
        reasons: dict[int, str] = {}

        def read() -> Iterator[Path | bytes]:
            ahead = 2 * detector.config.batch_size + _FETCHES
            read_ahead = map_ordered(paths, lambda path: fetch(path, self._root), workers=_FETCHES, ahead=ahead)
            for index, (_, got) in enumerate(read_ahead):
                if isinstance(got, Exception):
                    reasons[index] = str(got)
                yield b"" if isinstance(got, Exception) else got  # nothing to decode: it fails in its place

        def row(found: tuple[int, Result]) -> Row:
            index, result = found
            path = paths[index]
            if not isinstance(result, Failure):
                return result.to_dict() | {"path": path}
            reason = reasons.get(index) or result.error.replace("image bytes", repr(path), 1)
            return Failure(path, reason).to_dict()

        workers = detector.config.workers
        rows = []
        # Regions are found in background threads while the tower goes on.
        for _, one in map_ordered(enumerate(detector.predict_iter(read())), row, workers=workers, ahead=2 * workers):
            if isinstance(one, Exception):
                raise one
            rows.append(one)
        return rows
