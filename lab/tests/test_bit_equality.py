"""Scenes and sentences of a seed stay what they were, to the bit: weights made from them can be made again.

`scene_digests.json` holds one digest for every group of scenes below. They hold for the arithmetic they were computed
with: another processor or library may round sines, blurs and resampling otherwise in the last digit, and such a machine
is recognised by a digest of a few such operations. After a wanted change of what is drawn write the digests anew:

    python lab/tests/test_bit_equality.py
"""

import hashlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
from PIL import Image
from scipy import ndimage

from anomalens_lab import vocabulary
from anomalens_lab.synthesis import (
    FAMILIES,
    KINDS,
    Scene,
    SynthesisConfig,
    kind_phrases,
    scene,
    state_captions,
    twins,
)
from anomalens_lab.synthesis.faults import FAULTS
from anomalens_lab.synthesis.fields import generator
from anomalens_lab.synthesis.items import paint
from anomalens_lab.synthesis.surfaces import SURFACES
from anomalens_lab.synthesis.workshop import PARTS

STORED = Path(__file__).with_name("scene_digests.json")
PAIRS = 6  # twins of each family
FAULTY = 4  # paintings of each structural fault of each family of parts
SCENES = 4  # of each kind of defect


def digest(parts: Iterator[Any]) -> str:
    """Return sixteen digits that tell sequences of arrays and texts apart."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return total.hexdigest()[:16]


def arithmetic() -> str:
    """Return the digest of operations whose last digit depends on processor and library."""
    grid = np.linspace(-3, 3, 4001)
    square = np.random.Generator(np.random.Philox(key=1)).standard_normal((96, 96), dtype=np.float32)

    def parts() -> Iterator[Any]:
        for values in (grid, grid.astype(np.float32)):
            positive = np.abs(values) + values.dtype.type(0.01)
            yield from (np.sin(values), np.cos(values), np.exp(values), np.tanh(values), np.arctan2(values, positive))
            yield from (np.log(positive), np.sqrt(positive), positive ** values.dtype.type(1.7))
        yield ndimage.gaussian_filter(square, 1.3)
        yield ndimage.distance_transform_edt(square > 1)
        yield scipy.fft.irfft2(scipy.fft.rfft2(square))
        yield square @ square
        yield square.mean(0), square.std()
        yield np.asarray(Image.fromarray(square).resize((67, 131), Image.Resampling.BICUBIC))
        stored = io.BytesIO()
        Image.fromarray((square * 60 + 128).clip(0, 255).astype(np.uint8)).save(stored, "JPEG", quality=70)
        yield np.asarray(Image.open(stored))

    return digest(parts())


def contents(pictures: Iterator[Scene]) -> Iterator[Any]:
    """Return all that a scene holds."""
    for picture in pictures:
        yield from (picture.image, picture.mask, picture.kinds)
        yield (picture.family, picture.subject, picture.caption, picture.defect_words, picture.seed)


def of_family(family: str) -> Iterator[Scene]:
    """Draw twins of one family: every item of its plans and its structural faults."""
    config = SynthesisConfig(size=64, include=(family,))
    return (picture for seed in range(PAIRS) for picture in twins(seed, config))


def of_fault(name: str) -> Iterator[Any]:
    """Draw every family of parts that can have this structural fault, painted with it, visible or not."""
    for family, part in PARTS.items():
        for seed in range(FAULTY):
            rng = generator(seed, stream=5)
            plan = part.plan(rng, 64, 56, SURFACES["painted"].paint)
            items = FAULTS[name][0](rng, plan, plan.items) if name in plan.faults else None
            if items is not None:
                yield from (family, *paint(plan, items, {}))


def of_kind(kind: str) -> Iterator[Scene]:
    """Draw scenes with one kind of defect, on anything."""
    config = SynthesisConfig(size=64, kinds=(kind,), normal_share=0)
    return (scene(seed, config) for seed in range(SCENES))


def of_default() -> Iterator[Scene]:
    """Draw scenes as they are drawn unless anything is asked for, at two sizes."""
    yield from (scene(seed, SynthesisConfig(size=96)) for seed in range(1000, 1016))
    yield from (scene(seed) for seed in (5, 2**40))


def of_photographs(folder: Path) -> Iterator[Scene]:
    """Draw scenes whose surfaces are photographs."""
    rng = np.random.Generator(np.random.Philox(key=3))
    for number, side in enumerate((90, 200, 1100)):
        noise = ndimage.uniform_filter(rng.integers(0, 256, (side, 180, 3)).astype(np.float32), (5, 3, 0))
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{number}.png")
    config = SynthesisConfig(size=64, materials=(folder,), material_share=0.8)
    yield from (scene(seed, config) for seed in range(16))


def sentences() -> Iterator[str]:
    """Draw prompts and captions as training draws them."""
    rng = np.random.default_rng(0)
    for number in range(400):
        kind = KINDS[number % len(KINDS)]
        yield from vocabulary.state_pair(rng, ("gear", "leather"), ("word", "other"))
        yield vocabulary.thing(rng)
        yield vocabulary.frame(rng)("thing")
        yield from state_captions("gear", (kind,), rng, count=2)
        yield kind_phrases(kind)[int(rng.integers(len(kind_phrases(kind))))]


def groups(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and digest of every group."""
    yield "sentences", digest(iter(sentences()))
    yield "default", digest(contents(of_default()))
    yield "photographs", digest(contents(of_photographs(folder)))
    for family in FAMILIES:
        yield f"family {family}", digest(contents(of_family(family)))
    for fault in FAULTS:
        yield f"fault {fault}", digest(of_fault(fault))
    for kind in KINDS[1:]:
        yield f"kind {kind}", digest(contents(of_kind(kind)))


def test_scenes_and_sentences_are_what_they_were(tmp_path: Path) -> None:
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    if arithmetic() != stored["arithmetic"]:
        pytest.skip("this machine rounds otherwise than the one the digests were computed on")
    assert dict(groups(tmp_path)) == stored["groups"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as pictures:
        table = {"arithmetic": arithmetic(), "groups": dict(groups(Path(pictures)))}
    STORED.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
