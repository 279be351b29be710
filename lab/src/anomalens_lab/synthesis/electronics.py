"""Electric things made of many pieces: components on a hole grid, chips, boards, cables, harnesses.

Alike pieces carry a role and a group of their own, so that one of them can go missing, sit askew, be bent or have the
wrong colour, and that means something because its neighbours show how it should be.
"""

from dataclasses import replace

import numpy as np

from anomalens_lab.synthesis.fields import Random, chance, colour, hsv, log_uniform, pick
from anomalens_lab.synthesis.items import Item, Plan, radial
from anomalens_lab.synthesis.workshop import (
    Place,
    Skin,
    finish,
    ground,
    lamp,
    metal,
    part,
    place,
    seeded,
    skinned,
    text,
)


def hole_grid(rng: Random, h: int, w: int, angle: float) -> tuple[Item, ...]:
    """A board full of holes as ground items (perfboard)."""
    step = min(h, w) * float(rng.uniform(0.07, 0.13))
    radius = step * float(rng.uniform(0.15, 0.3))
    dark = colour(rng, high=0.25)
    p = Place(w / 2, h / 2, angle, 0)
    rows, cols = int(h / step / 2) + 1, int(w / step / 2) + 1
    items = []
    for i in range(-rows, rows + 1):
        for j in range(-cols, cols + 1):
            x, y = p.at(j * step, i * step)
            items.append(Item("radial", x, y, (radius, radius), dark, role="ground"))
    return tuple(items)


@part("component", "transistor", "electronic component", "component with legs", "resistor", "diode", "led")
def component(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w, low=0.3, high=0.42, turn=0.08 if chance(rng, 0.7) else np.pi)
    items = list(hole_grid(rng, h, w, p.angle)) if chance(rng, 0.5) else []
    legs = int(rng.integers(2, 6))
    half = p.radius * float(rng.uniform(0.3, 0.55))
    tall = p.radius * float(rng.uniform(0.25, 0.45))
    top = -p.radius * 0.35
    steel = metal(rng)
    pitch = 2 * half * 0.75 / (legs - 1)
    width = min(pitch * 0.22, p.radius * 0.05) + 0.6
    flare = float(rng.uniform(0.8, 1.7))
    for k in range(legs):
        u = (k - (legs - 1) / 2) * pitch
        x, y = p.at(u, top + tall * 0.8)
        length = p.radius * 1.1 - tall * 0.2
        points = np.array(
            [(0, 0), (0, length * 0.2), (u * (flare - 1), length * 0.45), (u * (flare - 1), length)],
            np.float32,
        )
        items.append(
            Item(
                "path",
                x,
                y,
                (width, width),
                steel,
                p.angle,
                points,
                profile="tube",
                relief=0.8,
                shadow=0.3,
                role="leg",
                group=k + 1,
                seed=seeded(rng),
            )
        )
    x, y = p.at(0, top)
    look = finish(rng)
    form = radial("cut", rng, depth=float(rng.uniform(0.5, 0.95))) if chance(rng, 0.4) else None
    tone = colour(rng, low=0.05, high=0.5, vivid=0.15)
    if form is None:
        body = Item(
            "box",
            x,
            y,
            (half, tall),
            tone,
            p.angle,
            corner=tall * float(rng.uniform(0.05, 0.5)),
            profile="bevel",
            role="case",
            seed=seeded(rng),
            **look,
        )
    else:
        body = Item(
            "radial",
            x,
            y,
            (half, half),
            tone,
            p.angle + np.pi / 2,
            form,
            profile="bevel",
            role="case",
            seed=seeded(rng),
            **look,
        )
    items.append(skinned(rng, body, skin, 0.15))
    if chance(rng, 0.6):
        mark = text(rng, 2, 5)
        items.append(
            Item(
                "stamp",
                x,
                y,
                (half * 0.6, min(tall * 0.35, half * 0.5 * mark.shape[0] / mark.shape[1] + 2)),
                tone * np.float32(0.4) + np.float32(0.5),
                p.angle,
                mark,
                role="print",
                group=0,
            )
        )
    # The whole component is one thing: case and print share group 0, and a shift moves it off its place.
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("missing", "bent leg", "bent leg", "cut leg", "misplaced", "broken", "assembly"),
        (),
    )


