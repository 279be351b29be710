"""Ways to another image score without training anything, judged by what may choose: a Markdown table.

    python lab/benchmarks/image_score.py runs/held-out --photographs mvtec:../shared/data/peeled_hazelnut

AnomalyCLIP looks at each image at several sizes, and at one of them at the mirrored image too; APRIL-GAN looks at the
usual sizes. From these looks, kept in memory, each way makes a map and an image score:

    sizes       the mean over some of the sizes
    mirrored    the mean over sizes, one of them seen in the mirror
    least       the least value of 448 and 320 at each place
    top         another share of the map's highest places in the score
    contrast    the top of the map less the median of the map, so that images with high values all over score less
    token       the score of the class token joined in
    own         the distance of each patch to the nearest of its own image that is no neighbour, added to the map that
                the score is made of
    APRIL-GAN   the mean with the maps of that method, each map in units of its spread over scenes

Scenes are painted in the given folder where they are missing. An image takes half a second to a second of one core.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomalens.datasets.layouts import read_truth
from anomalens.decision.pooling import ScorePooling
from anomalens.detection.loading import load_detector
from anomalens.images.decoding import decode
from anomalens.images.maps import resize_map
from anomalens.images.preprocessing import preprocess
from anomalens.methods.parts.patches import describe
from anomalens.metrics.summary import auroc
from anomalens_lab.calibrate import GRID, METHODS, held_out_scenes, labelled_images, twins_in_order

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

SIZES = (224, 320, 448, 560)
COMPARED = 320  # size whose features are compared within an image, and that is seen in the mirror too
CELLS = COMPARED // 16  # patches a side at that size
NEIGHBOURS = 2  # cells around a patch that are too near to be compared with it
TOP = ScorePooling(1.0, 0.03)
PAIR, WIDER = ("448", "320"), ("448", "560", "224")
SECOND, SECOND_SIZES = "aprilgan", (224, 320, 448)
SPREAD = 0.16  # AnomalyCLIP's standard deviation over the pixels of scenes, divided by APRIL-GAN's


@dataclass(frozen=True)
class Looks:
    """Hold what B images look like; looks are called by size, as "320", "320 mirrored" or "aprilgan 320"."""

    # [B] scores of the class token, by look.
    scores: dict[str, Floats]
    # [B, GRID, GRID] maps, by look.
    maps: dict[str, Floats]
    # [B, CELLS, CELLS] how far each patch is from the nearest of its own image.
    own: Floats
    # [B, GRID, GRID] True where a defect is.
    masks: Bools

    @property
    def labels(self) -> Bools:
        """Return True for the images with a defect, [B]."""
        return np.asarray(self.masks.any(axis=(1, 2)))

    def mean(self, names: Iterable[str]) -> Floats:
        """Return the mean of the maps of some looks, [B, GRID, GRID]."""
        return np.asarray(np.mean([self.maps[name] for name in names], axis=0))


def apart_from_itself(levels: tuple[Any, ...]) -> Floats:
    """Return how far each patch of one image is from the nearest that is no neighbour: [CELLS, CELLS]."""
    patches = describe(levels, (CELLS, CELLS), window=1).reshape(CELLS * CELLS, -1)
    rows, columns = np.divmod(np.arange(CELLS * CELLS), CELLS)
    near = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns)) <= NEIGHBOURS
    return np.asarray(np.where(near, np.inf, 1 - patches @ patches.T).min(axis=1).reshape(CELLS, CELLS))


def looks_of(images: Iterable[tuple[npt.NDArray[np.uint8], Bools]]) -> Looks:
    """Look at images [H, W, 3] with their masks [GRID, GRID]."""
    detector, aprilgan = load_detector("anomalyclip"), load_detector(SECOND, **METHODS[SECOND])
    engine = detector.engine.with_levels()
    scores: dict[str, list[np.float32]] = {}
    maps: dict[str, list[Floats]] = {}
    own, masks = [], []
    for rgb, mask in images:
        for name, size, mirrored in [(str(s), s, False) for s in SIZES] + [(f"{COMPARED} mirrored", COMPARED, True)]:
            seen = np.ascontiguousarray(rgb[:, ::-1]) if mirrored else rgb
            answer = engine.score_batch(preprocess(seen, replace(detector.preprocess, size=size))[None], [0])
            shown = answer.map[0][:, ::-1] if mirrored else answer.map[0]
            scores.setdefault(name, []).append(answer.score[0])
            maps.setdefault(name, []).append(resize_map(np.ascontiguousarray(shown), (GRID, GRID)))
            if name == str(COMPARED):
                own.append(apart_from_itself(answer.levels))
        for size in SECOND_SIZES:
            answer = aprilgan.engine.score_batch(preprocess(rgb, replace(aprilgan.preprocess, size=size))[None], [0])
            scores.setdefault(f"{SECOND} {size}", []).append(answer.score[0])
            maps.setdefault(f"{SECOND} {size}", []).append(SPREAD * resize_map(answer.map[0], (GRID, GRID)))
        masks.append(mask)
    return Looks(
        {name: np.array(values) for name, values in scores.items()},
        {name: np.stack(values) for name, values in maps.items()},
        np.stack(own),
        np.stack(masks),
    )


def shrunk(mask: npt.NDArray[Any]) -> Bools:
    """Bring a mask [H, W] to the grid, by the value at the middle of each cell."""
    rows, columns = (((np.arange(GRID) + 0.5) * side / GRID).astype(int) for side in mask.shape)
    return np.asarray(mask[rows][:, columns], bool)


def drawn(folder: Path, count: int) -> Iterator[tuple[npt.NDArray[np.uint8], Bools]]:
    """Yield drawn scenes with their masks, twins by twins."""
    scenes = held_out_scenes(folder)
    for number in range(min(count, len(scenes))):
        yield scenes.image(number), shrunk(scenes.kind(number) > 0)


def photographed(place: str) -> Iterator[tuple[npt.NDArray[np.uint8], Bools]]:
    """Yield the labelled photographs of LAYOUT:PATH with their masks."""
    for sample in labelled_images(place):
        truth = read_truth(sample, (GRID, GRID)) if sample.label else np.zeros((GRID, GRID))
        yield decode(sample.image).rgb, shrunk(np.ones((GRID, GRID)) if truth is None else truth > 0)


Way = Callable[[Looks], tuple[Floats, Floats]]
"""Make scores [B] and maps [B, GRID, GRID] of looks."""


def over(*names: str, pooling: ScorePooling = TOP) -> Way:
    """Return the way that takes the mean over looks."""
    return lambda looks: (
        np.mean([pooling(looks.scores[name], looks.maps[name]) for name in names], axis=0),
        looks.mean(names),
    )


def least(looks: Looks) -> tuple[Floats, Floats]:
    """Take the least value at each place."""
    maps: Floats = np.asarray(np.min([looks.maps[name] for name in PAIR], axis=0))
    return TOP(maps[:, 0, 0], maps), maps


def contrast(looks: Looks) -> tuple[Floats, Floats]:
    """Take the top of the map less its median."""
    scores, maps = over(*PAIR)(looks)
    return np.asarray(scores - np.median(maps, axis=(1, 2)), np.float32), maps


def own(*names: str) -> Way:
    """Return the way that adds half the distance of each patch to its own image to the map that is pooled."""

    def way(looks: Looks) -> tuple[Floats, Floats]:
        maps = looks.mean(names)
        coarse = np.stack([resize_map(values, (CELLS, CELLS)) for values in maps])
        joined = np.asarray(coarse + looks.own / 2, np.float32)
        return TOP(joined[:, 0, 0], joined), maps

    return way


WAYS: dict[str, Way] = {
    "448 and 320": over(*PAIR),
    "448, 560 and 224": over(*WIDER),
    "448 alone": over("448"),
    "320 alone": over("320"),
    "448 and 224": over("448", "224"),
    "448, 320 and 224": over("448", "320", "224"),
    "448, 560 and 320": over("448", "560", "320"),
    "448, 560, 320 and 224": over("448", "560", "320", "224"),
    "448 and 320 mirrored": over("448", "320 mirrored"),
    "448 and 320, the least": least,
    "448 and 320, top 1 %": over(*PAIR, pooling=ScorePooling(1.0, 0.01)),
    "448 and 320, top 10 %": over(*PAIR, pooling=ScorePooling(1.0, 0.1)),
    "448 and 320, top less median": contrast,
    "448 and 320, a quarter class token": over(*PAIR, pooling=ScorePooling(0.75, 0.03)),
    "448 and 320, own patches": own(*PAIR),
    "448, 560 and 224, own patches": own(*WIDER),
    "448 and 320, with APRIL-GAN": over(*PAIR, "aprilgan 448", "aprilgan 320"),
    "448 and 224, with APRIL-GAN": over("448", "224", "aprilgan 448", "aprilgan 224"),
    "448 and 320, APRIL-GAN alone": over("aprilgan 448", "aprilgan 320"),
}


def row(name: str, way: Way, scenes: Looks, photographs: Looks) -> str:
    """Return a Markdown row of what a way reaches, in per cent."""
    scores, maps = way(scenes)
    numbers = [twins_in_order(scores, scenes.labels), auroc(scores, scenes.labels) or 0.0]
    numbers.append(auroc(maps.ravel(), scenes.masks.ravel()) or 0.0)
    scores, maps = way(photographs)
    numbers += [auroc(scores, photographs.labels) or 0.0, auroc(maps.ravel(), photographs.masks.ravel()) or 0.0]
    twins, between, pixels, *real = (f"{100 * number:.1f}" for number in numbers)
    return f"| {name} | {twins} / {between} / {pixels} | {' / '.join(real)} |"


def main() -> None:
    """Print one row a way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, help="folder of scenes")
    parser.add_argument("--photographs", required=True, help="LAYOUT:PATH of one labelled class")
    parser.add_argument("--count", type=int, default=256, help="scenes looked at")
    arguments = parser.parse_args()
    scenes, photographs = (
        looks_of(drawn(arguments.scenes, arguments.count)),
        looks_of(photographed(arguments.photographs)),
    )
    print("| | scenes: twins in order / image AUROC / pixel AUROC | photographs: image / pixel AUROC |\n|---|---|---|")
    for name, way in WAYS.items():
        print(row(name, way, scenes, photographs))


if __name__ == "__main__":
    main()
