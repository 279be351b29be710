"""Paint a thing clean and faulty, photograph both alike, and mark where they differ visibly.

All randomness is derived from the seed, by drawing in one fixed order: a draw that is added, left out or moved changes
every scene.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from anomalens_lab.synthesis.camera import Shot, draw_shot, expose
from anomalens_lab.synthesis.config import SynthesisConfig
from anomalens_lab.synthesis.defects import DEFECTS, WIDE_DEFECTS, Canvas
from anomalens_lab.synthesis.faults import FAULTS
from anomalens_lab.synthesis.fields import Bool, Field, Random, blur, chance, generator, log_uniform, pick
from anomalens_lab.synthesis.items import Cache, Plan, paint
from anomalens_lab.synthesis.marks import choose_spot
from anomalens_lab.synthesis.photographs import list_photographs, photograph
from anomalens_lab.synthesis.surfaces import SURFACES, seasoned
from anomalens_lab.synthesis.workshop import PARTS

# A piece of these can visibly sit wrong: they have lines, grain or a repeat.
_ORDERED = (
    "wood", "woven", "knit", "striped", "mesh", "perforated", "tiled", "ribbed", "embossed", "printed", "solar",
    "quilted",
)  # fmt: skip
_PHOTO_SUBJECTS = (
    "textured surface", "material", "surface", "wall", "panel", "floor", "metal surface", "fabric", "stone",
)  # fmt: skip
# Kinds whose change is a patchwork of pixels: the mask is the area they cover, seen from farther away.
_AREAS = ("deformation", "misprint", "misplaced", "worn", "stain", "discolouration", "missing")
# Kinds that are lines: what a ring of them encloses is no part of the defect.
_LINES = ("thread", "crack", "scratch")

VISIBLE = 0.04
"""A change is visible from this difference on (0..1, largest channel, after light and tone)."""
_TEXTURE_SHARE = 0.35  # of a surface's own spread, which the mean change must reach to stand out from it
_FEWEST_PIXELS = 6  # of a mask
_LARGEST_SHARE = 0.7  # of the picture that a mask may cover

_COARSE_SHARE = 0.25  # scenes painted at a lower resolution
_COARSE = (0.5, 0.95)  # that resolution, relative to the full one
_SEASONED_SHARE = 0.18  # surfaces strewn with irregularities of their own
_STRUCTURAL_SHARE = 0.55  # faulty parts whose plan is changed, instead of the picture alone
_STRUCTURAL_TRIES = 3  # structural faults tried until one is visible
_SINGLE_SHARE = 0.7  # faulty scenes with one defect only
_DEFECT_TRIES = 4  # spots tried for a kind until it is visible there
_OVERLAP = 0.2  # share of the smaller of two defects that the other may cover
_EXTENT = (0.014, 0.38)  # half the size of a defect, relative to the thing: from specks to most of it
_WIDE_EXTENT = (0.2, 0.6)  # the same of one that spreads over much of the thing

Layer = tuple[str, Bool]
"""A defect: its kind and its mask [H, W]."""


@dataclass(frozen=True, eq=False)
class Rendering:
    """Hold a scene before the camera: clean and faulty version of the same thing, and where they differ."""

    # [H, W, 3] in 0..1, after light and tone.
    clean: Field
    # [H, W, 3]; equal to `clean` for a sound scene.
    faulty: Field
    # In the order they were made.
    layers: tuple[Layer, ...]
    family: str
    subject: str
    shot: Shot


class _Skins:
    """Paint one of the allowed surfaces, procedural or photographed."""

    def __init__(self, config: SynthesisConfig) -> None:
        self.names = config.skins
        self.photographs = list_photographs(config.materials) if config.materials else ()
        self.share = config.material_share if self.photographs else 0.0

    def photo(self, rng: Random, h: int, w: int) -> Field | None:
        return photograph(rng, self.photographs, h, w) if self.share and chance(rng, self.share) else None

    def __call__(self, rng: Random, h: int, w: int) -> Field:
        photo = self.photo(rng, h, w)
        return SURFACES[pick(rng, self.names)].paint(rng, h, w) if photo is None else photo


def _canvas(rng: Random, config: SynthesisConfig, part: bool) -> tuple[int, int]:
    """Draw the height and width to paint at: the square, a lower resolution, or a squeezed rectangle of like area.

    Surfaces are squeezed up to 1:4; pictures of single parts are seldom cropped longer than 1:2.
    """
    scale = float(rng.uniform(*_COARSE)) if chance(rng, _COARSE_SHARE) else 1.0
    ratio = log_uniform(rng, 1.15, 2 if part else 4) if chance(rng, config.squash_share) else 1.0
    if chance(rng, 0.5):
        ratio = 1 / ratio
    h, w = (max(48, round(config.size * scale * np.sqrt(r))) for r in (1 / ratio, ratio))
    return h, w


def _radius(rng: Random, extent: float, wide: bool) -> float:
    """Draw half the size of a defect on a thing `extent` pixels large, in pixels; `wide`: one that spreads over it."""
    return max(1.5, extent * log_uniform(rng, *(_WIDE_EXTENT if wide else _EXTENT)))


def _visible(before: Field, after: Field, kind: str, sigma: float, wide: bool = False) -> Bool | None:
    """Mark where the picture [H, W, 3], blurred by `sigma` pixels, changed visibly; None where nobody would notice.

    `wide`: what a net of lines encloses belongs to the defect.
    """
    difference = after - before
    if sigma > 0:
        rows, cols = (np.flatnonzero((np.abs(difference) > VISIBLE / 2).any((a, 2))) for a in (1, 0))
        if not rows.size:
            return None
        part = np.s_[max(0, rows[0] - 5) : rows[-1] + 6, max(0, cols[0] - 5) : cols[-1] + 6]
        difference[part] = blur(difference[part], sigma)
    change = np.abs(difference).max(axis=-1)
    if kind in _AREAS:
        # A patch of changed texture also holds pixels that happen to agree; they belong to it.
        mask = (change > VISIBLE) | (blur(change, 2.0) > VISIBLE * 0.7)
    else:
        mask = (change > VISIBLE) | (blur(change, 0.8) > VISIBLE)
    if int(mask.sum()) < _FEWEST_PIXELS:
        return None
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    window = np.s_[max(0, rows[0] - 6) : rows[-1] + 7, max(0, cols[0] - 6) : cols[-1] + 7]
    mask[window] = ndimage.binary_closing(np.pad(mask[window], 2), iterations=2)[2:-2, 2:-2] | mask[window]
    if wide or kind not in _LINES:
        mask[window] = ndimage.binary_fill_holes(mask[window])
    strength = float(change[mask].mean())
    # On a busy surface a change must stand out from what the surface does by itself.
    texture = float(before[window].std(axis=(0, 1)).mean())
    seen = strength >= max(VISIBLE, _TEXTURE_SHARE * texture) and mask.mean() <= _LARGEST_SHARE
    return np.asarray(mask, bool) if seen else None


@dataclass(frozen=True, eq=False)
class _Subject:
    """State what a scene shows, sound, before it is photographed."""

    # [H, W, 3].
    raw: Field
    family: str
    words: str
    # Direction of the light, radians.
    lamp: float
    # Plan of a part; None for a surface.
    plan: Plan | None = None
    # [H, W], where a part covers its ground.
    region: Bool | None = None


def _draw_part(rng: Random, h: int, w: int, config: SynthesisConfig, skins: _Skins, cache: Cache) -> _Subject:
    family = str(pick(rng, config.parts))
    words = str(pick(rng, PARTS[family].subjects))
    plan = PARTS[family].plan(rng, h, w, skins)
    raw, region = paint(plan, plan.items, cache)
    return _Subject(raw, family, words, plan.light.angle, plan, region)


def _draw_surface(rng: Random, h: int, w: int, config: SynthesisConfig, skins: _Skins) -> _Subject:
    family = str(pick(rng, config.surfaces))
    photo = skins.photo(rng, h, w)
    raw = SURFACES[family].paint(rng, h, w) if photo is None else photo
    if chance(rng, _SEASONED_SHARE):
        raw = seasoned(rng, raw)
    words = str(pick(rng, SURFACES[family].subjects if photo is None else _PHOTO_SUBJECTS))
    return _Subject(raw, family if photo is None else "photograph", words, float(rng.uniform(0, 2 * np.pi)))


def _structural_fault(
    rng: Random, plan: Plan, clean: Field, cache: Cache, shot: Shot, kinds: tuple[str, ...]
) -> tuple[Field, Bool, Layer] | None:
    """Paint the plan again with one structural fault: raw image, region covered, layer; None where none is visible."""
    options = [name for name in plan.faults if FAULTS[name][1] in kinds]
    for _ in range(_STRUCTURAL_TRIES if options else 0):
        fault, kind = FAULTS[pick(rng, options)]
        items = fault(rng, plan, plan.items)
        if items is None:
            continue
        image, region = paint(plan, items, cache)
        mask = _visible(clean, expose(image, shot), kind, shot.sigma)
        if mask is not None:
            return image, region, (kind, mask)
    return None


def render(seed: int, config: SynthesisConfig, *, anomalous: bool | None = None) -> Rendering:
    """Paint the clean and the faulty version of scene `seed`.

    `anomalous` forces the state; a sound thing may still come out where no defect turned out visible.
    """
    rng = generator(seed)
    skins, cache = _Skins(config), Cache()
    part = bool(config.parts) and (not config.surfaces or chance(rng, config.part_share))
    h, w = _canvas(rng, config, part)
    thing = _draw_part(rng, h, w, config, skins, cache) if part else _draw_surface(rng, h, w, config, skins)
    shot = draw_shot(rng, thing.raw, config.size, config.grey_share)
    clean = expose(thing.raw, shot)
    faulty, layers = clean, list[Layer]()
    drawn_anomalous = not chance(rng, config.normal_share)
    count = 1 if chance(rng, _SINGLE_SHARE) else int(rng.integers(1, config.max_defects + 1))
    if drawn_anomalous if anomalous is None else anomalous:
        faulty, layers = _spoil(rng, thing, clean, shot, config, skins, cache, count)
    return Rendering(clean, faulty, tuple(layers), thing.family, thing.words, shot)


def _spoil(
    rng: Random,
    thing: _Subject,
    clean: Field,
    shot: Shot,
    config: SynthesisConfig,
    skins: _Skins,
    cache: Cache,
    count: int,
) -> tuple[Field, list[Layer]]:
    """Give the thing up to `count` defects: the faulty picture [H, W, 3] after light and tone, and its layers."""
    raw, region, faulty, layers = thing.raw, thing.region, clean, list[Layer]()
    h, w = raw.shape[:2]
    if thing.plan is not None and chance(rng, _STRUCTURAL_SHARE):
        spoilt = _structural_fault(rng, thing.plan, clean, cache, shot, config.kinds)
        if spoilt is not None:
            raw, region, layer = spoilt
            faulty = expose(raw, shot)
            layers.append(layer)
    kinds = [k for k in config.kinds if k != "misplaced" or thing.plan is not None or thing.family in _ORDERED]
    spreading = [k for k in kinds if k in WIDE_DEFECTS]
    extent = min(h, w) if region is None else float(np.sqrt(region.mean() * h * w)) + 8
    ground = None if thing.plan is None else thing.plan.ground
    for _ in range(2 * config.max_defects if kinds else 0):
        if len(layers) >= count:
            break
        # Without a share nothing is drawn: the scenes of a seed must not change.
        wide = bool(spreading) and config.wide_share > 0 and chance(rng, config.wide_share)
        kind = str(pick(rng, spreading if wide else kinds))
        # The same kind is tried again before another, so that subtle kinds are not crowded out by loud ones.
        for _ in range(_DEFECT_TRIES):
            canvas = Canvas(raw, ground, region, thing.lamp, skins)
            spot = choose_spot(rng, region, h, w, _radius(rng, extent, wide))
            changed = (WIDE_DEFECTS if wide else DEFECTS)[kind](rng, canvas, spot)
            after = expose(changed, shot)
            mask = _visible(faulty, after, kind, shot.sigma, wide)
            # A second defect on top of the first could undo it.
            if mask is not None and not any(_overlap(mask, other) for _, other in layers):
                raw, faulty = changed, after
                layers.append((kind, mask))
                break
    return faulty, layers


def _overlap(mask: Bool, other: Bool) -> bool:
    return bool((mask & other).sum() > _OVERLAP * min(mask.sum(), other.sum()))
