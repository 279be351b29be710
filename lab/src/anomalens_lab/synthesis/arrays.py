"""Arrangements of alike pieces: zippers, trays, heaps, packs, brushes, dials.

Alike pieces carry a role and a group of their own, so that one of them can go missing, sit askew, be bent or have the
wrong colour, and that means something because its neighbours show how it should be.
"""

from typing import Any

import numpy as np

from anomalens_lab.synthesis.fields import Field, Random, chance, colour, log_uniform, pick
from anomalens_lab.synthesis.items import Item, Plan, radial
from anomalens_lab.synthesis.workshop import Place, Skin, finish, ground, lamp, metal, part, place, seeded, skinned


@part("zipper", "zipper", "zip fastener", "toothed strip", "conveyor chain", "timing belt", "rack")
def zipper(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    long = max(h, w)
    angle = (0.0 if w >= h else np.pi / 2) + float(rng.normal(0, 0.04))
    if h == w and chance(rng, 0.5):
        angle += np.pi / 2
    p = Place(w / 2 + float(rng.normal(0, 0.04 * w)), h / 2 + float(rng.normal(0, 0.04 * h)), angle, long)
    half = min(h, w) * float(rng.uniform(0.05, 0.14))
    cloth = colour(rng)
    tape = Item(
        "box",
        p.x,
        p.y,
        (long, min(h, w) * float(rng.uniform(0.25, 0.45))),
        cloth,
        p.angle,
        grain=0.05,
        seed=seeded(rng),
    )
    items = [skinned(rng, tape, skin, 0.7)]
    pitch = half * float(rng.uniform(0.45, 0.9))
    tone = metal(rng) if chance(rng, 0.5) else colour(rng)
    steps = min(40, int(long * 0.8 / pitch))
    look = {
        "profile": pick(rng, ("bevel", "dome")),
        "relief": float(rng.uniform(0.5, 1)),
        "shadow": float(rng.uniform(0, 0.4)),
    }
    for k in range(-steps, steps + 1):
        edge = -1 if k % 2 else 1
        x, y = p.at(k * pitch, edge * half * 0.35)
        items.append(
            Item(
                "box",
                x,
                y,
                (pitch * 0.42, half * 0.75),
                tone,
                p.angle,
                corner=pitch * 0.2,
                role="tooth",
                group=steps + 1 + k,
                **look,
            )
        )
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("missing", "misplaced", "deformation", "broken"),
        ("body",),
    )


def _prototype(rng: Random, radius: float) -> dict[str, Any]:
    """The look that all items of an array share."""
    look: dict[str, Any] = finish(rng) | {
        "colour": colour(rng, low=0.25),
        "profile": pick(rng, ("bevel", "dome", "dome", "flat")),
    }
    kind = pick(rng, ("round", "super", "polygon", "gear", "organic", "box", "capsule", "arc", "ring", "petals"))
    slim = float(rng.uniform(0.4, 1.0))
    if kind in ("box", "capsule"):
        corner = radius * slim * (1.0 if kind == "capsule" else 0.2)
        return look | {"outline": "box", "size": (radius, radius * slim), "corner": corner}
    if kind == "arc":
        t = np.linspace(-1.2, 1.2, 7)
        form = np.stack([np.sin(t), np.cos(t) - 0.7], 1).astype(np.float32) * np.float32(radius * 0.8)
        return look | {
            "outline": "path",
            "size": (radius * 0.25, radius * 0.25),
            "form": form,
            "profile": "tube",
        }
    if kind == "ring":
        return look | {"outline": "radial", "size": (radius, radius), "inner": float(rng.uniform(0.3, 0.6))}
    form = radial(kind, rng, n=int(rng.integers(3, 10)), lumps=0.08, depth=0.25, power=4)
    slim = 1.0 if kind in ("round", "gear", "petals") else slim
    return look | {"outline": "radial", "size": (radius, radius * slim), "form": form}


def _centre_piece(rng: Random, item: Item, tone: Field, style: int) -> list[Item]:
    """What sits on top of each item of an array: nothing, a wick, a dot or a mark."""
    if style == 0:
        return []
    r = min(item.size) * 0.22 if item.outline != "path" else item.size[0] * 0.5
    if style == 1:
        return [Item("radial", item.x, item.y, (r, r), tone, profile="dome", role="centre", group=item.group)]
    return [
        Item(
            "box",
            item.x,
            item.y,
            (r * 0.4, r * 2),
            tone,
            item.angle + 0.5,
            corner=1,
            role="centre",
            group=item.group,
        )
    ]


