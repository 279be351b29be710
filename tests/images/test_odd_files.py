"""Every odd file by every way into the package: the same pixels, or one clear line."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import odd_files as odd
from anomalens.errors import InputError
from anomalens.images.decoding import decode, decode_mask, read_size
from odd_files import OddFile

FILES = odd.odd_files()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_path_bytes_header_and_mask_agree(file: OddFile, tmp_path: Path) -> None:
    path = tmp_path / file.name
    path.write_bytes(file.content)
    if file.pixels is None:
        for source in (path, file.content):
            with pytest.raises(InputError) as caught:
                decode(source)
            assert file.error in str(caught.value)
            assert "\n" not in str(caught.value)
        # A mask may have any values: what they mean is asked of images alone.
        if not any(words in file.error for words in ("integer pixels", "NaN", "expected 0 to 1")):
            with pytest.raises(InputError, match=r"cannot be read as a mask"):
                decode_mask(path)
        return
    for source in (path, file.content):
        decoded = decode(source)
        assert decoded.rgb.dtype == np.uint8
        assert decoded.rgb.flags.c_contiguous
        compared = odd.centres if file.tolerance > odd.LOSSY else np.asarray
        np.testing.assert_allclose(compared(decoded.rgb).astype(int), compared(file.pixels), atol=file.tolerance)
        assert (decoded.height, decoded.width) == file.pixels.shape[:2]
        assert (file.note in (decoded.note or "")) if file.note else decoded.note is None
    assert read_size(path) == (file.pixels.shape[1], file.pixels.shape[0])
    assert decode_mask(path).shape == file.pixels.shape[:2]


def test_there_are_many() -> None:
    assert len(FILES) >= 150
    assert len({file.name for file in FILES}) == len(FILES)


def test_every_format_and_mode_is_turned_by_every_tag(tmp_path: Path) -> None:
    path, upright = tmp_path / "picture", np.empty(0)
    for form, mode, tag, content in odd.tagged_files():
        path.write_bytes(content)
        rgb, case = decode(path).rgb.astype(int), f"{form} {mode} {tag}"
        # The first tag of each says that the picture stands upright.
        upright = rgb if tag == 1 else upright
        np.testing.assert_allclose(odd.centres(rgb), odd.centres(upright), atol=40, err_msg=case)
        assert read_size(path) == (odd.WIDTH, odd.HEIGHT), case
        assert decode_mask(path).shape == (odd.HEIGHT, odd.WIDTH), case


RARE = odd.rare_tiffs()


@pytest.mark.parametrize("file", RARE, ids=[file.name for file in RARE])
def test_rare_tiffs_are_read_or_named(file: OddFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / file.name
    path.write_bytes(file.content)
    assert file.pixels is not None
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "tifffile", None)
        with pytest.raises(InputError, match=r"-bit .*, which Pillow does not read: pip install 'anomalens\[tiff\]'"):
            decode(path)
    pytest.importorskip("tifffile")
    decoded = decode(path)
    np.testing.assert_allclose(decoded.rgb.astype(int), file.pixels, atol=1)
    assert (file.note in (decoded.note or "")) if file.note else decoded.note is None
    assert read_size(path) == (odd.WIDTH, odd.HEIGHT)


def test_deep_channels_in_planes_are_not_scrambled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "planes.tif"
    planes = np.ascontiguousarray((odd.SCENE.astype(np.uint16) * 257).transpose(2, 0, 1))
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(decode(path).rgb, odd.SCENE)
    with Image.open(path) as picture, pytest.raises(InputError, match="give the file"):
        decode(picture)
    with tifffile.TiffWriter(path) as writer:
        for _ in range(2):
            writer.write(odd.GREY / 255, contiguous=False)
    assert decode(path).note == "has several frames or pages: only the first was read"
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(InputError, match="3 channels of 16-bit unsigned integers, which Pillow does not read"):
        decode(path)


def test_heic_photographs_are_named_without_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "photo.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(InputError, match=r"HEIC photo.*anomalens\[heif\]"):
        decode(path)


def test_heic_photographs(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "photo.heic"
    for tag in odd.ORIENTATIONS:
        exif = Image.Exif()
        exif[0x0112] = tag
        stored = np.ascontiguousarray(odd.STORED.get(tag, np.asarray)(odd.SCENE))
        heif.from_pillow(Image.fromarray(stored)).save(path, quality=95, exif=exif.tobytes())
        assert np.abs(odd.centres(decode(path).rgb).astype(int) - odd.centres(odd.SCENE)).max() < 9
        assert read_size(path) == (odd.WIDTH, odd.HEIGHT)
    heif.from_pillow(Image.fromarray(odd.GREY // 100 * 255)).save(path, quality=60)
    np.testing.assert_array_equal(decode_mask(path), odd.GREY >= 100)
