"""Edit the items of a plan so that a piece is missing, misplaced, bent, broken or wrong.

A fault is a function (generator, plan, items) -> new items, or None where the plan has no piece it could befall. The
faults that mean something for a family of parts are named at its builder.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from anomalens_lab.synthesis.fields import Field, Random, chance, colour, log_uniform, pick
from anomalens_lab.synthesis.items import ANGLES, Break, Item, Plan, radial, stamp

Items = tuple[Item, ...]
Fault = Callable[[Random, Plan, Items], Items | None]

# Pieces whose loss or shift says nothing: the carrier itself and what only decorates it.
_CARRIERS = ("body", "ground", "trace", "speck", "topping", "scar", "pocket")


def _groups(plan: Plan, items: Items) -> list[int]:
    """Return the groups whose leading item is a piece that stands for itself."""
    leaders: dict[int, str] = {}
    for item in items:
        leaders.setdefault(item.group, item.role)
    return [g for g, role in leaders.items() if role not in _CARRIERS and role not in plan.free]


def _inside(plan: Plan, items: Items, group: int) -> bool:
    """Tell whether the group's place lies on the canvas, so that a fault of it can be seen."""
    h, w = plan.ground.shape[:2]
    first = next(i for i in items if i.group == group)
    return bool(0 <= first.x < w and 0 <= first.y < h)


def _choose(rng: Random, plan: Plan, items: Items) -> int | None:
    groups = [g for g in _groups(plan, items) if _inside(plan, items, g)]
    return int(pick(rng, groups)) if groups else None


def _swap(items: Items, index: int, **changes: Any) -> Items:
    return (*items[:index], replace(items[index], **changes), *items[index + 1 :])


