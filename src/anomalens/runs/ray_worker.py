"""Run in every actor of a Ray cluster: a detector that is loaded once and does one part of the inputs after another.

A worker can be killed by an image (a decoder that crashes, memory that runs out) as well as by its machine. The ledger
tells the two apart: a part that has taken down several workers is done image by image, and an image that takes down
the worker again and again gets a row that says so, instead of taking down the whole run.
"""

import functools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from anomalens.detection.detector import Detector
from anomalens.detection.session import Session
from anomalens.errors import one_line
from anomalens.images.image_files import quoted
from anomalens.names import name_path
from anomalens.prediction import Failure, Result
from anomalens.runs.ray_addresses import fetch
from anomalens.runs.ray_parts import FinishedPart, RunPart
from anomalens.runs.store import Row
from anomalens.threads import map_ordered

_WHOLE = 2  # attempts at a part as a whole; those after it go image by image
_FATAL = 2  # crashes of a worker at one image alone, after which the image is skipped
_FETCHES = 8  # objects read at the same time; the network is waited for, not computed with
_OBJECTS = 32  # detectors for different object names that are kept; they share all weights

Loader = Callable[[], Detector]


class CrashLedger:
    """Count worker crashes per part and per image.

    All workers share one ledger. It holds a few numbers for each part, and nothing of the results.
    """

    def __init__(self) -> None:
        self._attempts: Counter[int] = Counter()
        # The image of a part that a worker is doing alone at this moment, by the number of the part.
        self._under_way: dict[int, int] = {}
        self._crashes: Counter[tuple[int, int]] = Counter()

    def start(self, part: int) -> tuple[int, list[int]]:
        """Note that a worker begins `part`.

        Returns the number of this attempt, from 1, and the images (by their place in the part) to be skipped.
        """
        self._attempts[part] += 1
        if part in self._under_way:  # the worker that was doing this image never came back
            self._crashes[part, self._under_way.pop(part)] += 1
        skipped = [image for (owner, image), crashes in self._crashes.items() if owner == part and crashes >= _FATAL]
        return self._attempts[part], skipped

    def begin(self, part: int, image: int | None) -> None:
        """Note that a worker does `image` of `part` alone from now on; None where it has done the last of them."""
        if image is None:
            self._under_way.pop(part, None)
        else:
            self._under_way[part] = image


class RemoteLedger:
    """Reach a CrashLedger that lives in an actor of its own, by the same methods."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def start(self, part: int) -> tuple[int, list[int]]:
        """Note that a worker begins `part`; see `CrashLedger.start`."""
        import ray

        attempt, skipped = ray.get(self._handle.start.remote(part))
        return attempt, skipped

    def begin(self, part: int, image: int | None) -> None:
        """Note that a worker does `image` alone. Waits, because a note that is under way when a worker dies is lost."""
        import ray

        ray.get(self._handle.begin.remote(part, image))


class Worker:
    """Serve `Dataset.map_batches`: tables of one part a row in, tables of one finished part a row out.

    A part is one row on both sides, so whatever the engine does with blocks, it can neither split nor merge parts.
    """

    def __init__(self, load: Loader, threads: int, ledger: CrashLedger | RemoteLedger, root: str) -> None:
        """Prepare for work; the detector is loaded with the first part.

        Args:
            load: gives the detector.
            threads: cores that this worker may use.
            ledger: shared with all workers.
            root: folder that relative paths of images count from.
        """
        self._load, self._threads, self._ledger, self._root = load, threads, ledger, root
        self._detector_for = functools.lru_cache(maxsize=_OBJECTS)(self._make_detector)

    def __call__(self, batch: Any) -> Any:
        """Do parts.

        Takes a pyarrow.Table with the columns number, paths, objects; returns one with the columns number, data,
        counts (JSON) and problem (null unless the run must stop).
        """
        import pyarrow as pa

        answers = []
        for row in batch.to_pylist():
            part = RunPart(row["number"], row["paths"], row["objects"])
            answer: Row = {"number": part.number}
            try:
                finished = FinishedPart.of(part.number, self.rows(part))
                answer |= {"data": finished.data, "counts": json.dumps(vars(finished.counts))}
            except Exception as error:  # raised here it would be retried, and then buried in the engine's own
                answer["problem"] = one_line(error)
            answers.append(answer)
        columns = [("number", pa.int64()), ("data", pa.binary()), ("counts", pa.string()), ("problem", pa.string())]
        return pa.Table.from_pylist(answers, pa.schema(columns))

    def rows(self, part: RunPart) -> list[Row]:
        """Return one row for each input, in order.

        Where the manifest names an object, failed rows name it too, so that they can be a manifest again.
        """
        attempt, skipped = self._ledger.start(part.number)
        rows = self._all_together(part) if attempt <= _WHOLE else self._one_by_one(part, skipped)
        return [row | ({"object": name} if name else {}) for row, name in zip(rows, part.objects, strict=True)]

    def _one_by_one(self, part: RunPart, skipped: Sequence[int]) -> list[Row]:
        rows = []
        for image, (path, name) in enumerate(zip(part.paths, part.objects, strict=True)):
            if image in skipped:
                rows.append(
                    Failure(
                        name_path(path), f"{path!r}: the worker process died of this image {_FATAL} times"
                    ).to_dict()
                )
                continue
            self._ledger.begin(part.number, image)
            rows += self._predict(self._detector_for(name), [path])
        self._ledger.begin(part.number, None)
        return rows

    def _all_together(self, part: RunPart) -> list[Row]:
        rows: dict[int, Row] = {}
        for name in dict.fromkeys(part.objects):
            chosen = [index for index, other in enumerate(part.objects) if other == name]
            results = self._predict(self._detector_for(name), [part.paths[index] for index in chosen])
            rows |= dict(zip(chosen, results, strict=True))
        return [rows[index] for index in range(len(part.paths))]

    @functools.cached_property
    def _detector(self) -> Detector:
        # Both settings hold for the whole process, which is this worker's own. Without them every actor of a machine
        # would compute with as many threads as the machine has cores. Runtimes read the variable as they load a model.
        os.environ["OMP_NUM_THREADS"] = str(self._threads)
        detector = self._load()
        if "torch" in sys.modules:  # exported detectors do without
            sys.modules["torch"].set_num_threads(self._threads)
        return detector

    def _make_detector(self, name: str | None) -> Detector:
        if name in (None, self._detector.options.object_name):
            return self._detector
        return self._detector.for_object(str(name))

    def _predict(self, detector: Detector, paths: Sequence[str]) -> list[Row]:
        """Return one row for each path. Regions are found in background threads while the tower goes on."""
        with Session(detector, max_wait=None) as session:

            def answers() -> Iterator[Failure | Future[Result]]:
                fetched = map_ordered(paths, lambda path: fetch(path, self._root), _FETCHES, session.queue_size)
                for path, source in fetched:
                    if isinstance(source, Exception):
                        yield Failure.of(name_path(path), source)
                    else:
                        yield session.submit(source, name=name_path(path))
                session.flush()

            rows = []
            for _, row in map_ordered(answers(), _to_row, detector.options.workers, session.queue_size):
                if isinstance(row, Exception):
                    raise row
                rows.append(row)
            return rows


def _to_row(answer: Failure | Future[Result]) -> Row:
    result = answer if isinstance(answer, Failure) else answer.result()
    if isinstance(result, Failure):
        # Errors of an image that came as bytes cannot name it.
        result = replace(result, error=result.error.replace("image bytes", quoted(result.path or ""), 1))
    return result.to_dict()
