"""Machined and moulded single parts: plates, gears, rings, bottles, screws, nuts, tubes, wire forms.

Each builder is a function (generator, height, width, skin) -> Plan. Whatever varies between sound parts (place, turn,
size, colour, texture) varies here too, so that only the faults listed in the plan are faults.
"""

import numpy as np

from anomalens_lab.synthesis.fields import Random, chance, colour, log_uniform, pick
from anomalens_lab.synthesis.items import Item, Plan, radial
from anomalens_lab.synthesis.workshop import Skin, bore, finish, ground, lamp, metal, part, place, seeded, skinned


@part("plate", "metal plate", "machined part", "bracket", "metal part", "flange", "mounting plate", "casting")
def plate(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w)
    a, b = p.radius, p.radius * float(rng.uniform(0.35, 1.0))
    tone = metal(rng) if chance(rng, 0.6) else colour(rng)
    outline = pick(rng, ("super", "polygon", "round", "box", "petals"))
    common = {"colour": tone, "angle": p.angle, "profile": pick(rng, ("flat", "bevel")), "seed": seeded(rng)}
    if outline == "box":
        body = Item("box", p.x, p.y, (a, b), corner=b * float(rng.uniform(0, 0.5)), **common, **finish(rng))
    else:
        form = radial(outline, rng, n=int(rng.integers(3, 9)), power=float(rng.uniform(2.5, 8)), depth=0.25)
        body = Item("radial", p.x, p.y, (a, b), form=form, **common, **finish(rng))
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
        x, y = p.at(float(rng.uniform(-0.3, 0.3)) * a, float(rng.uniform(-0.3, 0.3)) * b)
        boss = tone * np.float32(rng.uniform(0.8, 1.15))
        r = float(rng.uniform(0.08, 0.2)) * b
        items.append(Item("radial", x, y, (r, r), boss, profile="dome", relief=0.7, role="boss", group=30 + k))
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("missing", "broken", "deformation"),
        ("body", "boss"),
    )


@part("gear", "gear", "cogwheel", "toothed wheel", "sprocket", "pinion")
def gear(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w)
    teeth = int(rng.integers(7, 33))
    form = radial("gear", rng, n=teeth, depth=float(rng.uniform(0.1, 0.28)), sharp=float(rng.uniform(1, 6)))
    tone = metal(rng) if chance(rng, 0.7) else colour(rng)
    body = Item(
        "radial",
        p.x,
        p.y,
        (p.radius, p.radius),
        tone,
        p.angle,
        form,
        inner=float(rng.uniform(0.1, 0.4)),
        profile=pick(rng, ("bevel", "flat")),
        seed=seeded(rng),
        **finish(rng),
    )
    items = [skinned(rng, body, skin, 0.4)]
    spokes = int(rng.integers(0, 7))
    shade = colour(rng, low=0.0, high=0.3)
    for k in range(spokes):
        t = 2 * np.pi * k / spokes
        reachable = p.radius * 0.58
        items.append(bore(rng, p, reachable * np.cos(t), reachable * np.sin(t), p.radius * 0.1, k + 1, shade))
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("tooth", "missing", "broken", "deformation"),
    )


@part("washer", "washer", "metal ring", "rubber gasket", "o-ring", "bearing ring", "sealing ring")
def washer(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w)
    inner = float(rng.uniform(0.35, 0.88))
    tone = metal(rng) if chance(rng, 0.6) else colour(rng, high=0.4)
    body = Item(
        "radial",
        p.x,
        p.y,
        (p.radius, p.radius),
        tone,
        p.angle,
        inner=inner,
        profile=pick(rng, ("bevel", "flat", "dome")),
        seed=seeded(rng),
        **finish(rng),
    )
    items = [skinned(rng, body, skin, 0.4)]
    if chance(rng, 0.3):
        r = p.radius * inner * float(rng.uniform(0.4, 0.95))
        core = Item(
            "radial",
            p.x,
            p.y,
            (r, r),
            metal(rng),
            inner=float(rng.uniform(0, 0.7)),
            role="core",
            group=1,
            **finish(rng),
        )
        items.append(core)
    return Plan(ground(rng, h, w, skin), tuple(items), lamp(rng, h, w), ("broken", "deformation", "notch"))


