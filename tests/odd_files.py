"""Make some 150 small odd image files, each with what reading it must give.

One scene of four colours is stored in every format, mode, depth and byte order, turned, made transparent, animated, cut
off and lied about. Tests walk through the list with every way there is into the package.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, features

HEIGHT, WIDTH = 16, 24
COLOURS = np.array([[[250, 30, 20], [20, 200, 40]], [[10, 40, 220], [130, 130, 130]]], np.uint8)
SCENE = np.repeat(np.repeat(COLOURS, HEIGHT // 2, 0), WIDTH // 2, 1)
"""Four quarters of different colours, so that every turn and mirror image differs."""
GREY = np.asarray(Image.fromarray(SCENE).convert("L"))
ORIENTATIONS = (1, 3, 6, 8)
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "TIFF": ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "DIB": ("1", "L", "P", "RGB", "RGBA"),
    "GIF": ("1", "L", "P", "RGB"),
    "WEBP": ("L", "RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "RGBA"),
    "JPEG2000": ("L", "LA", "RGB", "RGBA", "YCbCr"),
    "AVIF": ("L", "RGB", "RGBA"),
}
"""The modes in which each format can be written."""
LOSSY = 4

# How the stored picture differs from the upright one, by the tag that says how to turn it back.
STORED: dict[int, Any] = {
    2: lambda array: array[:, ::-1],
    3: lambda array: array[::-1, ::-1],
    4: lambda array: array[::-1],
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: array.swapaxes(0, 1)[::-1],
    7: lambda array: array.swapaxes(0, 1)[::-1, ::-1],
    8: lambda array: array.swapaxes(0, 1)[:, ::-1],
}


def centres(pixels: np.ndarray) -> np.ndarray:
    """Return the middle of each quarter, which compression with loss leaves alone: [2, 2, 3]."""
    height, width = pixels.shape[:2]
    return pixels[height // 4 :: height // 2, width // 4 :: width // 2]


@dataclass(frozen=True)
class OddFile:
    """One file and what must come of it: pixels, perhaps with a note, or an error."""

    name: str
    content: bytes
    # RGB [H, W, 3]; None where reading must fail.
    pixels: np.ndarray | None = None
    # Part of the message where reading must fail.
    error: str = ""
    # Part of the note; "" where there must be none.
    note: str = ""
    # Largest difference of a value; above LOSSY it holds for the middles of the quarters alone.
    tolerance: int = 1


def odd_files() -> list[OddFile]:
    """Return all of them; AVIF and JPEG 2000 only where Pillow has them."""
    return [*_modes(), *_turned(), *_deep(), *_transparent(), *_animated(), *_cut_off(), *_too_large(), *_lies()]


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    """Return the bytes of a picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def scene_in(mode: str) -> Image.Image:
    """Return the scene as a picture of a mode."""
    scene = Image.fromarray(SCENE)
    return scene.convert("P").convert("PA") if mode == "PA" else scene.convert(mode)


def tagged_files() -> Iterator[tuple[str, str, int, bytes]]:
    """Yield (format, mode, orientation tag, content) for every format that has tags, and every mode of it."""
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    for form in ("PNG", "JPEG", "TIFF", "WEBP", *(["AVIF"] if features.check("avif") else [])):
        for mode in MODES[form]:
            for tag in ORIENTATIONS:
                exif = Image.Exif()
                exif[0x0112] = tag
                picture = scene_in(mode)
                stored = picture.transpose(turns[tag]) if tag in turns else picture
                yield form, mode, tag, saved(stored, form, exif=exif)


def rgb_of(grey: np.ndarray) -> np.ndarray:
    """Return a grey picture [H, W] as RGB."""
    return np.stack([grey] * 3, 2)


