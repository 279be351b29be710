"""Plan machined and moulded single parts: plates, gears, rings, bottles, screws, nuts, tubes, wire forms.

Whatever varies between sound parts (place, turn, size, colour, texture) varies here too, so that only the faults a
family names are faults.
"""

import numpy as np

from anomalens_lab.synthesis.fields import Field, Random, chance, colour, log_uniform, pick
from anomalens_lab.synthesis.items import Item, radial
from anomalens_lab.synthesis.workshop import (
    Skin,
    bore,
    box,
    disc,
    finish,
    metal,
    part,
    place,
    plain_or_textured,
    seeded,
    skinned,
    stroke,
)

CLIP = (
    (-1, -0.5), (0.8, -0.5), (1, -0.2), (1, 0.3), (0.8, 0.5), (-0.6, 0.5), (-0.8, 0.2), (-0.6, -0.1), (0.6, -0.1),
)  # fmt: skip
"""A paper clip's course, in units of its half length."""


@part(
    "plate", "metal plate", "machined part", "bracket", "metal part", "flange", "mounting plate", "casting",
    faults=("missing", "broken", "deformation"),
    free=("body", "boss"),
)  # fmt: skip
def plate(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w)
    a, b = p.radius, p.radius * float(rng.uniform(0.35, 1.0))
    tone = metal(rng) if chance(rng, 0.6) else colour(rng)
    outline = pick(rng, ("super", "polygon", "round", "box", "petals"))
    look = {"profile": pick(rng, ("flat", "bevel")), "seed": seeded(rng)}
    if outline == "box":
        look["corner"] = b * float(rng.uniform(0, 0.5))
        body = box(p.centre, (a, b), tone, p.angle, **look, **finish(rng))
    else:
        form = radial(outline, rng, n=int(rng.integers(3, 9)), power=float(rng.uniform(2.5, 8)), depth=0.25)
        body = disc(p.centre, (a, b), tone, p.angle, form, **look, **finish(rng))
    items = [skinned(rng, body, skin, 0.5)]
    shade = colour(rng, low=0.0, high=0.25)
    count = int(rng.integers(0, 7))
    ring = float(rng.uniform(0.45, 0.65))
    size = float(rng.uniform(0.05, 0.14)) * b
    for k in range(count):
        t = 2 * np.pi * k / count
        items.append(bore(rng, p, ring * a * np.cos(t), ring * b * np.sin(t), size, k + 1, shade))
    if chance(rng, 0.5):
        items.append(bore(rng, p, 0, 0, float(rng.uniform(0.15, 0.3)) * b, 20, shade))
    for k in range(int(rng.integers(0, 3))):
        at = p.at(float(rng.uniform(-0.3, 0.3)) * a, float(rng.uniform(-0.3, 0.3)) * b)
        boss = tone * np.float32(rng.uniform(0.8, 1.15))
        r = float(rng.uniform(0.08, 0.2)) * b
        items.append(disc(at, r, boss, profile="dome", relief=0.7, role="boss", group=30 + k))
    return items


@part(
    "gear", "gear", "cogwheel", "toothed wheel", "sprocket", "pinion",
    faults=("tooth", "missing", "broken", "deformation"),
)  # fmt: skip
def gear(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w)
    teeth = int(rng.integers(7, 33))
    form = radial("gear", rng, n=teeth, depth=float(rng.uniform(0.1, 0.28)), sharp=float(rng.uniform(1, 6)))
    tone = metal(rng) if chance(rng, 0.7) else colour(rng)
    look = {"inner": float(rng.uniform(0.1, 0.4)), "profile": pick(rng, ("bevel", "flat")), "seed": seeded(rng)}
    body = disc(p.centre, p.radius, tone, p.angle, form, **look, **finish(rng))
    items = [skinned(rng, body, skin, 0.4)]
    count = int(rng.integers(0, 7))
    shade = colour(rng, low=0.0, high=0.3)
    r = p.radius * 0.58
    for k in range(count):
        t = 2 * np.pi * k / count
        items.append(bore(rng, p, r * np.cos(t), r * np.sin(t), p.radius * 0.1, k + 1, shade))
    return items