@part("bottle", "bottle seen from above", "bottle mouth", "cup", "tin can", "glass jar", "bowl", "lid")
def bottle(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w, low=0.32, high=0.48)
    tone = colour(rng, low=0.05, high=0.8)
    items, r = [], p.radius
    count = int(rng.integers(2, 6))
    for _ in range(count):
        shade = np.clip(tone * np.float32(log_uniform(rng, 0.3, 2.2)) + np.float32(rng.uniform(0, 0.12)), 0, 1)
        items.append(
            Item(
                "radial",
                p.x,
                p.y,
                (r, r),
                shade,
                profile=pick(rng, ("bevel", "dome", "flat")),
                seed=seeded(rng),
                **finish(rng),
            )
        )
        r *= float(rng.uniform(0.6, 0.92))
    dark = Item("radial", p.x, p.y, (r, r), tone * np.float32(0.25), profile="flat", grain=0.02, seed=seeded(rng))
    items.append(dark)
    light = ground(rng, h, w, skin)
    if chance(rng, 0.5):
        light = np.clip(light + np.float32(0.6), 0, 1)
    return Plan(light, tuple(items), lamp(rng, h, w), ("broken", "deformation", "notch"))


@part("screw", "screw", "bolt", "metal screw", "threaded rod", "nail")
def screw(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w, low=0.3, high=0.46)
    length, half = p.radius, p.radius * float(rng.uniform(0.07, 0.18))
    tone = metal(rng)
    look = finish(rng)
    head = length * float(rng.uniform(0.15, 0.3))
    x, y = p.at(head / 2, 0)
    shank = Item(
        "box",
        x,
        y,
        (length - head / 2, half),
        tone,
        p.angle,
        corner=half * 0.4,
        profile="tube",
        seed=seeded(rng),
        **look,
    )
    items = [shank]
    if chance(rng, 0.85):
        pitch = half * float(rng.uniform(0.5, 1.1))
        start = -length * float(rng.uniform(-0.3, 0.7))
        steps = int(min(40, max(3, (length - start) / pitch)))
        lean = float(rng.uniform(-0.25, 0.25))
        for k in range(steps):
            u = start + (length - start) * (k + 0.5) / steps
            taper = 1.0 if k < steps - 3 else 0.75
            x, y = p.at(u, 0)
            ridge = Item(
                "box",
                x,
                y,
                (pitch * 0.28, half * 1.3 * taper),
                tone * np.float32(1.1),
                p.angle + lean,
                corner=pitch * 0.25,
                profile="tube",
                relief=look["relief"],
                role="thread",
                group=k + 1,
            )
            items.append(ridge)
    x, y = p.at(-length + head / 2, 0)
    if chance(rng, 0.5):
        top = Item(
            "box",
            x,
            y,
            (head / 2, half * float(rng.uniform(1.8, 2.6))),
            tone,
            p.angle,
            corner=half * 0.5,
            profile="dome",
            role="head",
            **look,
        )
    else:
        form = radial("cut", rng, depth=0.6)
        top = Item("radial", x, y, (head / 2, half * 2.2), tone, p.angle, form, profile="dome", role="head", **look)
    items.append(top)
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("bend", "broken", "thread", "deformation"),
        ("body", "head", "thread"),
    )