def lossy_formats() -> list[tuple[str, str, dict[str, Any]]]:
    """Return (name, Pillow's format, options) of every way to store a picture with loss."""
    ways: list[tuple[str, str, dict[str, Any]]] = [
        ("jpg", "JPEG", {"quality": 60}),
        ("webp", "WEBP", {"quality": 50}),
        ("tif", "TIFF", {"compression": "jpeg", "quality": 60}),
    ]
    if features.check("jpg_2000"):
        ways.append(("jp2", "JPEG2000", {"quality_mode": "rates", "quality_layers": [20]}))
    if features.check("avif"):
        ways.append(("avif", "AVIF", {"quality": 50}))
    return ways


def _forms() -> set[str]:
    forms = {"PNG", "JPEG", "TIFF", "BMP", "DIB", "GIF", "WEBP", "PPM"}
    return (
        forms
        | ({"JPEG2000"} if features.check("jpg_2000") else set())
        | ({"AVIF"} if features.check("avif") else set())
    )


def _modes() -> Iterator[OddFile]:
    scene = Image.fromarray(SCENE)
    lossy = {"JPEG", "WEBP", "AVIF"}
    for form, modes in MODES.items():
        for mode in modes if form in _forms() else ():
            picture = scene_in(mode)
            expected = np.asarray(picture.convert("RGBA" if mode in ("LA", "PA") else "RGB").convert("RGB"))
            tolerance = 40 if form in lossy else LOSSY
            yield OddFile(f"mode-{form}-{mode}.bin", saved(picture, form), expected, tolerance=tolerance)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "tiff_deflate"):
        tolerance = 40 if compression == "jpeg" else 1
        content = saved(scene, "TIFF", compression=compression)
        yield OddFile(f"{compression}.tif", content, SCENE, tolerance=tolerance)
    yield OddFile("progressive.jpg", saved(scene, "JPEG", progressive=True, quality=95), SCENE, tolerance=40)
    yield OddFile(
        "group4.tif",
        saved(scene.convert("1"), "TIFF", compression="group4"),
        np.asarray(scene.convert("1").convert("RGB")),
    )
    yield OddFile("lossless.webp", saved(scene, "WEBP", lossless=True), SCENE)
    yield OddFile("plain.pgm", b"P2 2 1 255 10 200", np.array([[[10] * 3, [200] * 3]]))
    yield OddFile(
        "deep.pgm", b"P5 2 1 65535\n" + struct.pack(">HH", 257 * 10, 257 * 200), np.array([[[10] * 3, [200] * 3]])
    )
    yield OddFile("one.png", saved(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"), np.array([[[1, 2, 3]]]))


def _turned() -> Iterator[OddFile]:
    ways: list[tuple[str, str, bool, dict[str, Any]]] = [
        ("png", "PNG", False, {}),
        ("grey.png", "PNG", True, {}),
        ("jpg", "JPEG", False, {"quality": 95, "subsampling": 0}),
        ("tif", "TIFF", False, {}),
        ("grey.tif", "TIFF", True, {}),
        ("lzw.tif", "TIFF", False, {"compression": "tiff_lzw"}),
        ("webp", "WEBP", False, {"lossless": True}),
    ]
    if features.check("avif"):
        ways.append(("avif", "AVIF", False, {"quality": 95}))
    for name, form, grey, options in ways:
        for tag in range(1, 9) if name in ("jpg", "grey.tif") else ORIENTATIONS:
            scene = GREY if grey else SCENE
            stored = np.ascontiguousarray(STORED.get(tag, np.asarray)(scene))
            exif = Image.Exif()
            exif[0x0112] = tag
            content = saved(Image.fromarray(stored), form, exif=exif, **options)
            tolerance = 40 if form in ("JPEG", "AVIF") else 1
            yield OddFile(f"turned-{tag}.{name}", content, rgb_of(scene) if grey else scene, tolerance=tolerance)


def tiff(values: np.ndarray, *, photometric: int = 1, order: Literal["<", ">"] = "<", bits: int = 0) -> bytes:
    """Return an uncompressed TIFF of values [H, W] or [H, W, C] in their own type, written by hand."""
    kinds = {"u": 1, "i": 2, "f": 3}
    height, width = values.shape[:2]
    samples = values.shape[2] if values.ndim == 3 else 1
    depth = bits or values.dtype.itemsize * 8
    data = _pack_12(values) if bits == 12 else values.astype(values.dtype.newbyteorder(order)).tobytes()
    # Three values and more do not fit into an entry: they stand behind the directory.
    per_sample, behind = 8 + 2 + 12 * 10 + 4, samples > 2
    start = per_sample + (4 * samples if behind else 0)

    def several(value: int) -> tuple[int, int, bytes]:
        packed = struct.pack(f"{order}{samples}H", *[value] * samples)
        return 3, samples, packed.ljust(4, b"\0")

    def single(value: int) -> tuple[int, int, bytes]:
        return 4, 1, struct.pack(f"{order}I", value)

    def place(number: int) -> tuple[int, int, bytes]:
        return 3, samples, struct.pack(f"{order}I", per_sample + 2 * samples * number)

    entries = {
        256: single(width), 257: single(height), 258: place(0) if behind else several(depth), 259: single(1),
        262: single(photometric), 273: single(start), 277: single(samples), 278: single(height), 279: single(len(data)),
        339: place(1) if behind else several(kinds[values.dtype.kind]),
    }  # fmt: skip
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    for tag, (kind, count, value) in entries.items():
        head += struct.pack(f"{order}HHI", tag, kind, count) + value
    head += struct.pack(f"{order}I", 0)
    if behind:
        head += struct.pack(f"{order}{2 * samples}H", *[depth] * samples, *[kinds[values.dtype.kind]] * samples)
    return head + data


def _pack_12(values: np.ndarray) -> bytes:
    """Pack 12-bit values, two in three bytes, each row whole."""
    bits = (values[..., np.newaxis] >> np.arange(11, -1, -1)) & 1
    return np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def _deep() -> Iterator[OddFile]:
    wide = GREY.astype(np.uint16) * 257
    expected = rgb_of(GREY)
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    for order in orders:
        end = "little" if order == "<" else "big"
        yield OddFile(f"uint8-{end}.tif", tiff(GREY, order=order), expected)
        yield OddFile(f"uint16-{end}.tif", tiff(wide, order=order), expected)
        yield OddFile(f"uint16-white-is-0-{end}.tif", tiff(65535 - wide, photometric=0, order=order), expected)
        yield OddFile(f"float32-{end}.tif", tiff((GREY / 255).astype(np.float32), order=order), expected)
    yield OddFile("uint32-little.tif", tiff(wide.astype(np.uint32)), expected)
    yield OddFile("uint8-white-is-0.tif", tiff(255 - GREY, photometric=0), expected)
    yield OddFile("float32-white-is-0.tif", tiff(1 - (GREY / 255).astype(np.float32), photometric=0), expected)
    yield OddFile("12-bits.tif", tiff(GREY.astype(np.uint16) * 16 + GREY // 16, bits=12), expected, tolerance=1)
    yield OddFile("int8.tif", tiff((GREY // 2).astype(np.int8)), rgb_of(GREY // 2))
    yield OddFile("int8-negative.tif", tiff(np.array([[-5, 3]], np.int8)), error="integer pixels from -5 to 3")
    yield OddFile("int16.tif", tiff((wide // 2).astype(np.int16)), rgb_of(GREY // 2), tolerance=1)
    yield OddFile("int16-negative.tif", tiff(np.array([[-5, 3]], np.int16)), error="integer pixels from -5 to 3")
    full = np.array([[0, 2**32 - 1]], np.uint32)
    yield OddFile("uint32-full.tif", tiff(full), error="integer pixels from 0 to 4294967295")
    yield OddFile("float32-nan.tif", tiff(np.array([[0, np.nan]], np.float32)), error="NaN")
    yield OddFile("float32-255.tif", tiff(np.array([[0, 255]], np.float32)), error="from 0 to 255, expected 0 to 1")
    yield OddFile("uint64.tif", tiff(np.array([[0, 9]], np.uint64)), error="1 channel of 64-bit unsigned integers")
    five = np.zeros((4, 6, 5), np.uint16)
    yield OddFile("five.tif", tiff(five, photometric=1), error="5 channels of 16-bit unsigned integers")
    yield OddFile("16-bit.png", saved(Image.fromarray(wide), "PNG"), expected)
    camera = OddFile(
        "12-in-16-bits.png", saved(Image.fromarray(GREY.astype(np.uint16) * 16), "PNG"), rgb_of(GREY // 16)
    )
    yield OddFile(camera.name, camera.content, camera.pixels, note="multiply the values by 16", tolerance=1)
    deep_rgb = (SCENE.astype(">u2") * 257).tobytes()
    rows = b"".join(b"\0" + deep_rgb[row * WIDTH * 6 : (row + 1) * WIDTH * 6] for row in range(HEIGHT))
    yield OddFile("16-bit-rgb.png", png(WIDTH, HEIGHT, zlib.compress(rows), depth=16, colour=2), SCENE)
    if features.check("jpg_2000"):
        yield OddFile("16-bit.jp2", saved(Image.fromarray(wide), "JPEG2000"), expected)


def rare_tiffs() -> list[OddFile]:
    """Return TIFFs that Pillow does not read and the package tifffile does."""
    unit, expected = GREY / 255, rgb_of(GREY)
    clear = np.dstack([SCENE / 255, np.zeros_like(unit)]).astype(np.float32)
    return [
        OddFile("float32-clear.tif", tiff(clear, photometric=2), SCENE, note="transparent everywhere"),
        OddFile("uint32-big.tif", tiff(GREY.astype(np.uint32) * 257, order=">"), expected),
        OddFile("float16.tif", tiff(unit.astype(np.float16)), expected),
        OddFile("float64.tif", tiff(unit), expected),
        OddFile("float64-big.tif", tiff(unit, order=">"), expected),
        OddFile("float32-rgb.tif", tiff((SCENE / 255).astype(np.float32), photometric=2), SCENE),
    ]


def clear_bitmap(rgb: np.ndarray) -> bytes:
    """Return a BMP of version 4 whose alpha is 0 everywhere, as some cameras write it."""
    height, width = rgb.shape[:2]
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiIIIIII", 108, width, -height, 1, 32, 3, 0, 0, 0, 0, 0, *masks)
    body = np.dstack([rgb[:, :, ::-1], np.zeros((height, width), np.uint8)]).tobytes()
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(body), 0, 0, 122) + header.ljust(108, b"\0") + body


def _transparent() -> Iterator[OddFile]:
    clear = np.dstack([SCENE, np.zeros_like(GREY)])
    half = np.dstack([SCENE, np.full_like(GREY, 128)])
    on_white = (SCENE * (128 / 255) + 255 * (127 / 255)).round().astype(np.uint8)
    note = "transparent everywhere"
    for form, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        name = form.lower()
        yield OddFile(f"clear.{name}", saved(Image.fromarray(clear), form, **options), SCENE, note=note)
        content = saved(Image.fromarray(half), form, **options)
        yield OddFile(f"half.{name}", content, on_white, note="shown on white", tolerance=2)
    grey = np.dstack([GREY, np.zeros_like(GREY)])
    yield OddFile("clear-grey.png", saved(Image.fromarray(grey), "PNG"), rgb_of(GREY), note=note)
    yield OddFile("clear.bmp", clear_bitmap(SCENE), SCENE, note=note)
    keyed = saved(Image.fromarray(np.zeros_like(GREY)), "PNG", transparency=0)
    yield OddFile("keyed.png", keyed, rgb_of(np.zeros_like(GREY)), note=note)
    indexed = Image.fromarray(SCENE).convert("P")
    every = saved(indexed, "PNG", transparency=bytes(256))
    yield OddFile("clear-palette.png", every, np.asarray(indexed.convert("RGB")), note=note)


def _animated() -> Iterator[OddFile]:
    first, second = Image.fromarray(SCENE), Image.fromarray(np.ascontiguousarray(SCENE[::-1]))
    ways: list[tuple[str, str, dict[str, Any]]] = [
        ("apng", "PNG", {}),
        ("webp", "WEBP", {"lossless": True}),
        ("tif", "TIFF", {}),
    ]
    for name, form, options in ways:
        content = saved(first, form, save_all=True, append_images=[second], **options)
        yield OddFile(f"several.{name}", content, SCENE, note="only the first")
    grey = [Image.fromarray(GREY), Image.fromarray(np.ascontiguousarray(GREY[::-1]))]
    content = saved(grey[0], "GIF", save_all=True, append_images=grey[1:])
    yield OddFile("several.gif", content, rgb_of(GREY), note="only the first")


def _cut_off() -> Iterator[OddFile]:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for form in sorted(_forms() - {"DIB", "GIF"}):
        content = saved(noise, form)
        yield OddFile(f"cut.{form.lower()}", content[: len(content) // 2], error="")
        yield OddFile(f"stub.{form.lower()}", content[:20], error="")


def png(width: int, height: int, data: bytes, *, depth: int = 1, colour: int = 0, more: bytes = b"") -> bytes:
    """Return a PNG that says what it is told to; `data` is its compressed rows, `more` chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    begin = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more
    return begin + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def many_scans(count: int) -> bytes:
    """Return a progressive JPEG whose last scan comes `count` times."""
    content = saved(Image.fromarray(SCENE), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + content[-2:]


def _too_large() -> Iterator[OddFile]:
    rows = zlib.compress(bytes(1000))
    yield OddFile("large.png", png(20_000, 20_000, rows), error="20000 x 20000 = 400,000,000 pixels, above the limit")
    yield OddFile("between.png", png(10_000, 12_000, rows), error="120,000,000 pixels, above the limit")
    yield OddFile("thin.png", png(1, 80_000_000, rows), error="80000000 pixels, above the limit of 100,000 a side")
    yield OddFile("long.png", png(1, 2_000, rows), error="more than 1,000 times the other")
    yield OddFile("scans.jpg", many_scans(300), error="more than 50 scans")
    text = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(40_000_000)))
    stored = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY))
    yield OddFile("text.png", png(WIDTH, HEIGHT, stored, depth=8, more=text), rgb_of(GREY))
    long = chunk(b"tEXt", b"note\0" + b"x" * 2_000_000)
    yield OddFile("long-text.png", png(WIDTH, HEIGHT, stored, depth=8, more=long), rgb_of(GREY))
    slow = b"P5 2000 1100 4095\n" + bytes(100)
    yield OddFile("slow.pgm", slow, error="which is slow to read")
    if features.check("jpg_2000"):
        head = saved(Image.fromarray(SCENE), "JPEG2000")
        size = struct.pack(">II", HEIGHT, WIDTH)
        huge = head.replace(size, struct.pack(">II", 8000, 8000))
        yield OddFile("huge.jp2", huge, error="takes more memory than others")


def _lies() -> Iterator[OddFile]:
    yield OddFile("jpeg-called.png", saved(Image.fromarray(SCENE), "JPEG", quality=95), SCENE, tolerance=40)
    yield OddFile("png-called.jpg", saved(Image.fromarray(SCENE), "PNG"), SCENE)
    for name, content in {
        "text.jpg": b"not an image at all",
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "page.png": b"<!doctype html><title>404</title>",
        "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "document.tif": b"%PDF-1.7\n",
        "layers.png": b"8BPS\0\x01" + bytes(40),
        "icon.png": b"\0\0\x01\0\x01\0" + bytes(40),
        "archive.png": b"PK\x03\x04" + bytes(40),
        "film.jpg": b"\0\0\0\x18ftypisom" + bytes(40),
        "git-lfs.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
    }.items():
        yield OddFile(name, content, error="is not an image")
    yield OddFile("empty.png", b"", error="empty (0 bytes)")
    yield OddFile("zeros.png", bytes(1000), error="is not an image")
    yield OddFile("no-size.tif", b"II*\0\x08\0\0\0\0\0", error="")
