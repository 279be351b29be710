"""Consumer goods as single parts: pills, capsules, kernels, biscuits, labels.

Each builder is a function (generator, height, width, skin) -> Plan. Whatever varies between sound parts (place, turn,
size, colour, texture) varies here too, so that only the faults listed in the plan are faults.
"""

import numpy as np

from anomalens_lab.synthesis.fields import Random, chance, colour, hsv, log_uniform, pick
from anomalens_lab.synthesis.items import Item, Plan, radial, stamp
from anomalens_lab.synthesis.workshop import LETTERS, Skin, bore, finish, ground, lamp, part, place, seeded, skinned


@part("pill", "pill", "tablet", "medicine tablet", "round pill", "soap", "button", "coin", "sweet")
def pill(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w)
    slim = float(rng.uniform(0.45, 1.0))
    tone = colour(rng, low=0.4, high=1.0)
    form = radial("super", rng, power=float(rng.uniform(2, 4)))
    body = Item(
        "radial",
        p.x,
        p.y,
        (p.radius, p.radius * slim),
        tone,
        p.angle,
        form,
        profile=pick(rng, ("bevel", "dome")),
        seed=seeded(rng),
        **finish(rng),
    )
    items = [skinned(rng, body, skin, 0.2)]
    if chance(rng, 0.5):
        # Specks scattered over the whole tablet belong to it.
        speck = colour(rng)
        for k in range(int(rng.integers(6, 40))):
            t, r = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random()) * 0.85 * p.radius
            x, y = p.at(float(r * np.cos(t)), float(r * np.sin(t) * slim))
            size = p.radius * log_uniform(rng, 0.008, 0.03)
            items.append(
                Item(
                    "radial",
                    x,
                    y,
                    (size, size),
                    speck,
                    opacity=float(rng.uniform(0.3, 0.9)),
                    role="speck",
                    group=k + 10,
                )
            )
    if chance(rng, 0.6):
        mark = stamp("".join(pick(rng, LETTERS) for _ in range(int(rng.integers(1, 5)))), 40)
        high = p.radius * slim * float(rng.uniform(0.2, 0.4))
        wide = min(high * mark.shape[1] / mark.shape[0], p.radius * 0.75)
        ink = tone * np.float32(rng.uniform(0.4, 0.85)) if chance(rng, 0.7) else colour(rng)
        items.append(Item("stamp", p.x, p.y, (wide, high), ink, p.angle, mark, role="print", group=1))
    elif chance(rng, 0.5):
        items.append(
            Item(
                "box",
                p.x,
                p.y,
                (p.radius * 0.015 + 0.8, p.radius * slim * 0.9),
                tone * np.float32(0.7),
                p.angle,
                role="print",
                group=1,
            )
        )
    else:
        for k in range(int(pick(rng, (2, 4)))):
            u, v = pick(rng, ((0.18, 0.18),)), k * np.pi / 2
            items.append(
                bore(
                    rng,
                    p,
                    u[0] * p.radius * np.cos(v),
                    u[1] * p.radius * np.sin(v),
                    p.radius * 0.07,
                    k + 1,
                    tone * np.float32(0.3),
                )
            )
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("broken", "misprint", "deformation", "missing"),
        ("body", "speck"),
    )


@part("capsule", "capsule", "medicine capsule", "two-coloured capsule", "gel capsule")
def capsule(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w, low=0.3, high=0.47)
    b = p.radius * float(rng.uniform(0.28, 0.42))
    look = finish(rng) | {"gloss": float(rng.uniform(0.1, 0.7))}
    left, right = colour(rng, vivid=0.5), colour(rng, vivid=0.4)
    x, y = p.at(-p.radius * 0.2, 0)
    one = Item("box", x, y, (p.radius * 0.8, b), left, p.angle, corner=b, profile="tube", seed=seeded(rng), **look)
    x, y = p.at(p.radius * 0.35, 0)
    two = Item(
        "box",
        x,
        y,
        (p.radius * 0.65, b * 1.04),
        right,
        p.angle,
        corner=b,
        profile="tube",
        seed=seeded(rng),
        **look,
    )
    items = [one, two]
    if chance(rng, 0.7):
        mark = stamp("".join(pick(rng, LETTERS) for _ in range(int(rng.integers(2, 6)))), 40)
        wide = p.radius * 0.3
        high = min(b * 0.4, wide * mark.shape[0] / mark.shape[1])
        for k, u in enumerate((-0.5, 0.4)):
            x, y = p.at(p.radius * u, 0)
            items.append(
                Item(
                    "stamp",
                    x,
                    y,
                    (wide, high),
                    colour(rng, low=0.8),
                    p.angle,
                    mark,
                    role="print",
                    group=k + 1,
                )
            )
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("broken", "misprint", "deformation", "bend"),
    )


