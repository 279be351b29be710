"""Masks: the same decoder as images, whatever file they are stored in."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

import odd_files as odd
from anomalens.errors import InputError
from anomalens.images.decoding import decode, decode_mask, read_size

TRUTH = np.zeros((64, 96), bool)
TRUTH[9:30, 20:41] = True
LOSSY = odd.lossy_formats()


def overlap(marks: np.ndarray, truth: np.ndarray) -> float:
    """Return intersection over union."""
    return float((marks & truth).sum() / (marks | truth).sum())


def test_image_and_mask_are_turned_alike_in_all_pairs_of_formats_and_tags(tmp_path: Path) -> None:
    ways: list[tuple[str, dict[str, Any]]] = [
        ("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {}), ("JPEG", {}),
        *([("AVIF", {})] if features.check("avif") else []),
    ]  # fmt: skip
    grey = TRUTH.astype(np.uint8) * 255
    shown, marks = {}, {}
    for (form, options), tag in itertools.product(ways, odd.ORIENTATIONS):
        exif = Image.Exif()
        exif[0x0112] = tag
        stored = np.ascontiguousarray(odd.STORED.get(tag, np.asarray)(grey))
        path = tmp_path / "file"
        Image.fromarray(stored).save(path, form, exif=exif, **options)
        assert read_size(path) == (96, 64)
        way = (form, *options.values(), tag)
        shown[way], marks[way] = decode(path).rgb[:, :, 0] > 127, decode_mask(path)
    for image, mask in itertools.product(shown, marks):
        assert overlap(marks[mask], shown[image]) > 0.95, (image, mask)


@pytest.mark.parametrize(("name", "form", "options"), LOSSY, ids=[way[0] for way in LOSSY])
def test_loss_marks_neither_more_nor_less(name: str, form: str, options: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / f"m.{name}"
    Image.fromarray(TRUTH.astype(np.uint8) * 255).convert("RGB").save(path, form, **options)
    assert overlap(decode_mask(path), TRUTH) > 0.98
    noise = np.random.default_rng(0).integers(0, 4, TRUTH.shape, dtype=np.uint8)
    Image.fromarray(noise).convert("RGB").save(path, form, **options)
    assert not decode_mask(path).any()
    Image.fromarray(np.where(TRUTH, 255, noise).astype(np.uint8)).convert("RGB").save(path, form, **options)
    assert overlap(decode_mask(path), TRUTH) > 0.98


def test_what_is_lossless_keeps_every_value(tmp_path: Path) -> None:
    values = TRUTH.astype(np.uint8)
    for form, options in (("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {"compression": "tiff_lzw"})):
        Image.fromarray(np.dstack([values] * 3)).save(tmp_path / "m", form, **options)
        np.testing.assert_array_equal(decode_mask(tmp_path / "m"), TRUTH)


def test_noise_that_was_saved_again_without_loss_is_none(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 4, TRUTH.shape, dtype=np.uint8)
    Image.fromarray(np.where(TRUTH, 252 + noise, noise)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(decode_mask(tmp_path / "m.png"), TRUTH)
    labels = TRUTH.astype(np.uint8)
    labels[40:, 40:] = 255
    labels[50:, :20] = 3
    Image.fromarray(labels).save(tmp_path / "m.png")
    np.testing.assert_array_equal(decode_mask(tmp_path / "m.png"), labels > 0)


def test_a_mask_that_holds_no_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.tif").write_bytes(odd.tiff(np.where(TRUTH, np.nan, 0).astype(np.float32)))
    with pytest.raises(InputError, match=r"m\.tif: cannot be read as a mask \(pixels contain NaN"):
        decode_mask(tmp_path / "m.tif")


def test_odd_masks_are_what_they_say(tmp_path: Path) -> None:
    deep = TRUTH.astype(np.uint16) * 65535
    for name, content in {
        "white is 0": odd.tiff(65535 - deep, photometric=0),
        "int8": odd.tiff(-TRUTH.astype(np.int8)),
        "uint32": odd.tiff(TRUTH.astype(np.uint32) * np.uint32(2**32 - 1)),
        "float": odd.tiff(TRUTH.astype(np.float32) * 9),
        "colours under an alpha of 0": odd.clear_bitmap(TRUTH[:, :, np.newaxis].repeat(3, 2) * np.uint8(255)),
    }.items():
        (tmp_path / "m.tif").write_bytes(content)
        np.testing.assert_array_equal(decode_mask(tmp_path / "m.tif"), TRUTH, err_msg=name)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow was built without JPEG 2000")
def test_headers_and_masks_have_the_limits_of_images(tmp_path: Path) -> None:
    path = tmp_path / "0_mask.png"
    rows = b"\0" * 1000
    for content in (odd.png(10_000, 12_000, rows), odd.png(1, 80_000_000, rows), b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        path.write_bytes(content)
        for read in (decode, decode_mask, read_size):
            with pytest.raises(InputError):
                read(path)
    path.write_bytes(odd.png(10_000, 12_000, rows))
    assert read_size(path, max_pixels=120_000_000) == (10_000, 12_000)


def test_an_orientation_behind_the_pixels_counts_in_the_header(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "late.png"
    content = odd.saved(Image.fromarray(odd.GREY), "PNG")
    end = content.rindex(b"IEND") - 4
    path.write_bytes(content[:end] + odd.chunk(b"eXIf", exif.tobytes()[6:]) + content[end:])
    assert read_size(path) == (odd.HEIGHT, odd.WIDTH)
    assert decode(path).rgb.shape == (odd.WIDTH, odd.HEIGHT, 3)
