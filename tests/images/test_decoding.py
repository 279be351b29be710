"""Decoding: every kind of good image to the same rules, every kind of bad one to a one-line reason."""

import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomalens.errors import ConfigError, InputError
from anomalens.images.decoding import decode
from anomalens.images.image_files import MAX_PIXELS
from anomalens.threads import map_ordered


def photo(height: int = 24, width: int = 40, seed: int = 0) -> np.ndarray:
    """Return a smooth colour image, uint8 [height, width, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def png_header(width: int, height: int) -> bytes:
    """Return a small PNG that says it is large: 1-bit grey, one row of data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + (width + 7) // 8))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def half_of(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return cut


def saved(image: Image.Image, form: str, **options: Any) -> Callable[[Path], None]:
    return lambda path: image.save(path, form, **options)


NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))

BAD_FILES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("missing.png", lambda path: None, "no such file"),
    ("folder.png", lambda path: path.mkdir(), "is a folder"),
    ("pipe.png", lambda path: os.mkfifo(path), "not a regular file"),
    ("loop.png", lambda path: path.symlink_to(path), "cannot be read"),
    ("dangling.png", lambda path: path.symlink_to("nowhere"), "no such file"),
    ("empty.png", lambda path: path.write_bytes(b""), "empty"),
    ("text.jpg", lambda path: path.write_text("not an image at all"), "not an image"),
    ("script.png", lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not an image"),
    ("cut.jpg", half_of(saved(NOISE, "JPEG")), "truncated"),
    ("cut.png", half_of(saved(NOISE, "PNG")), "damaged"),
    ("cut.tif", half_of(saved(NOISE, "TIFF")), ""),
    ("header.png", lambda path: path.write_bytes(png_header(8, 8)[:20]), ""),
    ("bomb.png", lambda path: path.write_bytes(png_header(20_000, 20_000)), "400,000,000 pixels, above the limit"),
    ("large.png", lambda path: path.write_bytes(png_header(9_000, 9_950)), "9000 x 9950 = 89,550,000 pixels"),
    ("wide.tif", saved(Image.fromarray(np.array([[0, 70_000]], np.int32)), "TIFF"), "0 to 70000, expected 16 bits"),
    ("nan.tif", saved(Image.fromarray(np.array([[0, np.nan]], np.float32)), "TIFF"), "NaN"),
    ("inf.tif", saved(Image.fromarray(np.array([[0, np.inf]], np.float32)), "TIFF"), "infinity"),
    (
        "float255.tif",
        saved(Image.fromarray(np.array([[0, 255]], np.float32)), "TIFF"),
        "from 0 to 255, expected 0 to 1",
    ),
]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("name", "make", "reason"), BAD_FILES, ids=[row[0] for row in BAD_FILES])
def test_bad_file_gives_one_line_that_names_it(
    name: str, make: Callable[[Path], Any], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(InputError) as caught:
        decode(path)
    message = str(caught.value)
    assert name in message
    assert "\n" not in message
    assert reason in message


def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "locked.png"
    NOISE.save(path)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # the superuser may read anything: be somebody else for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(InputError, match=r"locked\.png.*no permission"):
            decode(path)
    finally:
        os.seteuid(user)


def test_name_that_no_file_can_have() -> None:
    with pytest.raises(InputError, match="cannot be read"):
        decode("nul\0.png")


@pytest.mark.parametrize("name", ["two words.png", "Schöne Grüße.png", "a\nb.png", "日本.png", "[x]*.png", "no_suffix"])
def test_any_name_is_fine_and_errors_stay_on_one_line(name: str, tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / name, "PNG")
    np.testing.assert_array_equal(decode(str(tmp_path / name)).rgb, photo())
    (tmp_path / name).write_bytes(b"broken")
    with pytest.raises(InputError) as caught:
        decode(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "really_jpeg.png"
    Image.fromarray(photo()).save(path, "JPEG", quality=100)
    assert np.abs(decode(path).rgb.astype(int) - photo()).max() < 40
    assert decode(path).note is None


def test_limit_can_be_raised_and_is_checked_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    NOISE.save(path)
    with pytest.raises(InputError, match="above the limit of 4,095"):
        decode(path, max_pixels=64 * 64 - 1)
    assert decode(path, max_pixels=64 * 64).rgb.shape == (64, 64, 3)
    assert 80e6 < MAX_PIXELS < 100e6


GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 11
WITH_PALETTE = Image.fromarray(photo(8, 8)).quantize(16)
HALF = np.concatenate([np.full((4, 4, 3), 100, np.uint8), np.array([[[255], [128], [0], [255]]] * 4, np.uint8)], axis=2)
HALF_ON_WHITE = [100, 177, 255, 100]  # 100 at opacity 1, 128/255, 0 and 1 over 255

GOOD_FILES: list[tuple[str, Callable[[Path], Any], np.ndarray, str | None]] = [
    ("rgb.png", saved(Image.fromarray(photo()), "PNG"), photo(), None),
    ("one.png", saved(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"), np.array([[[1, 2, 3]]]), None),
    ("grey.png", saved(Image.fromarray(GREY), "PNG"), np.stack([GREY] * 3, 2), None),
    ("grey.bmp", saved(Image.fromarray(GREY), "BMP"), np.stack([GREY] * 3, 2), None),
    ("grey.pgm", saved(Image.fromarray(GREY), "PPM"), np.stack([GREY] * 3, 2), None),
    ("bits.png", saved(Image.fromarray(GREY > 99), "PNG"), np.stack([(GREY > 99) * 255] * 3, 2), None),
    ("deep.png", saved(Image.fromarray(GREY * np.uint16(257)), "PNG"), np.stack([GREY] * 3, 2), None),
    ("deep.tif", saved(Image.fromarray(GREY * np.uint16(257)), "TIFF"), np.stack([GREY] * 3, 2), None),
    (
        "big-endian.tif",
        saved(Image.frombytes("I;16B", (6, 4), (GREY * np.uint16(257)).astype(">u2").tobytes()), "TIFF"),
        np.stack([GREY] * 3, 2),
        None,
    ),
    ("int.tif", saved(Image.fromarray(GREY.astype(np.int32) * 257), "TIFF"), np.stack([GREY] * 3, 2), None),
    ("float.tif", saved(Image.fromarray(GREY / np.float32(255)), "TIFF"), np.stack([GREY] * 3, 2), None),
    ("palette.png", saved(WITH_PALETTE, "PNG"), np.asarray(WITH_PALETTE.convert("RGB")), None),
    ("alpha.png", saved(Image.fromarray(HALF), "PNG"), np.array([[[v] * 3 for v in HALF_ON_WHITE]] * 4), "transparent"),
    ("opaque.png", saved(Image.fromarray(photo()).convert("RGBA"), "PNG"), photo(), None),
    (
        "la.png",
        saved(Image.fromarray(np.ascontiguousarray(HALF[:, :, 2:])), "PNG"),
        np.array([[[v] * 3 for v in HALF_ON_WHITE]] * 4),
        "transparent",
    ),
    (
        "keyed.png",
        saved(Image.fromarray(np.array([[0, 9]], np.uint8)), "PNG", transparency=0),
        np.array([[[255] * 3, [9] * 3]]),
        "transparent",
    ),
    ("cmyk.tif", saved(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF"), np.array([[[255, 0, 0]] * 2] * 2), None),
    (
        "animated.gif",
        saved(Image.new("L", (2, 2), 40), "GIF", save_all=True, append_images=[Image.new("L", (2, 2), 90)]),
        np.full((2, 2, 3), 40),
        "only the first",
    ),
    (
        "pages.tif",
        saved(Image.new("L", (2, 2), 40), "TIFF", save_all=True, append_images=[Image.new("L", (3, 3), 90)]),
        np.full((2, 2, 3), 40),
        "only the first",
    ),
]


@pytest.mark.parametrize(("name", "make", "expected", "note"), GOOD_FILES, ids=[row[0] for row in GOOD_FILES])
def test_good_file(
    name: str, make: Callable[[Path], Any], expected: np.ndarray, note: str | None, tmp_path: Path
) -> None:
    make(tmp_path / name)
    for source in (tmp_path / name, (tmp_path / name).read_bytes()):
        decoded = decode(source)
        assert decoded.rgb.dtype == np.uint8
        assert decoded.rgb.flags.c_contiguous
        assert (decoded.height, decoded.width) == expected.shape[:2]
        np.testing.assert_allclose(decoded.rgb.astype(int), expected, atol=1)
        assert (note in (decoded.note or "")) if note else decoded.note is None


def test_twelve_bits_in_sixteen_stay_dark_and_are_remarked(tmp_path: Path) -> None:
    values = np.array([[0, 4095]], np.uint16)
    Image.fromarray(values).save(tmp_path / "camera.png")
    decoded = decode(tmp_path / "camera.png")
    assert decoded.rgb.max() == 16  # 4095 / 257: never stretched by the image's own maximum
    assert "multiply the values by 16" in (decoded.note or "")
    assert decode(np.zeros((2, 2), np.uint16)).note is None  # black is black


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_tag_is_applied_once(orientation: int, form: str, tmp_path: Path) -> None:
    upright = photo(16, 32)
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that undoes each tag
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(inverse[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned", form, exif=exif, **({"quality": 100, "subsampling": 0} if form == "JPEG" else {}))
    decoded = decode(tmp_path / "turned")
    assert (decoded.height, decoded.width) == (16, 32)
    assert np.abs(decoded.rgb.astype(int) - upright).max() <= 6


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_orientation_costs_nothing(tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "odd.png", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff garbage")
    np.testing.assert_array_equal(decode(tmp_path / "odd.png").rgb, photo())


@pytest.mark.parametrize("orientation", [1, 6])
def test_smaller_jpeg_decoding_only_when_asked(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "large.jpg"
    Image.fromarray(photo(400, 800)).save(path, exif=exif)
    full = decode(path)
    height, width = (400, 800) if orientation == 1 else (800, 400)
    assert full.rgb.shape[:2] == (height, width)
    small = decode(path, at_least=(height // 4, width // 4))
    assert small.rgb.shape[:2] == (height // 4, width // 4)
    assert (small.height, small.width) == (height, width)
    assert decode(path, at_least=(height, 1)).rgb.shape == full.rgb.shape
    Image.fromarray(photo()).save(tmp_path / "same.png")
    np.testing.assert_array_equal(decode(tmp_path / "same.png", at_least=(1, 1)).rgb, photo())


RGB = photo(6, 8)
CHW = torch.from_numpy(RGB.copy()).permute(2, 0, 1)
GOOD_VALUES: dict[str, Any] = {
    "array": RGB,
    "strided array": np.asfortranarray(RGB),
    "float array": RGB / 255.0,
    "float16 array": (RGB / 255.0).astype(np.float16),
    "deep array": RGB * np.uint16(257),
    "opaque array": np.dstack([RGB, np.full((6, 8), 255, np.uint8)]),
    "tensor": CHW,
    "float tensor": CHW / 255,
    "double tensor that wants a gradient": (CHW / 255).double().requires_grad_(),
    "PIL image": Image.fromarray(RGB),
}


@pytest.mark.parametrize("name", GOOD_VALUES)
def test_pixels_in_memory(name: str) -> None:
    decoded = decode(GOOD_VALUES[name])
    np.testing.assert_array_equal(decoded.rgb, RGB)
    assert (decoded.height, decoded.width, decoded.note) == (6, 8, None)


@pytest.mark.parametrize(
    "grey",
    [RGB[:, :, 0], RGB[:, :, :1], CHW[0], CHW[:1], (CHW[:1] / 255).to(torch.bfloat16)],
    ids=["HW", "HW1", "tensor HW", "tensor 1HW", "bfloat16"],
)
def test_grey_in_memory(grey: Any) -> None:
    np.testing.assert_allclose(decode(grey).rgb.astype(int), np.stack([RGB[:, :, 0]] * 3, 2), atol=1)


def test_bool_array_and_read_only_sources() -> None:
    assert set(np.unique(decode(RGB[:, :, 0] > 100).rgb)) <= {0, 255}
    frozen = RGB.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(decode(frozen).rgb, RGB)


def test_array_is_copied() -> None:
    buffer = RGB.copy()
    decoded = decode(buffer)
    buffer[:] = 0
    np.testing.assert_array_equal(decoded.rgb, RGB)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_a_file_of_every_kind(kind: Any, tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode(kind((tmp_path / "a.png").read_bytes())).rgb, RGB)


def test_open_files(tmp_path: Path) -> None:
    path = tmp_path / "a b.png"
    Image.fromarray(RGB).save(path)
    memory = io.BytesIO()
    Image.fromarray(RGB).save(memory, "PNG")
    assert memory.tell() > 0
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(path, "a.png")
    with path.open("rb") as stream, zipfile.ZipFile(tmp_path / "z.zip") as archive, archive.open("a.png") as member:
        for source in (memory, stream, member):
            for _ in range(2):
                # From the beginning, every time, and left open.
                np.testing.assert_array_equal(decode(source).rgb, RGB)
            assert not source.closed


def test_pipe_that_cannot_seek(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with subprocess.Popen(["cat", str(tmp_path / "a.png")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        np.testing.assert_array_equal(decode(process.stdout).rgb, RGB)


def test_unusable_open_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    with path.open("rb") as stream:
        pass
    with pytest.raises(InputError, match=r"'.*a\.png': cannot be read \(ValueError: .*closed file"):
        decode(stream)
    path.write_text("not an image")
    with path.open() as text, pytest.raises(InputError, match=r"a\.png': reading it gives str.*mode 'rb'"):
        decode(text)  # type: ignore[arg-type]
    with path.open("rb") as stream, pytest.raises(InputError, match=r"a\.png': is not an image"):
        decode(stream)
    with pytest.raises(InputError, match=r"^image file: empty"):
        decode(io.BytesIO())


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_one_open_file_and_one_lazy_picture_in_many_threads(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for attempt in range(4):
        memory = io.BytesIO()
        Image.fromarray(photo(400, 300, attempt)).save(memory, form, exif=exif)
        expected = decode(memory.getvalue()).rgb
        for shared in (memory, Image.open(memory)):
            for _, decoded in map_ordered([shared] * 8, decode, workers=4, ahead=8):
                assert not isinstance(decoded, Exception), decoded
                np.testing.assert_array_equal(decoded.rgb, expected)


def test_frames_of_opencv() -> None:
    bgr = RGB[:, :, ::-1]
    np.testing.assert_array_equal(decode(bgr, channels="bgr").rgb, RGB)
    np.testing.assert_array_equal(decode(CHW.flip(0) / 255, channels="bgr").rgb, RGB)
    np.testing.assert_array_equal(decode(RGB[:, :, 0], channels="bgr").rgb, decode(RGB[:, :, 0]).rgb)
    half = np.dstack([RGB, np.full((6, 8), 128, np.uint8)])
    np.testing.assert_array_equal(decode(half[:, :, [2, 1, 0, 3]], channels="bgr").rgb, decode(half).rgb)


def test_channels_of_a_file_are_its_own(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as lazy:
        for source in (tmp_path / "a.png", (tmp_path / "a.png").read_bytes(), io.BytesIO(), lazy):
            with pytest.raises(InputError, match="channels='bgr' is for arrays and tensors"):
                decode(source, channels="bgr")
    with pytest.raises(ConfigError, match="use 'rgb' or 'bgr'"):
        decode(RGB, channels="grb")  # type: ignore[arg-type]


def test_sixteen_bits_of_either_byte_order() -> None:
    deep = RGB * np.uint16(257)
    for order in ("<u2", ">u2"):
        np.testing.assert_array_equal(decode(deep.astype(order)).rgb, RGB)
        np.testing.assert_array_equal(decode(deep[:, :, 0].astype(order)).rgb, decode(deep[:, :, 0]).rgb)
    np.testing.assert_array_equal(decode((RGB / 255).astype(">f4")).rgb, RGB)


def test_two_remarks_on_one_array() -> None:
    note = decode(np.dstack([RGB.astype(np.uint16), np.zeros((6, 8), np.uint16)])).note or ""
    assert "almost black" in note
    assert "transparent" in note


BAD_VALUES: list[tuple[Any, str]] = [
    (np.zeros((3, 8, 8), np.uint8), r"channels first.*transpose\(1, 2, 0\)"),
    (np.zeros((2, 8, 8, 3), np.uint8), "one by one"),
    (np.zeros((8,), np.uint8), "shape"),
    (np.zeros((0, 8, 3), np.uint8), "shape"),
    (np.zeros((8, 8, 2), np.uint8), "expected"),
    (np.zeros((8, 8), np.int64), "int64, expected uint8"),
    (np.zeros((8, 8), np.complex64), "complex64"),
    (np.full((8, 8), np.nan), "NaN"),
    (np.full((8, 8, 3), 255.0), "from 255 to 255, expected 0 to 1"),
    (np.full((8, 8, 3), -0.5, np.float32), "expected 0 to 1"),
    (torch.zeros(8, 8, 3), r"channels last.*permute\(2, 0, 1\)"),
    (torch.zeros(1, 3, 8, 8), "one by one"),
    (torch.zeros(8, 8).to_sparse(), "image tensor: cannot be read"),
    (torch.zeros(8, 8, device="meta"), "image tensor: cannot be read"),
    (torch.full((3, 8, 8), torch.inf), "infinity"),
    (torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0)), "expected 0 to 1"),
    (b"", "empty"),
    (b"GIF89a", "image bytes"),
    (None, "cannot read an image from NoneType.*cv2.imread returns None"),
    (np.array(["a.png", "b.png"]), "shape"),
    (3.5, "float"),
]


@pytest.mark.parametrize(("value", "reason"), BAD_VALUES)
def test_bad_values(value: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        decode(value)


def test_closed_pil_image_is_an_input_error(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "closed.png")
    image = Image.open(tmp_path / "closed.png")
    image.close()
    with pytest.raises(InputError, match=r"closed\.png"):
        decode(image)


def test_reading_and_drawing_need_no_torch() -> None:
    code = "import sys, anomalens.prediction, anomalens.images.sources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