@part("hexnut", "metal nut", "hexagonal nut", "threaded nut", "nut with flanges", "spacer")
def hexnut(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w)
    n = int(rng.integers(4, 9))
    name = pick(rng, ("polygon", "polygon", "petals"))
    form = radial(name, rng, n=n, round=float(rng.uniform(0.88, 1.0)), depth=0.2)
    tone = metal(rng)
    inner = float(rng.uniform(0.35, 0.65))
    look = finish(rng)
    body = Item(
        "radial",
        p.x,
        p.y,
        (p.radius, p.radius),
        tone,
        p.angle,
        form,
        inner=inner,
        profile="bevel",
        seed=seeded(rng),
        **look,
    )
    items = [skinned(rng, body, skin, 0.35)]
    r = p.radius * min(0.9, inner * 1.35)
    items.append(
        Item(
            "radial",
            p.x,
            p.y,
            (r, r),
            tone * np.float32(rng.uniform(0.7, 1.2)),
            inner=inner * p.radius / r,
            profile="bevel",
            **look,
        )
    )
    for k in range(int(rng.integers(0, 4))):
        turn = inner * (1 - 0.05 * k)
        items.append(
            Item(
                "radial",
                p.x,
                p.y,
                (turn * p.radius, turn * p.radius),
                tone * np.float32(0.6 - 0.1 * k),
                inner=0.93,
                profile="bevel",
                role="thread",
                group=0,
            )
        )
    return Plan(ground(rng, h, w, skin), tuple(items), lamp(rng, h, w), ("broken", "deformation", "notch"))


@part("tube", "metal pipe", "tube", "plastic pipe", "cigarette", "pencil", "rod", "hose", "wire", "cable")
def tube(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w, low=0.3, high=0.5)
    half = p.radius * log_uniform(rng, 0.05, 0.35)
    tone = metal(rng) if chance(rng, 0.5) else colour(rng)
    long = p.radius * (float(rng.uniform(1.6, 2.2)) if chance(rng, 0.5) else 1.0)
    body = Item(
        "box",
        p.x,
        p.y,
        (long, half),
        tone,
        p.angle,
        corner=half * float(pick(rng, (0.1, 0.5, 1.0))),
        profile="tube",
        bend=float(rng.normal(0, 0.15)) if chance(rng, 0.2) else 0.0,
        seed=seeded(rng),
        **finish(rng),
    )
    items = [skinned(rng, body, skin, 0.4)]
    for k in range(int(rng.integers(0, 5))):
        x, y = p.at(long * float(rng.uniform(-0.9, 0.9)), 0)
        wide = half * float(rng.uniform(0.1, 0.6))
        items.append(
            Item(
                "box",
                x,
                y,
                (wide, half * 1.05),
                colour(rng),
                p.angle,
                corner=1,
                profile="tube",
                role="band",
                group=k + 1,
            )
        )
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("bend", "broken", "deformation"),
        ("body", "band"),
    )


@part("frame", "window frame", "metal frame", "handle", "hook", "spring clip", "bent wire", "paper clip")
def wire_form(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w)
    kind = int(rng.integers(3))
    t = np.linspace(0, 1, int(rng.integers(8, 20)))
    if kind == 0:
        points = np.stack([np.cos(t * 5.2 + 0.5), np.sin(t * 5.2 + 0.5) * rng.uniform(0.5, 1)], 1)
    elif kind == 1:
        points = np.stack([2 * t - 1, 0.4 * np.sin(t * np.pi * rng.integers(2, 8))], 1)
    else:
        points = np.array(
            [
                (-1, -0.5),
                (0.8, -0.5),
                (1, -0.2),
                (1, 0.3),
                (0.8, 0.5),
                (-0.6, 0.5),
                (-0.8, 0.2),
                (-0.6, -0.1),
                (0.6, -0.1),
            ]
        )
    half = p.radius * float(rng.uniform(0.03, 0.09)) + 1
    tone = metal(rng) if chance(rng, 0.7) else colour(rng)
    body = Item(
        "path",
        p.x,
        p.y,
        (half, half),
        tone,
        p.angle,
        (points * p.radius).astype(np.float32),
        profile="tube",
        seed=seeded(rng),
        **finish(rng),
    )
    return Plan(ground(rng, h, w, skin), (body,), lamp(rng, h, w), ("kink", "broken"))
