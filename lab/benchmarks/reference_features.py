"""Which features serve a comparison with good photographs, and of a folder with itself, best: a Markdown table.

    python lab/benchmarks/reference_features.py runs/features --photographs mvtec:../shared/data/peeled_hazelnut

Compared are levels of the bundled backbone's convolutional stem and their weights; how its channels are brought to one
scale; and the tokens of the trained transformer, alone and joined with the stem's levels. Distances are those of
`memory` (nearest patch of the good photographs) and of `musc` (mutual scoring), without words and without the place in
the image. Images are seen at SIZE pixels, maps are compared with masks in cells of CELL pixels.

Kinds of parts and surfaces are of the families that training never sees, one kind of each family a round. A kind is
one drawn scene: twins of one seed show the same thing whatever kinds of defects are allowed, so it is drawn sound and
with several faults. An image of it is a window of the scene that is shifted, turned, enlarged, lit and given noise at
random. So sound images of a kind differ less from each other than real parts do.

Results are kept in WORK, a file for each kind; what is finished there stays, and a stopped run goes on.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from anomalens.backbones.stem import LiteStem
from anomalens.backbones.streams import Dense
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import load_weights
from anomalens.datasets.layouts import open_dataset, read_truth
from anomalens.files import write_json
from anomalens.images.decoding import decode
from anomalens.images.maps import resize_map
from anomalens.images.preprocessing import Preprocess, preprocess
from anomalens.methods.parts.fusion import pooled
from anomalens.methods.parts.mutual import FeatureStore, MutualConfig, mutual_maps
from anomalens.methods.parts.neighbours import build_memory
from anomalens.methods.parts.patches import describe
from anomalens.metrics.summary import aupro, auroc
from anomalens_lab.synthesis import HELD_OUT_FAMILIES, KINDS, PART_FAMILIES, SURFACE_FAMILIES, SynthesisConfig, twins

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Rgb = npt.NDArray[np.uint8]

SIZE, CELL = 448, 4  # pixels a side of images, and of the cells in which maps are compared with masks
GRID = SIZE // CELL
PAINTED = SIZE * 7 // 5  # pixels a side of a drawn scene, of which an image shows a window
PHOTOS, SOUND, FAULTY = 4, 5, 4  # good photographs, and images that are judged, a kind
DRAWS = 3  # draws of good photographs where these are real
MEASURED = 32  # scenes of other families on which channels are standardised and whitened
SEED = 900_000_000 + 100_000 * SIZE  # of the first scene: far from those that anything else is chosen on
STRIDES, BLOCKS = (8, 16, 32), (1, 2, 3, 4)
SHIPPED = "8, 16, 32 (as shipped)"


@dataclass(frozen=True)
class Features:
    """Say which sources are joined to one descriptor a patch, with what weights."""

    sources: tuple[str, ...]
    weights: tuple[float, ...]


def joined(*sources: str, weights: Sequence[float] = ()) -> Features:
    """Join sources, with equal weights where none are given."""
    return Features(sources, tuple(weights) or (1.0,) * len(sources))


STEM = tuple(f"whitened {stride}" for stride in STRIDES)
W8, W16, W32 = STEM
CANDIDATES: dict[str, Features] = {
    SHIPPED: joined(*STEM),
    "8": joined(W8),
    "16": joined(W16),
    "32": joined(W32),
    "8, 16": joined(W8, W16),
    "8, 32": joined(W8, W32),
    "16, 32": joined(W16, W32),
    "8, 16, 32 weighted 1, 1, 0.5": joined(*STEM, weights=(1, 1, 0.5)),
    "8, 16, 32 weighted 0.5, 1, 1": joined(*STEM, weights=(0.5, 1, 1)),
    "8, 16, 32 weighted 0.5, 1, 0.5": joined(*STEM, weights=(0.5, 1, 0.5)),
    "8, 16, 32 weighted 1, 0.5, 0.5": joined(*STEM, weights=(1, 0.5, 0.5)),
    "8, 16, 32 weighted 1, 0.5, 1": joined(*STEM, weights=(1, 0.5, 1)),
    **{
        f"8, 16, 32, {scale}": joined(*(f"{scale} {stride}" for stride in STRIDES))
        for scale in ("raw", "standardised", "all channels whitened")
    },
    "8, raw": joined("raw 8"),
    "8, 32, raw": joined("raw 8", "raw 32"),
    **{f"block {block}": joined(f"block {block}") for block in BLOCKS},
    **{
        f"8, 16, 32 and block {block}, weight {weight:g}": joined(*STEM, f"block {block}", weights=(1, 1, 1, weight))
        for block in BLOCKS
        for weight in (0.5, 1)
    },
}


class Reader:
    """Read all sources of images in one pass of the bundled backbone."""

    def __init__(self) -> None:
        self.clip: Clip = load_weights("bundled").clip()
        pixels = self.clip.pixels
        self.preprocess = Preprocess(SIZE, pixels.mean, pixels.std, pixels.interpolation)
        stem = self.clip.visual.stem
        assert isinstance(stem, LiteStem)
        self._raw: list[tuple[Tensor, ...]] = []
        stem.backbone.register_forward_hook(lambda module, inputs, outputs: self._raw.append(outputs[1:]))
        # For each stride mean and deviation [C], and a matrix [C, C] that whitens.
        self.scales: dict[int, tuple[Floats, Floats, Floats]] = {}

    def levels(self, rgb: Rgb) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return raw and whitened levels [1, C, h, w] of an image, and its tokens [1, N, D] after each block."""
        pixels = torch.from_numpy(preprocess(rgb, self.preprocess))[None]
        self._raw.clear()
        with torch.inference_mode():
            features = self.clip.visual(pixels, (Dense("plain", 1, BLOCKS, project=False),), cls=None)
        return self._raw[0], features.levels, features.dense[0]

    def measure(self) -> None:
        """Measure what ordinary values of the raw channels are, on sound scenes of families that are not judged."""
        config = SynthesisConfig(size=SIZE, exclude=HELD_OUT_FAMILIES, normal_share=1.0)
        read = [self.levels(twins(SEED + number, config)[1].image)[0] for number in range(MEASURED)]
        for stride, parts in zip(STRIDES, zip(*read, strict=True), strict=True):
            rows = np.concatenate([part[0].flatten(1).T[::7].numpy() for part in parts])
            values, axes = np.linalg.eigh(np.cov(rows.T))
            # Shrunk as the whitening that ships.
            matrix = axes / np.sqrt(values + 0.1 * values.mean())
            self.scales[stride] = (rows.mean(0), rows.std(0) + np.float32(1e-3), matrix.astype(np.float32))

    def __call__(self, images: Sequence[Rgb]) -> dict[str, Floats]:
        """Return every source [B, h, w, C] of images."""
        sources: dict[str, list[Floats]] = {}
        for rgb in images:
            raw, whitened, tokens = self.levels(rgb)
            for stride, values, white in zip(STRIDES, raw, whitened, strict=True):
                grid = values[0].permute(1, 2, 0).numpy()
                mean, deviation, matrix = self.scales[stride]
                sources.setdefault(f"whitened {stride}", []).append(white[0].permute(1, 2, 0).numpy())
                sources.setdefault(f"raw {stride}", []).append(grid)
                sources.setdefault(f"standardised {stride}", []).append((grid - mean) / deviation)
                sources.setdefault(f"all channels whitened {stride}", []).append((grid - mean) @ matrix)
            for block, rows in zip(BLOCKS, tokens, strict=True):
                sources.setdefault(f"block {block}", []).append(rows[0].numpy().reshape(SIZE // 16, SIZE // 16, -1))
        return {name: np.stack(grids) for name, grids in sources.items()}


def moved(rng: np.random.Generator, rgb: Rgb, mask: Bools, part: bool) -> tuple[Rgb, Bools]:
    """Photograph a scene and its mask once more: another window [SIZE, SIZE] of it, in other light."""
    # A part is seen whole; of a surface about half, so that images share little of it.
    span, away = (SIZE * 5 / 4, SIZE / 18) if part else (SIZE, SIZE / 6)
    angle, scale = np.deg2rad(rng.uniform(-8, 8)), span / SIZE * rng.uniform(0.94, 1.06)
    matrix = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    offset = (PAINTED - 1) / 2 + rng.uniform(-away, away, 2) - matrix @ np.full(2, (SIZE - 1) / 2)

    def window(values: npt.NDArray[np.float32]) -> Floats:
        seen = ndimage.affine_transform(values, matrix, offset, (SIZE, SIZE), order=1, mode="mirror")
        return np.asarray(seen, np.float32)

    place = np.linspace(-0.5, 0.5, SIZE)
    slope = rng.uniform(-0.12, 0.12, 2)
    light = rng.uniform(0.93, 1.07) * (1 + slope[0] * place[:, None] + slope[1] * place)
    seen = np.stack([window(rgb[..., channel].astype(np.float32)) for channel in range(3)], -1) * light[..., None]
    noisy = seen + rng.normal(0, 2, seen.shape)
    return noisy.clip(0, 255).astype(np.uint8), window(mask.astype(np.float32)) > 0.5


def cells(mask: npt.NDArray[np.bool_]) -> Bools:
    """Bring a mask [SIZE, SIZE] to cells [GRID, GRID], True where any of its pixels is."""
    return np.asarray(mask.reshape(GRID, CELL, GRID, CELL).any(axis=(1, 3)))


@dataclass(frozen=True)
class Kind:
    """Hold the images of one kind of thing."""

    # Good ones that may be compared with.
    photos: list[Rgb]
    # Those that are judged, and where they are faulty [B, GRID, GRID].
    judged: list[Rgb]
    masks: Bools


def drawn(family: str, number: int) -> Kind:
    """Draw a kind of a family: scene `number`, or one after it, that shows faults of FAULTY kinds, and sound."""
    part = family in PART_FAMILIES
    grounds = tuple(name for name in HELD_OUT_FAMILIES if name in SURFACE_FAMILIES)
    config = SynthesisConfig(PAINTED, include=(family, *grounds) if part else (family,), part_share=1.0, max_defects=1)
    rng = np.random.default_rng(number)
    faulty: list[tuple[Rgb, Bools]] = []
    for defect in rng.permutation(KINDS[1:]):
        broken, sound = twins(number, replace(config, kinds=(str(defect),)))
        seen = moved(rng, broken.image, broken.mask, part)
        if seen[1].any():
            faulty.append(seen)
        if len(faulty) == FAULTY:
            good = [moved(rng, sound.image, sound.mask, part) for _ in range(PHOTOS + SOUND)]
            judged = good[PHOTOS:] + faulty
            masks = np.stack([cells(mask) for _, mask in judged])
            return Kind([rgb for rgb, _ in good[:PHOTOS]], [rgb for rgb, _ in judged], masks)
    return drawn(family, number + 100)


def photographed(place: str) -> Kind:
    """Read the photographs of LAYOUT:PATH, the good ones among those for training first."""
    dataset = open_dataset(place)
    samples = list(dataset.samples("test"))
    truths = [read_truth(sample, (SIZE, SIZE)) if sample.label else np.zeros((SIZE, SIZE)) for sample in samples]
    masks = [
        cells(np.ones((SIZE, SIZE), bool) if truth is None else np.asarray(truth, np.float32) > 0) for truth in truths
    ]
    good = [decode(sample.image).rgb for sample in dataset.samples("train")]
    return Kind(good, [decode(sample.image).rgb for sample in samples], np.stack(masks))


def qualities(maps: Floats, masks: Bools) -> list[float]:
    """Return image AUROC, pixel AUROC and AUPRO of maps [B, h, w]."""
    fine = np.stack([resize_map(values, (GRID, GRID)) for values in maps])
    reached = [auroc(pooled(maps), masks.any(axis=(1, 2))), auroc(fine.ravel(), masks.ravel()), aupro(fine, masks)]
    return [float("nan") if value is None else value for value in reached]


def measured(reader: Reader, kind: Kind, draws: Sequence[npt.NDArray[np.int64]]) -> dict[str, list[list[float]]]:
    """Return image AUROC, pixel AUROC, AUPRO by references and then by mutual scoring, for each draw of references."""
    used = np.unique(np.concatenate(draws))
    photos, judged = reader([kind.photos[number] for number in used]), reader(kind.judged)
    reached = {}
    for name, features in CANDIDATES.items():
        good, patches = (
            describe([images[source] for source in features.sources], (SIZE // 16, SIZE // 16), 3, features.weights)
            for images in (photos, judged)
        )
        store = FeatureStore()
        for number, grid in enumerate(patches):
            store.append([grid], str(number))
        maps = mutual_maps(store, MutualConfig(windows=(1,), standardise=False, others=20)).plain
        alone = qualities(np.stack(maps), kind.masks)
        reached[name] = [
            qualities(build_memory(list(good[np.searchsorted(used, draw)])).distances(patches), kind.masks) + alone
            for draw in draws
        ]
    return reached


def kinds(rounds: int) -> Iterator[tuple[str, str, int]]:
    """Yield name, family and number of the scene of each kind, round by round."""
    for turn in range(rounds):
        for place, family in enumerate(HELD_OUT_FAMILIES):
            yield f"{turn}-{family}", family, SEED + 1000 * (turn + 1) + place


def spread(gains: Floats, error_of_mean: bool) -> str:
    """Return the mean of gains in points with their deviation, or with the standard error of that mean."""
    mean = f"{100 * gains.mean():+.1f}"
    if np.ptp(gains) == 0:
        return mean
    return f"{mean} ± {100 * gains.std(ddof=1) / (np.sqrt(gains.size) if error_of_mean else 1):.1f}"


def table(candidates: Mapping[str, Floats], error_of_mean: bool) -> list[str]:
    """Return Markdown rows of candidates, whose numbers are [N, 6] over kinds or draws."""
    rows = []
    for name, numbers in candidates.items():
        means, gains = 100 * numbers.mean(0), numbers - candidates[SHIPPED]
        columns = [name]
        for part in (slice(0, 3), slice(3, 6)):
            columns.append(" / ".join(f"{mean:.1f}" for mean in means[part]))
            columns.append("" if name == SHIPPED else spread(gains[:, part].mean(1), error_of_mean))
        rows.append(f"| {' | '.join(columns)} |")
    return rows


def show(title: str, results: Sequence[Mapping[str, list[list[float]]]], error_of_mean: bool) -> None:
    """Print the table of some results."""
    reached = {name: np.array([numbers for result in results for numbers in result[name]]) for name in CANDIDATES}
    print(f"\n| {title} | references | gain | mutual scoring | gain |\n|---|---|---|---|---|")
    print("\n".join(table(reached, error_of_mean)))


def main() -> None:
    """Measure what is missing and print a table for scenes and one for photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for results")
    parser.add_argument("--photographs", help="LAYOUT:PATH of one labelled class no result is claimed on")
    parser.add_argument("--rounds", type=int, default=3, help="kinds of each held-out family")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.work.mkdir(parents=True, exist_ok=True)
    reader = Reader()
    reader.measure()
    names = []
    for name, family, number in kinds(asked.rounds):
        names.append(name)
        path = asked.work / f"{name}.json"
        if not path.exists():
            write_json(path, measured(reader, drawn(family, number), [np.arange(PHOTOS)]))
    results = [json.loads((asked.work / f"{name}.json").read_text(encoding="utf-8")) for name in names]
    show(f"{len(names)} kinds of drawn scenes", results, error_of_mean=True)
    if asked.photographs:
        path = asked.work / "photographs.json"
        if not path.exists():
            kind = photographed(asked.photographs)
            order = np.random.default_rng(0).permutation(len(kind.photos))
            draws = [np.sort(order[PHOTOS * turn : PHOTOS * (turn + 1)]) for turn in range(DRAWS)]
            write_json(path, measured(reader, kind, draws))
        show("photographs", [json.loads(path.read_text(encoding="utf-8"))], error_of_mean=False)


if __name__ == "__main__":
    main()
