"""Give every family of parts its tools: registry, constructors of items, grounds, lamps, places, finishes.

A family is a function (generator, height, width, skin) -> items in painting order, registered by `part` with the words
people use for it, the structural faults that can befall it and the roles whose place is free. The order of random draws
is part of the contract: items first, then the ground, then the lamp.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from anomalens_lab.synthesis.fields import Field, Random, chance, colour, hsv, log_uniform, octaves, pick
from anomalens_lab.synthesis.items import Item, Light, Plan, reach, stamp

Skin = Callable[[Random, int, int], Field]
"""Paints one of the surfaces that the configuration allows, [H, W, 3]."""
Builder = Callable[[Random, int, int, Skin], list[Item]]
Ground = Callable[[Random, int, int, Skin], Field]
Point = tuple[float, float]
Look = dict[str, Any]
"""Further fields of an `Item`, by name."""
LETTERS = tuple("ABCDEFGHKLMNPRSTUVXYZ0123456789")


@dataclass(frozen=True)
class Part:
    """Describe a family of parts: how it is planned and what people call it."""

    plan: Callable[[Random, int, int, Skin], Plan]
    subjects: tuple[str, ...]


PARTS: dict[str, Part] = {}


def plain_or_textured(rng: Random, h: int, w: int, skin: Skin) -> Field:
    """Draw what a part lies on: plain dark, plain light, softly lit, or another surface. [H, W, 3]."""
    style = float(rng.random())
    if style < 0.3:
        base = hsv(float(rng.random()), float(rng.beta(1, 6)), float(rng.uniform(0.0, 0.25)))
    elif style < 0.5:
        base = hsv(float(rng.random()), float(rng.beta(1, 8)), float(rng.uniform(0.75, 1.0)))
    elif style < 0.7:
        base = colour(rng)
    else:
        image = skin(rng, h, w)
        # Grounds are often out of focus or dim; a calmer one also leaves the part in the foreground.
        calm = np.float32(rng.uniform(0.3, 1))
        return np.asarray(image.mean((0, 1)) * (1 - calm) + image * calm, np.float32)
    haze = octaves(rng, h, w, max(h, w) * 0.8, count=2) * np.float32(log_uniform(rng, 0.003, 0.06))
    noise = octaves(rng, h, w, 3, count=2) * np.float32(log_uniform(rng, 0.002, 0.02))
    return np.asarray(base + (haze + noise)[..., None], np.float32)


def part(
    name: str,
    *subjects: str,
    faults: tuple[str, ...],
    free: tuple[str, ...] = ("body",),
    ground: Ground = plain_or_textured,
) -> Callable[[Builder], Builder]:
    """Register a builder as the part family `name`, described by any of `subjects`.

    Args:
        faults: structural faults that mean something for the family (names in `faults.FAULTS`); a name that stands
            twice is drawn twice as often.
        free: roles that come alone or whose place is free in sound parts, so that they are never "misplaced".
        ground: draws what the part lies on.
    """

    def register(build: Builder) -> Builder:
        def plan(rng: Random, h: int, w: int, skin: Skin) -> Plan:
            items = tuple(build(rng, h, w, skin))
            return Plan(ground(rng, h, w, skin), items, lamp(rng, h, w), faults, free)

        PARTS[name] = Part(plan, subjects)
        return build

    return register


def disc(
    at: Point, radius: float | Point, tone: Field, angle: float = 0.0, form: Field | None = None, **look: Any
) -> Item:
    """Make a round item, or one of the radial outline `form`; `radius` is one number or the two half extents."""
    return Item("radial", *at, radius if isinstance(radius, tuple) else (radius, radius), tone, angle, form, **look)


def box(at: Point, size: Point, tone: Field, angle: float = 0.0, **look: Any) -> Item:
    """Make a rectangular item of the half extents `size`."""
    return Item("box", *at, size, tone, angle, **look)


def stroke(at: Point, half: float, tone: Field, angle: float, points: Field, **look: Any) -> Item:
    """Make a line through `points` [P, 2], given relative to `at`; `half` is half its width."""
    return Item("path", *at, (half, half), tone, angle, points, **look)


def text(at: Point, size: Point, tone: Field, angle: float, letters: Field, **look: Any) -> Item:
    """Make a print of the half extents `size` that shows `letters` (see `marking`)."""
    return Item("stamp", *at, size, tone, angle, letters, role="print", **look)


def marking(rng: Random, low: int, high: int, height: int = 28) -> Field:
    """Draw the coverage [h, w] of `low`..`high` random letters and digits, about `height` pixels tall."""
    return stamp("".join(pick(rng, LETTERS) for _ in range(int(rng.integers(low, high + 1)))), height)


def lamp(rng: Random, h: int, w: int) -> Light:
    """Draw the light for a canvas of this size."""
    return Light(
        angle=float(rng.uniform(0, 2 * np.pi)),
        ambient=float(rng.uniform(0.35, 0.8)),
        shadow=float(rng.uniform(1, 0.05 * min(h, w))),
    )


@dataclass(frozen=True)
class Place:
    """Describe a turned frame on the canvas: where the part lies."""

    x: float
    y: float
    angle: float
    # Half the part's extent, pixels.
    radius: float

    @property
    def centre(self) -> Point:
        """Return the canvas position of the frame's origin."""
        return self.x, self.y

    def at(self, u: float, v: float) -> Point:
        """Return the canvas position of a point in the part's own frame."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return float(self.x + c * u - s * v), float(self.y + s * u + c * v)


def place(rng: Random, h: int, w: int, *, low: float = 0.27, high: float = 0.47, turn: float = np.pi) -> Place:
    """Draw a place near the middle: radius `low`..`high` of the shorter side, turned by at most `turn` radians."""
    short = min(h, w)
    radius = short * float(rng.uniform(low, high))
    if chance(rng, 0.12):
        radius *= 1.5  # a close-up that leaves the frame
    slack = max(0.03 * short, 0.5 * short - radius)
    return Place(
        x=w / 2 + float(rng.uniform(-0.5, 0.5)) * slack + (w - short) * float(rng.uniform(-0.3, 0.3)),
        y=h / 2 + float(rng.uniform(-0.5, 0.5)) * slack + (h - short) * float(rng.uniform(-0.3, 0.3)),
        angle=float(rng.uniform(-turn, turn)),
        radius=radius,
    )


def seeded(rng: Random) -> int:
    """Draw a seed for something that must be painted alike more than once."""
    return int(rng.integers(2**31))


def metal(rng: Random) -> Field:
    """Draw the colour of steel, aluminium, brass, copper or blackened metal."""
    hue, saturation = pick(rng, ((0.6, 0.04), (0.58, 0.08), (0.12, 0.45), (0.05, 0.5), (0.1, 0.06), (0.0, 0.0)))
    return hsv(hue, saturation, float(rng.uniform(0.2, 0.85)))


def skinned(rng: Random, item: Item, skin: Skin, probability: float) -> Item:
    """Lay one of the allowed surfaces over the item, with the given probability."""
    if not chance(rng, probability):
        return item
    length = int(min(640, 2 * np.ceil(reach(item)) + 2))
    texture = skin(rng, length, length)
    if chance(rng, 0.6):
        # Keep the item's own colour and take only the relief of the surface.
        texture = item.colour * (texture.mean(-1, keepdims=True) / max(float(texture.mean()), 0.05))
    return replace(item, texture=np.asarray(texture, np.float32))


def finish(rng: Random) -> Look:
    """Draw the shading parameters that most bodies share."""
    return {
        "relief": float(rng.uniform(0.3, 1.0)),
        "gloss": float(rng.uniform(0, 0.6)) if chance(rng, 0.4) else 0.0,
        "grain": log_uniform(rng, 0.005, 0.12),
        "shadow": float(rng.uniform(0, 0.6)),
    }


def bore(rng: Random, p: Place, u: float, v: float, r: float, group: int, shade: Field) -> Item:
    """Make a round hole through a part, at (u, v) of its frame."""
    return disc(p.at(u, v), r, shade, profile="bevel", relief=0.5, role="hole", group=group, seed=seeded(rng))