@part(
    "array",
    "row of candles",
    "tray of parts",
    "box of chocolates",
    "pasta",
    "set of identical parts",
    "battery pack",
)
def array(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    rows, cols = int(rng.integers(1, 6)), int(rng.integers(2, 7))
    if w < h:
        rows, cols = cols, rows
    step_y, step_x = h / rows, w / cols
    radius = min(step_x, step_y) * float(rng.uniform(0.26, 0.44))
    look = _prototype(rng, radius)
    turn = float(rng.uniform(0, np.pi)) if chance(rng, 0.5) else 0.0
    loose = float(rng.uniform(0, 0.25)) if chance(rng, 0.5) else 0.0
    style, tone = int(rng.integers(3)), colour(rng)
    items: list[Item] = []
    spread = float(rng.uniform(0.0, 0.06))
    for k in range(rows * cols):
        i, j = divmod(k, cols)
        x = (j + 0.5) * step_x + float(rng.normal(0, 0.02 * step_x))
        y = (i + 0.5) * step_y + float(rng.normal(0, 0.02 * step_y))
        shade = look["colour"] * np.float32(rng.normal(1, spread))
        item = Item(
            x=x,
            y=y,
            angle=turn + float(rng.normal(0, 1)) * loose,
            role="piece",
            group=k + 1,
            seed=seeded(rng),
            **(look | {"colour": shade}),
        )
        if k == 0 or chance(rng, 0.3):
            item = skinned(rng, item, skin, 0.2)
        items += [item, *_centre_piece(rng, item, tone, style)]
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("missing", "misplaced", "broken", "deformation", "discolouration", "foreign"),
        (),
    )


@part(
    "scatter",
    "heap of capsules",
    "scattered nuts",
    "many small parts",
    "macaroni",
    "beans",
    "mixed screws",
    "seeds",
)
def scatter(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    radius = min(h, w) * log_uniform(rng, 0.05, 0.15)
    look = _prototype(rng, radius)
    items: list[Item] = []
    spots: list[tuple[float, float]] = []
    dense = float(rng.uniform(1.6, 3.0))
    for _ in range(60):
        x, y = float(rng.uniform(0, w)), float(rng.uniform(0, h))
        if any(np.hypot(x - a, y - b) < dense * radius for a, b in spots):
            continue
        spots.append((x, y))
        shade = look["colour"] * np.float32(rng.normal(1, 0.07))
        items.append(
            Item(
                x=x,
                y=y,
                angle=float(rng.uniform(0, 6.3)),
                role="piece",
                group=len(spots),
                seed=seeded(rng),
                **(look | {"colour": shade}),
            )
        )
    # Loose things may lie anywhere and number anything: only their own state can be wrong.
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("broken", "deformation", "discolouration", "foreign"),
        ("piece",),
    )


@part("blister", "blister pack", "pack of tablets", "egg carton", "tray with pockets", "keypad", "keyboard")
def blister(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    rows, cols = int(rng.integers(2, 6)), int(rng.integers(2, 7))
    p = Place(w / 2, h / 2, float(rng.normal(0, 0.04)), 0)
    step_x, step_y = 0.92 * w / cols, 0.92 * h / rows
    r = min(step_x, step_y) * float(rng.uniform(0.28, 0.42))
    foil = metal(rng)
    items = [
        Item(
            "box",
            p.x,
            p.y,
            (w * 0.48, h * 0.48),
            foil,
            p.angle,
            corner=r * 0.5,
            profile="bevel",
            grain=0.03,
            shadow=0.3,
            seed=seeded(rng),
        )
    ]
    tone, square = colour(rng, low=0.4), chance(rng, 0.4)
    slim = float(rng.uniform(0.6, 1.0))
    for k in range(rows * cols):
        i, j = divmod(k, cols)
        x, y = p.at((j + 0.5) * step_x - 0.46 * w, (i + 0.5) * step_y - 0.46 * h)
        items.append(
            Item(
                "radial",
                x,
                y,
                (r * 1.15, r * 1.15 * slim),
                foil * np.float32(0.8),
                p.angle,
                profile="bevel",
                relief=1.0,
                role="pocket",
                group=0,
            )
        )
        common: dict[str, Any] = {
            "angle": p.angle,
            "profile": "dome",
            "relief": 0.7,
            "gloss": 0.3,
            "role": "piece",
            "group": k + 1,
            "seed": seeded(rng),
        }
        if square:
            items.append(Item("box", x, y, (r * 0.85, r * 0.85 * slim), tone, corner=r * 0.2, **common))
        else:
            items.append(Item("radial", x, y, (r * 0.9, r * 0.9 * slim), tone, **common))
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("missing", "missing", "misplaced", "broken", "discolouration", "deformation"),
        ("body", "pocket"),
    )


