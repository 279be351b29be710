"""Write scenes as a data set in MVTec layout, with captions."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from anomalens.errors import ConfigError, InputError
from anomalens.files import atomic_write, json_ready, write_json
from anomalens.images.encoding import encode_image
from anomalens_lab.synthesis.config import SynthesisConfig
from anomalens_lab.synthesis.fields import chance, generator
from anomalens_lab.synthesis.scene import Scene, scenes
from anomalens_lab.synthesis.words import KINDS

SETTINGS = "synthesis.json"
CAPTIONS = "captions.jsonl"
# Scenes between two saves of the captions: what an interruption can cost.
CHUNK = 256


def _split_and_state(picture: Scene, train_share: float) -> tuple[str, str]:
    """Return split and state folder of a scene: the largest defect names an anomalous one."""
    if picture.anomalous:
        counts = np.bincount(picture.kinds[picture.mask])
        return "test", KINDS[int(counts.argmax())]
    # A stream of its own, so that the split does not disturb the picture.
    return ("train" if chance(generator(picture.seed, stream=2), train_share) else "test"), "good"


def write_scene(
    out: Path, picture: Scene, *, train_share: float = 0.0, kind: Literal["PNG", "JPEG"] = "PNG"
) -> dict[str, Any]:
    """Write the image of a scene, as a file of `kind`, and its mask, a PNG, below `out` in MVTec layout.

    `train_share` is the probability with which a sound scene goes to train/good instead of test/good.
    Returns the scene's line of captions.jsonl.
    """
    split, state = _split_and_state(picture, train_share)
    stem = f"{picture.seed:08d}"
    image = Path(picture.family) / split / state / f"{stem}.{'png' if kind == 'PNG' else 'jpg'}"
    line: dict[str, Any] = {
        "image": image.as_posix(),
        "mask": None,
        "family": picture.family,
        "subject": picture.subject,
        "caption": picture.caption,
        "kinds": list(picture.kind_names),
        "defect_words": list(picture.defect_words),
        "seed": picture.seed,
    }
    if picture.anomalous:
        mask = Path(picture.family) / "ground_truth" / state / f"{stem}_mask.png"
        (out / mask).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(out / mask, _encode(picture.mask.astype(np.uint8) * 255, "PNG"))
        line["mask"] = mask.as_posix()
    (out / image).parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out / image, _encode(picture.image, kind))
    return line


def _encode(pixels: np.ndarray[Any, Any], kind: Literal["PNG", "JPEG"]) -> bytes:
    # A low compression level halves the time of a PNG; the file grows by a tenth.
    settings = {"compress_level": 3} if kind == "PNG" else {"quality": 90}
    return encode_image(Image.fromarray(pixels), kind, **settings)


def _read_settings(path: Path) -> Any:
    """Return the settings of an earlier run; None where the file is torn."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return None


def _finished(path: Path, seed: int) -> list[str]:
    """Return the lines of an earlier run that stand in order; anything after a gap is done again."""
    if not path.exists():
        return []
    lines: list[str] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            break
        if not isinstance(value, dict) or value.get("seed") != seed + len(lines):
            break
        pictures = [value.get("image"), value.get("mask")]
        if not all((path.parent / str(picture)).is_file() for picture in pictures if picture is not None):
            break
        lines.append(text)
    return lines


def synthesize(
    out: Path,
    count: int,
    seed: int = 0,
    size: int = 256,
    *,
    config: SynthesisConfig | None = None,
    train_share: float = 0.6,
    workers: int = 0,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Write scenes `seed` .. `seed + count - 1` to `out` and return the number of scenes written by this call.

    Layout: `<out>/<family>/{train/good, test/good, test/<kind>, ground_truth/<kind>/<stem>_mask.png}`, a line for each
    scene in `captions.jsonl`, and the settings in `synthesis.json`. Of the sound scenes `train_share` go to train/good.
    A second call with the same settings goes on where the first one stopped, and a larger count adds to it; `progress`
    is called with the number of scenes done so far. `size` replaces the size of `config`.

    Raises ConfigError for a bad option and InputError where `out` holds something else or another run's settings.
    """
    if count < 1 or seed < 0:
        raise ConfigError(f"count must be 1 or more and seed 0 or more, found count={count}, seed={seed}")
    if not 0 <= train_share <= 1:
        raise ConfigError(f"train_share must be within 0..1, found {train_share}")
    config = replace(config or SynthesisConfig(), size=size)
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a new or empty folder")
    out.mkdir(parents=True, exist_ok=True)
    chosen = asdict(config) | {"materials": [str(folder) for folder in config.materials]}
    settings = json_ready({"seed": seed, "train_share": train_share} | chosen)
    note = out / SETTINGS
    if note.exists():
        if _read_settings(note) != settings:
            raise InputError(f"{out} holds a set made with other settings (see {SETTINGS}); name another folder")
    elif any(out.iterdir()):
        raise InputError(f"{out} is not empty and holds no {SETTINGS}; name a new or empty folder")
    else:
        write_json(note, settings)
    lines = _finished(out / CAPTIONS, seed)
    start = len(lines)
    for picture in scenes(max(0, count - start), seed + start, config, workers=workers):
        lines.append(json.dumps(write_scene(out, picture, train_share=train_share), ensure_ascii=False))
        if len(lines) % CHUNK == 0:
            atomic_write(out / CAPTIONS, "\n".join(lines) + "\n")
        if progress is not None:
            progress(len(lines))
    if len(lines) > start:
        atomic_write(out / CAPTIONS, "\n".join(lines) + "\n")
    return len(lines) - start
