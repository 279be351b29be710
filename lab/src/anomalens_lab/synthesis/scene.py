"""Scenes: a procedural photograph with the exact mask, kinds and words of its defects, as a function of a seed."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from anomalens.errors import ConfigError
from anomalens_lab.synthesis import arrays, electronics, goods, hardware, patterns  # noqa: F401  (they register families)
from anomalens_lab.synthesis.camera import Shot, develop, develop_mask, draw_shot, expose
from anomalens_lab.synthesis.captions import kind_phrases, state_captions
from anomalens_lab.synthesis.defects import DEFECTS, Canvas
from anomalens_lab.synthesis.faults import FAULTS
from anomalens_lab.synthesis.fields import Bool, Field, Random, blur, chance, generator, log_uniform, pick
from anomalens_lab.synthesis.items import Cache, Plan, paint
from anomalens_lab.synthesis.marks import choose_spot
from anomalens_lab.synthesis.photographs import list_photographs, photograph
from anomalens_lab.synthesis.surfaces import SURFACES, seasoned
from anomalens_lab.synthesis.words import KINDS
from anomalens_lab.synthesis.workshop import PARTS

SURFACE_FAMILIES: tuple[str, ...] = tuple(SURFACES)
PART_FAMILIES: tuple[str, ...] = tuple(PARTS)
FAMILIES: tuple[str, ...] = SURFACE_FAMILIES + PART_FAMILIES
# About a fifth of both, of unlike character, to be left out of training where choices are made on unseen families.
# No other family is built upon them, so excluding them removes every trace.
HELD_OUT_FAMILIES: tuple[str, ...] = (
    "knit", "embossed", "solar", "fibrous", "paper", "cast",
    "washer", "capsule", "chip", "blister", "tube",
)  # fmt: skip

# A piece of these can visibly sit wrong: they have lines, grain or a repeat.
_ORDERED = (
    "wood", "woven", "knit", "striped", "mesh", "perforated", "tiled", "ribbed", "embossed", "printed", "solar",
    "quilted",
)  # fmt: skip
_PHOTO_SUBJECTS = (
    "textured surface",
    "material",
    "surface",
    "wall",
    "panel",
    "floor",
    "metal surface",
    "fabric",
    "stone",
)
# Kinds whose change is a patchwork of pixels: the mask is the area they cover, seen from farther away.
_AREAS = ("deformation", "misprint", "misplaced", "worn", "stain", "discolouration", "missing")
# A change is visible from this difference on (0..1, largest channel, after light and tone).
VISIBLE = 0.04


@dataclass(frozen=True)
class SynthesisConfig:
    """What to draw. Shares are probabilities in 0..1."""

    size: int = 256  # side of the images, pixels, 64..1024
    normal_share: float = 0.38  # scenes without defect
    part_share: float = 0.5  # scenes showing parts; the others are surfaces
    include: tuple[str, ...] = ()  # families to use; empty: all
    exclude: tuple[
        str, ...
    ] = ()  # families never drawn, nor seen as texture or ground of a part ("painted", where no other is left)
    kinds: tuple[str, ...] = KINDS[1:]  # defect kinds to use
    materials: tuple[Path, ...] = ()  # folders of texture photographs; may be empty
    material_share: float = 0.4  # surfaces taken from photographs, where there are any
    grey_share: float = 0.25  # scenes without colour
    squash_share: float = 0.3  # scenes squeezed from another aspect ratio (up to 1:4) into the square
    max_defects: int = 3  # defects in one scene, 1..8

    def __post_init__(self) -> None:
        if not 64 <= self.size <= 1024:
            raise ConfigError(f"size must be within 64..1024 pixels, found {self.size}")
        for name in ("normal_share", "part_share", "material_share", "grey_share", "squash_share"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} must be within 0..1, found {value}")
        for name, known in (("include", FAMILIES), ("exclude", FAMILIES), ("kinds", KINDS[1:])):
            unknown = sorted(set(getattr(self, name)) - set(known))
            if unknown:
                raise ConfigError(f"unknown names in {name}: {unknown}; expected some of {sorted(known)}")
        if not self.kinds:
            raise ConfigError("kinds is empty: name at least one defect kind, or set normal_share=1 for sound scenes")
        if not 1 <= self.max_defects <= 8:
            raise ConfigError(f"max_defects must be within 1..8, found {self.max_defects}")
        if not self.surfaces and not self.parts:
            raise ConfigError("include and exclude leave no family; exclude fewer")

    @property
    def surfaces(self) -> tuple[str, ...]:
        """The surface families in use."""
        return tuple(f for f in SURFACE_FAMILIES if (not self.include or f in self.include) and f not in self.exclude)

    @property
    def parts(self) -> tuple[str, ...]:
        """The part families in use."""
        return tuple(f for f in PART_FAMILIES if (not self.include or f in self.include) and f not in self.exclude)

    @property
    def skins(self) -> tuple[str, ...]:
        """Surface families allowed as ground or texture of parts: the included ones, or else all not excluded."""
        return self.surfaces or tuple(f for f in SURFACE_FAMILIES if f not in self.exclude) or ("painted",)


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture and the whole truth about it."""

    image: npt.NDArray[np.uint8]  # [H,W,3]
    mask: Bool  # [H,W], True where the picture was changed visibly by a defect
    kinds: npt.NDArray[np.uint8]  # [H,W], index into KINDS, 0 outside the mask
    family: str  # surface or part family
    subject: str  # words for the thing
    caption: str  # one sentence that is true of it
    defect_words: tuple[str, ...]  # one phrase for each kind of defect present; empty for a sound scene
    seed: int

    @property
    def anomalous(self) -> bool:
        """Whether the scene shows a defect."""
        return bool(self.defect_words)

    @property
    def kind_names(self) -> tuple[str, ...]:
        """Names of the defect kinds present, in the order of KINDS."""
        return tuple(KINDS[k] for k in np.unique(self.kinds) if k)