@part("brush", "toothbrush", "brush", "comb", "heat sink", "radiator fins", "row of needles", "fence")
def brush(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w, low=0.36, high=0.47, turn=0.15)
    tufts = chance(rng, 0.5)
    tone = colour(rng)
    b = p.radius * float(rng.uniform(0.3, 0.6))
    items = [
        Item(
            "box",
            p.x,
            p.y,
            (p.radius, b),
            tone,
            p.angle,
            corner=b * float(rng.uniform(0.1, 0.9)),
            profile="bevel",
            seed=seeded(rng),
            **finish(rng),
        )
    ]
    look: dict[str, Any] = {"relief": 0.9, "shadow": float(rng.uniform(0.1, 0.5))}
    cols = int(rng.integers(5, 12))
    pair = (colour(rng, low=0.4), colour(rng, low=0.4))
    for k in range(cols):
        u = (k - (cols - 1) / 2) * 1.7 * p.radius / cols
        if not tufts:
            x, y = p.at(u, 0)
            items.append(
                Item(
                    "box",
                    x,
                    y,
                    (0.45 * p.radius / cols, b * 0.85),
                    pair[0],
                    p.angle,
                    corner=2,
                    profile="tube",
                    role="tooth",
                    group=k + 1,
                    **look,
                )
            )
            continue
        rows = 3
        for i in range(rows):
            x, y = p.at(u, (i - 1) * b * 0.55)
            r = min(0.7 * p.radius / cols, b * 0.25)
            items.append(
                Item(
                    "radial",
                    x,
                    y,
                    (r, r),
                    pair[(k + i) % 2],
                    p.angle,
                    radial("organic", rng, lumps=0.05),
                    profile="dome",
                    grain=0.25,
                    role="tooth",
                    group=k * rows + i + 1,
                    seed=seeded(rng),
                    **look,
                )
            )
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("missing", "misplaced", "deformation", "broken", "discolouration"),
        ("body",),
    )


@part("dial", "clock face", "dial", "gauge", "bearing", "turbine wheel", "rotor", "fan")
def dial(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w, low=0.32, high=0.47)
    tone = colour(rng)
    items = [
        skinned(
            rng,
            Item(
                "radial",
                p.x,
                p.y,
                (p.radius, p.radius),
                tone,
                profile="bevel",
                seed=seeded(rng),
                **finish(rng),
            ),
            skin,
            0.25,
        )
    ]
    count = int(rng.integers(5, 25))
    mark = metal(rng) if chance(rng, 0.5) else colour(rng)
    long, wide = float(rng.uniform(0.05, 0.3)), float(rng.uniform(0.15, 0.45)) * np.pi / count
    ring = float(rng.uniform(0.55, 0.9 - long))
    balls = chance(rng, 0.4)
    look: dict[str, Any] = {
        "profile": pick(rng, ("bevel", "dome")),
        "relief": 0.9,
        "gloss": 0.2,
        "shadow": 0.2,
        "role": "tick",
    }
    for k in range(count):
        t = p.angle + 2 * np.pi * k / count
        x, y = p.x + ring * p.radius * np.cos(t), p.y + ring * p.radius * np.sin(t)
        r = p.radius * ring * min(wide, 0.15)
        if balls:
            items.append(Item("radial", x, y, (r, r), mark, group=k + 1, **look))
        else:
            items.append(
                Item(
                    "box",
                    x,
                    y,
                    (p.radius * long, r),
                    mark,
                    t + float(pick(rng, (0.0,))),
                    corner=r * 0.5,
                    group=k + 1,
                    **look,
                )
            )
    hub = p.radius * float(rng.uniform(0.1, 0.3))
    items.append(Item("radial", p.x, p.y, (hub, hub), metal(rng), profile="dome", relief=0.8, role="hub", group=90))
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("missing", "misplaced", "deformation", "broken", "discolouration"),
        ("body",),
    )
