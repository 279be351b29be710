"""Plan consumer goods as single parts: pills, capsules, kernels, biscuits, labels.

Whatever varies between sound parts (place, turn, size, colour, texture) varies here too, so that only the faults a
family names are faults.
"""

import numpy as np

from anomalens_lab.synthesis.fields import Random, chance, colour, hsv, log_uniform, pick
from anomalens_lab.synthesis.items import Item, radial
from anomalens_lab.synthesis.workshop import (
    Skin,
    bore,
    box,
    disc,
    finish,
    marking,
    part,
    place,
    seeded,
    skinned,
    text,
)

GOLDEN_ANGLE = 2.399  # radians; successive items turned by it fill a disc evenly


@part(
    "pill", "pill", "tablet", "medicine tablet", "round pill", "soap", "button", "coin", "sweet",
    faults=("broken", "misprint", "deformation", "missing"),
    free=("body", "speck"),
)  # fmt: skip
def pill(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w)
    slim = float(rng.uniform(0.45, 1.0))
    tone = colour(rng, low=0.4, high=1.0)
    form = radial("super", rng, power=float(rng.uniform(2, 4)))
    size, profile = (p.radius, p.radius * slim), pick(rng, ("bevel", "dome"))
    body = disc(p.centre, size, tone, p.angle, form, profile=profile, seed=seeded(rng), **finish(rng))
    items = [skinned(rng, body, skin, 0.2)]
    if chance(rng, 0.5):
        # Specks scattered over the whole tablet belong to it.
        speck = colour(rng)
        for k in range(int(rng.integers(6, 40))):
            t, r = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random()) * 0.85 * p.radius
            at = p.at(float(r * np.cos(t)), float(r * np.sin(t) * slim))
            small = p.radius * log_uniform(rng, 0.008, 0.03)
            items.append(disc(at, small, speck, opacity=float(rng.uniform(0.3, 0.9)), role="speck", group=k + 10))
    if chance(rng, 0.6):
        letters = marking(rng, 1, 4, 40)
        high = p.radius * slim * float(rng.uniform(0.2, 0.4))
        wide = min(high * letters.shape[1] / letters.shape[0], p.radius * 0.75)
        ink = tone * np.float32(rng.uniform(0.4, 0.85)) if chance(rng, 0.7) else colour(rng)
        items.append(text(p.centre, (wide, high), ink, p.angle, letters, group=1))
    elif chance(rng, 0.5):
        groove = (p.radius * 0.015 + 0.8, p.radius * slim * 0.9)
        items.append(box(p.centre, groove, tone * np.float32(0.7), p.angle, role="print", group=1))
    else:
        r = 0.18 * p.radius
        for k in range(int(pick(rng, (2, 4)))):
            t = k * np.pi / 2
            u, v = r * np.cos(t), r * np.sin(t)
            items.append(bore(rng, p, u, v, p.radius * 0.07, k + 1, tone * np.float32(0.3)))
    return items


@part(
    "capsule", "capsule", "medicine capsule", "two-coloured capsule", "gel capsule",
    faults=("broken", "misprint", "deformation", "bend"),
)  # fmt: skip
def capsule(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w, low=0.3, high=0.47)
    b = p.radius * float(rng.uniform(0.28, 0.42))
    look = finish(rng) | {"gloss": float(rng.uniform(0.1, 0.7)), "corner": b, "profile": "tube"}
    left, right = colour(rng, vivid=0.5), colour(rng, vivid=0.4)
    items = [
        box(p.at(-p.radius * 0.2, 0), (p.radius * 0.8, b), left, p.angle, seed=seeded(rng), **look),
        box(p.at(p.radius * 0.35, 0), (p.radius * 0.65, b * 1.04), right, p.angle, seed=seeded(rng), **look),
    ]
    if chance(rng, 0.7):
        letters = marking(rng, 2, 5, 40)
        wide = p.radius * 0.3
        high = min(b * 0.4, wide * letters.shape[0] / letters.shape[1])
        for k, u in enumerate((-0.5, 0.4)):
            items.append(text(p.at(p.radius * u, 0), (wide, high), colour(rng, low=0.8), p.angle, letters, group=k + 1))
    return items


