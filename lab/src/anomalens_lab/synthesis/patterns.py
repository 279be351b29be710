"""Paint manufactured surfaces with a repeat: weaves, knits, meshes, tiles, perforations, prints, solar cells.

Same contract as `surfaces`: (generator, height, width) -> image [H,W,3]; the repeat is disturbed a little everywhere,
because real repeats are.
"""

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from anomalens_lab.synthesis.fields import (
    Field,
    Random,
    cells,
    chance,
    colour,
    coordinates,
    hsv,
    log_uniform,
    mix,
    octaves,
    pick,
    slope,
    smoothstep,
    spectral,
    tinted,
    unit,
    white,
)
from anomalens_lab.synthesis.surfaces import SURFACES, side, surface

TAU = np.float32(2 * np.pi)


def lattice(rng: Random, h: int, w: int, *, wobble: float = 0.02, upright: float = 0.5) -> tuple[Field, Field]:
    """Draw slightly wavy coordinates: upright with probability `upright`, otherwise turned at random."""
    s = side(h, w)
    angle = float(rng.normal(0, 0.03)) if chance(rng, upright) else float(rng.uniform(0, np.pi))
    u, v = coordinates(h, w, angle)
    bend = np.float32(s * wobble * rng.random())
    shape = float(s * rng.uniform(0.3, 1.0))
    return u + bend * octaves(rng, h, w, shape, count=2), v + bend * octaves(rng, h, w, shape, count=2)


def uneven(rng: Random, index: npt.NDArray[Any], spread: float) -> Field:
    """Draw a random factor for each thread or row, by its integer index [H,W]."""
    table = rng.normal(1, spread, 512).astype(np.float32)
    return table[index.astype(np.int64) % 512]


