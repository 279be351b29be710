"""A run of detect on disk, made of predictions by hand: scores, masks and names are chosen, no weights are needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomalens.names import name_text
from anomalens.prediction import Failure, Prediction
from anomalens.runs.folder import JsonLines, file_stem
from anomalens.runs.record import write_record
from anomalens.runs.store import RunSummary

SETTINGS: dict[str, Any] = {"method": "by hand", "backbone": "none", "size": 64, "extra_sizes": [32], "tile": None}


@dataclass(frozen=True)
class Shot:
    """Describe an image of a run: `error` makes it fail, `unusable` is a reason why it cannot be judged."""

    name: str
    score: float = 0.2
    unusable: str | None = None
    error: str | None = None
    object_name: str = "object"
    size: tuple[int, int] = (60, 40)


def write_run(root: Path, shots: Sequence[Shot], *, threshold: float = 0.5, total: int | None = None) -> Path:
    """Write the images to `root`/photos and their run to `root`/run; return the folder of the run."""
    paths = [root / "photos" / shot.name for shot in shots]
    store = JsonLines(root / "run", SETTINGS, paths, engine="onnx")
    for folder in ("heatmaps", "masks"):
        (root / "run" / folder).mkdir()
    for number, (shot, path) in enumerate(zip(shots, paths, strict=True)):
        path.parent.mkdir(parents=True, exist_ok=True)
        if shot.error is not None:
            path.write_bytes(b"")
            store.append([Failure(str(path), shot.error).to_dict() | {"path": name_text(path)}])
            continue
        prediction = predicted(path, shot, threshold)
        stem = file_stem(number, path)
        prediction.save_overlay(root / "run" / "heatmaps" / f"{stem}.png")
        prediction.save_mask(root / "run" / "masks" / f"{stem}.png")
        pictures = {"heatmap": f"heatmaps/{stem}.png", "mask": f"masks/{stem}.png", "map": None}
        store.append([prediction.to_dict() | pictures])
    write_record(store.folder, SETTINGS, RunSummary(total or len(shots), store.done()), engine="onnx")
    return store.folder


def predicted(path: Path, shot: Shot, threshold: float) -> Prediction:
    """Draw a noisy picture with a bright square to `path`, and return what was predicted: the square."""
    width, height = shot.size
    noise = np.random.default_rng(len(shot.name)).integers(60, 120, (height, width, 3), np.uint8)
    noise[10:20, 20:40] = 230
    Image.fromarray(noise).save(path, "PNG")
    heat = np.zeros((height, width), np.float32)
    heat[10:20, 20:40] = shot.score
    return Prediction(
        str(path), width, height, shot.score, threshold, "by hand", 0.4, heat, (0.0, 1.0), shot.object_name,
        "by hand", "none", unusable=shot.unusable,
    )  # fmt: skip
