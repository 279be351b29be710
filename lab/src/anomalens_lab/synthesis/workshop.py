"""What every builder of parts needs: the registry, grounds, lamps, places, metals and finishes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from anomalens_lab.synthesis.fields import Field, Random, chance, colour, hsv, log_uniform, octaves, pick
from anomalens_lab.synthesis.items import Item, Light, Plan, reach, stamp

Skin = Callable[[Random, int, int], Field]  # paints one of the surfaces that the configuration allows
Builder = Callable[[Random, int, int, Skin], Plan]
LETTERS = tuple("ABCDEFGHKLMNPRSTUVXYZ0123456789")


@dataclass(frozen=True)
class Part:
    """A family of parts: how it is planned and what people call it."""

    plan: Builder
    subjects: tuple[str, ...]


PARTS: dict[str, Part] = {}


def part(name: str, *subjects: str) -> Callable[[Builder], Builder]:
    """Register a builder as the part family `name`, described by any of `subjects`."""

    def register(plan: Builder) -> Builder:
        PARTS[name] = Part(plan, subjects)
        return plan

    return register


def ground(rng: Random, h: int, w: int, skin: Skin) -> Field:
    """What the part lies on: plain dark, plain light, softly lit, or another surface."""
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


def lamp(rng: Random, h: int, w: int) -> Light:
    """A light for a canvas of this size."""
    return Light(
        angle=float(rng.uniform(0, 2 * np.pi)),
        ambient=float(rng.uniform(0.35, 0.8)),
        shadow=float(rng.uniform(1, 0.05 * min(h, w))),
    )


@dataclass(frozen=True)
class Place:
    """A turned frame on the canvas: where the part lies."""

    x: float
    y: float
    angle: float
    radius: float  # half the part's extent, pixels

    def at(self, u: float, v: float) -> tuple[float, float]:
        """Canvas position of a point in the part's own frame."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return float(self.x + c * u - s * v), float(self.y + s * u + c * v)


def place(rng: Random, h: int, w: int, *, low: float = 0.27, high: float = 0.47, turn: float = np.pi) -> Place:
    """Somewhere near the middle, `low`..`high` of the shorter side in radius, turned by at most `turn`."""
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
    """A seed for something that must be painted alike more than once."""
    return int(rng.integers(2**31))


def metal(rng: Random) -> Field:
    """Steel, aluminium, brass, copper or blackened metal."""
    hue, saturation = pick(rng, ((0.6, 0.04), (0.58, 0.08), (0.12, 0.45), (0.05, 0.5), (0.1, 0.06), (0.0, 0.0)))
    return hsv(hue, saturation, float(rng.uniform(0.2, 0.85)))


def skinned(rng: Random, item: Item, skin: Skin, probability: float) -> Item:
    """The item with one of the allowed surfaces laid over it, at random."""
    if not chance(rng, probability):
        return item
    length = int(min(640, 2 * np.ceil(reach(item)) + 2))
    texture = skin(rng, length, length)
    if chance(rng, 0.6):
        # Keep the item's own colour and take only the relief of the surface.
        texture = item.colour * (texture.mean(-1, keepdims=True) / max(float(texture.mean()), 0.05))
    return replace(item, texture=np.asarray(texture, np.float32))


def finish(rng: Random) -> dict[str, Any]:
    """Random shading parameters that most bodies share."""
    return {
        "relief": float(rng.uniform(0.3, 1.0)),
        "gloss": float(rng.uniform(0, 0.6)) if chance(rng, 0.4) else 0.0,
        "grain": log_uniform(rng, 0.005, 0.12),
        "shadow": float(rng.uniform(0, 0.6)),
    }


def bore(rng: Random, p: Place, u: float, v: float, r: float, group: int, shade: Field) -> Item:
    """A round hole through a part."""
    x, y = p.at(u, v)
    return Item("radial", x, y, (r, r), shade, profile="bevel", relief=0.5, role="hole", group=group, seed=seeded(rng))


def text(rng: Random, low: int, high: int) -> Field:
    """The coverage of a random marking of `low`..`high` characters."""
    return stamp("".join(pick(rng, LETTERS) for _ in range(int(rng.integers(low, high + 1)))), 28)
