"""Single parts on a ground: plates, gears, rings, bottles, screws, pills, nuts, biscuits, tubes, labels.

A part is a function (generator, height, width, skins) -> Plan. Whatever varies between sound parts (place, turn, size,
colour, texture) varies here too, so that only the listed faults are faults. Parts made of many alike pieces live in
`assemblies`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from anomalens.data.synthesis.fields import (
    Field,
    Random,
    chance,
    colour,
    hsv,
    log_uniform,
    octaves,
    pick,
)
from anomalens.data.synthesis.items import Item, Light, Plan, radial, reach, stamp

Skin = Callable[[Random, int, int], Field]  # paints one of the surfaces that the configuration allows
Builder = Callable[[Random, int, int, Skin], Plan]


@dataclass(frozen=True)
class Part:
    """A family of parts: how it is planned and what people call it."""

    plan: Builder
    subjects: tuple[str, ...]


PARTS: dict[str, Part] = {}
LETTERS = tuple("ABCDEFGHKLMNPRSTUVXYZ0123456789")


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


def place(rng: Random, h: int, w: int, *, low: float = 0.22, high: float = 0.46, turn: float = np.pi) -> Place:
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


def finish(rng: Random) -> dict[str, float]:
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
        "",
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
        "radial", p.x, p.y, (p.radius, p.radius), tone, p.angle, form, inner=float(rng.uniform(0.1, 0.4)),
        profile=pick(rng, ("bevel", "flat")), seed=seeded(rng), **finish(rng),
    )  # fmt: skip
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
        "",
        ("tooth", "missing", "broken", "deformation"),
    )


@part("washer", "washer", "metal ring", "rubber gasket", "o-ring", "bearing ring", "sealing ring")
def washer(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w)
    inner = float(rng.uniform(0.35, 0.88))
    tone = metal(rng) if chance(rng, 0.6) else colour(rng, high=0.4)
    body = Item(
        "radial", p.x, p.y, (p.radius, p.radius), tone, p.angle, inner=inner,
        profile=pick(rng, ("bevel", "flat", "dome")), seed=seeded(rng), **finish(rng),
    )  # fmt: skip
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
    return Plan(ground(rng, h, w, skin), tuple(items), lamp(rng, h, w), "", ("broken", "deformation", "notch"))


@part("bottle", "bottle seen from above", "bottle mouth", "cup", "tin can", "glass jar", "bowl", "lid")
def bottle(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w, low=0.32, high=0.48)
    tone = colour(rng, low=0.05, high=0.8)
    items, r = [], p.radius
    count = int(rng.integers(2, 6))
    for k in range(count):
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
    return Plan(light, tuple(items), lamp(rng, h, w), "", ("broken", "deformation", "notch"))


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
                "box", x, y, (pitch * 0.28, half * 1.3 * taper), tone * np.float32(1.1), p.angle + lean,
                corner=pitch * 0.25, profile="tube", relief=look["relief"], role="thread", group=k + 1,
            )  # fmt: skip
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
        "",
        ("bend", "broken", "thread", "deformation"),
        ("body", "head", "thread"),
    )


@part("pill", "pill", "tablet", "medicine tablet", "round pill", "soap", "button", "coin", "sweet")
def pill(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w)
    slim = float(rng.uniform(0.45, 1.0))
    tone = colour(rng, low=0.4, high=1.0)
    form = radial("super", rng, power=float(rng.uniform(2, 4)))
    body = Item(
        "radial", p.x, p.y, (p.radius, p.radius * slim), tone, p.angle, form, profile=pick(rng, ("bevel", "dome")),
        seed=seeded(rng), **finish(rng),
    )  # fmt: skip
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
        "",
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
        "",
        ("broken", "misprint", "deformation", "bend"),
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
    return Plan(ground(rng, h, w, skin), tuple(items), lamp(rng, h, w), "", ("broken", "deformation", "notch"))


@part("kernel", "hazelnut", "brown nut", "almond", "cashew", "bean", "potato", "seed", "fruit", "pebble")
def kernel(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w)
    slim = float(rng.uniform(0.5, 1.0))
    tone = hsv(float(rng.normal(0.08, 0.03)) % 1, float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.3, 0.9)))
    if chance(rng, 0.15):
        tone = colour(rng)
    form = radial("organic", rng, lumps=float(rng.uniform(0.01, 0.12)), orders=7)
    body = Item(
        "radial", p.x, p.y, (p.radius, p.radius * slim), tone, p.angle, form, profile="dome", seed=seeded(rng),
        bend=float(rng.uniform(-0.6, 0.6)) if chance(rng, 0.3) else 0.0,
        **(finish(rng) | {"grain": log_uniform(rng, 0.03, 0.15)}),
    )  # fmt: skip
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
        "",
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
        "radial", p.x, p.y, (p.radius, p.radius * slim), tone, p.angle, form, profile=pick(rng, ("bevel", "dome")),
        seed=seeded(rng), **(finish(rng) | {"grain": log_uniform(rng, 0.04, 0.2)}),
    )  # fmt: skip
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
            Item("radial", x, y, (size, size * (1 if regular else float(rng.uniform(0.6, 1)))), topping, float(rng.uniform(0, 3)),
                 radial("organic", rng, lumps=0.1), profile="dome", role="topping", group=k + 1, seed=seeded(rng))
        )  # fmt: skip
    return Plan(
        ground(rng, h, w, skin),
        tuple(items),
        lamp(rng, h, w),
        "",
        ("broken", "broken", "deformation"),
        ("body", "topping"),
    )


@part("tube", "metal pipe", "tube", "plastic pipe", "cigarette", "pencil", "rod", "hose", "wire", "cable")
def tube(rng: Random, h: int, w: int, skin: Skin) -> Plan:
    p = place(rng, h, w, low=0.3, high=0.5)
    half = p.radius * log_uniform(rng, 0.05, 0.35)
    tone = metal(rng) if chance(rng, 0.5) else colour(rng)
    long = p.radius * (float(rng.uniform(1.6, 2.2)) if chance(rng, 0.5) else 1.0)
    body = Item(
        "box", p.x, p.y, (long, half), tone, p.angle, corner=half * float(pick(rng, (0.1, 0.5, 1.0))), profile="tube",
        bend=float(rng.normal(0, 0.15)) if chance(rng, 0.2) else 0.0, seed=seeded(rng), **finish(rng),
    )  # fmt: skip
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
        "",
        ("bend", "broken", "deformation"),
        ("body", "band"),
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
        "",
        ("misprint", "missing", "misplaced", "broken", "deformation"),
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
    return Plan(ground(rng, h, w, skin), (body,), lamp(rng, h, w), "", ("kink", "broken"))
