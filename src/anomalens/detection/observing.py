"""See good photographs as the detector will see images, and keep what is needed of them for ever.

    photo ─▶ views (turned copies) ─▶ tiles, sizes ─▶ engine ─▶ descriptors, map of words, what it shows as a whole

What is kept is small and complete: a part can be taught again, or taught more, from it alone.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalens.decision.capture import Capture, measure_capture, why_unusable
from anomalens.detection.tiling import cut
from anomalens.engines.contract import Engine
from anomalens.engines.taught import global_features
from anomalens.errors import InputError
from anomalens.images.content import content_key
from anomalens.images.decoding import Decoded
from anomalens.images.encoding import encode_image
from anomalens.images.image_files import quoted
from anomalens.images.pixel_values import Rgb
from anomalens.images.preprocessing import Preprocess
from anomalens.methods.parts.array_namespace import numpy_array
from anomalens.methods.parts.patches import resampled
from anomalens.methods.parts.turning import turn, views, zoom
from anomalens.methods.references.reference_method import FINER, Descriptors, ReferenceMethod
from anomalens.names import name_text
from anomalens.options import LoadOptions
from anomalens.threads import map_ordered

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

# Longest side of the pictures that show people what was taught, in pixels.
_THUMBNAIL = 96
# A copy of a single photograph, this much smaller, differs from it about as much as a second photograph would.
_ZOOM = 0.94
# Numbers of the views that are copies of a single photograph.
_ZOOMED, HALF_TURNED = -1, -2


@dataclass(frozen=True)
class Photo:
    """Describe a good photograph, as people know it and as it was taken."""

    # Its path in text form or a number, for people.
    name: str
    # Hash of its pixels, by which copies are told.
    key: int
    capture: Capture
    # A small picture of it, a WebP file.
    thumbnail: bytes


@dataclass(frozen=True)
class Seen:
    """Hold what all photographs gave at one size: O looks, each at one tile of one view of one photograph."""

    # For each kind of patches: [O, h, w, D] float16.
    descriptors: Descriptors
    # [O] each: numbers of the photograph, of its view (0: as it is, above: turned or mirrored, below: a copy that
    # stands for a second photograph where there is none) and of the tile.
    photo: Numbers
    view: Numbers
    tile: Numbers
    # [O] what words alone say: image scores, and maps [O, FINER h, FINER w] float16 for the grid of the first patches.
    word_scores: Floats
    word_maps: npt.NDArray[np.float16]
    # [O, G] unit vectors that describe looks as a whole.
    globals: Floats

    def only(self, chosen: npt.NDArray[Any]) -> "Seen":
        """Return the looks chosen by a mask or by positions."""
        parts = {name: value[chosen] for name, value in vars(self).items() if name != "descriptors"}
        return Seen(descriptors=tuple(part[chosen] for part in self.descriptors), **parts)

    def joined(self, other: "Seen", photos: int) -> "Seen":
        """Append the looks of further photographs, whose numbers begin at `photos`."""
        parts = {
            name: np.concatenate([value, getattr(other, name) + (photos if name == "photo" else 0)])
            for name, value in vars(self).items()
            if name != "descriptors"
        }
        pairs = zip(self.descriptors, other.descriptors, strict=True)
        return Seen(descriptors=tuple(np.concatenate(pair) for pair in pairs), **parts)


def photo_name(image: Any, number: int) -> str:
    """Return what messages call photograph `number` of several: its path in quotes, else its number."""
    return quoted(image) if isinstance(image, (str, Path)) else f"photo {number}"


def read_photos(
    images: Iterable[Any], workers: int, read: Callable[[Any], Decoded], known: Sequence[int] = ()
) -> Iterator[tuple[Photo, Rgb] | str]:
    """Decode good photographs in order; a line of text says why one is left out.

    Left out are unreadable images, images that cannot be judged, and copies of others, because a photograph that is
    compared with its copy looks like nothing else.

    Args:
        images: whatever `read` takes.
        workers: threads that read.
        read: decodes one; raises InputError where it cannot be read.
        known: `Photo.key` of photographs that were taught before.
    """
    keys = set(known)
    for number, (image, decoded) in enumerate(map_ordered(images, read, workers=workers, ahead=2 * workers)):
        if isinstance(decoded, InputError):
            yield str(decoded)
            continue
        if isinstance(decoded, Exception):
            raise decoded
        capture, key = measure_capture(decoded.rgb), content_key(decoded.rgb)
        unusable = why_unusable(capture)
        if unusable or key in keys:
            yield f"{photo_name(image, number)}: {unusable or 'a copy of another photo'}"
            continue
        keys.add(key)
        name = name_text(image) if isinstance(image, (str, Path)) else f"photo {number}"
        yield Photo(name, key, capture, _thumbnail(decoded.rgb)), decoded.rgb


def observe(
    engine: Engine,
    sizes: Sequence[Preprocess],
    options: LoadOptions,
    method: ReferenceMethod[Any],
    photos: Iterable[tuple[Rgb, int]],
    single: bool = False,
) -> dict[int, Seen]:
    """Look at photographs as a detector will look at images.

    Args:
        engine: from `Engine.with_levels`.
        sizes: how images are prepared for each size they are seen at.
        options: tiles and batch size.
        method: describes patches, and says whether mirrored views are looked at too.
        photos: pixels, uint8 [H, W, 3], and how many turned views to look at, of each photograph.
        single: look at copies too, because there is no second photograph to compare the only one with.

    Returns what was seen, by the shorter side of the pixels.

    Raises InputError where photographs have different shapes and the method keeps the shape of images.
    """
    waiting: dict[int, list[_Look]] = {}
    seen: dict[int, list[Seen]] = {}
    for number, (rgb, turns) in enumerate(photos):
        seen_as = dict(enumerate(views(rgb, turns, method.config.mirrored)))
        if single:
            seen_as |= {_ZOOMED: zoom(rgb, _ZOOM), HALF_TURNED: turn(rgb, 180)}
        for look in _looks(number, seen_as, sizes, options):
            side = min(look.pixels.shape[-2:])
            batch = waiting.setdefault(side, [])
            if batch and batch[0].pixels.shape != look.pixels.shape:
                raise InputError(
                    "the good photos have different shapes, and this method keeps the shape of images; crop them alike"
                )
            batch.append(look)
            if len(batch) == options.batch_size:
                seen.setdefault(side, []).append(_see(engine, method, waiting.pop(side)))
    for side, batch in waiting.items():
        seen.setdefault(side, []).append(_see(engine, method, batch))
    return {side: functools.reduce(lambda seen, more: seen.joined(more, 0), parts) for side, parts in seen.items()}


@dataclass(frozen=True)
class _Look:
    """Hold a tile of a view of a photograph, ready for the engine."""

    photo: int
    view: int
    tile: int
    pixels: Floats
    key: int


def _looks(
    number: int, seen_as: Mapping[int, Rgb], sizes: Sequence[Preprocess], options: LoadOptions
) -> Iterator[_Look]:
    for view, rgb in seen_as.items():
        decoded = Decoded(rgb, rgb.shape[0], rgb.shape[1])
        image = cut(decoded, sizes, options.tile, options.overlap)
        for tiles in image.pixels:
            for tile, pixels in enumerate(tiles):
                yield _Look(number, view, tile, pixels, image.keys[tile])


def _see(engine: Engine, method: ReferenceMethod[Any], looks: Sequence[_Look]) -> Seen:
    answer = engine.score_batch(np.stack([look.pixels for look in looks]), [look.key for look in looks])
    descriptors = tuple(numpy_array(part).astype(np.float16) for part in method.describe(answer.levels))
    height, width = descriptors[0].shape[1:3]
    return Seen(
        descriptors=descriptors,
        photo=np.array([look.photo for look in looks]),
        view=np.array([look.view for look in looks]),
        tile=np.array([look.tile for look in looks]),
        word_scores=np.asarray(answer.score, np.float32),
        word_maps=resampled(answer.map, (FINER * height, FINER * width)).astype(np.float16),
        globals=np.asarray(numpy_array(global_features(answer.levels)), np.float32),
    )


def _thumbnail(rgb: Rgb) -> bytes:
    picture = Image.fromarray(rgb)
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL), reducing_gap=2.0)
    return encode_image(picture, "WEBP", quality=70)
