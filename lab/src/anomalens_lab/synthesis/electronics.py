"""Plan electric things made of many pieces: components on a hole grid, chips, boards, cables, harnesses.

Alike pieces carry a role and a group of their own, so that one of them can go missing, sit askew, be bent or have the
wrong colour, and that means something because its neighbours show how it should be.
"""

from dataclasses import replace

import numpy as np

from anomalens_lab.synthesis.fields import Random, chance, colour, hsv, log_uniform, pick
from anomalens_lab.synthesis.items import Item, radial
from anomalens_lab.synthesis.workshop import (
    Look,
    Place,
    Skin,
    box,
    disc,
    finish,
    marking,
    metal,
    part,
    place,
    seeded,
    skinned,
    stroke,
    text,
)

GOLDEN_ANGLE = 2.399963  # radians; successive strands turned by it fill a disc evenly
CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


def hole_grid(rng: Random, h: int, w: int, angle: float) -> list[Item]:
    """Draw a board full of holes as ground items (perfboard)."""
    step = min(h, w) * float(rng.uniform(0.07, 0.13))
    radius = step * float(rng.uniform(0.15, 0.3))
    dark = colour(rng, high=0.25)
    p = Place(w / 2, h / 2, angle, 0)
    rows, cols = int(h / step / 2) + 1, int(w / step / 2) + 1
    return [
        disc(p.at(j * step, i * step), radius, dark, role="ground")
        for i in range(-rows, rows + 1)
        for j in range(-cols, cols + 1)
    ]


# Case and print of a component share group 0: the whole is one thing, and a shift moves all of it.
@part(
    "component", "transistor", "electronic component", "component with legs", "resistor", "diode", "led",
    faults=("missing", "bent leg", "bent leg", "cut leg", "misplaced", "broken", "assembly"),
    free=(),
)  # fmt: skip
def component(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w, low=0.3, high=0.42, turn=0.08 if chance(rng, 0.7) else np.pi)
    items = hole_grid(rng, h, w, p.angle) if chance(rng, 0.5) else []
    legs = int(rng.integers(2, 6))
    half = p.radius * float(rng.uniform(0.3, 0.55))
    tall = p.radius * float(rng.uniform(0.25, 0.45))
    top = -p.radius * 0.35
    steel = metal(rng)
    pitch = 2 * half * 0.75 / (legs - 1)
    width = min(pitch * 0.22, p.radius * 0.05) + 0.6
    flare = float(rng.uniform(0.8, 1.7))
    length = p.radius * 1.1 - tall * 0.2
    leg = {"profile": "tube", "relief": 0.8, "shadow": 0.3, "role": "leg"}
    for k in range(legs):
        u = (k - (legs - 1) / 2) * pitch
        away = u * (flare - 1)
        course = np.array([(0, 0), (0, length * 0.2), (away, length * 0.45), (away, length)], np.float32)
        at = p.at(u, top + tall * 0.8)
        items.append(stroke(at, width, steel, p.angle, course, group=k + 1, seed=seeded(rng), **leg))
    at = p.at(0, top)
    look = finish(rng) | {"profile": "bevel", "role": "case"}
    form = radial("cut", rng, depth=float(rng.uniform(0.5, 0.95))) if chance(rng, 0.4) else None
    tone = colour(rng, low=0.05, high=0.5, vivid=0.15)
    if form is None:
        corner = tall * float(rng.uniform(0.05, 0.5))
        body = box(at, (half, tall), tone, p.angle, corner=corner, seed=seeded(rng), **look)
    else:
        body = disc(at, half, tone, p.angle + np.pi / 2, form, seed=seeded(rng), **look)
    items.append(skinned(rng, body, skin, 0.15))
    if chance(rng, 0.6):
        letters = marking(rng, 2, 5)
        high = min(tall * 0.35, half * 0.5 * letters.shape[0] / letters.shape[1] + 2)
        pale = tone * np.float32(0.4) + np.float32(0.5)
        items.append(text(at, (half * 0.6, high), pale, p.angle, letters))
    return items