@dataclass(frozen=True, eq=False)
class Rendering:
    """A scene before the camera: clean and faulty version of the same thing, and where they differ."""

    clean: Field  # [H,W,3] in 0..1, after light and tone
    faulty: Field  # [H,W,3]; equal to `clean` for a sound scene
    layers: tuple[tuple[str, Bool], ...]  # (kind, mask [H,W]) in the order they were made
    family: str
    subject: str
    shot: Shot


class _Skins:
    """Paints one of the allowed surfaces, procedural or photographed."""

    def __init__(self, config: SynthesisConfig) -> None:
        self.names = config.skins
        self.photographs = list_photographs(config.materials) if config.materials else ()
        self.share = config.material_share if self.photographs else 0.0

    def photo(self, rng: Random, h: int, w: int) -> Field | None:
        return photograph(rng, self.photographs, h, w) if self.share and chance(rng, self.share) else None

    def __call__(self, rng: Random, h: int, w: int) -> Field:
        found = self.photo(rng, h, w)
        return SURFACES[pick(rng, self.names)].paint(rng, h, w) if found is None else found


def _canvas(rng: Random, config: SynthesisConfig, part: bool) -> tuple[int, int]:
    """Height and width to paint at: the square, a lower resolution, or a squeezed rectangle of like area.

    Surfaces are squeezed up to 1:4; pictures of single parts are seldom cropped longer than 1:2.
    """
    scale = float(rng.uniform(0.5, 0.95)) if chance(rng, 0.25) else 1.0
    ratio = log_uniform(rng, 1.15, 2 if part else 4) if chance(rng, config.squash_share) else 1.0
    if chance(rng, 0.5):
        ratio = 1 / ratio
    h, w = (max(48, round(config.size * scale * np.sqrt(r))) for r in (1 / ratio, ratio))
    return h, w


def _radius(rng: Random, extent: float) -> float:
    """Half the size of a defect, pixels: from specks to half of the thing, equally likely on a log scale."""
    return max(1.5, extent * log_uniform(rng, 0.014, 0.38))


def _visible(before: Field, after: Field, kind: str, sigma: float) -> Bool | None:
    """Where the picture, blurred by `sigma` pixels, changed so that one can see it; None where nobody would notice."""
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
    count = int(mask.sum())
    if count < 6:
        return None
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    window = np.s_[max(0, rows[0] - 6) : rows[-1] + 7, max(0, cols[0] - 6) : cols[-1] + 7]
    mask[window] = ndimage.binary_closing(np.pad(mask[window], 2), iterations=2)[2:-2, 2:-2] | mask[window]
    mask[window] = (
        ndimage.binary_fill_holes(mask[window]) if kind not in ("thread", "crack", "scratch") else mask[window]
    )
    strength = float(change[mask].mean())
    # On a busy surface a change must stand out from what the surface does by itself.
    texture = float(before[window].std(axis=(0, 1)).mean())
    if strength < VISIBLE or strength < 0.35 * texture:
        return None
    if mask.mean() > 0.7:
        return None
    return np.asarray(mask, bool)