@part("kernel", "hazelnut", "brown nut", "almond", "cashew", "bean", "potato", "seed", "fruit", "pebble")
def kernel(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w)
    slim = float(rng.uniform(0.5, 1.0))
    tone = hsv(float(rng.normal(0.08, 0.03)) % 1, float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.3, 0.9)))
    if chance(rng, 0.15):
        tone = colour(rng)
    form = radial("organic", rng, lumps=float(rng.uniform(0.01, 0.12)), orders=7)
    body = Item(
        "radial",
        p.x,
        p.y,
        (p.radius, p.radius * slim),
        tone,
        p.angle,
        form,
        profile="dome",
        seed=seeded(rng),
        bend=float(rng.uniform(-0.6, 0.6)) if chance(rng, 0.3) else 0.0,
        **(finish(rng) | {"grain": log_uniform(rng, 0.03, 0.15)}),
    )
    items = [skinned(rng, body, skin, 0.5)]
    if chance(rng, 0.4):
        # The pale scar where the nut sat in its cup.
        x, y = p.at(p.radius * float(rng.uniform(-0.5, 0.5)), p.radius * slim * float(rng.uniform(-0.5, 0.5)))
        r = p.radius * float(rng.uniform(0.2, 0.45))
        patch = np.clip(tone * np.float32(1.25) + np.float32(0.08), 0, 1)
        items.append(
            Item(
                "radial",
                x,
                y,
                (r, r * 0.8),
                patch,
                p.angle,
                radial("organic", rng, lumps=0.15),
                grain=0.1,
                opacity=0.8,
                role="scar",
                group=1,
                seed=seeded(rng),
            )
        )
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("broken", "deformation"),
        ("body", "scar"),
    )


@part("biscuit", "cookie", "biscuit", "cracker", "chocolate chip cookie", "pizza", "rice cake", "waffle")
def biscuit(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w, low=0.28, high=0.47)
    tone = hsv(float(rng.normal(0.085, 0.02)) % 1, float(rng.uniform(0.3, 0.75)), float(rng.uniform(0.4, 0.9)))
    name = pick(rng, ("organic", "organic", "super", "petals"))
    form = radial(name, rng, lumps=0.04, power=6, n=int(rng.integers(12, 40)), depth=0.05)
    slim = float(rng.uniform(0.6, 1)) if chance(rng, 0.3) else 1.0
    body = Item(
        "radial",
        p.x,
        p.y,
        (p.radius, p.radius * slim),
        tone,
        p.angle,
        form,
        profile=pick(rng, ("bevel", "dome")),
        seed=seeded(rng),
        **(finish(rng) | {"grain": log_uniform(rng, 0.04, 0.2)}),
    )
    items = [skinned(rng, body, skin, 0.4)]
    topping = colour(rng, high=0.5)
    regular = chance(rng, 0.35)
    for k in range(int(rng.integers(0, 24))):
        if regular:
            t, r = 2.399 * k, 0.17 * np.sqrt(k) * p.radius
        else:
            t, r = float(rng.uniform(0, 2 * np.pi)), float(np.sqrt(rng.random()) * 0.8 * p.radius)
        size = p.radius * (0.03 if regular else log_uniform(rng, 0.03, 0.12))
        x, y = p.at(float(r * np.cos(t)), float(r * np.sin(t) * slim))
        items.append(
            Item(
                "radial",
                x,
                y,
                (size, size * (1 if regular else float(rng.uniform(0.6, 1)))),
                topping,
                float(rng.uniform(0, 3)),
                radial("organic", rng, lumps=0.1),
                profile="dome",
                role="topping",
                group=k + 1,
                seed=seeded(rng),
            )
        )
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("broken", "broken", "deformation"),
        ("body", "topping"),
    )


@part(
    "label",
    "printed label",
    "package",
    "cardboard box",
    "product packaging",
    "plastic bag",
    "card",
    "book cover",
)
def label(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w, low=0.3, high=0.47, turn=0.3)
    b = p.radius * float(rng.uniform(0.45, 1.0))
    tone = colour(rng, low=0.4)
    body = Item(
        "box",
        p.x,
        p.y,
        (p.radius, b),
        tone,
        p.angle,
        corner=b * float(rng.uniform(0, 0.2)),
        profile="bevel",
        seed=seeded(rng),
        **finish(rng),
    )
    items = [skinned(rng, body, skin, 0.3)]
    row = -0.8
    while row < 0.75:
        high = float(rng.uniform(0.05, 0.18))
        text = "".join(pick(rng, LETTERS) for _ in range(int(rng.integers(3, 14))))
        mark = stamp(text, 32)
        wide = min(b * high * mark.shape[1] / mark.shape[0], 0.9 * p.radius)
        x, y = p.at(0, b * (row + high))
        items.append(
            Item(
                "stamp",
                x,
                y,
                (wide, b * high),
                colour(rng, high=0.9),
                p.angle,
                mark,
                role="print",
                group=len(items),
            )
        )
        row += high * 2 + float(rng.uniform(0.05, 0.3))
    if chance(rng, 0.5):
        x, y = p.at(p.radius * 0.7, b * 0.6)
        items.append(
            Item(
                "radial",
                x,
                y,
                (b * 0.2, b * 0.2),
                colour(rng),
                p.angle,
                radial("petals", rng, n=5, depth=0.5),
                role="print",
                group=40,
            )
        )
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        ("misprint", "missing", "misplaced", "broken", "deformation"),
    )