@part(
    "chip", "integrated circuit", "microchip", "chip with pins", "connector", "pin header", "socket",
    faults=("missing", "bent leg", "cut leg", "misplaced", "broken", "discolouration"),
    free=(),
)  # fmt: skip
def chip(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w, turn=0.1 if chance(rng, 0.6) else np.pi)
    legs = int(rng.integers(3, 13))
    a, b = p.radius * float(rng.uniform(0.7, 0.95)), p.radius * float(rng.uniform(0.25, 0.7))
    pitch = 2 * a * 0.9 / legs
    steel = metal(rng)
    long = p.radius * float(rng.uniform(0.1, 0.25))
    leg = {"corner": pitch * 0.1, "profile": "bevel", "relief": 0.8, "gloss": 0.3, "shadow": 0.3, "role": "leg"}
    items: list[Item] = []
    for edge in (-1, 1) if chance(rng, 0.75) else (1,):
        for k in range(legs):
            at = p.at((k - (legs - 1) / 2) * pitch, edge * (b + long * 0.5))
            seed = seeded(rng)
            items.append(box(at, (pitch * 0.22, long), steel, p.angle, group=len(items) + 1, seed=seed, **leg))
    tone = colour(rng, low=0.04, high=0.4, vivid=0.1)
    case = {"corner": b * 0.05, "profile": "bevel", "role": "case", "seed": seeded(rng)}
    items.append(box(p.centre, (a, b), tone, p.angle, **case, **finish(rng)))
    if chance(rng, 0.8):
        letters = marking(rng, 3, 9)
        high = b * float(rng.uniform(0.15, 0.3))
        wide = min(a * 0.8, high * letters.shape[1] / letters.shape[0])
        items.append(text(p.centre, (wide, high), tone + np.float32(0.4), p.angle, letters))
    if chance(rng, 0.6):
        items.append(disc(p.at(-a * 0.82, b * 0.6), b * 0.08, tone * np.float32(0.5), role="dot"))
    return items


