"""Plan arrangements of alike pieces: zippers, trays, heaps, packs, brushes, dials.

Alike pieces carry a role and a group of their own, so that one of them can go missing, sit askew, be bent or have the
wrong colour, and that means something because its neighbours show how it should be.
"""

import numpy as np

from anomalens_lab.synthesis.fields import Field, Random, chance, colour, log_uniform, pick
from anomalens_lab.synthesis.items import Item, radial
from anomalens_lab.synthesis.workshop import (
    Look,
    Place,
    Skin,
    box,
    disc,
    finish,
    metal,
    part,
    place,
    seeded,
    skinned,
)


@part(
    "zipper", "zipper", "zip fastener", "toothed strip", "conveyor chain", "timing belt", "rack",
    faults=("missing", "misplaced", "deformation", "broken"),
)  # fmt: skip
def zipper(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    long, short = max(h, w), min(h, w)
    angle = (0.0 if w >= h else np.pi / 2) + float(rng.normal(0, 0.04))
    if h == w and chance(rng, 0.5):
        angle += np.pi / 2
    p = Place(w / 2 + float(rng.normal(0, 0.04 * w)), h / 2 + float(rng.normal(0, 0.04 * h)), angle, long)
    half = short * float(rng.uniform(0.05, 0.14))
    cloth = colour(rng)
    size = (long, short * float(rng.uniform(0.25, 0.45)))
    items = [skinned(rng, box(p.centre, size, cloth, p.angle, grain=0.05, seed=seeded(rng)), skin, 0.7)]
    pitch = half * float(rng.uniform(0.45, 0.9))
    tone = metal(rng) if chance(rng, 0.5) else colour(rng)
    steps = min(40, int(long * 0.8 / pitch))
    profile, relief = pick(rng, ("bevel", "dome")), float(rng.uniform(0.5, 1))
    look = {"profile": profile, "relief": relief, "shadow": float(rng.uniform(0, 0.4)), "role": "tooth"}
    for k in range(-steps, steps + 1):
        at = p.at(k * pitch, (-1 if k % 2 else 1) * half * 0.35)
        items.append(
            box(at, (pitch * 0.42, half * 0.75), tone, p.angle, corner=pitch * 0.2, group=steps + 1 + k, **look)
        )
    return items


def _prototype(rng: Random, radius: float) -> Look:
    """Draw the fields of `Item` that all pieces of an array share."""
    look = finish(rng)
    look |= {"colour": colour(rng, low=0.25), "profile": pick(rng, ("bevel", "dome", "dome", "flat"))}
    kind = pick(rng, ("round", "super", "polygon", "gear", "organic", "box", "capsule", "arc", "ring", "petals"))
    slim = float(rng.uniform(0.4, 1.0))
    if kind in ("box", "capsule"):
        corner = radius * slim * (1.0 if kind == "capsule" else 0.2)
        return look | {"outline": "box", "size": (radius, radius * slim), "corner": corner}
    if kind == "arc":
        t = np.linspace(-1.2, 1.2, 7)
        form = np.stack([np.sin(t), np.cos(t) - 0.7], 1).astype(np.float32) * np.float32(radius * 0.8)
        return look | {"outline": "path", "size": (radius * 0.25, radius * 0.25), "form": form, "profile": "tube"}
    if kind == "ring":
        return look | {"outline": "radial", "size": (radius, radius), "inner": float(rng.uniform(0.3, 0.6))}
    form = radial(kind, rng, n=int(rng.integers(3, 10)), lumps=0.08, depth=0.25, power=4)
    slim = 1.0 if kind in ("round", "gear", "petals") else slim
    return look | {"outline": "radial", "size": (radius, radius * slim), "form": form}


def _centre_piece(item: Item, tone: Field, style: int) -> list[Item]:
    """Return what sits on top of a piece: nothing (style 0), a dot (1) or a mark (2)."""
    r = min(item.size) * 0.22 if item.outline != "path" else item.size[0] * 0.5
    at = (item.x, item.y)
    look: Look = {"role": "centre", "group": item.group}
    return [
        [],
        [disc(at, r, tone, profile="dome", **look)],
        [box(at, (r * 0.4, r * 2), tone, item.angle + 0.5, corner=1, **look)],
    ][style]


@part(
    "array", "row of candles", "tray of parts", "box of chocolates", "pasta", "set of identical parts", "battery pack",
    faults=("missing", "misplaced", "broken", "deformation", "discolouration", "foreign"),
    free=(),
)  # fmt: skip
def array(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    rows, cols = int(rng.integers(1, 6)), int(rng.integers(2, 7))
    if w < h:
        rows, cols = cols, rows
    step_y, step_x = h / rows, w / cols
    look = _prototype(rng, min(step_x, step_y) * float(rng.uniform(0.26, 0.44)))
    turn = float(rng.uniform(0, np.pi)) if chance(rng, 0.5) else 0.0
    loose = float(rng.uniform(0, 0.25)) if chance(rng, 0.5) else 0.0
    style, tone = int(rng.integers(3)), colour(rng)
    spread = float(rng.uniform(0.0, 0.06))
    items: list[Item] = []
    for k in range(rows * cols):
        i, j = divmod(k, cols)
        x = (j + 0.5) * step_x + float(rng.normal(0, 0.02 * step_x))
        y = (i + 0.5) * step_y + float(rng.normal(0, 0.02 * step_y))
        shade = look["colour"] * np.float32(rng.normal(1, spread))
        angle = turn + float(rng.normal(0, 1)) * loose
        fields = look | {"colour": shade, "angle": angle, "role": "piece", "group": k + 1, "seed": seeded(rng)}
        item = Item(x=x, y=y, **fields)
        if k == 0 or chance(rng, 0.3):
            item = skinned(rng, item, skin, 0.2)
        items += [item, *_centre_piece(item, tone, style)]
    return items


# Loose things may lie anywhere and number anything: only their own state can be wrong.
@part(
    "scatter", "heap of capsules", "scattered nuts", "many small parts", "macaroni", "beans", "mixed screws", "seeds",
    faults=("broken", "deformation", "discolouration", "foreign"),
    free=("piece",),
)  # fmt: skip
def scatter(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    radius = min(h, w) * log_uniform(rng, 0.05, 0.15)
    look = _prototype(rng, radius) | {"role": "piece"}
    dense = float(rng.uniform(1.6, 3.0))
    items: list[Item] = []
    for _ in range(60):
        x, y = float(rng.uniform(0, w)), float(rng.uniform(0, h))
        if any(np.hypot(x - other.x, y - other.y) < dense * radius for other in items):
            continue
        shade = look["colour"] * np.float32(rng.normal(1, 0.07))
        angle = float(rng.uniform(0, 6.3))
        fields = look | {"colour": shade, "angle": angle, "group": len(items) + 1, "seed": seeded(rng)}
        items.append(Item(x=x, y=y, **fields))
    return items


@part(
    "blister", "blister pack", "pack of tablets", "egg carton", "tray with pockets", "keypad", "keyboard",
    faults=("missing", "missing", "misplaced", "broken", "discolouration", "deformation"),
    free=("body", "pocket"),
)  # fmt: skip
def blister(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    rows, cols = int(rng.integers(2, 6)), int(rng.integers(2, 7))
    p = Place(w / 2, h / 2, float(rng.normal(0, 0.04)), 0)
    step_x, step_y = 0.92 * w / cols, 0.92 * h / rows
    r = min(step_x, step_y) * float(rng.uniform(0.28, 0.42))
    foil = metal(rng)
    tray = {"corner": r * 0.5, "profile": "bevel", "grain": 0.03, "shadow": 0.3, "seed": seeded(rng)}
    items = [box(p.centre, (w * 0.48, h * 0.48), foil, p.angle, **tray)]
    tone, square = colour(rng, low=0.4), chance(rng, 0.4)
    slim = float(rng.uniform(0.6, 1.0))
    pocket: Look = {"profile": "bevel", "relief": 1.0, "role": "pocket"}
    piece: Look = {"profile": "dome", "relief": 0.7, "gloss": 0.3, "role": "piece"}
    for k in range(rows * cols):
        i, j = divmod(k, cols)
        at = p.at((j + 0.5) * step_x - 0.46 * w, (i + 0.5) * step_y - 0.46 * h)
        items.append(disc(at, (r * 1.15, r * 1.15 * slim), foil * np.float32(0.8), p.angle, **pocket))
        look = piece | {"group": k + 1, "seed": seeded(rng)}
        if square:
            items.append(box(at, (r * 0.85, r * 0.85 * slim), tone, p.angle, corner=r * 0.2, **look))
        else:
            items.append(disc(at, (r * 0.9, r * 0.9 * slim), tone, p.angle, **look))
    return items


@part(
    "brush", "toothbrush", "brush", "comb", "heat sink", "radiator fins", "row of needles", "fence",
    faults=("missing", "misplaced", "deformation", "broken", "discolouration"),
)  # fmt: skip
def brush(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w, low=0.36, high=0.47, turn=0.15)
    tufted = chance(rng, 0.5)
    tone = colour(rng)
    b = p.radius * float(rng.uniform(0.3, 0.6))
    look = {"corner": b * float(rng.uniform(0.1, 0.9)), "profile": "bevel", "seed": seeded(rng)}
    items = [box(p.centre, (p.radius, b), tone, p.angle, **look, **finish(rng))]
    tooth = {"relief": 0.9, "shadow": float(rng.uniform(0.1, 0.5)), "role": "tooth"}
    cols, rows = int(rng.integers(5, 12)), 3
    tones = (colour(rng, low=0.4), colour(rng, low=0.4))
    for k in range(cols):
        u = (k - (cols - 1) / 2) * 1.7 * p.radius / cols
        if not tufted:
            size = (0.45 * p.radius / cols, b * 0.85)
            items.append(box(p.at(u, 0), size, tones[0], p.angle, corner=2, profile="tube", group=k + 1, **tooth))
            continue
        r = min(0.7 * p.radius / cols, b * 0.25)
        for i in range(rows):
            at, form = p.at(u, (i - 1) * b * 0.55), radial("organic", rng, lumps=0.05)
            tuft = tooth | {"profile": "dome", "grain": 0.25, "group": k * rows + i + 1, "seed": seeded(rng)}
            items.append(disc(at, r, tones[(k + i) % 2], p.angle, form, **tuft))
    return items


@part(
    "dial", "clock face", "dial", "gauge", "bearing", "turbine wheel", "rotor", "fan",
    faults=("missing", "misplaced", "deformation", "broken", "discolouration"),
)  # fmt: skip
def dial(rng: Random, h: int, w: int, skin: Skin) -> list[Item]:
    p = place(rng, h, w, low=0.32, high=0.47)
    tone = colour(rng)
    face = disc(p.centre, p.radius, tone, profile="bevel", seed=seeded(rng), **finish(rng))
    items = [skinned(rng, face, skin, 0.25)]
    count = int(rng.integers(5, 25))
    tone = metal(rng) if chance(rng, 0.5) else colour(rng)
    long, wide = float(rng.uniform(0.05, 0.3)), float(rng.uniform(0.15, 0.45)) * np.pi / count
    ring = float(rng.uniform(0.55, 0.9 - long))
    round_ticks = chance(rng, 0.4)
    look = {"profile": pick(rng, ("bevel", "dome")), "relief": 0.9, "gloss": 0.2, "shadow": 0.2, "role": "tick"}
    r = p.radius * ring * min(wide, 0.15)
    for k in range(count):
        t = p.angle + 2 * np.pi * k / count
        at = (p.x + ring * p.radius * np.cos(t), p.y + ring * p.radius * np.sin(t))
        if round_ticks:
            items.append(disc(at, r, tone, group=k + 1, **look))
        else:
            items.append(box(at, (p.radius * long, r), tone, t, corner=r * 0.5, group=k + 1, **look))
    hub = p.radius * float(rng.uniform(0.1, 0.3))
    items.append(disc(p.centre, hub, metal(rng), profile="dome", relief=0.8, role="hub", group=90))
    return items
