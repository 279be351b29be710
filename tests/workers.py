"""A detector for other processes: no network and no torch, and an engine that can bring its process down."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from anomalens.decision.calibration import Calibration
from anomalens.detection.detector import Detector
from anomalens.engines.contract import Floats, Identity, Scored
from anomalens.errors import ConfigError
from anomalens.images.preprocessing import Preprocess
from anomalens.options import LoadOptions

DEADLY, UNLUCKY, BROKEN = 250, 240, 230  # grey values: always kills, kills once, raises


class Red:
    """Take the red channel as the map, its mean as the score. Write a line into `log` for every image that is seen."""

    parallel = 1
    runtime = "numpy"

    def __init__(self, log: Path, name: str = "object") -> None:
        self.log, self.identity = log, Identity("red", "none", object_name=name)

    def for_object(self, name: str) -> "Red":
        return Red(self.log, name)

    def with_levels(self, depths: Sequence[float] = ()) -> "Red":
        raise ConfigError("red has no features")

    def score_batch(self, pixels: Floats, keys: Sequence[int], sharing: int = 1) -> Scored:
        red = pixels[:, 0]
        for value in red.mean(axis=(1, 2)):
            self._meet(round(float(value) * 255))
        return Scored(red.mean(axis=(1, 2)), red)

    def _meet(self, value: int) -> None:
        with self.log.open("a") as stream:
            stream.write(f"{value}\n")
        met = self.log.read_text().splitlines().count(str(value))
        if value == DEADLY or (value == UNLUCKY and met == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if value == BROKEN:
            raise RuntimeError("out of memory")


def load(log: Path, options: LoadOptions = LoadOptions()) -> Detector:
    """Return a detector with `Red`; the threshold lies at half brightness."""
    sizes = Preprocess(size=16, multiple=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return Detector(Red(log), sizes, Calibration(0.5, 0.6, (0.0, 1.0), "by hand"), options)