@part(
    "washer", "washer", "metal ring", "rubber gasket", "o-ring", "bearing ring", "sealing ring",
    faults=("broken", "deformation", "notch"),
)  # fmt: skip
def washer(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w)
    inner = float(rng.uniform(0.35, 0.88))
    tone = metal(rng) if chance(rng, 0.6) else colour(rng, high=0.4)
    look = {"inner": inner, "profile": pick(rng, ("bevel", "flat", "dome")), "seed": seeded(rng)}
    items = [skinned(rng, disc(p.centre, p.radius, tone, p.angle, **look, **finish(rng)), skin, 0.4)]
    if chance(rng, 0.3):
        r = p.radius * inner * float(rng.uniform(0.4, 0.95))
        tone, bored = metal(rng), float(rng.uniform(0, 0.7))
        items.append(disc(p.centre, r, tone, inner=bored, role="core", group=1, **finish(rng)))
    return items


def _bright(rng: Random, h: int, w: int, skin: Skin) -> Field:
    """Draw a ground that is lit from below half of the time."""
    ground = plain_or_textured(rng, h, w, skin)
    return np.clip(ground + np.float32(0.6), 0, 1) if chance(rng, 0.5) else ground


@part(
    "bottle", "bottle seen from above", "bottle mouth", "cup", "tin can", "glass jar", "bowl", "lid",
    faults=("broken", "deformation", "notch"),
    ground=_bright,
)  # fmt: skip
def bottle(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w, low=0.32, high=0.48)
    tone = colour(rng, low=0.05, high=0.8)
    items, r = [], p.radius
    for _ in range(int(rng.integers(2, 6))):
        shade = np.clip(tone * np.float32(log_uniform(rng, 0.3, 2.2)) + np.float32(rng.uniform(0, 0.12)), 0, 1)
        look = {"profile": pick(rng, ("bevel", "dome", "flat")), "seed": seeded(rng)}
        items.append(disc(p.centre, r, shade, **look, **finish(rng)))
        r *= float(rng.uniform(0.6, 0.92))
    items.append(disc(p.centre, r, tone * np.float32(0.25), grain=0.02, seed=seeded(rng)))
    return items


@part(
    "screw", "screw", "bolt", "metal screw", "threaded rod", "nail",
    faults=("bend", "broken", "thread", "deformation"),
    free=("body", "head", "thread"),
)  # fmt: skip
def screw(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w, low=0.3, high=0.46)
    length, half = p.radius, p.radius * float(rng.uniform(0.07, 0.18))
    tone = metal(rng)
    look = finish(rng)
    head = length * float(rng.uniform(0.15, 0.3))
    shank = (length - head / 2, half)
    items = [box(p.at(head / 2, 0), shank, tone, p.angle, corner=half * 0.4, profile="tube", seed=seeded(rng), **look)]
    if chance(rng, 0.85):
        pitch = half * float(rng.uniform(0.5, 1.1))
        start = -length * float(rng.uniform(-0.3, 0.7))
        steps = int(min(40, max(3, (length - start) / pitch)))
        turn = p.angle + float(rng.uniform(-0.25, 0.25))
        ridge = {"corner": pitch * 0.25, "profile": "tube", "relief": look["relief"], "role": "thread"}
        for k in range(steps):
            taper = 1.0 if k < steps - 3 else 0.75
            at = p.at(start + (length - start) * (k + 0.5) / steps, 0)
            size = (pitch * 0.28, half * 1.3 * taper)
            items.append(box(at, size, tone * np.float32(1.1), turn, group=k + 1, **ridge))
    at = p.at(-length + head / 2, 0)
    look |= {"profile": "dome", "role": "head"}
    if chance(rng, 0.5):
        size = (head / 2, half * float(rng.uniform(1.8, 2.6)))
        items.append(box(at, size, tone, p.angle, corner=half * 0.5, **look))
    else:
        items.append(disc(at, (head / 2, half * 2.2), tone, p.angle, radial("cut", rng, depth=0.6), **look))
    return items


