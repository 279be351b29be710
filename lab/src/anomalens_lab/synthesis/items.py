"""Paint things on a ground: outlines with 2.5-D shading, painted item by item.

An `Item` is a parametric outline (radial, box, path or stamp) with a colour, a height profile and a role; a `Plan` is
a ground image and its items in painting order. Structural faults edit the items and paint the plan again, so the
difference of the two paintings is the exact mask. Painted patches are cached by item: a second painting is cheap.
"""

from dataclasses import dataclass, field
from typing import cast

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from anomalens_lab.synthesis.fields import Bool, Field, Random, generator, octaves, sample, smoothstep

ANGLES = 360  # samples of a radial outline


@dataclass(frozen=True, eq=False)
class Break:
    """Describe a piece broken off along a rough line: everything beyond `offset` (pixels) along `angle` is gone."""

    angle: float
    offset: float
    # Roughness of the line in pixels.
    roughness: float
    seed: int


@dataclass(frozen=True, eq=False)
class Item:
    """Describe one painted thing. Lengths in pixels, angles in radians, colours 0..1."""

    # "radial", "box", "path" or "stamp".
    outline: str
    x: float
    y: float
    # Half extents along the own axes; for a path (half width at start, at end).
    size: tuple[float, float]
    colour: Field
    angle: float = 0.0
    # Radial [ANGLES]: radius factor; path [P,2]: points; stamp [h,w]: coverage.
    form: Field | None = None
    # Radial: radius of the bore relative to the outline.
    inner: float = 0.0
    # Box: corner radius, pixels.
    corner: float = 0.0
    # "flat", "bevel", "dome" or "tube".
    profile: str = "flat"
    # Strength of the shading, 0..1.
    relief: float = 0.5
    # Strength of the highlight, 0..1.
    gloss: float = 0.0
    # Strength of the fine texture.
    grain: float = 0.0
    # [h,w,3] laid over the item instead of its plain colour.
    texture: Field | None = None
    opacity: float = 1.0
    # Darkness of the shadow, 0..1.
    shadow: float = 0.0
    # Curvature: v moves by bend * u^2 / size.
    bend: float = 0.0
    role: str = "body"
    # Items of one group move together.
    group: int = 0
    # Seed of grain and fracture.
    seed: int = 0
    breaks: tuple[Break, ...] = ()


@dataclass(frozen=True)
class Light:
    """Describe one lamp for the whole scene: direction of the light in the image plane and height of shadows."""

    angle: float
    ambient: float
    # Length in pixels.
    shadow: float


@dataclass(frozen=True, eq=False)
class Plan:
    """Describe a scene before it is painted."""

    ground: Field
    items: tuple[Item, ...]
    light: Light
    # Which structural faults mean something here (names in `faults.FAULTS`); twice is drawn twice as often.
    faults: tuple[str, ...] = ()
    # Roles that come alone and whose place is free in normal scenes: they are never "misplaced".
    free: tuple[str, ...] = ("body",)


@dataclass
class Patch:
    """Hold a painted item: colour and coverage over the pixels top..top+h, left..left+w."""

    top: int
    left: int
    rgb: Field
    alpha: Field
    # Coverage of the shadow.
    shade: Field = field(repr=False)


def radial(name: str, rng: Random, **options: float) -> Field:
    """Return radius factors [ANGLES] (largest near 1) of a named outline."""
    t = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    n = options.get("n", 6)
    if name == "polygon":
        radius = np.cos(np.pi / n) / np.cos((t % (2 * np.pi / n)) - np.pi / n)
        round_off = options.get("round", 0.9)
        radius = np.minimum(radius, round_off)
    elif name == "super":
        p = options.get("power", 4.0)
        radius = (np.abs(np.cos(t)) ** p + np.abs(np.sin(t)) ** p) ** (-1 / p)
    elif name == "gear":
        tooth = np.tanh(options.get("sharp", 4.0) * np.cos(t * n))
        radius = 1 - options.get("depth", 0.15) * (0.5 - 0.5 * tooth)
    elif name == "organic":
        radius = np.ones(ANGLES)
        for k in range(2, int(options.get("orders", 7))):
            radius += rng.normal(0, options.get("lumps", 0.06) / (k - 1)) * np.cos(k * t + rng.uniform(0, 6.3))
    elif name == "petals":
        radius = 1 - options.get("depth", 0.1) * (0.5 - 0.5 * np.cos(n * t))
    elif name == "cut":
        radius = np.minimum(1.0, options.get("depth", 0.8) / np.maximum(np.cos(t), 1e-3) * 1.0)
        radius = np.where(np.cos(t) > 0, radius, 1.0)
    else:
        radius = np.ones(ANGLES)
    return np.asarray(radius / radius.max(), np.float32)


