"""Anomaly maps: resizing, tiles that cover, seamless merging, files that come back."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anomalens.errors import ConfigError, InputError
from anomalens.images.maps import Box, merge_tiles, read_map, resize_map, tiles, write_map

SIDE = st.integers(1, 70)


@pytest.mark.parametrize(
    ("source", "target"), [((7, 5), (21, 40)), ((1, 1), (3, 2)), ((1, 6), (5, 6)), ((4, 4), (9, 4))]
)
def test_enlarging_equals_torch(source: tuple[int, int], target: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random(source, np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], target, mode="bilinear")[0, 0]
    resized = resize_map(values, target)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, expected.numpy(), atol=1e-6)


def test_same_size_is_a_copy() -> None:
    values = np.ones((2, 3), np.float32)
    resized = resize_map(values, (2, 3))
    resized[:] = 0
    assert values.all()


@settings(max_examples=40, deadline=None)
@given(SIDE, SIDE, SIDE, SIDE, st.floats(-1e6, 1e6, width=32))
def test_constant_map_stays_constant_when_resized(h: int, w: int, height: int, width: int, value: float) -> None:
    assert (resize_map(np.full((h, w), value, np.float32), (height, width)) == np.float32(value)).all()


@settings(max_examples=100, deadline=None)
@given(SIDE, SIDE, st.integers(1, 30), st.floats(0, 0.99))
def test_tiles_cover_overlap_and_fit(height: int, width: int, tile: int, overlap: float) -> None:
    boxes = tiles(height, width, tile, overlap)
    covered = np.zeros((height, width), bool)
    for box in boxes:
        assert 0 <= box.left < box.right <= width
        assert 0 <= box.top < box.bottom <= height
        assert (box.right - box.left, box.bottom - box.top) == (min(tile, width), min(tile, height))
        covered[box.slices] = True
    assert covered.all()
    assert len(set(boxes)) == len(boxes)
    lefts = sorted({box.left for box in boxes})
    assert all(second - first <= max(1, tile - overlap * tile) for first, second in itertools.pairwise(lefts))


def test_tiles_by_hand() -> None:
    assert tiles(240, 300, 240, 0) == [Box(0, 0, 240, 240), Box(60, 0, 300, 240)]
    assert tiles(100, 50, 240, 0.25) == [Box(0, 0, 50, 100)]
    assert [box.top for box in tiles(700, 10, 300, 1 / 3)] == [0, 200, 400]


@pytest.mark.parametrize("bad", [(0, 5, 4, 0.1), (5, 5, 0, 0.1), (5, 5, 4, 1.0), (5, 5, 4, -0.1)])
def test_bad_tiles(bad: tuple[int, int, int, float]) -> None:
    with pytest.raises(ConfigError):
        tiles(*bad)


@settings(max_examples=40, deadline=None)
@given(SIDE, SIDE, st.integers(2, 30), st.floats(0, 0.8), st.floats(-1e6, 1e6, width=32))
def test_constant_tiles_merge_to_the_same_constant(
    height: int, width: int, tile: int, overlap: float, value: float
) -> None:
    boxes = tiles(height, width, tile, overlap)
    merged = merge_tiles((np.full((3, 3), value, np.float32) for _ in boxes), boxes, (height, width))
    assert (merged == np.float32(value)).all()


def test_parts_of_one_map_merge_to_that_map() -> None:
    whole = np.random.default_rng(0).random((50, 90), np.float32)
    boxes = tiles(50, 90, 32, 0.25)
    np.testing.assert_allclose(merge_tiles([whole[box.slices] for box in boxes], boxes, (50, 90)), whole, atol=1e-6)


def test_no_seam_where_tiles_disagree() -> None:
    boxes = tiles(40, 100, 60, 1 / 3)
    merged = merge_tiles([np.full((40, 60), value, np.float32) for value in (0, 1)], boxes, (40, 100))
    assert merged[20, 0] == 0
    assert merged[20, -1] == 1
    assert np.abs(np.diff(merged, axis=1)).max() < 0.12  # 20 shared columns: a hard seam would be 1


def test_tiles_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not cover"):
        merge_tiles([np.zeros((2, 2), np.float32)], [Box(0, 0, 2, 2)], (2, 3))
    with pytest.raises(ValueError, match="zip"):
        merge_tiles([], [Box(0, 0, 2, 2)], (2, 2))


VALUES = np.random.default_rng(0).normal(0.48, 0.004, (9, 7)).astype(np.float32)


def test_npy_is_exact_and_png_known_to_half_a_step(tmp_path: Path) -> None:
    write_map(tmp_path / "map.npy", VALUES, (0.4, 0.6))
    np.testing.assert_array_equal(read_map(tmp_path / "map.npy"), VALUES)
    write_map(tmp_path / "map.PNG", VALUES, (0.4, 0.6))
    assert np.abs(read_map(tmp_path / "map.PNG") - VALUES).max() <= 0.2 / 65535 / 2 + 1e-7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.PNG", "map.npy"]


def test_png_says_how_many_values_it_cut(tmp_path: Path) -> None:
    write_map(tmp_path / "map.png", np.array([[-1.0, 0.5, 2.0]], np.float32), (0, 1))
    with Image.open(tmp_path / "map.png") as image:
        assert image.info["anomalens:cut"] == "2"
        assert (image.info["anomalens:low"], image.info["anomalens:high"]) == ("0.0", "1.0")
    np.testing.assert_allclose(read_map(tmp_path / "map.png"), [[0, 0.5, 1]], atol=1e-5)


def test_bad_map_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'\.jpg'"):
        write_map(tmp_path / "map.jpg", VALUES, (0, 1))
    Image.new("L", (2, 2)).save(tmp_path / "plain.png")
    with pytest.raises(InputError, match="without the scale"):
        read_map(tmp_path / "plain.png")
    for name in ("broken.png", "broken.npy", "missing.npy"):
        if name.startswith("broken"):
            (tmp_path / name).write_bytes(b"x")
        with pytest.raises(InputError, match=name):
            read_map(tmp_path / name)
