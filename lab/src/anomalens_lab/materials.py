"""Find photographs of real surfaces in folders, as training material, and sort them.

Texture collections hold much that is no surface: normal maps, icons, skies, whole doors. Photographs that are uniform
over their area serve as surfaces to put defects on; the others (doors, panels, wheels, walls with windows) serve as
whole things that are normal although their parts differ.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from anomalens.errors import InputError
from anomalens.images.image_files import FORMATS, quoted, read_file

_SUFFIXES = (".jpg", ".jpeg", ".png", ".tga", ".bmp")
# Relief, gloss and blend layers of game textures, and folders of effects, skies and lettering.
_NOT_A_PHOTOGRAPH = re.compile(
    r"(_norm|_nm|_nmap|_gloss|_glow|_bump|_sm|_rm|_gm|_spec|_local|_luma|_reflect|_shirt|_pants|_add|_blend|_mask"
    r"|_alpha|_h|_dot|_fx)\.|lightmap|/(sfx|effects|flares|skies|env|symbols|signs|eX|race|tex_pics|tex_lights"
    r"|tex_common|tex_anim|common|liquids|terrain_data|egyptsoc_sfx|desertfactory_signs|evil8_fx|proto2|oa_fogs"
    r"|water|desertfactory_shaders|fonts|flags|interface|effect)(/|\d)",
    re.IGNORECASE,
)
_KEEP = 320  # pixels of the shorter side kept in memory
_MOST_UNEVEN = 0.4  # of a surface, on the scale of `unevenness`


@dataclass(frozen=True)
class Materials:
    """Hold photographs as uint8 arrays [H, W, 3]: uniform `surfaces` and composed `things`."""

    surfaces: tuple[npt.NDArray[np.uint8], ...]
    things: tuple[npt.NDArray[np.uint8], ...]


def unevenness(image: npt.NDArray[np.uint8]) -> float:
    """Measure how much the parts of an image differ in brightness, colour and grain: 0 (all alike) to about 3.

    Means over 4 x 4 parts of colour and of the contrast at three scales; the spread of each over the parts, relative
    to the contrast within them.
    """
    small = np.asarray(Image.fromarray(image).resize((128, 128)), dtype=np.float32) / 255
    grey = small.mean(axis=2)
    layers = [small[..., c] for c in range(3)]
    inner = float(np.std(grey - ndimage.uniform_filter(grey, 32))) + 0.02
    for sigma in (0.7, 1.5, 3.0):
        fine = ndimage.gaussian_filter(grey, sigma)
        layers.append(2 * np.abs(fine - ndimage.gaussian_filter(fine, 2 * sigma)))
    parts = np.stack(layers).reshape(len(layers), 4, 32, 4, 32).mean(axis=(2, 4)).reshape(len(layers), 16)
    return float(np.sqrt(np.square(parts.std(axis=1)).sum()) / inner)


def _material(picture: Image.Image, _: list[str]) -> Image.Image | None:
    """Return an opened photograph as RGB, None where its size or form is that of no surface."""
    if min(picture.size) < 128 or max(picture.size) > 2.2 * min(picture.size) or max(picture.size) > 4096:
        return None
    return picture.convert("RGB")


def _load(path: Path) -> npt.NDArray[np.uint8] | None:
    """Read a photograph as RGB [H, W, 3], made smaller; None where it cannot be read or shows no material."""
    try:
        image = read_file(path, quoted(path), _material, formats=(*FORMATS, "TGA"))
    except InputError:
        return None
    if image is None:
        return None
    scale = _KEEP / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BOX)
    pixels: npt.NDArray[np.uint8] = np.asarray(image)
    dark = float(np.mean(pixels.max(axis=2) < 12))
    white = float(np.mean(pixels.min(axis=2) > 243))
    # Cut-outs on black or white, and plain colours, show nothing of a material.
    return None if dark > 0.2 or white > 0.2 or float(pixels.std()) < 4 else pixels


def collect(folders: Iterable[str | os.PathLike[str]]) -> Materials:
    """Collect all usable photographs under `folders`, sorted by path, near-duplicates dropped.

    Raises InputError where a folder is missing or nothing usable is found.
    """
    surfaces: list[npt.NDArray[np.uint8]] = []
    things: list[npt.NDArray[np.uint8]] = []
    seen = set[bytes]()
    folders = list(folders)
    for folder in folders:
        root = Path(folder)
        if not root.is_dir():
            raise InputError(
                f"no folder of materials at {root}; unpack the texture packages first (docs/model-card.md)"
            )
        for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in _SUFFIXES):
            if _NOT_A_PHOTOGRAPH.search("/" + path.relative_to(root).as_posix()):
                continue
            pixels = _load(path)
            if pixels is None:
                continue
            # Games ship the same texture under many names: compare tiny coarse thumbnails.
            thumbnail = (np.asarray(Image.fromarray(pixels).resize((6, 6), Image.Resampling.BOX)) // 6).tobytes()
            if thumbnail in seen:
                continue
            seen.add(thumbnail)
            (surfaces if unevenness(pixels) < _MOST_UNEVEN else things).append(pixels)
    if not surfaces:
        raise InputError(f"no usable photograph of a surface under {', '.join(map(str, folders))}")
    return Materials(tuple(surfaces), tuple(things))