def stamp(text: str, height: int) -> Field:
    """Return the coverage [h,w] of a line of text about `height` pixels tall."""
    font = ImageFont.load_default(size=max(6, height))
    left, top, right, bottom = font.getbbox(text)
    canvas = Pillow.new("L", (int(right - left) + 4, int(bottom - top) + 4))
    ImageDraw.Draw(canvas).text((2 - left, 2 - top), text, fill=255, font=font)
    return np.asarray(canvas, np.float32) / np.float32(255)


def reach(item: Item) -> float:
    """Return the radius in pixels of the circle around the item's place that surely holds it."""
    if item.outline == "path" and item.form is not None:
        return float(np.abs(item.form).max() * 1.42 + max(item.size)) + 2
    longest = float(np.hypot(*item.size)) if item.outline != "radial" else max(item.size)
    return longest + abs(item.bend) * item.size[0] + 2


def _distance(item: Item, u: Field, v: Field) -> Field:
    """Compute the signed distance in pixels (negative inside), about right near the outline."""
    a, b = np.float32(max(item.size[0], 0.3)), np.float32(max(item.size[1], 0.3))
    if item.outline == "radial":
        p, q = u / a, v / b
        radius = np.sqrt(p * p + q * q)
        turn = np.arctan2(q, p) * np.float32(ANGLES / (2 * np.pi))
        low = np.floor(turn).astype(np.int64)
        part = turn - low
        form = item.form if item.form is not None else np.ones(ANGLES, np.float32)
        rim = form[low % ANGLES] * (1 - part) + form[(low + 1) % ANGLES] * part
        scale = np.float32(min(a, b))
        gap = (radius - rim) * scale
        return np.asarray(np.maximum(gap, (item.inner - radius) * scale) if item.inner > 0 else gap, np.float32)
    if item.outline == "box":
        r = np.float32(min(item.corner, float(a), float(b)))
        du, dv = np.abs(u) - a + r, np.abs(v) - b + r
        outside = np.sqrt(np.maximum(du, 0) ** 2 + np.maximum(dv, 0) ** 2)
        return cast(Field, outside + np.minimum(np.maximum(du, dv), 0) - r)
    if item.outline == "path" and item.form is not None:
        best = np.full(np.broadcast_shapes(u.shape, v.shape), 1e6, np.float32)
        count = len(item.form) - 1
        for k in range(count):
            (x0, y0), (x1, y1) = item.form[k], item.form[k + 1]
            dx, dy = x1 - x0, y1 - y0
            t = np.clip(((u - x0) * dx + (v - y0) * dy) / max(dx * dx + dy * dy, 1e-6), 0, 1)
            half = item.size[0] + (item.size[1] - item.size[0]) * (k + t) / count
            best = np.minimum(best, np.sqrt((u - x0 - t * dx) ** 2 + (v - y0 - t * dy) ** 2) - half)
        return best.astype(np.float32)
    form = item.form if item.form is not None else np.ones((4, 4), np.float32)
    rows, cols = form.shape
    inside = (np.abs(u) < a) & (np.abs(v) < b)
    cover = sample(form, (v / b + 1) * (rows - 1) / 2, (u / a + 1) * (cols - 1) / 2)
    return np.where(inside, 0.5 - cover, 1).astype(np.float32)


def _height(item: Item, gap: Field) -> Field:
    depth = np.maximum(-gap, 0)
    full = np.float32(max(1.0, min(item.size) if item.outline != "path" else max(item.size)))
    if item.profile == "dome":
        t = 1 - np.minimum(depth / full, 1)
        return cast(Field, full * np.sqrt(np.maximum(1 - t * t, 0)) * np.float32(0.8))
    if item.profile == "tube":
        t = 1 - np.minimum(depth / full, 1)
        return cast(Field, full * np.sqrt(np.maximum(1 - t * t, 0)))
    rim = np.float32(max(1.5, 0.15 * float(full)))
    return cast(Field, rim * smoothstep(depth, 0, float(rim)))