def _faulty_items(
    rng: Random, plan: Plan, clean: Field, cache: Cache, shot: Shot, config: SynthesisConfig
) -> tuple[Field, Bool, tuple[str, Bool]] | None:
    """The plan painted again with one structural fault: raw image, region, (kind, mask)."""
    options = [f for f in plan.faults if FAULTS[f][1] in config.kinds]
    for _ in range(3):
        if not options:
            return None
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
    """The clean and the faulty version of scene `seed`; `anomalous` forces the state (a sound thing may still come
    out when no defect turned out visible)."""
    rng = generator(seed)
    skins = _Skins(config)
    part = bool(config.parts) and (not config.surfaces or chance(rng, config.part_share))
    h, w = _canvas(rng, config, part)
    plan: Plan | None = None
    cache: Cache = {}
    region: Bool | None = None
    if part:
        family = str(pick(rng, config.parts))
        subject = str(pick(rng, PARTS[family].subjects))
        plan = PARTS[family].plan(rng, h, w, skins)
        raw, region = paint(plan, plan.items, cache)
        lamp = plan.light.angle
    else:
        family = str(pick(rng, config.surfaces))
        photo = skins.photo(rng, h, w)
        raw = SURFACES[family].paint(rng, h, w) if photo is None else photo
        if chance(rng, 0.18):
            raw = seasoned(rng, raw)
        subject = str(pick(rng, SURFACES[family].subjects if photo is None else _PHOTO_SUBJECTS))
        family = family if photo is None else "photograph"
        lamp = float(rng.uniform(0, 2 * np.pi))
    shot = draw_shot(rng, raw, config.size, config.grey_share)
    clean = expose(raw, shot)
    wanted = not chance(rng, config.normal_share)
    if anomalous is not None:
        wanted = anomalous
    faulty, layers = clean, []
    count = 1 if chance(rng, 0.7) else int(rng.integers(1, config.max_defects + 1))
    if wanted and plan is not None and chance(rng, 0.55):
        found = _faulty_items(rng, plan, clean, cache, shot, config)
        if found is not None:
            raw, region, layer = found
            faulty = expose(raw, shot)
            layers.append(layer)
    kinds = [k for k in config.kinds if k != "misplaced" or plan is not None or family in _ORDERED]
    extent = min(h, w) if region is None else float(np.sqrt(region.mean() * h * w)) + 8
    for _ in range(2 * config.max_defects):
        if not wanted or not kinds or len(layers) >= count:
            break
        kind = str(pick(rng, kinds))
        # The same kind is tried again before another one, so that subtle kinds are not crowded out by loud ones.
        for _ in range(4):
            canvas = Canvas(raw, None if plan is None else plan.ground, region, lamp, skins)
            changed = DEFECTS[kind](rng, canvas, choose_spot(rng, region, h, w, _radius(rng, extent)))
            after = expose(changed, shot)
            mask = _visible(faulty, after, kind, shot.sigma)
            # A second defect on top of the first could undo it.
            if mask is not None and not any((mask & m).sum() > 0.2 * min(mask.sum(), m.sum()) for _, m in layers):
                raw, faulty = changed, after
                layers.append((kind, mask))
                break
    return Rendering(clean, faulty, tuple(layers), family, subject, shot)


def _scene(seed: int, rendering: Rendering, image: Field, layers: tuple[tuple[str, Bool], ...]) -> Scene:
    size = rendering.shot.size
    kinds = np.zeros((size, size), np.uint8)
    for kind, layer in layers:
        kinds[develop_mask(layer, rendering.shot)] = KINDS.index(kind)
    present = tuple(KINDS[k] for k in np.unique(kinds) if k)
    if layers and not present:
        # All that was there has been lost in resampling: show the sound version instead of an unmarked fault.
        image = rendering.clean
    words = generator(seed, stream=1)
    caption = state_captions(rendering.subject, present, words)[0]
    phrases = tuple(str(pick(words, kind_phrases(k))) for k in present)
    return Scene(
        develop(image, rendering.shot),
        kinds > 0,
        kinds,
        rendering.family,
        rendering.subject,
        caption,
        phrases,
        seed,
    )


def scene(seed: int, config: SynthesisConfig | None = None) -> Scene:
    """Scene number `seed` (>= 0): the same on every machine of the same library versions, process and thread count."""
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, found {seed}")
    rendering = render(seed, config or SynthesisConfig())
    return _scene(seed, rendering, rendering.faulty, rendering.layers)


def twins(seed: int, config: SynthesisConfig | None = None) -> tuple[Scene, Scene]:
    """The same thing twice, under the same light and camera: (faulty, sound).

    In the rare case that no defect turned out visible both are sound.
    """
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, found {seed}")
    rendering = render(seed, config or SynthesisConfig(), anomalous=True)
    return _scene(seed, rendering, rendering.faulty, rendering.layers), _scene(seed, rendering, rendering.clean, ())


def _chunk(task: tuple[int, int, SynthesisConfig]) -> list[Scene]:
    start, stop, config = task
    return [scene(seed, config) for seed in range(start, stop)]


def scenes(count: int, seed: int = 0, config: SynthesisConfig | None = None, *, workers: int = 0) -> Iterator[Scene]:
    """Scenes `seed` .. `seed + count - 1` in order; `workers` processes render ahead (0: in this process).

    The scenes do not depend on `workers`. A few chunks at most are held in memory.
    """
    if count < 0 or workers < 0:
        raise ConfigError(f"count and workers must be 0 or more, found count={count}, workers={workers}")
    config = config or SynthesisConfig()
    if workers == 0:
        for index in range(seed, seed + count):
            yield scene(index, config)
        return
    size = 16
    starts = iter(range(seed, seed + count, size))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        tasks = ((s, min(s + size, seed + count), config) for s in starts)
        waiting = [pool.submit(_chunk, t) for _, t in zip(range(2 * workers), tasks, strict=False)]
        try:
            while waiting:
                done = waiting.pop(0).result()
                waiting += [pool.submit(_chunk, t) for _, t in zip(range(1), tasks, strict=False)]
                yield from done
        finally:
            for future in waiting:
                future.cancel()