@part(
    "kernel", "hazelnut", "brown nut", "almond", "cashew", "bean", "potato", "seed", "fruit", "pebble",
    faults=("broken", "deformation"),
    free=("body", "scar"),
)  # fmt: skip
def kernel(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w)
    slim = float(rng.uniform(0.5, 1.0))
    tone = hsv(float(rng.normal(0.08, 0.03)) % 1, float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.3, 0.9)))
    if chance(rng, 0.15):
        tone = colour(rng)
    form = radial("organic", rng, lumps=float(rng.uniform(0.01, 0.12)), orders=7)
    seed = seeded(rng)
    bend = float(rng.uniform(-0.6, 0.6)) if chance(rng, 0.3) else 0.0
    look = finish(rng) | {"grain": log_uniform(rng, 0.03, 0.15)}
    size = (p.radius, p.radius * slim)
    body = disc(p.centre, size, tone, p.angle, form, profile="dome", seed=seed, bend=bend, **look)
    items = [skinned(rng, body, skin, 0.5)]
    if chance(rng, 0.4):
        # The pale scar where the nut sat in its cup.
        at = p.at(p.radius * float(rng.uniform(-0.5, 0.5)), p.radius * slim * float(rng.uniform(-0.5, 0.5)))
        r = p.radius * float(rng.uniform(0.2, 0.45))
        pale = np.clip(tone * np.float32(1.25) + np.float32(0.08), 0, 1)
        form = radial("organic", rng, lumps=0.15)
        scar = {"grain": 0.1, "opacity": 0.8, "role": "scar", "group": 1, "seed": seeded(rng)}
        items.append(disc(at, (r, r * 0.8), pale, p.angle, form, **scar))
    return items


@part(
    "biscuit", "cookie", "biscuit", "cracker", "chocolate chip cookie", "pizza", "rice cake", "waffle",
    faults=("broken", "broken", "deformation"),
    free=("body", "topping"),
)  # fmt: skip
def biscuit(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w, low=0.28, high=0.47)
    tone = hsv(float(rng.normal(0.085, 0.02)) % 1, float(rng.uniform(0.3, 0.75)), float(rng.uniform(0.4, 0.9)))
    name = pick(rng, ("organic", "organic", "super", "petals"))
    form = radial(name, rng, lumps=0.04, power=6, n=int(rng.integers(12, 40)), depth=0.05)
    slim = float(rng.uniform(0.6, 1)) if chance(rng, 0.3) else 1.0
    profile, seed = pick(rng, ("bevel", "dome")), seeded(rng)
    look = finish(rng) | {"grain": log_uniform(rng, 0.04, 0.2)}
    body = disc(p.centre, (p.radius, p.radius * slim), tone, p.angle, form, profile=profile, seed=seed, **look)
    items = [skinned(rng, body, skin, 0.4)]
    topping = colour(rng, high=0.5)
    regular = chance(rng, 0.35)
    for k in range(int(rng.integers(0, 24))):
        if regular:
            t, r = GOLDEN_ANGLE * k, 0.17 * np.sqrt(k) * p.radius
        else:
            t, r = float(rng.uniform(0, 2 * np.pi)), float(np.sqrt(rng.random()) * 0.8 * p.radius)
        a = p.radius * (0.03 if regular else log_uniform(rng, 0.03, 0.12))
        at = p.at(float(r * np.cos(t)), float(r * np.sin(t) * slim))
        b = a * (1 if regular else float(rng.uniform(0.6, 1)))
        turn, form = float(rng.uniform(0, 3)), radial("organic", rng, lumps=0.1)
        piece = {"profile": "dome", "role": "topping", "group": k + 1, "seed": seeded(rng)}
        items.append(disc(at, (a, b), topping, turn, form, **piece))
    return items


@part(
    "label", "printed label", "package", "cardboard box", "product packaging", "plastic bag", "card", "book cover",
    faults=("misprint", "missing", "misplaced", "broken", "deformation"),
)  # fmt: skip
def label(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w, low=0.3, high=0.47, turn=0.3)
    b = p.radius * float(rng.uniform(0.45, 1.0))
    tone = colour(rng, low=0.4)
    corner = b * float(rng.uniform(0, 0.2))
    look = {"corner": corner, "profile": "bevel", "seed": seeded(rng)} | finish(rng)
    items = [skinned(rng, box(p.centre, (p.radius, b), tone, p.angle, **look), skin, 0.3)]
    row = -0.8
    while row < 0.75:
        high = float(rng.uniform(0.05, 0.18))
        letters = marking(rng, 3, 13, 32)
        size = (min(b * high * letters.shape[1] / letters.shape[0], 0.9 * p.radius), b * high)
        at = p.at(0, b * (row + high))
        items.append(text(at, size, colour(rng, high=0.9), p.angle, letters, group=len(items)))
        row += high * 2 + float(rng.uniform(0.05, 0.3))
    if chance(rng, 0.5):
        at = p.at(p.radius * 0.7, b * 0.6)
        tone, form = colour(rng), radial("petals", rng, n=5, depth=0.5)
        items.append(disc(at, b * 0.2, tone, p.angle, form, role="print", group=40))
    return items