def paint_item(item: Item, light: Light, h: int, w: int) -> Patch | None:
    """Paint one item on its own; None where it lies wholly outside the canvas [H,W]."""
    r = reach(item)
    top, left = int(np.floor(item.y - r)), int(np.floor(item.x - r))
    length = int(np.ceil(2 * r)) + 1
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + length, h), min(left + length, w)
    if y1 <= y0 or x1 <= x0:
        return None
    y = np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(item.y)
    x = np.arange(x0, x1, dtype=np.float32)[None, :] - np.float32(item.x)
    c, s = np.float32(np.cos(item.angle)), np.float32(np.sin(item.angle))
    u, v = c * x + s * y, -s * x + c * y
    if item.bend:
        v = v - np.float32(item.bend / max(item.size[0], 1)) * u * u
    gap = _distance(item, u, v)
    for piece in item.breaks:
        line = np.cos(piece.angle) * u + np.sin(piece.angle) * v
        rough = octaves(generator(piece.seed), u.shape[0], u.shape[1], max(4.0, piece.roughness * 3), count=4, gain=0.6)
        gap = np.maximum(gap, line - np.float32(piece.offset) + np.float32(piece.roughness) * rough)
    alpha = np.clip(0.5 - gap, 0, 1) * np.float32(item.opacity)
    if item.texture is None:
        rgb = np.broadcast_to(item.colour, (*gap.shape, 3))
    else:
        rows = np.arange(y0 - top, y1 - top) % item.texture.shape[0]
        cols = np.arange(x0 - left, x1 - left) % item.texture.shape[1]
        rgb = item.texture[np.ix_(rows, cols)]
    tone = np.ones_like(gap)
    if item.profile != "flat" and min(gap.shape) > 2:
        gy, gx = np.gradient(_height(item, gap))
        lamp = -(gx * np.float32(np.cos(light.angle)) + gy * np.float32(np.sin(light.angle)))
        norm = 1 / np.sqrt(1 + gx * gx + gy * gy)
        tone = light.ambient + (1 - light.ambient) * (0.75 * norm + 0.6 * lamp * norm)
        tone = 1 + np.float32(item.relief) * (tone - 1)
    if item.grain:
        noise = octaves(
            generator(item.seed), gap.shape[0], gap.shape[1], max(2.0, max(item.size) * 0.3), count=4, gain=0.7
        )
        tone = tone + np.float32(item.grain) * noise
    rgb = rgb * tone[..., None]
    if item.gloss and item.profile != "flat" and min(gap.shape) > 2:
        shine = np.clip(0.5 * norm + 0.8 * lamp * norm, 0, 1) ** 12
        rgb = rgb + np.float32(item.gloss) * shine[..., None]
    shade = np.clip(0.5 - gap / np.float32(max(2.0, light.shadow)), 0, 1) if item.shadow else alpha[:0]
    return Patch(y0, x0, rgb.astype(np.float32), alpha.astype(np.float32), shade.astype(np.float32))


Cache = dict[int, tuple[Item, Patch | None]]


def paint(plan: Plan, items: tuple[Item, ...], cache: Cache) -> tuple[Field, Bool]:
    """Paint the plan's ground with `items` on it: image [H,W,3] and where things cover the ground [H,W]."""
    canvas = plan.ground.copy()
    h, w = canvas.shape[:2]
    covered = np.zeros((h, w), bool)
    dy = round(-np.sin(plan.light.angle) * plan.light.shadow)
    dx = round(-np.cos(plan.light.angle) * plan.light.shadow)
    for item in items:
        if id(item) not in cache:
            # The item is kept beside its patch so that its id stays taken while the cache lives.
            cache[id(item)] = (item, paint_item(item, plan.light, h, w))
        patch = cache[id(item)][1]
        if patch is None:
            continue
        rows, cols = patch.alpha.shape
        if item.shadow:
            y0, x0 = max(patch.top + dy, 0), max(patch.left + dx, 0)
            y1, x1 = min(patch.top + dy + rows, h), min(patch.left + dx + cols, w)
            if y1 > y0 and x1 > x0:
                part = patch.shade[
                    y0 - patch.top - dy : y1 - patch.top - dy, x0 - patch.left - dx : x1 - patch.left - dx
                ]
                canvas[y0:y1, x0:x1] *= (1 - np.float32(item.shadow) * part)[..., None]
        window = canvas[patch.top : patch.top + rows, patch.left : patch.left + cols]
        window += (patch.rgb - window) * patch.alpha[..., None]
        covered[patch.top : patch.top + rows, patch.left : patch.left + cols] |= patch.alpha > 0.4
    return canvas, covered
