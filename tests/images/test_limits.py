"""What decoding may cost, and the two switches that allow more."""

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import odd_files as odd
from anomalens.errors import InputError
from anomalens.images import image_files
from anomalens.images.decoding import decode
from anomalens.images.image_files import CUT_OFF, memory
from anomalens.images.memory_budget import MemoryBudget
from anomalens.threads import map_ordered

NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def test_threads_never_hold_more_than_the_budget() -> None:
    budget = MemoryBudget(100)
    taken, most, lock = 0, 0, threading.Lock()

    def work(amount: int) -> None:
        nonlocal taken, most
        with budget.take(amount):
            with lock:
                taken += min(amount, 100)
                most = max(most, taken)
            time.sleep(0.001)
            with lock:
                taken -= min(amount, 100)

    assert len(list(map_ordered([60, 50, 30, 250, 20, 100, 40] * 5, work, 6))) == 35
    assert most <= 100
    assert budget.free == 100


def test_decoding_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = odd.saved(NOISE, "JPEG")
    with ExitStack() as room:
        decode(content, room=room)
        assert memory.free == memory.total - 64 * 64 * 8
    assert memory.free == memory.total
    # A budget that one image fills: also one that is read a second time, after a repair.
    monkeypatch.setattr("anomalens.images.decoding.memory", tight := MemoryBudget(64 * 64 * 8))
    with ExitStack() as room:
        decode(content[:-900], truncated=True, room=room)
        assert tight.free == 0
    for source in (content[:-900], content, NOISE):
        try:
            decode(source)
        except InputError:
            assert isinstance(source, bytes)
        assert tight.free == tight.total


def test_truncated_jpegs_only_where_asked() -> None:
    content = odd.saved(NOISE, "JPEG", quality=95)
    for length in (len(content) // 2, len(content) - 40):
        with pytest.raises(InputError, match="truncated"):
            decode(content[:length])
        decoded = decode(content[:length], truncated=True)
        assert decoded.note == CUT_OFF
        np.testing.assert_array_equal(decoded.rgb[:8], decode(content).rgb[:8])
    assert decode(content, truncated=True).note is None
    with pytest.raises(InputError):
        decode(odd.saved(NOISE, "PNG")[:2000], truncated=True)


@pytest.mark.filterwarnings("error")
def test_the_limit_can_be_raised_beyond_that_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    content = odd.saved(Image.fromarray(odd.GREY), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match="above the limit of 100;"):
        decode(content, max_pixels=100)
    assert decode(content, max_pixels=odd.HEIGHT * odd.WIDTH).rgb.shape[:2] == (odd.HEIGHT, odd.WIDTH)


def test_a_limit_for_formats_that_need_more_memory_follows_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MEMORY", 16 * 64 * 64 - 1)
    monkeypatch.setattr(image_files, "MAX_PIXELS", 64 * 64)
    content = odd.saved(NOISE, "WEBP")
    with pytest.raises(InputError, match="4,095 for this kind of WEBP, which takes more memory"):
        decode(content, max_pixels=64 * 64)
    assert decode(content, max_pixels=2 * 64 * 64).rgb.shape == (64, 64, 3)
    assert decode(odd.saved(NOISE, "PNG"), max_pixels=64 * 64).rgb.shape == (64, 64, 3)


def test_large_pictures_are_converted_in_bands_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [file for file in odd.odd_files() if file.pixels is not None]
    whole = [decode(file.content) for file in files]
    monkeypatch.setattr("anomalens.images.pixel_values._BAND", 100)
    for file, before in zip(files, whole, strict=True):
        after = decode(file.content)
        np.testing.assert_array_equal(after.rgb, before.rgb, err_msg=file.name)
        assert after.note == before.note


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"])
def test_one_lazy_picture_given_many_times(form: str, tmp_path: Path) -> None:
    Image.fromarray(odd.SCENE).save(tmp_path / "a", form)
    expected = decode(tmp_path / "a").rgb
    for _ in range(3):
        lazy = Image.open(tmp_path / "a")
        for _, decoded in map_ordered([lazy] * 12, decode, 4):
            assert not isinstance(decoded, Exception)
            np.testing.assert_array_equal(decoded.rgb, expected)


def test_lazy_pictures_of_one_open_file(tmp_path: Path) -> None:
    Image.fromarray(odd.SCENE).save(tmp_path / "a.png")
    with open(tmp_path / "a.png", "rb") as stream:
        pictures = [Image.open(stream) for _ in range(6)]
        sources: list[Any] = [pictures[-1], stream] * 6
        for _, decoded in map_ordered(sources, decode, 4):
            assert not isinstance(decoded, Exception)
            np.testing.assert_array_equal(decoded.rgb, odd.SCENE)


def test_a_lazy_grey_tiff_is_turned_rightly(tmp_path: Path) -> None:
    for tag in odd.ORIENTATIONS:
        exif = Image.Exif()
        exif[0x0112] = tag
        stored = np.ascontiguousarray(odd.STORED.get(tag, np.asarray)(odd.GREY))
        Image.fromarray(stored).save(tmp_path / "a.tif", exif=exif)
        np.testing.assert_array_equal(decode(Image.open(tmp_path / "a.tif")).rgb, odd.rgb_of(odd.GREY))


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA", "LAB", "HSV", "YCbCr", "CMYK", "RGBX", "I;16B", "I;16L", "1"])
def test_pictures_of_every_mode(mode: str) -> None:
    scene = Image.fromarray(odd.SCENE)
    if mode.startswith("I;16"):
        deep = (odd.GREY.astype(np.uint16) * 257).astype(">u2" if mode == "I;16B" else "<u2")
        picture = Image.frombytes(mode, (odd.WIDTH, odd.HEIGHT), deep.tobytes())
        expected = odd.rgb_of(odd.GREY)
    elif mode in ("La", "RGBa", "PA"):
        way = {"La": "LA", "RGBa": "RGBA", "PA": "P"}[mode]
        picture = scene.convert(way).convert(mode)
        expected = np.asarray(scene.convert(way).convert("RGBA").convert("RGB"))
    else:
        picture = scene.convert(mode)
        expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_allclose(decode(picture).rgb.astype(int), expected, atol=1)


def test_arrays_of_names_are_names(tmp_path: Path) -> None:
    Image.fromarray(odd.SCENE).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode(np.array(str(tmp_path / "a.png"))).rgb, odd.SCENE)