@part("chip", "integrated circuit", "microchip", "chip with pins", "connector", "pin header", "socket")
def chip(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w, turn=0.1 if chance(rng, 0.6) else np.pi)
    legs = int(rng.integers(3, 13))
    a, b = p.radius * float(rng.uniform(0.7, 0.95)), p.radius * float(rng.uniform(0.25, 0.7))
    pitch = 2 * a * 0.9 / legs
    steel = metal(rng)
    long = p.radius * float(rng.uniform(0.1, 0.25))
    items: list[Item] = []
    sides = (-1, 1) if chance(rng, 0.75) else (1,)
    for edge in sides:
        for k in range(legs):
            x, y = p.at((k - (legs - 1) / 2) * pitch, edge * (b + long * 0.5))
            items.append(
                Item(
                    "box",
                    x,
                    y,
                    (pitch * 0.22, long),
                    steel,
                    p.angle,
                    corner=pitch * 0.1,
                    profile="bevel",
                    relief=0.8,
                    gloss=0.3,
                    shadow=0.3,
                    role="leg",
                    group=len(items) + 1,
                    seed=seeded(rng),
                )
            )
    tone = colour(rng, low=0.04, high=0.4, vivid=0.1)
    items.append(
        Item(
            "box",
            p.x,
            p.y,
            (a, b),
            tone,
            p.angle,
            corner=b * 0.05,
            profile="bevel",
            role="case",
            seed=seeded(rng),
            **finish(rng),
        )
    )
    if chance(rng, 0.8):
        mark = text(rng, 3, 9)
        high = b * float(rng.uniform(0.15, 0.3))
        items.append(
            Item(
                "stamp",
                p.x,
                p.y,
                (min(a * 0.8, high * mark.shape[1] / mark.shape[0]), high),
                tone + np.float32(0.4),
                p.angle,
                mark,
                role="print",
            )
        )
    if chance(rng, 0.6):
        x, y = p.at(-a * 0.82, b * 0.6)
        items.append(Item("radial", x, y, (b * 0.08, b * 0.08), tone * np.float32(0.5), role="dot"))
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("missing", "bent leg", "cut leg", "misplaced", "broken", "discolouration"),
        (),
    )


@part("board", "circuit board", "printed circuit board", "pcb", "electronic module", "controller board")
def board(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    whole = chance(rng, 0.4)
    p = place(rng, h, w, low=0.38, high=0.48, turn=0.06) if not whole else Place(w / 2, h / 2, 0.0, max(h, w) * 0.6)
    a, b = (w * 0.6, h * 0.6) if whole else (p.radius, p.radius * float(rng.uniform(0.55, 1.0)))
    hue = float(pick(rng, (0.38, 0.35, 0.6, 0.62, 0.0, 0.1)))
    base = hsv(hue, float(rng.uniform(0.4, 0.9)), float(rng.uniform(0.12, 0.55)))
    items = [
        Item(
            "box",
            p.x,
            p.y,
            (a, b),
            base,
            p.angle,
            corner=b * 0.04,
            profile="bevel",
            grain=0.04,
            shadow=0.3,
            seed=seeded(rng),
        )
    ]
    trace = np.clip(base * np.float32(1.35) + np.float32(0.03), 0, 1)
    for k in range(int(rng.integers(4, 16))):
        x, y = p.at(a * float(rng.uniform(-0.8, 0.8)), b * float(rng.uniform(-0.8, 0.8)))
        d, e = a * float(rng.uniform(-0.4, 0.4)), b * float(rng.uniform(-0.4, 0.4))
        points = np.array([(0, 0), (d, 0), (d + e * 0.5, e), (d + e * 0.5, e * 1.5)], np.float32)
        items.append(Item("path", x, y, (1.2, 1.2), trace, p.angle, points, role="trace", group=k + 1))
    gold = hsv(0.13, 0.4, float(rng.uniform(0.6, 0.95)))
    shapes = [_device(rng, min(a, b)) for _ in range(int(rng.integers(1, 5)))]
    taken: list[tuple[float, float, float]] = []
    for k in range(int(rng.integers(6, 26))):
        for _ in range(6):
            u, v = a * float(rng.uniform(-0.82, 0.82)), b * float(rng.uniform(-0.82, 0.82))
            kind = shapes[int(rng.integers(len(shapes)))]
            turned = chance(rng, 0.5)
            r = max(kind.size) * 1.2
            if all(np.hypot(u - q, v - s) > r + t for q, s, t in taken):
                break
        else:
            continue
        taken.append((u, v, r))
        x, y = p.at(u, v)
        turn = p.angle + (np.pi / 2 if turned else 0.0)
        if kind.outline == "box":
            frame = Place(x, y, turn, 0)
            for end in (-1, 1):
                ex, ey = frame.at(end * kind.size[0] * 1.1, 0)
                items.append(
                    Item(
                        "box",
                        ex,
                        ey,
                        (kind.size[0] * 0.3, kind.size[1] * 0.9),
                        gold,
                        turn,
                        profile="bevel",
                        gloss=0.2,
                        role="pad",
                        group=100 + k,
                    )
                )
        items.append(replace(kind, x=x, y=y, angle=turn, group=100 + k, seed=seeded(rng)))
    for k, (i, j) in enumerate(((-1, -1), (-1, 1), (1, -1), (1, 1))):
        x, y = p.at(i * a * 0.92, j * b * 0.92)
        items.append(
            Item(
                "radial",
                x,
                y,
                (b * 0.045, b * 0.045),
                gold,
                inner=0.6,
                profile="bevel",
                role="hole",
                group=50 + k,
            )
        )
    if chance(rng, 0.7):
        x, y = p.at(a * float(rng.uniform(-0.5, 0.5)), b * float(rng.uniform(-0.8, 0.8)))
        mark = text(rng, 3, 8)
        items.append(
            Item(
                "stamp",
                x,
                y,
                (b * 0.06 * mark.shape[1] / mark.shape[0], b * 0.06),
                np.full(3, 0.9, np.float32),
                p.angle,
                mark,
                role="print",
                group=60,
            )
        )
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("missing", "misplaced", "deformation", "broken", "discolouration", "misprint"),
        ("body", "trace"),
    )


