"""Change an image within a mark so that it shows one kind of defect.

A defect is a function (generator, canvas, spot) -> changed image [H, W, 3]. Each kind has several looks, each look
several shapes, so that no single trick of the procedure gives a kind away. The mask is not drawn: `rendering` compares
the image before and after.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from anomalens_lab.synthesis.fields import (
    Bool,
    Field,
    Random,
    blur,
    chance,
    colour,
    log_uniform,
    mix,
    octaves,
    pick,
    sample,
    slope,
    smoothstep,
    spectral,
    white,
)
from anomalens_lab.synthesis.items import stamp
from anomalens_lab.synthesis.marks import (
    Spot,
    band,
    blob,
    cracks,
    crazing,
    curve,
    draw,
    ellipse,
    hairs,
    particles,
    patch,
    scratches,
)


@dataclass(frozen=True)
class Canvas:
    """Hold what a defect is painted from: the image so far, the ground behind the part, its region, another surface."""

    # [H, W, 3].
    image: Field
    # [H, W, 3]; None: the surface fills the picture.
    ground: Field | None
    # [H, W]; None: everywhere.
    region: Bool | None
    # Direction of the light, radians.
    lamp: float
    # Paints a foreign surface.
    skin: Callable[[Random, int, int], Field]

    def inside(self, alpha: Field) -> Field:
        """Limit the coverage [H, W] to the part, with a soft rim."""
        if self.region is None:
            return alpha
        return alpha * blur(self.region.astype(np.float32), 0.7)


Defect = Callable[[Random, Canvas, Spot], Field]
_LETTERS = "ABCDEFHKLMNPRSTX0123456789#*%&"  # of misprints


def _shift(rng: Random, image: Field, at: Field, strength: tuple[float, float] = (0.12, 0.9)) -> Field:
    """Draw a colour [3] that differs from the image's mean under the mark: darker, lighter or another hue."""
    weight = float(at.sum()) + 1e-6
    mean = (image * at[..., None]).sum((0, 1)) / weight
    amount = log_uniform(rng, *strength)
    style = float(rng.random())
    if style < 0.4:
        target = mean * np.float32(1 - amount)
    elif style < 0.65:
        target = mean + (1 - mean) * np.float32(amount)
    else:
        target = mean + (colour(rng, vivid=0.5) - mean) * np.float32(min(1, amount + 0.2))
    return np.asarray(target, np.float32)