@part(
    "board", "circuit board", "printed circuit board", "pcb", "electronic module", "controller board",
    faults=("missing", "misplaced", "deformation", "broken", "discolouration", "misprint"),
    free=("body", "trace"),
)  # fmt: skip
def board(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    whole = chance(rng, 0.4)
    p = place(rng, h, w, low=0.38, high=0.48, turn=0.06) if not whole else Place(w / 2, h / 2, 0.0, max(h, w) * 0.6)
    a, b = (w * 0.6, h * 0.6) if whole else (p.radius, p.radius * float(rng.uniform(0.55, 1.0)))
    hue = float(pick(rng, (0.38, 0.35, 0.6, 0.62, 0.0, 0.1)))
    base = hsv(hue, float(rng.uniform(0.4, 0.9)), float(rng.uniform(0.12, 0.55)))
    look = {"corner": b * 0.04, "profile": "bevel", "grain": 0.04, "shadow": 0.3, "seed": seeded(rng)}
    items = [box(p.centre, (a, b), base, p.angle, **look)]
    copper = np.clip(base * np.float32(1.35) + np.float32(0.03), 0, 1)
    for k in range(int(rng.integers(4, 16))):
        at = p.at(a * float(rng.uniform(-0.8, 0.8)), b * float(rng.uniform(-0.8, 0.8)))
        d, e = a * float(rng.uniform(-0.4, 0.4)), b * float(rng.uniform(-0.4, 0.4))
        course = np.array([(0, 0), (d, 0), (d + e * 0.5, e), (d + e * 0.5, e * 1.5)], np.float32)
        items.append(stroke(at, 1.2, copper, p.angle, course, role="trace", group=k + 1))
    gold = hsv(0.13, 0.4, float(rng.uniform(0.6, 0.95)))
    items += _devices(rng, p, a, b, gold)
    for k, (i, j) in enumerate(CORNERS):
        at = p.at(i * a * 0.92, j * b * 0.92)
        items.append(disc(at, b * 0.045, gold, inner=0.6, profile="bevel", role="hole", group=50 + k))
    if chance(rng, 0.7):
        at = p.at(a * float(rng.uniform(-0.5, 0.5)), b * float(rng.uniform(-0.8, 0.8)))
        letters = marking(rng, 3, 8)
        size = (b * 0.06 * letters.shape[1] / letters.shape[0], b * 0.06)
        items.append(text(at, size, np.full(3, 0.9, np.float32), p.angle, letters, group=60))
    return items


def _devices(rng: Random, p: Place, a: float, b: float, gold: np.ndarray) -> list[Item]:
    """Draw devices of a few kinds on a board of half extents (a, b), none over another; oblong ones have two pads."""
    kinds = [_device(rng, min(a, b)) for _ in range(int(rng.integers(1, 5)))]
    taken: list[tuple[float, float, float]] = []
    items = []
    for k in range(int(rng.integers(6, 26))):
        for _ in range(6):
            u, v = a * float(rng.uniform(-0.82, 0.82)), b * float(rng.uniform(-0.82, 0.82))
            kind = kinds[int(rng.integers(len(kinds)))]
            turned = chance(rng, 0.5)
            r = max(kind.size) * 1.2
            if all(np.hypot(u - q, v - s) > r + t for q, s, t in taken):
                break
        else:
            continue
        taken.append((u, v, r))
        frame = Place(*p.at(u, v), p.angle + (np.pi / 2 if turned else 0.0), 0)
        if kind.outline == "box":
            pad = {"profile": "bevel", "gloss": 0.2, "role": "pad", "group": 100 + k}
            for end in (-1, 1):
                at, size = frame.at(end * kind.size[0] * 1.1, 0), (kind.size[0] * 0.3, kind.size[1] * 0.9)
                items.append(box(at, size, gold, frame.angle, **pad))
        items.append(replace(kind, x=frame.x, y=frame.y, angle=frame.angle, group=100 + k, seed=seeded(rng)))
    return items


def _device(rng: Random, scale: float) -> Item:
    """Draw a device of a board, at the origin."""
    tone = colour(rng, low=0.04, high=0.8, vivid=0.25)
    size = scale * log_uniform(rng, 0.035, 0.2)
    if chance(rng, 0.3):
        return disc((0, 0), size * 0.7, tone, profile="dome", gloss=0.3, shadow=0.4, role="device")
    extent = (size, size * float(rng.uniform(0.4, 1.0)))
    return box((0, 0), extent, tone, corner=1, profile="bevel", shadow=0.4, role="device")


@part(
    "bundle", "cable", "cable cross section", "bundle of wires", "stranded wire", "optical fibre bundle",
    faults=("missing", "misplaced", "discolouration", "broken", "deformation"),
)  # fmt: skip
def bundle(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w, low=0.34, high=0.47)
    sheath = colour(rng)
    items = [disc(p.centre, p.radius, sheath, profile="bevel", seed=seeded(rng), **finish(rng))]
    cores = int(rng.integers(1, 8))
    r = p.radius * 0.85 if cores == 1 else 0.8 * p.radius / (1 + 1 / np.sin(np.pi / cores))
    ring = 0.0 if cores == 1 else p.radius * 0.85 - r
    copper = hsv(float(rng.normal(0.07, 0.03)) % 1, float(rng.uniform(0.1, 0.65)), float(rng.uniform(0.5, 0.95)))
    for k in range(cores):
        t = p.angle + 2 * np.pi * k / cores
        x, y = p.x + ring * np.cos(t), p.y + ring * np.sin(t)
        jacket = colour(rng, vivid=0.55)
        core: Look = {"profile": "bevel", "relief": 0.6, "role": "core", "seed": seeded(rng)}
        items.append(disc((x, y), r, jacket, group=k + 1, **core))
        strands = int(pick(rng, (7, 12, 19)))
        thick = r * 0.72 / np.sqrt(strands) * 1.05
        for m in range(strands):
            q, turn = r * 0.62 * np.sqrt((m + 0.3) / strands), m * GOLDEN_ANGLE
            at, tone = (x + q * np.cos(turn), y + q * np.sin(turn)), copper * np.float32(rng.uniform(0.8, 1.1))
            items.append(disc(at, thick, tone, profile="dome", relief=0.8, role="strand", group=k + 1))
    return items


@part(
    "harness", "wire harness", "flat cable", "ribbon cable", "parallel wires", "tubes", "bus bars", "strings",
    faults=("missing", "cut wire", "kink", "discolouration"),
    free=("wire",),
)  # fmt: skip
def harness(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    count = int(rng.integers(3, 11))
    upright = h > w or (h == w and chance(rng, 0.5))
    long, wide = (h, w) if upright else (w, h)
    p = Place(w / 2, h / 2, np.pi / 2 if upright else 0.0, 0)
    pitch = wide * float(rng.uniform(0.6, 0.95)) / count
    t = np.linspace(-0.6, 0.6, 17) * long
    sway = pitch * float(rng.uniform(0, 1.2)) * np.sin(t / long * float(rng.uniform(1, 7)) + float(rng.uniform(0, 6)))
    half = pitch * float(rng.uniform(0.25, 0.48))
    same = colour(rng, vivid=0.5)
    many = chance(rng, 0.5)
    look = finish(rng) | {"profile": "tube", "role": "wire"}
    items = []
    for k in range(count):
        at = p.at(0, (k - (count - 1) / 2) * pitch)
        course = np.stack([t, sway + rng.normal(0, pitch * 0.03, len(t))], 1).astype(np.float32)
        tone = colour(rng, vivid=0.55) if many else same * np.float32(rng.normal(1, 0.03))
        items.append(stroke(at, half, tone, p.angle, course, group=k + 1, seed=seeded(rng), **look))
    return items
