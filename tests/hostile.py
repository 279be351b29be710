"""Names, texts and files made to break whoever reads them; each a few lines of code, none dangerous by itself."""

import io
import json
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

NAMES: tuple[str, ...] = (
    "=1+1",
    '=HYPERLINK("http:x","y")',
    "+1",
    "-1",
    "-rf",
    "--out",
    "@SUM(A1)",
    "'=1",
    "''",
    "a|b",
    "a\\|b",
    "<script>alert(1)<!script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "[x](javascript:alert(1))",
    "![x](http:x)",
    "`code`",
    "a,b;c",
    'a"b',
    "a\nb",
    "a\rb",
    "a\tb",
    "a\x1b[31mred",
    "a\x07bell",
    "a\u2028b",
    "a\u202egnp",
    "\u200b",
    "ünïcode 漢字",
    "e\u0301",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "%s%n",
    "$(touch x)",
    "..hidden",
    "con",
    "a b  c",
    "[bold red]x[!]",
    "&lt;b&gt;",
    "x" * 180,
    "\udce8 latin-1",
)
"""Names of files and folders, without suffix: formulas, markup, control signs, no UTF-8."""

if os.name == "nt":
    NAMES = tuple(name for name in NAMES if name.isprintable() and not set(name) & set('<>:"/\\|?*'))


def deep(depth: int) -> str:
    """Return JSON with lists within each other."""
    return "[" * depth + "]" * depth


def texts(whole: str, count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` damaged versions of a JSON text: cut, spoilt, with values of other types, absurd numbers, depth."""
    chance = random.Random(seed)
    value = json.loads(whole)
    for number in range(count):
        kind = number % 6
        raw = bytearray(whole.encode())
        if kind == 0:
            yield bytes(raw[: chance.randrange(len(raw))])
        elif kind == 1:
            for _ in range(chance.randint(1, 8)):
                raw[chance.randrange(len(raw))] = chance.randrange(256)
            yield bytes(raw)
        elif kind == 2:
            yield chance.choice(
                [
                    b"",
                    b"\xff\xfe",
                    deep(100_000).encode(),
                    b"9" * 5000,
                    b"1e999",
                    b"NaN",
                    b"null",
                    b"[]",
                    b"0",
                    b'"x"',
                    b"{}",
                ]
            )
        else:
            yield json.dumps(_changed(value, chance)).encode()


_ODD: tuple[object, ...] = (
    None, True, -1, 0, 1.5, "", "x", [], {}, [[]], {"": {}}, 10**18, 10**30, 10**400, float("inf"),
    float("nan"), "9" * 5000, [1] * 1000, "\ud800", "\x00", "../../x", "/etc/passwd",
)  # fmt: skip


def _changed(value: object, chance: random.Random) -> object:
    """Return a copy in which one value, chosen at random, is another, is missing or has a stranger beside it."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        copy = dict(value)
        key = chance.choice(list(copy))
        action = chance.random()
        if action < 0.1:
            del copy[key]
        elif action < 0.2:
            copy["stranger"] = chance.choice(_ODD)
        else:
            copy[key] = _changed(copy[key], chance)
        return copy
    if isinstance(value, list) and value and chance.random() < 0.6:
        items = list(value)
        place = chance.randrange(len(items))
        items[place] = _changed(items[place], chance)
        return items
    return chance.choice(_ODD)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_size(width: int, height: int, depth: int = 1, colour: int = 0) -> bytes:
    """Return a small PNG that says it has so many pixels; its rows are zeros, as many as compress into a few kB."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    row = 1 + (width * depth * channels + 7) // 8
    pack = zlib.compressobj(9)
    packed, left = b"", min(row * height, 2**28)
    while left > 0:
        packed += pack.compress(bytes(min(left, 2**20)))
        left -= 2**20
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", packed + pack.flush()) + _chunk(b"IEND", b"")


_KINDS = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "bmp": "BMP", "gif": "GIF", "webp": "WEBP", "ppm": "PPM"}


def pictures(seed: int) -> dict[str, bytes]:
    """Return a small picture in each format, to be damaged."""
    noise = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
    made = {}
    for suffix, kind in _KINDS.items():
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, kind)
        made[suffix] = buffer.getvalue()
    return made


def damaged_pictures(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield suffix and content of `count` damaged pictures: cut, bits turned, pieces moved, headers of others."""
    chance = random.Random(seed)
    whole = pictures(seed)
    for number in range(count):
        suffix = chance.choice(list(whole))
        raw = bytearray(whole[suffix])
        kind = number % 5
        if kind == 0:
            raw = raw[: chance.randrange(len(raw))]
        elif kind == 1:
            for _ in range(chance.randint(1, 20)):
                raw[chance.randrange(min(len(raw), 200))] = chance.randrange(256)
        elif kind == 2:
            for _ in range(chance.randint(1, 40)):
                raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        elif kind == 3:
            at, length = chance.randrange(len(raw)), chance.randrange(1, 400)
            raw[at : at + length] = chance.randbytes(length)
        else:
            other = whole[chance.choice(list(whole))]
            raw[: chance.randrange(64)] = other[: chance.randrange(64)]
        yield suffix, bytes(raw)


def blank(side: int, kind: str) -> bytes:
    """Return a black picture of one of Pillow's formats, which compresses well."""
    buffer = io.BytesIO()
    settings = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    Image.new("L" if kind == "GIF" else "RGB", (side, side)).save(buffer, kind, **settings)
    return buffer.getvalue()


def many_scans(side: int, times: int) -> bytes:
    """Return a progressive JPEG that tells its pixels again and again: each time costs that of a whole decoding."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "JPEG", progressive=True, quality=95)
    whole = buffer.getvalue()
    begin, end = whole.index(b"\xff\xda"), whole.rindex(b"\xff\xd9")
    return whole[:end] + whole[begin:end] * times + whole[end:]


REFUSED: dict[str, Callable[[], bytes]] = {
    "tall.png": lambda: png_of_size(1, 80_000_000),
    "wide.png": lambda: png_of_size(80_000_000, 1),
    "square.png": lambda: png_of_size(40_000, 40_000),
    "lies.png": lambda: png_of_size(2**31 - 1, 2**31 - 1),
    "scans.jpg": lambda: many_scans(4000, 60),
}
"""Small files of pictures that nobody can hold, or that take very long; made when they are called."""

ENORMOUS: dict[str, Callable[[], bytes]] = {
    "deep.png": lambda: png_of_size(9000, 9000, depth=16, colour=6),
    "blank.gif": lambda: blank(9000, "GIF"),
    "blank.tif": lambda: blank(9000, "TIFF"),
    "blank.webp": lambda: blank(7000, "WEBP"),
    "blank.jp2": lambda: blank(5700, "JPEG2000"),
    "scans.jpg": lambda: many_scans(4000, 3),
}
"""Pictures as large as is still read."""


def plant(folder: Path, name: str, content: bytes) -> Path | None:
    """Write a file of a hostile name; None where this file system has no such names."""
    path = folder / name
    try:
        path.write_bytes(content)
    except (OSError, ValueError, UnicodeEncodeError):
        return None
    return path
