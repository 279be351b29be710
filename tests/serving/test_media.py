"""Test that maps in the media folder are read as they were, and that damaged ones are told."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from anomalens.errors import InputError
from anomalens.images.maps import Map
from anomalens.serving.media import pack_map, unpack_map


def smooth(height: int, width: int) -> Map:
    """Return a map as methods make them: smooth, float32."""
    rows, columns = np.mgrid[:height, :width]
    return np.asarray(0.5 + 0.3 * np.sin(rows / 40) * np.cos(columns / 50), np.float32)


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (448, 448)])
def test_a_map_is_read_as_it_was(shape: tuple[int, int], tmp_path: Path) -> None:
    values = smooth(*shape)
    values[0, 0] = np.float32(1e-42)
    path = tmp_path / "map"
    path.write_bytes(pack_map(values))
    np.testing.assert_array_equal(unpack_map(path), values, strict=True)


def test_a_map_takes_two_thirds_of_its_bytes_at_most() -> None:
    values = smooth(448, 448)
    assert len(pack_map(values)) < values.nbytes * 2 / 3


def test_maps_that_were_compressed_as_a_whole_are_read(tmp_path: Path) -> None:
    values = smooth(20, 30)
    planes = values.view(np.uint8).reshape(-1, 4).T
    path = tmp_path / "map"
    path.write_bytes(np.array(values.shape, "<u4").tobytes() + zlib.compress(planes.tobytes(), 1))
    np.testing.assert_array_equal(unpack_map(path), values, strict=True)


def test_damaged_maps_are_told(tmp_path: Path) -> None:
    content = pack_map(smooth(20, 30))
    path = tmp_path / "map"
    for damaged in (b"", content[:8], content[:-30], content[:4] + b"\xff" * 4 + content[8:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="inspect the image again"):
            unpack_map(path)