def scratch(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    alpha = canvas.inside(scratches(rng, spot))
    image = canvas.image
    if chance(rng, 0.4):
        # A groove: one flank catches the light, the other lies in shade.
        lit = slope(blur(alpha, 0.6), canvas.lamp) * np.float32(log_uniform(rng, 0.25, 1.0))
        return np.asarray(image + lit[..., None] - (0.25 * rng.random()) * (alpha[..., None] * image), np.float32)
    tone = _shift(rng, image, alpha)
    if chance(rng, 0.5):
        alpha = alpha * np.clip(0.7 + 0.5 * octaves(rng, spot.h, spot.w, 12, count=2), 0.15, 1)
    return mix(image, tone, alpha * np.float32(log_uniform(rng, 0.3, 1)))


def crack(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    return _cracked(rng, canvas, canvas.inside(cracks(rng, spot)))


def crazed(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    """Crack the surface along a line, or break a whole area into pieces."""
    return _cracked(rng, canvas, canvas.inside((crazing if chance(rng, 0.5) else cracks)(rng, spot)))


def _cracked(rng: Random, canvas: Canvas, alpha: Field) -> Field:
    """Darken (seldom lighten) what the cracks [H, W] cover, with a rim."""
    image = canvas.image
    if chance(rng, 0.4):
        rim = np.clip(blur(alpha, 1.2) * 2 - alpha, 0, 1)
        image = image * (1 + np.float32(rng.uniform(-0.15, 0.3)) * rim[..., None])
    dark = image * np.float32(rng.uniform(0.05, 0.6))
    if chance(rng, 0.12):
        # A crack that lets light or white filler through.
        dark = image + np.float32(rng.uniform(0.15, 0.4))
    return mix(image, np.asarray(dark, np.float32), alpha * np.float32(log_uniform(rng, 0.4, 1)))


def hole(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    soft = float(rng.uniform(0.8, 2.5))
    many = 1 if chance(rng, 0.75) else int(rng.integers(2, 7))
    alpha = np.zeros((spot.h, spot.w), np.float32)
    for _ in range(many):
        x, y = (spot.x, spot.y) if many == 1 else rng.normal((spot.x, spot.y), spot.radius * 1.2)
        small = spot.near(x, y, max(1.3, spot.radius * (1 if many == 1 else float(rng.uniform(0.2, 0.6)))))
        alpha = np.maximum(alpha, ellipse(rng, small, soft=soft) if chance(rng, 0.6) else blob(rng, small, soft=soft))
    alpha = canvas.inside(alpha)
    depth = slope(blur(alpha, max(0.8, spot.radius * 0.15)), canvas.lamp + np.pi)
    if chance(rng, 0.7):
        inner = canvas.image * np.float32(rng.uniform(0.0, 0.5)) + colour(rng, low=0.0, high=0.12)
    elif canvas.ground is not None and chance(rng, 0.7):
        inner = canvas.ground
    else:
        inner = np.broadcast_to(colour(rng, low=0.0, high=1.0, vivid=0.1), canvas.image.shape)
    image = mix(canvas.image, np.asarray(inner, np.float32), alpha * np.float32(rng.uniform(0.7, 1)))
    lit = np.clip(depth * np.float32(rng.uniform(0, 2.5) * max(1, spot.radius * 0.15)), -0.4, 0.4)
    return np.asarray(image + lit[..., None] * (0.3 + 0.7 * canvas.image), np.float32)


def stain(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    alpha = patch(rng, spot)
    style = float(rng.random())
    if style < 0.2:
        # Dried liquid: the rim is darker than the middle.
        inner = blur(alpha, max(1.0, spot.radius * 0.2))
        alpha = np.clip(alpha * (1.3 - inner), 0, 1)
    elif style < 0.45:
        alpha = alpha * np.clip(0.6 + 0.5 * octaves(rng, spot.h, spot.w, max(3.0, spot.radius), count=4), 0, 1)
    elif style < 0.6:
        for _ in range(int(rng.integers(2, 9))):
            x, y = rng.normal((spot.x, spot.y), spot.radius * 1.5)
            drop = spot.near(x, y, max(1.2, spot.radius * log_uniform(rng, 0.08, 0.5)))
            alpha = np.maximum(alpha, ellipse(rng, drop, soft=1.5))
    alpha = canvas.inside(alpha)
    image = canvas.image
    if chance(rng, 0.5):
        ink = colour(rng, low=0.05, vivid=0.4)
        # A liquid filters: the texture stays visible.
        wet = image * ink * np.float32(rng.uniform(0.8, 1.4))
    else:
        wet = np.broadcast_to(_shift(rng, image, alpha), image.shape)
    return mix(image, np.asarray(wet, np.float32), alpha * np.float32(log_uniform(rng, 0.2, 1)))


def contamination(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    style = float(rng.random())
    image = canvas.image
    if style < 0.3:
        alpha = particles(rng, spot)
        tone = np.broadcast_to(_shift(rng, image, alpha, (0.3, 1.0)), image.shape)
    elif style < 0.65:
        # A foreign body: its own material, its own relief, a shadow.
        alpha = blob(rng, spot, soft=1.2) if chance(rng, 0.6) else patch(rng, spot, soft=1.0)
        shadow = np.roll(blur(alpha, 2), (int(rng.integers(-3, 4)), int(rng.integers(-3, 4))), (0, 1))
        image = image * (1 - np.float32(rng.uniform(0, 0.5)) * shadow[..., None])
        relief = blur(alpha, max(1.0, spot.radius * 0.25))
        lit = np.clip(slope(relief, canvas.lamp) * np.float32(max(2.0, spot.radius * 0.5)), -0.5, 0.5)
        noise = octaves(rng, spot.h, spot.w, max(2.0, spot.radius * 0.5), count=3)
        tone = colour(rng) * (1 + 0.6 * lit + np.float32(rng.uniform(0, 0.2)) * noise)[..., None]
    else:
        alpha = patch(rng, spot, soft=float(rng.uniform(0.8, 4)))
        tone = canvas.skin(rng, spot.h, spot.w)
        if chance(rng, 0.4):
            tone = tone * (image.mean() / max(float(tone.mean()), 0.05))
    alpha = canvas.inside(alpha) if chance(rng, 0.8) else alpha
    return mix(image, np.asarray(tone, np.float32), alpha * np.float32(rng.uniform(0.6, 1)))


def missing(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    """Remove the pattern, coating or piece: what is left is calm, or shows what lies behind."""
    alpha = canvas.inside(patch(rng, spot, soft=float(rng.uniform(0.8, 3))))
    image = canvas.image
    style = float(rng.random())
    if canvas.ground is not None and style < 0.5:
        fill = canvas.ground
    elif style < 0.75:
        fill = blur(image, max(3.0, spot.radius * 0.5)) + 0.01 * white(rng, spot.h, spot.w)[..., None]
    else:
        fill = image * np.float32(0.15) + _shift(rng, image, alpha, (0.3, 0.9)) * np.float32(0.85)
    rim = slope(blur(alpha, 1.0), canvas.lamp) * np.float32(rng.uniform(0, 0.5))
    return mix(image, np.asarray(fill, np.float32), alpha) + rim[..., None]


def deformation(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    """Push the surface: bulged, pinched, twisted, shifted or folded."""
    dx, dy = spot.gaps()
    radius = np.float32(max(6.0, spot.radius * 1.4))
    distance = np.asarray(np.sqrt(dx * dx + dy * dy) / radius, np.float32)
    fade = smoothstep(distance, 1, 0)
    style = int(rng.integers(4))
    if style == 3:
        fold = draw([(curve(rng, spot, spot.radius * 3, 0.8), max(1.5, spot.radius * 0.2))], spot.h, spot.w)
        line = canvas.inside(blur(fold, max(1.0, spot.radius * 0.12)))
        lit = np.clip(slope(line * np.float32(max(3.0, spot.radius * 0.3)), canvas.lamp), -1, 1)
        return canvas.image * (1 + np.float32(rng.uniform(0.3, 0.9)) * lit[..., None])
    force = float(rng.choice([-1, 1]) * rng.uniform(0.25, 0.8))
    if style == 0:
        move_x, move_y = -dx * fade * np.float32(force), -dy * fade * np.float32(force)
    elif style == 1:
        turn = fade * np.float32(force * 2)
        move_x = np.cos(turn) * dx - np.sin(turn) * dy - dx
        move_y = np.sin(turn) * dx + np.cos(turn) * dy - dy
    else:
        way = float(rng.uniform(0, 2 * np.pi))
        push = fade * np.float32(force) * radius * 0.5
        move_x, move_y = push * np.float32(np.cos(way)), push * np.float32(np.sin(way))
    y = np.arange(spot.h, dtype=np.float32)[:, None] + move_y
    x = np.arange(spot.w, dtype=np.float32)[None, :] + move_x
    moved = sample(canvas.image, y, x)
    if chance(rng, 0.5):
        moved = moved * (1 + np.clip(slope(fade * radius * np.float32(0.25), canvas.lamp), -0.4, 0.4))[..., None]
    return np.asarray(moved, np.float32)


def discolouration(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    wide = chance(rng, 0.3)
    big = spot.sized(spot.radius * float(rng.uniform(1, 1.6)))
    alpha = band(rng, big, soft=float(rng.uniform(1, 10))) if wide else patch(rng, big)
    alpha = canvas.inside(alpha)
    image = canvas.image
    style = int(rng.integers(4))
    if style == 0:
        changed = image * (1 + np.float32(rng.choice([-1, 1]) * log_uniform(rng, 0.1, 0.5)))
    elif style == 1:
        changed = image * (1 + rng.normal(0, 0.35, 3).astype(np.float32))
    elif style == 2:
        grey = image.mean(-1, keepdims=True)
        changed = grey + (image - grey) * np.float32(rng.uniform(-0.3, 0.3)) + np.float32(rng.normal(0, 0.12))
    else:
        changed = image * np.float32(0.55) + colour(rng, vivid=0.4) * np.float32(0.45)
    return mix(image, np.asarray(changed, np.float32), alpha)


def uneven(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    """Finish an area otherwise than the rest: faint clouds or streaks of light and dark, as grinding leaves them."""
    if chance(rng, 0.4):
        return discolouration(rng, canvas, spot)
    soft = log_uniform(rng, 2, max(3.0, spot.radius * 0.7))
    alpha = canvas.inside(patch(rng, spot, soft=soft))
    coarse = max(4.0, spot.radius * log_uniform(rng, 0.15, 1.0))
    if chance(rng, 0.5):
        clouds = octaves(rng, spot.h, spot.w, coarse, count=4, gain=0.6)
    else:
        angle = float(rng.uniform(0, np.pi))
        stretch = float(rng.uniform(3, 12))
        clouds = spectral(rng, spot.h, spot.w, beta=1.0, stretch=stretch, angle=angle)
    sign, strength = float(rng.choice([-1, 1])), log_uniform(rng, 0.06, 0.35)
    light = np.float32(strength) * (np.float32(sign) + np.float32(rng.uniform(0.2, 1)) * clouds)
    return mix(canvas.image, canvas.image * (1 + light[..., None]), alpha)


def cut(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    """Cut a slit: dark inside, with lips that catch light; it gapes in the middle."""
    line = curve(rng, spot, spot.radius * float(rng.uniform(1.5, 3)), float(rng.uniform(0.05, 0.9)))
    gape = max(1.2, spot.radius * log_uniform(rng, 0.04, 0.25))
    pieces = 8
    step = max(1, len(line) // pieces)
    parts = []
    for k in range(0, len(line) - 1, step):
        middle = np.sin(np.pi * (k + step / 2) / len(line))
        parts.append((line[k : k + step + 1], max(1.0, float(gape * max(middle, 0.2)))))
    alpha = canvas.inside(draw(parts, spot.h, spot.w))
    lips = np.clip(blur(alpha, max(1.0, gape * 0.5)) * 1.6 - alpha, 0, 1)
    lit = slope(blur(alpha, 1.0), canvas.lamp) * np.float32(rng.uniform(0, 0.7))
    image = canvas.image * (1 + np.float32(rng.uniform(-0.1, 0.35)) * lips[..., None]) + lit[..., None]
    if canvas.ground is not None and chance(rng, 0.4):
        inner = canvas.ground
    else:
        inner = canvas.image * np.float32(rng.uniform(0.0, 0.45))
    return mix(image, np.asarray(inner, np.float32), alpha)


def misprint(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    image = canvas.image
    style = float(rng.random())
    if style < 0.45:
        mark = stamp("".join(pick(rng, _LETTERS) for _ in range(int(rng.integers(1, 7)))), 30)
        tall = max(3.0, spot.radius * 0.6)
        wide = tall * mark.shape[1] / mark.shape[0]
        u, v = spot.turned(float(rng.uniform(-np.pi, np.pi)))
        u, v = u / np.float32(wide), v / np.float32(tall)
        read = sample(mark, (v + 1) * (mark.shape[0] - 1) / 2, (u + 1) * (mark.shape[1] - 1) / 2)
        alpha = canvas.inside(np.where((np.abs(u) < 1) & (np.abs(v) < 1), read, 0).astype(np.float32))
        return mix(image, _shift(rng, image, alpha, (0.3, 1.0)), alpha * np.float32(rng.uniform(0.5, 1)))
    alpha = canvas.inside(patch(rng, spot.sized(spot.radius * 1.3)))
    down, right = (int(v) for v in rng.choice([-1, 1], 2) * rng.integers(2, max(4, int(spot.radius * 0.5)), 2))
    if style < 0.7:
        ghost = np.roll(image, (down, right), (0, 1))
        return mix(image, ghost, alpha * np.float32(rng.uniform(0.4, 0.8)))
    # Colours out of register.
    green, blue = (np.roll(image[..., k], (way * down, way * right), (0, 1)) for k, way in ((1, 1), (2, -1)))
    return mix(image, np.stack([image[..., 0], green, blue], -1), alpha)


def broken(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    """Break a piece away at a rim (of the part, or of the picture): what lies behind or inside shows."""
    y, x = spot.y, spot.x
    if canvas.region is not None:
        rim = canvas.region & (blur(canvas.region.astype(np.float32), 3.0) < 0.8)
        places = np.flatnonzero(rim)
        if places.size:
            y, x = divmod(int(places[int(rng.integers(places.size))]), spot.w)
    elif chance(rng, 0.6):
        wall = int(rng.integers(4))
        y, x = ((0, x), (spot.h - 1, x), (y, 0), (y, spot.w - 1))[wall]
    chip = spot.near(x, y, spot.radius)
    alpha = canvas.inside(blob(rng, chip, soft=float(rng.uniform(0.8, 2)), ragged=float(rng.uniform(0.3, 1.0))))
    if canvas.ground is not None and chance(rng, 0.6):
        inner = canvas.ground
    else:
        rough = octaves(rng, spot.h, spot.w, max(3.0, spot.radius * 0.6), count=4, gain=0.7)
        tone = canvas.image.mean((0, 1)) * np.float32(rng.uniform(0.4, 1.5)) + np.float32(rng.normal(0, 0.12))
        tone = np.clip(tone, 0.02, 0.98)
        inner = tone * (1 + 0.3 * np.clip(slope(rough * 2, canvas.lamp), -1, 1) + 0.1 * rough)[..., None]
    edge = slope(blur(alpha, 1.2), canvas.lamp + np.pi) * np.float32(rng.uniform(0, 0.8))
    return mix(canvas.image, np.asarray(inner, np.float32), alpha) + canvas.inside(edge)[..., None]


def misplaced(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    """Put a piece of the surface in another place, turned or mirrored."""
    alpha = canvas.inside(patch(rng, spot.sized(max(8.0, spot.radius)), soft=float(rng.uniform(0.8, 2.5))))
    u, v = spot.turned(float(pick(rng, (np.pi / 2, np.pi, 0.6, -0.6, 0.0))))
    flip = np.float32(-1 if chance(rng, 0.3) else 1)
    scale = np.float32(pick(rng, (1.0, 1.0, 0.7, 1.4)))
    away = rng.normal(0, max(spot.radius, 0.12 * spot.w), 2)
    u, v = scale * u * flip, scale * v
    moved = sample(canvas.image, v + np.float32(spot.y + away[0]), u + np.float32(spot.x + away[1]))
    lit = slope(blur(alpha, 0.8), canvas.lamp) * np.float32(rng.uniform(0, 0.35))
    return mix(canvas.image, moved, alpha) + lit[..., None]


def worn(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    """Abrade, blur, roughen or rub the surface bare."""
    alpha = canvas.inside(patch(rng, spot.sized(max(6.0, spot.radius * 1.2))))
    image = canvas.image
    style = int(rng.integers(4))
    if style == 0:
        changed = blur(image, float(rng.uniform(1.5, 5)))
    elif style == 1:
        noise = octaves(rng, spot.h, spot.w, float(rng.uniform(1.5, 8)), count=2)
        changed = image + np.float32(log_uniform(rng, 0.06, 0.3)) * noise[..., None]
    elif style == 2:
        rub = smoothstep(octaves(rng, spot.h, spot.w, max(3.0, spot.radius * 0.5), count=5, gain=0.8), 0.0, 0.4)
        alpha = alpha * rub
        changed = np.broadcast_to(_shift(rng, image, alpha), image.shape)
    else:
        heading = float(rng.uniform(0, np.pi))
        lines = []
        for _ in range(int(rng.integers(12, 50))):
            x, y = rng.normal((spot.x, spot.y), spot.radius * 0.6)
            d = spot.radius * float(rng.uniform(0.2, 0.7))
            a = heading + float(rng.normal(0, 0.3))
            lines.append(([(float(x + k * d * np.cos(a)), float(y + k * d * np.sin(a))) for k in (-1, 1)], 0.7))
        alpha = canvas.inside(draw(lines, spot.h, spot.w))
        changed = np.broadcast_to(_shift(rng, image, alpha), image.shape)
    return mix(image, np.asarray(changed, np.float32), alpha * np.float32(rng.uniform(0.5, 1)))


def thread(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    alpha = hairs(rng, spot)
    alpha = canvas.inside(alpha) if chance(rng, 0.4) else alpha
    image = canvas.image * (1 - np.float32(rng.uniform(0, 0.45)) * np.roll(blur(alpha, 1.0), (2, 1), (0, 1))[..., None])
    lit = np.clip(slope(blur(alpha, 0.6), canvas.lamp), -0.5, 0.5)
    tone = _shift(rng, canvas.image, alpha, (0.25, 1.0)) * (1 + 0.5 * lit)[..., None]
    return mix(image, np.asarray(tone, np.float32), alpha)


def dent(rng: Random, canvas: Canvas, spot: Spot) -> Field:
    """Raise or press in the surface once or many times: only light and shade change."""
    many = 1 if chance(rng, 0.7) else int(rng.integers(2, 10))
    relief = np.zeros((spot.h, spot.w), np.float32)
    for _ in range(many):
        x, y = (spot.x, spot.y) if many == 1 else rng.normal((spot.x, spot.y), spot.radius)
        small = spot.near(x, y, max(2.0, spot.radius * (1 if many == 1 else float(rng.uniform(0.15, 0.5)))))
        shape = ellipse(rng, small, soft=2 * small.radius * float(rng.uniform(0.3, 1)))
        if chance(rng, 0.3):
            shape = blur(blob(rng, small, soft=2), small.radius * 0.3)
        relief = np.maximum(relief, shape * np.float32(small.radius))
    sign = float(rng.choice([-1, 1]))
    lit = np.clip(slope(canvas.inside(relief), canvas.lamp) * np.float32(sign * log_uniform(rng, 0.15, 0.9)), -0.8, 0.8)
    shine = np.float32(rng.uniform(0, 0.5)) * np.maximum(lit, 0) ** 2
    return np.asarray(canvas.image * (1 + lit[..., None]) + 0.15 * lit[..., None] + shine[..., None], np.float32)


DEFECTS: dict[str, Defect] = {
    "scratch": scratch,
    "crack": crack,
    "hole": hole,
    "stain": stain,
    "contamination": contamination,
    "missing": missing,
    "deformation": deformation,
    "discolouration": discolouration,
    "cut": cut,
    "misprint": misprint,
    "broken": broken,
    "misplaced": misplaced,
    "worn": worn,
    "thread": thread,
    "dent": dent,
}
WIDE_DEFECTS: dict[str, Defect] = {"crack": crazed, "stain": stain, "discolouration": uneven, "worn": worn}
"""Those that spread over much of the thing."""