@part(
    "hexnut", "metal nut", "hexagonal nut", "threaded nut", "nut with flanges", "spacer",
    faults=("broken", "deformation", "notch"),
)  # fmt: skip
def hexnut(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w)
    n = int(rng.integers(4, 9))
    name = pick(rng, ("polygon", "polygon", "petals"))
    form = radial(name, rng, n=n, round=float(rng.uniform(0.88, 1.0)), depth=0.2)
    tone = metal(rng)
    inner = float(rng.uniform(0.35, 0.65))
    look = finish(rng) | {"profile": "bevel"}
    body = disc(p.centre, p.radius, tone, p.angle, form, inner=inner, seed=seeded(rng), **look)
    items = [skinned(rng, body, skin, 0.35)]
    r = p.radius * min(0.9, inner * 1.35)
    flange = tone * np.float32(rng.uniform(0.7, 1.2))
    items.append(disc(p.centre, r, flange, inner=inner * p.radius / r, **look))
    for k in range(int(rng.integers(0, 4))):
        r = inner * (1 - 0.05 * k) * p.radius
        shade = tone * np.float32(0.6 - 0.1 * k)
        items.append(disc(p.centre, r, shade, inner=0.93, profile="bevel", role="thread"))
    return items


@part(
    "tube", "metal pipe", "tube", "plastic pipe", "cigarette", "pencil", "rod", "hose", "wire", "cable",
    faults=("bend", "broken", "deformation"),
    free=("body", "band"),
)  # fmt: skip
def tube(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w, low=0.3, high=0.5)
    half = p.radius * log_uniform(rng, 0.05, 0.35)
    tone = metal(rng) if chance(rng, 0.5) else colour(rng)
    long = p.radius * (float(rng.uniform(1.6, 2.2)) if chance(rng, 0.5) else 1.0)
    corner = half * float(pick(rng, (0.1, 0.5, 1.0)))
    bend = float(rng.normal(0, 0.15)) if chance(rng, 0.2) else 0.0
    look = {"corner": corner, "profile": "tube", "bend": bend, "seed": seeded(rng)}
    items = [skinned(rng, box(p.centre, (long, half), tone, p.angle, **look, **finish(rng)), skin, 0.4)]
    for k in range(int(rng.integers(0, 5))):
        at = p.at(long * float(rng.uniform(-0.9, 0.9)), 0)
        size = (half * float(rng.uniform(0.1, 0.6)), half * 1.05)
        items.append(box(at, size, colour(rng), p.angle, corner=1, profile="tube", role="band", group=k + 1))
    return items


@part(
    "frame", "window frame", "metal frame", "handle", "hook", "spring clip", "bent wire", "paper clip",
    faults=("kink", "broken"),
)  # fmt: skip
def wire_form(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w)
    kind = int(rng.integers(3))
    t = np.linspace(0, 1, int(rng.integers(8, 20)))
    if kind == 0:
        points = np.stack([np.cos(t * 5.2 + 0.5), np.sin(t * 5.2 + 0.5) * rng.uniform(0.5, 1)], 1)
    elif kind == 1:
        points = np.stack([2 * t - 1, 0.4 * np.sin(t * np.pi * rng.integers(2, 8))], 1)
    else:
        points = np.array(CLIP)
    half = p.radius * float(rng.uniform(0.03, 0.09)) + 1
    tone = metal(rng) if chance(rng, 0.7) else colour(rng)
    course = (points * p.radius).astype(np.float32)
    return [stroke(p.centre, half, tone, p.angle, course, profile="tube", seed=seeded(rng), **finish(rng))]