@surface("woven", "woven fabric", "cloth", "canvas", "textile", "linen fabric", "denim", "fabric")
def woven(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    period = max(3.0, s * log_uniform(rng, 0.012, 0.09))
    u, v = lattice(rng, h, w)
    a, b = u / np.float32(period), v / np.float32(period * log_uniform(rng, 0.6, 1.6))
    i, j = np.floor(a), np.floor(b)
    kind = int(rng.integers(4))
    step = i + j if kind != 3 else i + 2 * j
    over = (step % 2 == 0) if kind == 0 else (step % (3 + kind) < (2 if kind != 3 else 1))
    across_warp, across_weft = np.cos((a - i - 0.5) * np.pi), np.cos((b - j - 0.5) * np.pi)
    twist = 0.15 * np.sin((a + b * 3) * TAU) if chance(rng, 0.4) else np.float32(0)
    spread = log_uniform(rng, 0.01, 0.08)
    warp_tone = (0.35 + 0.65 * across_warp) * uneven(rng, i, spread) * (0.75 + 0.25 * across_weft)
    weft_tone = (0.35 + 0.65 * across_weft) * uneven(rng, j, spread) * (0.75 + 0.25 * across_warp)
    tone = np.where(over, warp_tone, weft_tone) + twist + 0.06 * white(rng, h, w)
    depth = np.float32(rng.uniform(0.2, 0.9))
    light = (1 - depth + depth * tone)[..., None]
    warp_colour = colour(rng, low=0.2)
    weft_colour = colour(rng, low=0.2) if chance(rng, 0.35) else warp_colour * np.float32(rng.uniform(0.85, 1.1))
    image = np.where(over[..., None], warp_colour, weft_colour) * light
    return cast(Field, (image * (1 + 0.05 * octaves(rng, h, w, s * 0.4, count=3))[..., None]).astype(np.float32))


@surface("knit", "knitted fabric", "knitwear", "jersey fabric", "wool knit", "sweater")
def knit(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    u, v = lattice(rng, h, w, upright=0.7)
    period = max(5.0, s * log_uniform(rng, 0.03, 0.12))
    a = u / np.float32(period)
    f = a - np.floor(a) - 0.5
    b = v / np.float32(period * rng.uniform(0.5, 0.9)) + np.abs(f) * np.float32(rng.uniform(0.6, 1.6))
    g = b - np.floor(b) - 0.5
    loop = np.cos(g * np.pi) * (0.4 + 0.6 * np.abs(np.sin(f * TAU)))
    tone = loop * uneven(rng, np.floor(b), 0.04) + 0.1 * white(rng, h, w) + 0.1 * octaves(rng, h, w, s * 0.3)
    return tinted(rng, unit(tone), contrast=float(rng.uniform(0.25, 0.8)))


@surface("striped", "striped fabric", "striped surface", "ribbed plastic", "lined panel")
def striped(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    u, _ = lattice(rng, h, w)
    period = max(3.0, s * log_uniform(rng, 0.015, 0.3))
    phase = u / np.float32(period)
    if chance(rng, 0.5):
        tone = 0.5 + 0.5 * np.sin(phase * TAU)
        tone = tone ** np.float32(log_uniform(rng, 0.4, 3))
    else:
        duty = rng.uniform(0.2, 0.8)
        tone = smoothstep(np.abs(phase % 1 - 0.5) * 2, duty - 0.08, duty + 0.08)
    tone = tone * uneven(rng, np.floor(phase), 0.03)
    image = mix(np.broadcast_to(colour(rng), (h, w, 3)).astype(np.float32), colour(rng), tone)
    return cast(Field, image + np.float32(0.03) * spectral(rng, h, w, beta=0.8)[..., None])


@surface("mesh", "wire mesh", "metal grid", "grid", "net", "woven wire screen", "grille")
def mesh(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    u, v = lattice(rng, h, w, wobble=0.012)
    if chance(rng, 0.4):
        u, v = (u + v) * np.float32(0.7), (u - v) * np.float32(rng.uniform(0.35, 0.7))
    period = max(6.0, s * log_uniform(rng, 0.04, 0.18))
    a, b = u / np.float32(period), v / np.float32(period * rng.uniform(0.7, 1.4))
    fa, fb = np.abs(a % 1 - 0.5), np.abs(b % 1 - 0.5)
    width = float(rng.uniform(0.08, 0.3))
    wire_a, wire_b = np.clip(1 - fa / width, 0, 1), np.clip(1 - fb / width, 0, 1)
    over = (np.floor(a + 0.5) + np.floor(b + 0.5)) % 2 == 0
    first = np.where(over, wire_a, wire_b) > 0
    height = np.where(first, np.where(over, wire_a, wire_b) + 0.5, np.maximum(wire_a, wire_b))
    height = np.sqrt(height)
    cover = np.clip(np.maximum(wire_a, wire_b) * np.float32(period * width * 0.7), 0, 1)
    ground = tinted(rng, unit(octaves(rng, h, w, s * 0.3, count=4)), contrast=log_uniform(rng, 0.03, 0.3))
    wire = colour(rng, vivid=0.1) * (0.45 + 0.65 * height)[..., None]
    return mix(ground, wire.astype(np.float32), cover)


@surface("perforated", "perforated plate", "dotted surface", "pegboard", "speaker grille", "perforated metal sheet")
def perforated(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    u, v = lattice(rng, h, w, wobble=0.006)
    period = max(6.0, s * log_uniform(rng, 0.03, 0.16))
    a, b = u / np.float32(period), v / np.float32(period)
    if chance(rng, 0.5):
        a = a + 0.5 * (np.floor(b) % 2)
    fa, fb = a % 1 - 0.5, b % 1 - 0.5
    distance = np.sqrt(fa * fa + fb * fb) if chance(rng, 0.7) else np.maximum(np.abs(fa), np.abs(fb))
    radius = float(rng.uniform(0.15, 0.4))
    cover = np.clip((radius - distance) * np.float32(period) + 0.5, 0, 1)
    plate = SURFACES[pick(rng, ("brushed", "painted", "mottled", "magnetic"))].paint(rng, h, w)
    dot = colour(rng, low=0.02, high=0.35) if chance(rng, 0.7) else colour(rng)
    rim = np.exp(-(((distance - radius) / 0.06) ** 2)) * np.sign(fa + fb)
    plate = plate + np.float32(rng.uniform(0, 0.25)) * rim[..., None]
    return mix(plate, dot, cover)


@surface("tiled", "tiled wall", "ceramic tiles", "brick wall", "mosaic", "floor tiles", "paving stones")
def tiled(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    if chance(rng, 0.25):
        labels, _, edge = cells(rng, h, w, s * rng.uniform(0.06, 0.25))
    else:
        u, v = lattice(rng, h, w, wobble=0.008, upright=0.8)
        period = s * log_uniform(rng, 0.08, 0.5)
        a, b = u / np.float32(period * log_uniform(rng, 1, 2.5)) + 50, v / np.float32(period) + 50
        a = a + np.float32(pick(rng, (0.0, 0.5, 0.33))) * (np.floor(b) % 2)
        labels = (np.floor(a) * 101 + np.floor(b)).astype(np.int64)
        edge = np.float32(period) * np.minimum(0.5 - np.abs(a % 1 - 0.5), 0.5 - np.abs(b % 1 - 0.5))
    grout = max(1.0, s * log_uniform(rng, 0.004, 0.025))
    tone = uneven(rng, labels % 509, float(rng.choice([0.02, 0.06, 0.15])))
    body = SURFACES[pick(rng, ("mottled", "painted", "marble", "concrete", "terrazzo", "food"))].paint(rng, h, w)
    body = body * tone[..., None]
    bevel = smoothstep(edge, grout, grout * 3)
    body = body * (0.75 + 0.25 * bevel)[..., None]
    joint = tinted(rng, unit(octaves(rng, h, w, 6, count=2)), contrast=0.15)
    return mix(joint, body.astype(np.float32), smoothstep(edge, grout * 0.6, grout))


@surface("ribbed", "corrugated sheet", "ribbed rubber", "grooved plate", "fluted panel", "rubber mat")
def ribbed(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    u, _ = lattice(rng, h, w, wobble=0.006)
    period = max(5.0, s * log_uniform(rng, 0.03, 0.2))
    wave = np.sin(u / np.float32(period) * TAU)
    height = np.tanh(wave * np.float32(rng.uniform(0.5, 4))) * np.float32(period * 0.2)
    light = slope(height, float(rng.uniform(0, 6.3)))
    base = colour(rng, low=0.1, high=0.85, vivid=0.2)
    tone = 1 + np.float32(rng.uniform(0.15, 0.6)) * light + 0.05 * octaves(rng, h, w, s * 0.1, count=4)
    return base * tone[..., None].astype(np.float32)


@surface("embossed", "embossed metal", "diamond plate", "hammered metal", "dimpled surface", "embossed wallpaper")
def embossed(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    u, v = lattice(rng, h, w, wobble=0.01)
    period = max(8.0, s * log_uniform(rng, 0.05, 0.2))
    a, b = u / np.float32(period), v / np.float32(period)
    turn = (np.floor(a) + np.floor(b)) % 2 * (np.pi / 2) + np.pi / 4 * (not chance(rng, 0.3))
    fa, fb = a % 1 - 0.5, b % 1 - 0.5
    along = np.cos(turn) * fa + np.sin(turn) * fb
    across = -np.sin(turn) * fa + np.cos(turn) * fb
    slim = log_uniform(rng, 1, 4)
    lens = np.exp(-((along / 0.3) ** 2 + (across * slim / 0.3) ** 2))
    light = slope(lens.astype(np.float32) * np.float32(period * 0.35), float(rng.uniform(0, 6.3)))
    base = colour(rng, low=0.2, high=0.8, vivid=0.12)
    tone = 1 + np.float32(rng.uniform(0.2, 0.8)) * light + 0.05 * spectral(rng, h, w, beta=0.7)
    return cast(Field, (base * tone[..., None]).astype(np.float32))


@surface("printed", "printed fabric", "patterned wallpaper", "printed sheet", "decorated paper", "printed label")
def printed(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    u, v = lattice(rng, h, w, wobble=0.006, upright=0.7)
    period = s * log_uniform(rng, 0.08, 0.35)
    a, b = u / np.float32(period), v / np.float32(period)
    if chance(rng, 0.4):
        a = a + 0.5 * (np.floor(b) % 2)
    fa, fb = a % 1 - 0.5, b % 1 - 0.5
    image = np.broadcast_to(colour(rng, low=0.3), (h, w, 3)).astype(np.float32)
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(-0.2, 0.2, 2)
        du, dv = fa - np.float32(x), fb - np.float32(y)
        theta = np.arctan2(dv, du)
        petals, amplitude = int(rng.integers(1, 8)), float(rng.uniform(0, 0.6))
        outline = np.float32(rng.uniform(0.1, 0.3)) * (1 + amplitude * np.cos(petals * theta + rng.uniform(0, 6)))
        gap = np.sqrt(du * du + dv * dv) - outline
        if chance(rng, 0.3):
            gap = np.abs(gap) - np.float32(0.03)
        image = mix(image, colour(rng), np.clip(0.5 - gap * np.float32(period), 0, 1))
    return cast(Field, image * (1 + 0.04 * spectral(rng, h, w, beta=0.5))[..., None])


@surface("solar", "solar cell", "photovoltaic module", "solar panel", "silicon wafer")
def solar(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    name = "crystal" if chance(rng, 0.4) else "film"
    base = SURFACES[name].paint(rng, h, w)
    if chance(rng, 0.5):
        base = hsv(0.62, float(rng.uniform(0, 0.7)), float(rng.uniform(0.15, 0.6))) * (0.7 + 0.3 * base / base.mean())
    cloud = octaves(rng, h, w, s * 0.3, count=3)
    base = base * (1 + np.float32(rng.uniform(0.02, 0.15)) * cloud)[..., None]
    u, v = coordinates(h, w)
    finger = max(3.0, s * log_uniform(rng, 0.012, 0.03))
    lines = np.clip(1.2 - np.abs(v / np.float32(finger) % 1 - 0.5) * np.float32(finger), 0, 1)
    base = base + np.float32(rng.uniform(-0.12, 0.15)) * lines[..., None]
    bars = s * float(rng.uniform(0.18, 0.5))
    width = s * log_uniform(rng, 0.006, 0.025)
    bar = np.clip(np.float32(width) - np.abs((u / np.float32(bars) + 0.5) % 1 - 0.5) * np.float32(bars), 0, 1)
    image = mix(base.astype(np.float32), colour(rng, vivid=0.05), bar)
    if chance(rng, 0.4):
        gap = np.clip(np.maximum(np.abs(u) - w * 0.47, np.abs(v) - h * 0.47), 0, 1)
        image = image * (1 - np.float32(0.8) * gap.astype(np.float32))[..., None]
    return cast(Field, image.astype(np.float32))


@surface("fibrous", "fibre mat", "nanofibrous material", "glass fibre", "nonwoven fabric", "brushed fibre", "straw")
def fibrous(rng: Random, h: int, w: int) -> Field:
    layers = int(rng.integers(3, 6))
    tone = np.zeros((h, w), np.float32)
    frequency = log_uniform(rng, 0.05, 0.2)
    for depth in range(layers):
        angle = float(rng.uniform(0, np.pi))
        strand = spectral(rng, h, w, stretch=float(rng.uniform(10, 30)), angle=angle, band=(frequency, 0.4))
        cover = smoothstep(strand, 0.5, 1.1)
        tone = tone * (1 - cover) + cover * np.float32((depth + 1) / layers) * (0.6 + 0.2 * strand)
    return tinted(rng, unit(tone), contrast=float(rng.uniform(0.3, 0.9)))


@surface("quilted", "quilted fabric", "padded upholstery", "bubble wrap", "air cushion", "tufted cushion")
def quilted(rng: Random, h: int, w: int) -> Field:
    s = side(h, w)
    u, v = lattice(rng, h, w, wobble=0.02)
    period = np.float32(s * log_uniform(rng, 0.08, 0.3))
    a, b = (u + v) / period, (u - v) / period
    height = np.sqrt(np.abs(np.sin(a * np.pi) * np.sin(b * np.pi)) + 1e-3) * period * 0.25
    light = slope(height.astype(np.float32), float(rng.uniform(0, 6.3)))
    base = SURFACES[pick(rng, ("painted", "woven", "leather", "fur"))].paint(rng, h, w)
    return cast(Field, base * (1 + np.float32(rng.uniform(0.2, 0.6)) * np.clip(light, -1, 1))[..., None])
