"""Keep what an evaluation has measured so far on disk, so that one that was stopped goes on at the next image.

DIR/CLASS.safetensors    of each class: counts of its pixels, and the rows of its images as JSON

Everything kept is a whole number, a score or a row, so an evaluation in parts gives the same numbers as one without a
stop. What belongs to other settings, or is damaged, counts as nothing measured.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from anomalens.errors import AnomalensError
from anomalens.evaluation.result import ImageRow
from anomalens.files import atomic_write, digest
from anomalens.metrics.accumulator import PixelAccumulator
from anomalens.typed_values import build
from anomalens.untrusted import read_bytes, read_json

_SECONDS = 20.0  # between two writings
_MOST_BYTES = 2**28  # of a file


@dataclass
class Measured:
    """Hold what is known of a class after some of its images."""

    # In the order of the class's images.
    rows: list[ImageRow]
    pixels: PixelAccumulator
    # Ids of images whose mask would have vanished at the evaluation's size.
    tiny: set[str]
    threshold: float | None


@dataclass
class Unfinished:
    """Write and read the parts of one evaluation in a folder."""

    folder: Path
    # All that decides the numbers; parts of other settings are not read.
    settings: Any
    _written: float = field(default_factory=time.monotonic, init=False)

    def __post_init__(self) -> None:
        self._key = digest(json.dumps(self.settings, sort_keys=True))

    def read(self, class_name: str) -> Measured | None:
        """Return what was measured of a class; None where nothing was that can be read."""
        try:
            content = read_bytes(self._path(class_name), most_bytes=_MOST_BYTES)
            arrays = load(content)
            record = read_json(arrays.pop("record").tobytes(), most_bytes=_MOST_BYTES)
            if record["settings"] != self._key:
                return None
            rows = [build(ImageRow, row, "a row") for row in record["rows"]]
            pixels = PixelAccumulator.from_arrays(arrays)
            return Measured(rows, pixels, set(record["tiny"]), record["threshold"])
        except (AnomalensError, SafetensorError, KeyError, TypeError):
            return None

    def write(self, class_name: str, measured: Measured, *, now: bool = False) -> None:
        """Write what was measured of a class, at most every 20 seconds unless `now`."""
        if not now and time.monotonic() - self._written < _SECONDS:
            return
        record = {
            "settings": self._key,
            "rows": [asdict(row) for row in measured.rows],
            "tiny": sorted(measured.tiny),
            "threshold": measured.threshold,
        }
        content = save(measured.pixels.to_arrays() | {"record": np.frombuffer(json.dumps(record).encode(), np.uint8)})
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self._path(class_name), content)
        self._written = time.monotonic()

    def remove(self) -> None:
        """Remove all parts: the evaluation is over."""
        for part in self.folder.glob("*.safetensors"):
            part.unlink(missing_ok=True)
        if self.folder.is_dir():
            self.folder.rmdir()

    def _path(self, class_name: str) -> Path:
        return self.folder / f"{digest(class_name)[:16]}.safetensors"