def _device(rng: Random, scale: float) -> Item:
    """One kind of device on a board, at the origin."""
    tone = colour(rng, low=0.04, high=0.8, vivid=0.25)
    size = scale * log_uniform(rng, 0.035, 0.2)
    if chance(rng, 0.3):
        return Item(
            "radial",
            0,
            0,
            (size * 0.7, size * 0.7),
            tone,
            profile="dome",
            gloss=0.3,
            shadow=0.4,
            role="device",
        )
    return Item(
        "box",
        0,
        0,
        (size, size * float(rng.uniform(0.4, 1.0))),
        tone,
        corner=1,
        profile="bevel",
        shadow=0.4,
        role="device",
    )


@part("bundle", "cable", "cable cross section", "bundle of wires", "stranded wire", "optical fibre bundle")
def bundle(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w, low=0.34, high=0.47)
    sheath = colour(rng)
    items = [Item("radial", p.x, p.y, (p.radius, p.radius), sheath, profile="bevel", seed=seeded(rng), **finish(rng))]
    cores = int(rng.integers(1, 8))
    r = p.radius * 0.85 if cores == 1 else 0.8 * p.radius / (1 + 1 / np.sin(np.pi / cores)) if cores > 1 else p.radius
    ring = 0.0 if cores == 1 else p.radius * 0.85 - r
    copper = hsv(float(rng.normal(0.07, 0.03)) % 1, float(rng.uniform(0.1, 0.65)), float(rng.uniform(0.5, 0.95)))
    for k in range(cores):
        t = p.angle + 2 * np.pi * k / cores
        x, y = p.x + ring * np.cos(t), p.y + ring * np.sin(t)
        jacket = colour(rng, vivid=0.55)
        items.append(
            Item(
                "radial",
                x,
                y,
                (r, r),
                jacket,
                profile="bevel",
                relief=0.6,
                role="core",
                group=k + 1,
                seed=seeded(rng),
            )
        )
        strands = int(pick(rng, (7, 12, 19)))
        strand = r * 0.72 / np.sqrt(strands) * 1.05
        for m in range(strands):
            q, turn = r * 0.62 * np.sqrt((m + 0.3) / strands), m * 2.399963
            items.append(
                Item(
                    "radial",
                    x + q * np.cos(turn),
                    y + q * np.sin(turn),
                    (strand, strand),
                    copper * np.float32(rng.uniform(0.8, 1.1)),
                    profile="dome",
                    relief=0.8,
                    role="strand",
                    group=k + 1,
                )
            )
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("missing", "misplaced", "discolouration", "broken", "deformation"),
        ("body",),
    )


@part("harness", "wire harness", "flat cable", "ribbon cable", "parallel wires", "tubes", "bus bars", "strings")
def harness(rng: Random, h: int, w: int, skin: Skin) -> Plan:
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
    look = finish(rng)
    items = []
    for k in range(count):
        x, y = p.at(0, (k - (count - 1) / 2) * pitch)
        points = np.stack([t, sway + rng.normal(0, pitch * 0.03, len(t))], 1).astype(np.float32)
        tone = colour(rng, vivid=0.55) if many else same * np.float32(rng.normal(1, 0.03))
        items.append(
            Item(
                "path",
                x,
                y,
                (half, half),
                tone,
                p.angle,
                points,
                profile="tube",
                role="wire",
                group=k + 1,
                seed=seeded(rng),
                **look,
            )
        )
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("missing", "cut wire", "kink", "discolouration"),
        ("wire",),
    )
