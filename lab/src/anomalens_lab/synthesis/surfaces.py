"""Paint grown, poured and worked surfaces: noise, stone, wood, leather, metal, paper, fur.

A surface is a function (generator, height, width) -> image [H,W,3], float32 around 0..1, registered under its family
name with the words people use for it. Irregularities that belong to the material (knots, pores, speckles, mottling)
are part of the surface and never count as defects. Regular, manufactured patterns live in `patterns`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy import ndimage

from anomalens_lab.synthesis.fields import (
    Field,
    Random,
    blur,
    cells,
    chance,
    colour,
    coordinates,
    hsv,
    log_uniform,
    mix,
    octaves,
    pick,
    ramp,
    resize,
    slope,
    smoothstep,
    spectral,
    tinted,
    unit,
    white,
)

Painter = Callable[[Random, int, int], Field]


@dataclass(frozen=True)
class Surface:
    """Describe a family of surfaces: how it is painted and what people call it."""

    paint: Painter
    subjects: tuple[str, ...]


SURFACES: dict[str, Surface] = {}


def surface(name: str, *subjects: str) -> Callable[[Painter], Painter]:
    """Register a painter as the surface family `name`, described by any of `subjects`."""

    def register(paint: Painter) -> Painter:
        SURFACES[name] = Surface(paint, subjects)
        return paint

    return register


def side(h: int, w: int) -> float:
    """Return the length that all scales refer to: the side of the square of the same area, pixels."""
    return float(np.sqrt(h * w))


@surface("mottled", "mottled surface", "plaster wall", "stained wall", "cloudy surface", "painted wall")
def mottled(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    field = octaves(rng, h, w, s * log_uniform(rng, 0.03, 0.6), count=6, gain=float(rng.uniform(0.35, 0.8)))
    if chance(rng, 0.3):
        field = np.abs(field)
    if chance(rng, 0.3):
        return ramp(unit(field), [colour(rng) for _ in range(int(rng.integers(2, 5)))])
    return tinted(rng, unit(field))


@surface("grainy", "grainy surface", "rough surface", "textured plastic", "industrial surface", "texture")
def grainy(rng: Random, h: int, w: int) -> Field:
    angle = float(rng.uniform(0, np.pi))
    stretch = log_uniform(rng, 1, 8) if chance(rng, 0.6) else 1.0
    if chance(rng, 0.5):
        band = (log_uniform(rng, 0.02, 0.3), float(rng.uniform(0.15, 0.7)))
        field = spectral(rng, h, w, stretch=stretch, angle=angle, band=band)
    else:
        field = spectral(rng, h, w, beta=float(rng.uniform(0.3, 1.6)), stretch=stretch, angle=angle)
    if chance(rng, 0.3):
        other = spectral(rng, h, w, stretch=stretch, angle=angle + np.pi / 2, band=(0.1, 0.5))
        field = np.maximum(field, other)
    if chance(rng, 0.3):
        field = slope(field * 2, angle)
    return tinted(rng, unit(field))


@surface("wood", "wooden board", "wood panel", "wooden plank", "wood surface", "wood veneer", "timber")
def wood(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    angle = float(rng.normal(0, 0.06)) + (np.pi / 2 if chance(rng, 0.5) else 0.0)
    u, v = coordinates(h, w, angle)
    bow = spectral(rng, h, w, beta=2.2, stretch=float(rng.uniform(4, 10)), angle=angle)
    rings = v / np.float32(s * log_uniform(rng, 0.02, 0.12)) + bow * np.float32(rng.uniform(0.4, 2.5))
    if chance(rng, 0.25):
        # Planks cut across the heart show nested arches instead of straight lines.
        rings = rings + (u / np.float32(s)) ** 2 * np.float32(rng.uniform(2, 8))
    dark_knot = np.zeros((h, w), np.float32)
    for _ in range(int(rng.poisson(0.7))):
        x, y, r = rng.uniform(-w / 2, w / 2), rng.uniform(-h / 2, h / 2), s * log_uniform(rng, 0.015, 0.06)
        distance = np.asarray(np.sqrt(((u - np.float32(x)) / 2) ** 2 + (v - np.float32(y)) ** 2) / r, np.float32)
        rings = rings + 2.5 * np.exp(-distance / 1.5)
        dark_knot += smoothstep(distance, 1.1, 0.5)
    grain = 0.5 + 0.5 * np.sin(2 * np.pi * rings)
    sharp = float(rng.uniform(0.6, 3))
    fibre = spectral(rng, h, w, beta=0.4, stretch=float(rng.uniform(10, 40)), angle=angle)
    pores = smoothstep(spectral(rng, h, w, beta=0.2, stretch=14, angle=angle), 2.0, 2.8)
    base = hsv(float(rng.normal(0.08, 0.02)) % 1, float(rng.uniform(0.15, 0.7)), float(rng.uniform(0.3, 0.9)))
    depth = float(rng.uniform(0.1, 0.5))
    tone = 1 - depth * grain**sharp + 0.06 * fibre - 0.25 * pores * rng.random() - 0.45 * np.minimum(dark_knot, 1)
    image = base * tone[..., None].astype(np.float32)
    if chance(rng, 0.3):
        period = s * rng.uniform(0.15, 0.5)
        board = np.floor(v / period + rng.random())
        shade = rng.uniform(0.8, 1.1, 64)[(board.astype(int)) % 64]
        seam = np.abs((v / period + 100) % 1 - 0.5) * period
        image *= (shade * (1 - 0.5 * (seam < 1.2)))[..., None].astype(np.float32)
    return cast(Field, image.astype(np.float32))


@surface("brushed", "brushed metal plate", "steel sheet", "metal surface", "aluminium plate", "polished metal")
def brushed(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    angle = float(pick(rng, (0.0, np.pi / 2))) + float(rng.normal(0, 0.1 if chance(rng, 0.7) else 0.8))
    if chance(rng, 0.25):
        # Turned on a lathe: the marks run round a centre.
        u, v = coordinates(h, w)
        u, v = u - np.float32(rng.normal(0, w / 4)), v - np.float32(rng.normal(0, h / 4))
        line = rng.standard_normal(2048).astype(np.float32)
        line = 0.7 * line + 1.5 * ndimage.gaussian_filter1d(line, 4)
        radius = np.sqrt(u * u + v * v) * np.float32(rng.uniform(0.5, 1.5))
        field = line[np.minimum(radius.astype(int), 2047)] + 0.3 * white(rng, h, w)
        sheen = np.cos(np.arctan2(v, u) * 2 + np.float32(rng.uniform(0, 6)))
    else:
        stretch = log_uniform(rng, 8, 120)
        field = spectral(rng, h, w, beta=float(rng.uniform(0.1, 1.0)), stretch=stretch, angle=angle)
        u, v = coordinates(h, w, angle)
        sheen = np.cos(v / np.float32(s) * np.float32(rng.uniform(1, 6)) + np.float32(rng.uniform(0, 6)))
    base = hsv(float(pick(rng, (0.58, 0.1, 0.6, 0.07))), float(rng.beta(1, 8)), float(rng.uniform(0.3, 0.8)))
    tone = 1 + np.float32(log_uniform(rng, 0.02, 0.2)) * field + np.float32(rng.uniform(0, 0.3)) * sheen
    return cast(Field, (base * tone[..., None]).astype(np.float32))


@surface("painted", "painted surface", "plastic surface", "coated panel", "lacquered panel", "smooth surface")
def painted(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    peel = octaves(rng, h, w, s * log_uniform(rng, 0.01, 0.06), count=2)
    broad = octaves(rng, h, w, s * 0.7, count=2)
    base = colour(rng, low=0.05, high=1.0, vivid=0.4)
    light = slope(peel * np.float32(log_uniform(rng, 0.05, 1.5)), float(rng.uniform(0, 6.3)))
    tone = np.float32(0.12) * light + np.float32(log_uniform(rng, 0.005, 0.08)) * broad
    return cast(Field, base + tone[..., None] * (0.4 + 0.6 * base))


@surface("concrete", "concrete wall", "concrete slab", "cement surface", "plastered wall", "stone slab")
def concrete(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    clouds = octaves(rng, h, w, s * log_uniform(rng, 0.1, 0.5), count=5, gain=0.6)
    image = tinted(
        rng,
        unit(clouds + 0.4 * white(rng, h, w)),
        base=colour(rng, low=0.35, high=0.85, vivid=0.1),
        contrast=0.3,
    )
    if chance(rng, 0.6):
        # Air bubbles left by the pour: small, many, everywhere.
        density = rng.uniform(1.9, 2.8)
        pits = smoothstep(octaves(rng, h, w, s * log_uniform(rng, 0.012, 0.03), count=1), density, density + 0.4)
        image = image * (1 - np.float32(rng.uniform(0.1, 0.5)) * pits[..., None])
    return cast(Field, image.astype(np.float32))


@surface("asphalt", "asphalt road", "road surface", "pavement", "tarmac", "gravel surface", "sandpaper")
def asphalt(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    spacing = max(2.0, s * log_uniform(rng, 0.008, 0.04))
    labels, centre, edge = cells(rng, h, w, spacing)
    shade = rng.beta(1.5, 3, labels.max() + 1).astype(np.float32)[labels]
    dome = 1 - centre / np.float32(spacing)
    tone = 0.5 * shade + 0.25 * dome * np.minimum(edge / 2, 1) + 0.12 * white(rng, h, w)
    tone += 0.15 * octaves(rng, h, w, s * 0.4, count=3)
    base = colour(rng, low=0.25, high=0.7, vivid=0.08)
    return tinted(rng, unit(tone), base=base, contrast=float(rng.uniform(0.2, 0.7)))


@surface("marble", "marble slab", "polished stone", "marble tile", "veined stone")
def marble(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    angle = float(rng.uniform(0, np.pi))
    u, _ = coordinates(h, w, angle)
    turbulence = octaves(rng, h, w, s * float(rng.uniform(0.2, 0.6)), count=6, gain=0.6)
    phase = u / np.float32(s) * np.float32(rng.uniform(1, 5)) + turbulence * np.float32(rng.uniform(0.3, 1.2))
    veins = 1 - np.abs(np.sin(np.pi * phase))
    veins = veins ** np.float32(rng.uniform(2, 12))
    ground = tinted(rng, unit(octaves(rng, h, w, s * 0.3, count=5)), contrast=float(rng.uniform(0.05, 0.25)))
    return mix(ground, colour(rng), veins * np.float32(rng.uniform(0.2, 0.9)))


@surface("terrazzo", "terrazzo tile", "granite slab", "speckled tile", "stone tile", "speckled floor")
def terrazzo(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    image = np.broadcast_to(colour(rng, low=0.3, high=0.9, vivid=0.12), (h, w, 3)).astype(np.float32)
    image = image + 0.03 * white(rng, h, w)[..., None]
    for _ in range(int(rng.integers(1, 4))):
        size = s * log_uniform(rng, 0.012, 0.07)
        chips = octaves(rng, h, w, size, count=2, gain=0.4)
        level = float(rng.uniform(0.5, 1.8))
        image = mix(image, colour(rng, vivid=0.15), smoothstep(chips, level, level + 0.15))
    return image


@surface("leather", "leather", "leather surface", "artificial leather", "leather upholstery", "vinyl")
def leather(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    spacing = max(3.0, s * log_uniform(rng, 0.012, 0.06))
    _, _, edge = cells(rng, h, w, spacing)
    bump = blur(np.minimum(edge / np.float32(spacing * 0.35), 1), 0.8)
    bump = bump + 0.3 * octaves(rng, h, w, spacing, count=2)
    if chance(rng, 0.4):
        bump += 1.2 * np.sqrt(np.abs(octaves(rng, h, w, s * 0.2, count=3)))
    light = slope(bump * np.float32(spacing * 0.3), float(rng.uniform(0, 6.3)))
    base = colour(rng, low=0.1, high=0.7, vivid=0.4)
    tone = 1 + 0.25 * np.clip(light, -2, 2) + np.float32(rng.uniform(0, 0.25)) * (bump - 0.7)
    tone += 0.06 * octaves(rng, h, w, s * 0.5, count=3)
    return base * tone[..., None]


@surface("fur", "carpet", "felt", "wool fabric", "fleece", "fur", "plush fabric", "brush hair")
def fur(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    # Fibres in several directions: the brightest of a few oriented grains wins at each place.
    lay = float(rng.uniform(0, np.pi))
    spread = float(rng.uniform(0.1, 1.5))
    layers = [
        spectral(rng, h, w, beta=0.3, stretch=float(rng.uniform(4, 14)), angle=lay + float(rng.normal(0, spread)))
        for _ in range(3)
    ]
    field = np.maximum.reduce(layers) + 0.5 * octaves(rng, h, w, s * log_uniform(rng, 0.03, 0.3), count=3)
    if chance(rng, 0.35):
        image = tinted(rng, unit(field), contrast=0.5)
        fleck = smoothstep(octaves(rng, h, w, s * 0.015, count=2), 1.0, 1.5)
        return mix(image, colour(rng), fleck * np.float32(rng.uniform(0.2, 0.8)))
    return tinted(rng, unit(field), contrast=float(rng.uniform(0.15, 0.7)))


@surface("cast", "cast metal surface", "casting", "forged metal", "die-cast part", "machined metal surface", "iron")
def cast_metal(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    grain = octaves(rng, h, w, s * log_uniform(rng, 0.01, 0.05), count=3, gain=0.8)
    light = slope(grain * np.float32(rng.uniform(0.5, 2)), float(rng.uniform(0, 6.3)))
    base = colour(rng, low=0.25, high=0.75, vivid=0.06)
    tone = 1 + 0.18 * light + 0.08 * octaves(rng, h, w, s * 0.5, count=3)
    if chance(rng, 0.5):
        angle = float(rng.uniform(0, np.pi))
        u, _ = coordinates(h, w, angle)
        tone = tone + 0.06 * np.sin(u * np.float32(2 * np.pi / (s * log_uniform(rng, 0.015, 0.06))))
    if chance(rng, 0.4):
        tone = tone - np.float32(rng.uniform(0.1, 0.35)) * smoothstep(white(rng, h, w), 2.4, 3.2)
    return cast(Field, (base * tone[..., None]).astype(np.float32))


@surface("paper", "sheet of paper", "cardboard", "paper surface", "wallpaper", "packaging board")
def paper(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    fibre = np.maximum(*(spectral(rng, h, w, beta=0.6, stretch=6, angle=float(rng.uniform(0, 3.1))) for _ in "ab"))
    base = hsv(float(rng.normal(0.1, 0.04)) % 1, float(rng.beta(1.2, 4)), float(rng.uniform(0.5, 0.98)))
    tone = log_uniform(rng, 0.008, 0.06) * fibre + 0.03 * octaves(rng, h, w, s * 0.4, count=2)
    if chance(rng, 0.35):
        u, _ = coordinates(h, w, float(pick(rng, (0.0, np.pi / 2))))
        tone = tone + 0.04 * np.sin(u * np.float32(2 * np.pi / (s * log_uniform(rng, 0.02, 0.08))))
    return base + tone[..., None].astype(np.float32)


@surface("film", "glass pane", "display panel", "foil", "optical film", "semiconductor wafer", "touch screen")
def film(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    base = colour(rng, low=0.02, high=0.9, vivid=0.2)
    haze = octaves(rng, h, w, s * 0.8, count=2) * np.float32(log_uniform(rng, 0.004, 0.05))
    image = base + haze[..., None]
    if chance(rng, 0.4):
        u, v = coordinates(h, w, float(rng.uniform(0, 3.1)))
        stripe = np.exp(-(((u + 0.2 * v) / np.float32(s) - np.float32(rng.uniform(-0.5, 0.5))) ** 2) / 0.01)
        image = image + np.float32(rng.uniform(0.03, 0.2)) * stripe[..., None]
    return cast(Field, image)


@surface(
    "crystal",
    "crystalline surface",
    "solar wafer",
    "galvanised steel",
    "frosted glass",
    "multicrystalline silicon",
)
def crystal(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    labels, _, edge = cells(rng, h, w, max(4.0, s * log_uniform(rng, 0.03, 0.2)))
    count = int(labels.max()) + 1
    shade = rng.normal(0, 1, count).astype(np.float32)[labels]
    turn = rng.uniform(0, 2 * np.pi, count).astype(np.float32)[labels]
    u, v = coordinates(h, w)
    grain = np.sin((np.cos(turn) * u + np.sin(turn) * v) * np.float32(2 * np.pi / rng.uniform(3, 12)))
    tone = 1 + np.float32(rng.uniform(0.03, 0.2)) * shade + np.float32(rng.uniform(0, 0.06)) * grain
    tone = tone - np.float32(rng.uniform(0, 0.15)) * (edge < 1.5)
    base = hsv(float(pick(rng, (0.6, 0.62, 0.1, 0.55))), float(rng.beta(1, 2.5)), float(rng.uniform(0.2, 0.75)))
    return cast(Field, (base * tone[..., None]).astype(np.float32))


@surface("food", "biscuit surface", "bread crust", "chocolate bar", "baked dough", "rice grains", "cheese")
def food(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    base = hsv(float(rng.normal(0.085, 0.025)) % 1, float(rng.uniform(0.25, 0.75)), float(rng.uniform(0.3, 0.9)))
    bump = octaves(rng, h, w, s * log_uniform(rng, 0.03, 0.12), count=4, gain=0.65)
    light = slope(bump * np.float32(s * 0.012), float(rng.uniform(0, 6.3)))
    brown = unit(octaves(rng, h, w, s * 0.3, count=4))
    image = base * (1 + 0.15 * light - np.float32(rng.uniform(0.05, 0.5)) * brown)[..., None]
    if chance(rng, 0.5):
        seed = smoothstep(octaves(rng, h, w, s * log_uniform(rng, 0.01, 0.03), count=1), 1.6, 1.9)
        image = mix(image, colour(rng), seed * np.float32(rng.uniform(0.3, 0.9)))
    return cast(Field, image.astype(np.float32))


@surface(
    "magnetic",
    "magnetic tile",
    "ferrite plate",
    "grey ceramic part",
    "ground metal surface",
    "rolled steel strip",
)
def magnetic(rng: Random, h: int, w: int) -> Field:
    """Paint dull grey ground surfaces under uneven light: bands of shade across, faint grinding marks along."""
    s = side(h, w)
    grey = float(rng.uniform(0.2, 0.7))
    along = float(pick(rng, (0.0, np.pi / 2)))
    marks = spectral(rng, h, w, beta=0.5, stretch=log_uniform(rng, 3, 40), angle=along)
    profile = resize(rng.standard_normal((1, int(rng.integers(4, 9)))).astype(np.float32), 1, w if along else h)[0]
    bands = profile[None, :] if along else profile[:, None]
    tone = grey * (1 + np.float32(rng.uniform(0.03, 0.3)) * bands + np.float32(log_uniform(rng, 0.01, 0.12)) * marks)
    tone = tone + np.float32(log_uniform(rng, 0.005, 0.08)) * octaves(rng, h, w, s * rng.uniform(0.1, 0.5), count=4)
    tint = 1 + rng.normal(0, 0.01, 3).astype(np.float32)
    return cast(Field, (tone[..., None] * tint).astype(np.float32))


def seasoned(rng: Random, image: Field) -> Field:
    """Paint the surface [H,W,3] with irregularities all over it that are its nature: specks, fine marks, clouds.

    They are many and alike, so that a single blob or line is no defect merely by being a blob or a line.
    """
    h, w = image.shape[:2]
    s = side(h, w)
    style = int(rng.integers(4))
    if style == 0:
        level = float(rng.uniform(1.7, 2.6))
        field = octaves(rng, h, w, s * log_uniform(rng, 0.012, 0.05), count=2)
        alpha = smoothstep(field, level, level + 0.4)
    elif style == 1:
        field = spectral(rng, h, w, beta=0.5, stretch=log_uniform(rng, 6, 30), angle=float(rng.uniform(0, np.pi)))
        alpha = smoothstep(field, 2.0, 2.8)
    elif style == 2:
        alpha = smoothstep(octaves(rng, h, w, s * log_uniform(rng, 0.06, 0.2), count=4), 0.3, 1.2)
    else:
        # Wrinkles or fine veins: the zero lines of a smooth field.
        field = np.abs(octaves(rng, h, w, s * log_uniform(rng, 0.08, 0.3), count=4, gain=0.5))
        alpha = smoothstep(field, 0.05, 0.0)
    mean = image.mean((0, 1))
    tone = mean + (colour(rng) - mean) * np.float32(log_uniform(rng, 0.15, 0.8))
    return mix(image, tone.astype(np.float32), alpha * np.float32(rng.uniform(0.3, 0.9)))