def missing(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Remove one group, sometimes a few."""
    for _ in range(1 if chance(rng, 0.75) else int(rng.integers(2, 4))):
        group = _choose(rng, plan, items)
        if group is None:
            return None
        items = tuple(i for i in items if i.group != group or i.role in _CARRIERS)
    return items


def misplaced(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Shift and turn one group off its place."""
    group = _choose(rng, plan, items)
    if group is None:
        return None
    first = next(i for i in items if i.group == group)
    size = max(first.size) if first.outline != "path" or first.form is None else float(np.abs(first.form).max()) * 0.4
    turn = float(rng.choice([-1, 1])) * float(rng.uniform(0.25, 1.6)) if chance(rng, 0.7) else 0.0
    far = size * float(rng.uniform(0.35, 1.6)) if turn == 0 or chance(rng, 0.6) else 0.0
    way = float(rng.uniform(0, 2 * np.pi))
    c, s = np.cos(turn), np.sin(turn)

    def moved(item: Item) -> Item:
        dx, dy = item.x - first.x, item.y - first.y
        x = first.x + c * dx - s * dy + far * np.cos(way)
        y = first.y + s * dx + c * dy + far * np.sin(way)
        return replace(item, x=x, y=y, angle=item.angle + turn)

    return tuple(moved(i) if i.group == group and i.role not in _CARRIERS else i for i in items)


def assembly(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Set the whole component askew or upside down, or remove it."""
    parts = [i for i in items if i.role != "ground"]
    if chance(rng, 0.3):
        return tuple(i for i in items if i.role == "ground")
    x, y = float(np.mean([i.x for i in parts])), float(np.mean([i.y for i in parts]))
    turn = float(rng.choice([-1, 1]) * rng.uniform(0.3, 3.1))
    far = max(parts[-1].size) * float(rng.uniform(0, 1.2))
    c, s = np.cos(turn), np.sin(turn)

    def turned(item: Item) -> Item:
        dx, dy = item.x - x, item.y - y
        return replace(item, x=x + c * dx - s * dy + far, y=y + s * dx + c * dy, angle=item.angle + turn)

    return tuple(i if i.role == "ground" else turned(i) for i in items)


def _rim(rng: Random, form: Field | None) -> tuple[Field, npt.NDArray[Any], npt.NDArray[Any]]:
    """Return a round outline's radii, its angles, and their distances in radians from a random one; each [ANGLES]."""
    base = np.ones(ANGLES, np.float32) if form is None else form
    t = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    return base, t, np.abs((t - rng.uniform(0, 2 * np.pi) + np.pi) % (2 * np.pi) - np.pi)


def _bump(rng: Random, form: Field | None) -> Field:
    """Give the outline one lump, dent or flat side."""
    base, _, gap = _rim(rng, form)
    amount = float(rng.choice([-1, -1, 1])) * float(rng.uniform(0.1, 0.4))
    lump = np.exp(-((gap / rng.uniform(0.12, 0.9)) ** 2))
    return np.asarray(base * (1 + amount * lump), np.float32)


def _body(rng: Random, plan: Plan, items: Items) -> int | None:
    """Choose the index of an item that can be deformed or broken: a free-standing piece or the main body."""
    h, w = plan.ground.shape[:2]
    roles = ("piece", "tooth", "device", "case", "core", "tick", "wire", "head", "body")
    able = [
        k
        for k, i in enumerate(items)
        if i.role in roles and i.outline in ("radial", "box") and 0 <= i.x < w and 0 <= i.y < h
    ]
    return int(pick(rng, able)) if able else None


def deformation(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Give a piece the wrong shape: lumped, flattened, bent, squeezed, too small or too large."""
    k = _body(rng, plan, items)
    if k is None:
        return None
    item = items[k]
    style = float(rng.random())
    alone = item.role == "body"
    if item.outline == "radial" and (style < 0.6 or alone):
        return _swap(items, k, form=_bump(rng, item.form))
    if item.outline == "box" and style < 0.6:
        return _swap(items, k, bend=item.bend + float(rng.choice([-1, 1]) * rng.uniform(0.25, 0.9)))
    if alone:
        return None
    a, b = item.size
    factor = float(rng.uniform(0.45, 0.75) if chance(rng, 0.6) else rng.uniform(1.25, 1.6))
    size = (a * factor, b * factor) if chance(rng, 0.5) else (a, b * factor)
    return _swap(items, k, size=size)


def bend(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Bend the whole long part; pieces along it follow the same curve."""
    body = items[0]
    amount = float(rng.choice([-1, 1]) * rng.uniform(0.12, 0.5))
    long = max(body.size[0], 1.0)
    c, s = np.cos(body.angle), np.sin(body.angle)
    bent = []
    for item in items:
        dx, dy = item.x - body.x, item.y - body.y
        u = c * dx + s * dy
        rise = amount / long * u * u
        tilt = float(np.arctan(2 * amount / long * u))
        x, y, own = item.x - s * rise, item.y + c * rise, item.bend + amount * item.size[0] / long
        bent.append(replace(item, x=x, y=y, angle=item.angle + tilt, bend=own))
    return tuple(bent)


def broken(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Break off a part of a piece along a rough line; sometimes the fragment lies beside it."""
    k = _body(rng, plan, items)
    if k is None:
        return None
    item = items[k]
    angle = float(rng.uniform(0, 2 * np.pi))
    half = float(np.hypot(item.size[0] * np.cos(angle), item.size[1] * np.sin(angle)))
    offset = half * float(rng.uniform(-0.3, 0.8))
    rough = max(0.6, half * float(rng.uniform(0.0, 0.12)))
    seed = int(rng.integers(2**31))
    whole = item.role in ("body", "case")
    world = angle + item.angle
    fragment = chance(rng, 0.3)
    gap = half * float(rng.uniform(0.03, 0.35))
    twist = float(rng.normal(0, 0.15))
    out: list[Item] = []
    loose: list[Item] = []
    for i in items:
        if i.role == "ground" or (i is not item and not (whole or i.group == item.group)):
            out.append(i)
            continue
        across = offset - float(np.cos(world) * (i.x - item.x) + np.sin(world) * (i.y - item.y))
        cut = Break(world - i.angle, across, rough, seed)
        out.append(replace(i, breaks=(*i.breaks, cut)))
        if fragment:
            other = Break(world - i.angle + np.pi, -across, -rough, seed)
            x, y = i.x + gap * np.cos(world), i.y + gap * np.sin(world)
            loose.append(replace(i, breaks=(*i.breaks, other), x=x, y=y, angle=i.angle + twist))
    return (*out, *loose)


def notch(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Bite a piece out of the rim of a round part."""
    wholes = [k for k, i in enumerate(items) if i.outline == "radial" and max(i.size) > 8]
    if not wholes:
        return None
    k = wholes[0] if chance(rng, 0.6) else int(pick(rng, wholes))
    base, t, gap = _rim(rng, items[k].form)
    wide = float(rng.uniform(0.05, 0.5))
    rough = 1 + 0.3 * np.sin(t * rng.integers(9, 40) + rng.uniform(0, 6))
    bite = np.sqrt(np.maximum(1 - (gap / wide) ** 2, 0)) * rough
    return _swap(items, k, form=np.asarray(base * (1 - float(rng.uniform(0.06, 0.35)) * bite), np.float32))


def tooth(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Remove or shorten one or two teeth of a gear."""
    item = items[0]
    if item.form is None:
        return None
    root = float(np.sort(item.form)[ANGLES // 10])
    tops = np.flatnonzero((item.form >= 0.97) & (np.roll(item.form, 1) < 0.97))
    if not len(tops):
        return None
    t = np.arange(ANGLES)
    start = int(pick(rng, tops.tolist()))
    pitch = ANGLES // max(1, len(tops))
    wide = pitch * int(rng.integers(1, 3))
    hit = (t - start + pitch // 3) % ANGLES < wide
    stub = root + (item.form - root) * float(rng.choice([0.0, 0.0, 0.4]))
    return _swap(items, 0, form=np.where(hit, stub, item.form).astype(np.float32))


def discolouration(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Give one piece the wrong colour."""
    group = _choose(rng, plan, items)
    if group is None:
        return None
    tone = colour(rng, vivid=0.4)
    if chance(rng, 0.4):
        first = next(i for i in items if i.group == group)
        other = first.colour * rng.uniform(0.35, 0.7) if chance(rng, 0.5) else first.colour * 1.3 + 0.1
        tone = np.asarray(np.clip(other, 0, 1), np.float32)
    whole = chance(rng, 0.3)
    out, painted = [], False
    for item in items:
        if item.group == group and item.role not in _CARRIERS and (whole or not painted):
            painted = True
            out.append(replace(item, colour=tone, texture=None))
        else:
            out.append(item)
    return tuple(out)


def misprint(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Leave a print incomplete, doubled, askew or smeared, or add another."""
    prints = [k for k, i in enumerate(items) if i.role == "print" and i.outline == "stamp" and i.form is not None]
    if not prints:
        return None
    k = int(pick(rng, prints))
    item = items[k]
    form = np.asarray(item.form)
    style = int(rng.integers(5))
    if style == 0:
        worn = form.copy()
        cut = int(form.shape[1] * rng.uniform(0.3, 0.8))
        worn[:, cut:] *= np.float32(rng.uniform(0, 0.3))
        rng.random()  # unused; without this draw all later numbers of the seed would be others
        return _swap(items, k, form=worn)
    if style == 1:
        x = item.x + item.size[0] * float(rng.uniform(0.06, 0.3))
        y = item.y + item.size[1] * float(rng.uniform(-0.5, 0.5))
        return (*items[: k + 1], replace(item, x=x, y=y), *items[k + 1 :])
    if style == 2:
        turn = float(rng.choice([-1, 1]) * rng.uniform(0.2, 1.0))
        return _swap(items, k, angle=item.angle + turn, y=item.y + item.size[1] * 0.5)
    if style == 3:
        smear = form.copy()
        for shift in range(1, max(2, form.shape[1] // 6)):
            faint = form[:, :-shift] * np.float32(1 - shift * 5 / form.shape[1])
            smear[:, shift:] = np.maximum(smear[:, shift:], faint)
        return _swap(items, k, form=np.clip(smear, 0, 1))
    letters = stamp(str(int(rng.integers(10, 9999))), 28)
    y = item.y + item.size[1] * float(rng.uniform(-1.5, 1.5))
    return (*items[: k + 1], replace(item, form=letters, y=y, colour=colour(rng)), *items[k + 1 :])


def thread(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Strip a run of a screw's threads."""
    groups = sorted({i.group for i in items if i.role == "thread" and i.group})
    if len(groups) < 4:
        return None
    start = int(rng.integers(len(groups) - 2))
    gone = set(groups[start : start + int(rng.integers(2, 6))])
    return tuple(i for i in items if i.group not in gone)


def _leg(rng: Random, items: Items) -> int | None:
    """Choose the index of a leg."""
    legs = [k for k, i in enumerate(items) if i.role == "leg"]
    return int(pick(rng, legs)) if legs else None


def bent_leg(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Let one leg point the wrong way."""
    k = _leg(rng, items)
    if k is None:
        return None
    item = items[k]
    if item.form is None:
        turn = float(rng.choice([-1, 1]) * rng.uniform(0.3, 1.0))
        return _swap(items, k, angle=item.angle + turn)
    form = np.array(item.form)
    start = int(rng.integers(1, len(form)))
    swing = float(rng.choice([-1, 1]) * rng.uniform(0.15, 0.6)) * float(np.abs(form).max())
    form[start:, 0] += swing * np.linspace(0.3, 1, len(form) - start)
    form[start:, 1] *= float(rng.uniform(0.7, 1.0))
    return _swap(items, k, form=form.astype(np.float32))


def cut_leg(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Cut one leg short."""
    k = _leg(rng, items)
    if k is None:
        return None
    item = items[k]
    keep = float(rng.uniform(0.2, 0.65))
    if item.form is None:
        return _swap(items, k, size=(item.size[0], item.size[1] * keep))
    return _swap(items, k, form=(np.asarray(item.form) * keep).astype(np.float32))


def _wire(rng: Random, items: Items) -> tuple[int, Field] | None:
    """Choose a wire: its index, and a copy of its course [P, 2]."""
    paths = [
        (k, i.form)
        for k, i in enumerate(items)
        if i.outline == "path" and i.role in ("wire", "body") and i.form is not None
    ]
    if not paths:
        return None
    k, form = pick(rng, paths)
    return k, np.array(form)


def kink(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Push a wire off its course at one point."""
    wire = _wire(rng, items)
    if wire is None:
        return None
    k, form = wire
    at = int(rng.integers(1, len(form) - 1))
    span = float(np.ptp(form, axis=0).max())
    push = rng.normal(0, 1, 2)
    form[at] += push / np.hypot(*push) * span * float(rng.uniform(0.06, 0.2))
    return _swap(items, k, form=form.astype(np.float32))


def cut_wire(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Cut a wire in the middle of its way; sometimes the rest is gone."""
    wire = _wire(rng, items)
    if wire is None:
        return None
    k, form = wire
    at = float(rng.uniform(0.3, 0.7)) * (len(form) - 1)
    low = int(at)
    end = form[low] + (form[min(low + 1, len(form) - 1)] - form[low]) * (at - low)
    first = _swap(items, k, form=np.vstack([form[: low + 1], end]).astype(np.float32))
    if low + 2 >= len(form) or chance(rng, 0.3):
        return first
    rest = replace(items[k], form=form[low + 1 :].astype(np.float32))
    return (*first, rest)


def foreign(rng: Random, plan: Plan, items: Items) -> Items | None:
    """Lay something on the scene that does not belong there."""
    h, w = plan.ground.shape[:2]
    r = min(h, w) * log_uniform(rng, 0.02, 0.15)
    x, y = float(rng.uniform(r, w - r)), float(rng.uniform(r, h - r))
    form = radial(pick(rng, ("organic", "polygon", "super", "petals")), rng, n=int(rng.integers(3, 9)), lumps=0.25)
    body = Item(
        "radial", x, y, (r, r * float(rng.uniform(0.3, 1))), colour(rng, vivid=0.4), float(rng.uniform(0, 6.3)), form,
        profile=pick(rng, ("dome", "bevel", "flat")), relief=0.8, grain=0.08, shadow=0.4, role="foreign", group=999,
        seed=int(rng.integers(2**31)),
    )  # fmt: skip
    return (*items, body)


FAULTS: dict[str, tuple[Fault, str]] = {
    "missing": (missing, "missing"),
    "misplaced": (misplaced, "misplaced"),
    "assembly": (assembly, "misplaced"),
    "deformation": (deformation, "deformation"),
    "bend": (bend, "deformation"),
    "bent leg": (bent_leg, "deformation"),
    "kink": (kink, "deformation"),
    "broken": (broken, "broken"),
    "notch": (notch, "broken"),
    "tooth": (tooth, "missing"),
    "thread": (thread, "missing"),
    "cut leg": (cut_leg, "cut"),
    "cut wire": (cut_wire, "cut"),
    "discolouration": (discolouration, "discolouration"),
    "misprint": (misprint, "misprint"),
    "foreign": (foreign, "contamination"),
}
"""Name of a fault -> the fault, and the kind of defect it shows as."""
