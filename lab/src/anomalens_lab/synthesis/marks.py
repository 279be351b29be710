"""Draw the shapes of defects: where and how strongly a surface changes, as coverage [H, W] in 0..1."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from anomalens_lab.synthesis.fields import (
    Bool,
    Field,
    Random,
    blur,
    cells,
    chance,
    log_uniform,
    octaves,
    smoothstep,
)

Line = list[tuple[float, float]]


@dataclass(frozen=True)
class Spot:
    """Describe a place for a defect and its largest radius (pixels) on a canvas of height h and width w."""

    h: int
    w: int
    y: float
    x: float
    radius: float

    def near(self, x: float, y: float, radius: float) -> "Spot":
        """Return another spot of the same canvas."""
        return Spot(self.h, self.w, float(y), float(x), radius)

    def sized(self, radius: float) -> "Spot":
        """Return the same place with another radius."""
        return replace(self, radius=radius)

    def gaps(self) -> tuple[Field, Field]:
        """Return the offsets (dx, dy) of every pixel from the spot in pixels, [1, W] and [H, 1]."""
        dy = np.arange(self.h, dtype=np.float32)[:, None] - np.float32(self.y)
        dx = np.arange(self.w, dtype=np.float32)[None, :] - np.float32(self.x)
        return dx, dy

    def turned(self, angle: float) -> tuple[Field, Field]:
        """Return the offsets (u, v) of every pixel along axes turned by `angle` radians, each [H, W]."""
        dx, dy = self.gaps()
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return c * dx + s * dy, c * dy - s * dx


def choose_spot(rng: Random, region: Bool | None, h: int, w: int, radius: float) -> Spot:
    """Draw a place, inside `region` [h, w] unless that is None or empty."""
    if region is not None:
        inside = np.flatnonzero(region)
        if inside.size:
            y, x = divmod(int(inside[int(rng.integers(inside.size))]), w)
            return Spot(h, w, float(y), float(x), radius)
    return Spot(h, w, float(rng.uniform(0, h)), float(rng.uniform(0, w)), radius)


def ellipse(rng: Random, spot: Spot, *, soft: float = 1.0, slim: float | None = None) -> Field:
    """Draw a turned ellipse with an edge `soft` pixels wide; `slim` is the ratio of its axes."""
    u, v = spot.turned(float(rng.uniform(0, np.pi)))
    slim = float(rng.uniform(0.35, 1)) if slim is None else slim
    radius = np.sqrt(u**2 + (v / np.float32(slim)) ** 2)
    return smoothstep(radius, spot.radius + soft / 2, spot.radius - soft / 2)


def blob(rng: Random, spot: Spot, *, soft: float = 1.0, ragged: float | None = None) -> Field:
    """Draw an irregular patch: an ellipse whose rim follows noise, the more the larger `ragged`."""
    u, v = spot.turned(float(rng.uniform(0, np.pi)))
    slim = float(rng.uniform(0.3, 1))
    radius = np.sqrt(u**2 + (v / np.float32(slim)) ** 2) / np.float32(spot.radius)
    ragged = float(rng.uniform(0.1, 0.7)) if ragged is None else ragged
    cell = max(2.0, spot.radius * float(rng.uniform(0.4, 1.6)))
    gain = float(rng.uniform(0.3, 0.7))
    rim = radius + np.float32(ragged) * 0.5 * octaves(rng, spot.h, spot.w, cell, count=4, gain=gain)
    width = soft / max(spot.radius, 1)
    return smoothstep(rim, 1 + width / 2, 1 - width / 2)


def polygon(rng: Random, spot: Spot) -> Field:
    """Draw a straight-edged patch."""
    corners = int(rng.integers(3, 7))
    turns = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = spot.radius * rng.uniform(0.5, 1.2, corners)
    points = [(float(spot.x + r * np.cos(t)), float(spot.y + r * np.sin(t))) for r, t in zip(reach, turns, strict=True)]
    canvas = Pillow.new("L", (spot.w * 2, spot.h * 2))
    ImageDraw.Draw(canvas).polygon([(2 * x, 2 * y) for x, y in points], fill=255)
    return np.asarray(canvas.reduce(2), np.float32) / np.float32(255)


def patch(rng: Random, spot: Spot, *, soft: float | None = None) -> Field:
    """Draw any closed shape with an edge `soft` pixels wide."""
    style = float(rng.random())
    soft = log_uniform(rng, 1, max(2.0, spot.radius)) if soft is None else soft
    if style < 0.55:
        return blob(rng, spot, soft=soft)
    if style < 0.8:
        return ellipse(rng, spot, soft=soft)
    return blur(polygon(rng, spot), soft * 0.3)


def band(rng: Random, spot: Spot, *, soft: float) -> Field:
    """Draw a strip across the whole canvas, as wide as the spot."""
    dx, dy = spot.gaps()
    angle = float(rng.choice([0, np.pi / 2])) + float(rng.normal(0, 0.2))
    gap = np.abs(np.float32(np.cos(angle)) * dx + np.float32(np.sin(angle)) * dy)
    return smoothstep(gap, spot.radius * 0.5 + soft, spot.radius * 0.5)


def draw(lines: list[tuple[Line, float]], h: int, w: int) -> Field:
    """Draw polylines, each with its width in pixels, anti-aliased; hair lines are drawn faint, not wide."""
    total = np.zeros((h, w), np.float32)
    thin = [(line, width) for line, width in lines if width < 1]
    wide = [(line, width) for line, width in lines if width >= 1]
    for group, faint in ((wide, 1.0), (thin, 0.7)):
        if not group:
            continue
        canvas = Pillow.new("L", (w * 3, h * 3))
        pen = ImageDraw.Draw(canvas)
        for line, width in group:
            points = [(3 * x + 1, 3 * y + 1) for x, y in line]
            pen.line(points, fill=255, width=max(2, round(width * 3)), joint="curve")
        total = np.maximum(total, np.asarray(canvas.reduce(3), np.float32) / 255 * faint)
    return total


def walk(rng: Random, x: float, y: float, heading: float, length: float, wild: float, step: float) -> Line:
    """Draw a polyline that wanders: `wild` is the spread of its turns in radians a step, pulled back to its heading."""
    line = [(x, y)]
    turn = heading
    for _ in range(max(2, int(length / step))):
        turn = heading + 0.6 * (turn - heading) + float(rng.normal(0, wild))
        stride = step * float(rng.uniform(0.6, 1.4))
        x, y = x + stride * float(np.cos(turn)), y + stride * float(np.sin(turn))
        line.append((x, y))
    return line


def curve(rng: Random, spot: Spot, length: float, wild: float) -> Line:
    """Draw a smooth curve through the spot."""
    count = max(6, int(length / 3))
    start = float(rng.uniform(0, 2 * np.pi))
    bend = np.cumsum(rng.normal(0, wild / np.sqrt(count), count)) * 1.5
    soft = np.convolve(np.pad(bend, 4, mode="edge"), np.ones(9) / 9, mode="valid")
    turns = start + soft + np.linspace(0, float(rng.normal(0, wild)), count)
    x, y = np.cumsum(np.cos(turns)) * length / count, np.cumsum(np.sin(turns)) * length / count
    middle = count // 2
    return [(float(a), float(b)) for a, b in zip(x - x[middle] + spot.x, y - y[middle] + spot.y, strict=True)]


def scratches(rng: Random, spot: Spot) -> Field:
    """Draw one or several strokes, straight or slightly bent, often parallel."""
    count = 1 if chance(rng, 0.55) else int(rng.integers(2, 9))
    heading = float(rng.uniform(0, 2 * np.pi))
    lines = []
    for _ in range(count):
        length = 2 * spot.radius * float(rng.uniform(0.4, 1.2))
        angle = heading + float(rng.normal(0, 0.08 if chance(rng, 0.7) else 1.0))
        away = spot.radius * 0.4 * rng.normal(0, 1, 2) * (count > 1)
        x, y = spot.x + away[0] - np.cos(angle) * length / 2, spot.y + away[1] - np.sin(angle) * length / 2
        wide = log_uniform(rng, 0.5, max(1.2, 0.12 * spot.radius))
        wild = float(rng.choice([0.01, 0.04, 0.15]))
        lines.append((walk(rng, float(x), float(y), angle, length, wild, max(4.0, length / 12)), min(wide, 4.0)))
    return draw(lines, spot.h, spot.w)


def cracks(rng: Random, spot: Spot) -> Field:
    """Draw a jagged line with branches that get thinner."""
    length = 2 * spot.radius * float(rng.uniform(0.7, 1.5))
    heading = float(rng.uniform(0, 2 * np.pi))
    step = max(2.0, length / float(rng.uniform(14, 40)))
    wide = log_uniform(rng, 0.6, max(1.3, 0.07 * spot.radius))
    wild = float(rng.uniform(0.2, 0.8))
    x, y = spot.x - np.cos(heading) * length / 2, spot.y - np.sin(heading) * length / 2
    trunk = walk(rng, x, y, heading, length, wild, step)
    third = max(2, len(trunk) // 3)
    starts = range(0, len(trunk) - 1, third)
    lines = [(trunk[k : k + third + 1], wide * float(rng.uniform(0.6, 1.2))) for k in starts]
    for _ in range(int(rng.poisson(1.6))):
        x, y = trunk[int(rng.integers(len(trunk)))]
        turn = heading + float(rng.choice([-1, 1]) * rng.uniform(0.4, 1.4))
        branch = walk(rng, x, y, turn, length * float(rng.uniform(0.1, 0.5)), wild, step)
        lines.append((branch, wide * float(rng.uniform(0.4, 0.8))))
    return draw(lines, spot.h, spot.w)


def crazing(rng: Random, spot: Spot) -> Field:
    """Draw a net of fine cracks that breaks an area into pieces."""
    spacing = max(4.0, spot.radius * log_uniform(rng, 0.12, 0.5))
    _, _, edge = cells(rng, spot.h, spot.w, spacing)
    wobble = octaves(rng, spot.h, spot.w, max(3.0, spacing * 0.5), count=3)
    wide = log_uniform(rng, 0.4, max(0.8, 0.06 * spacing))
    lines = smoothstep(np.asarray(edge + 0.15 * spacing * np.abs(wobble), np.float32), wide + 1, wide)
    # A net has gaps: some of its lines are too fine to be seen.
    gaps = smoothstep(octaves(rng, spot.h, spot.w, spacing * 2, count=2), -1.5, -0.3)
    return np.asarray(lines * gaps * (blob(rng, spot, soft=2.0) > 0.5), np.float32)


def particles(rng: Random, spot: Spot) -> Field:
    """Draw grains scattered around the spot."""
    canvas = Pillow.new("L", (spot.w * 2, spot.h * 2))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(2, 30))):
        x, y = rng.normal((spot.x, spot.y), spot.radius * 0.6) * 2
        a, b = np.exp(rng.uniform(np.log(0.8), np.log(max(1.6, spot.radius * 0.15)), 2)) * 2
        pen.ellipse((x - a, y - b, x + a, y + b), fill=255)
    return np.asarray(canvas.reduce(2), np.float32) / np.float32(255)


def hairs(rng: Random, spot: Spot) -> Field:
    """Draw one long thread, or a tuft of short frayed ones."""
    wide = log_uniform(rng, 0.7, max(1.5, min(5.0, spot.radius * 0.12)))
    if chance(rng, 0.6):
        long = curve(rng, spot, spot.radius * float(rng.uniform(2, 5)), float(rng.uniform(0.5, 3.5)))
        return draw([(long, wide)], spot.h, spot.w)
    lines = []
    heading = float(rng.uniform(0, 2 * np.pi))
    for _ in range(int(rng.integers(4, 20))):
        x, y = rng.normal((spot.x, spot.y), spot.radius * 0.3)
        turn, length = heading + float(rng.normal(0, 0.5)), spot.radius * float(rng.uniform(0.4, 1.2))
        lines.append((walk(rng, float(x), float(y), turn, length, 0.25, 3.0), min(wide, 1.6)))
    return draw(lines, spot.h, spot.w)
