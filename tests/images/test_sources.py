"""Listing what a user names."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalens.errors import InputError
from anomalens.images.sources import is_image_input, is_image_name, list_images, natural_key


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def names(root: Path, images: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in images]


def test_folder_is_listed_naturally_without_hidden_and_foreign_files(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b/10.PNG",
        "b/2.jpg",
        "a.tiff",
        "notes.txt",
        ".hidden.png",
        ".git/x.png",
        "b/ä ö\n.webp",
        "10.bmp",
        "9.bmp",
    )
    assert names(tmp_path, list_images([tmp_path])) == [
        "9.bmp",
        "10.bmp",
        "a.tiff",
        "b/2.jpg",
        "b/10.PNG",
        "b/ä ö\n.webp",
    ]


def test_inputs_keep_their_order_and_repetitions(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.png", "x/2.png", "y/1.png", "photo.dat")
    inputs: list[str | Path] = [tmp_path / "y/1.png", str(tmp_path / "x"), tmp_path / "photo.dat", tmp_path / "y/1.png"]
    assert names(tmp_path, list_images(inputs)) == ["y/1.png", "x/1.png", "x/2.png", "photo.dat", "y/1.png"]


def test_patterns(tmp_path: Path) -> None:
    touch(tmp_path, "a/good/2.png", "a/good/10.png", "b/good/1.png", "b/bad/1.png", "b/notes.txt", "b/5.png")
    assert names(tmp_path, list_images([str(tmp_path / "*/good")])) == ["a/good/2.png", "a/good/10.png", "b/good/1.png"]
    assert names(tmp_path, list_images([str(tmp_path / "b/*.*")])) == ["b/5.png"]
    assert len(list_images([str(tmp_path / "**")])) == 5  # matched through every folder above it, listed once


def test_name_that_looks_like_a_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "[1]*.png", "1.png")
    assert names(tmp_path, list_images([tmp_path / "[1]*.png"])) == ["[1]*.png"]


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "real/1.png", "real/sub/2.png")
    (tmp_path / "real/sub/up").symlink_to(tmp_path / "real")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/linked").symlink_to(tmp_path / "real")
    (tmp_path / "set/self").symlink_to(tmp_path / "set")
    assert names(tmp_path, list_images([tmp_path / "set"])) == ["set/linked/1.png", "set/linked/sub/2.png"]


def test_missing_and_empty_are_named(tmp_path: Path) -> None:
    (tmp_path / "nothing here").mkdir()
    touch(tmp_path, "texts/a.txt")
    for name, reason in [
        ("absent.png", "no such file"),
        ("nothing here", "no images in this folder"),
        ("texts", "no images in this folder"),
        ("*.jpg", "no image matches"),
    ]:
        with pytest.raises(InputError, match=reason) as caught:
            list_images([tmp_path / name])
        assert name in str(caught.value)
    assert list_images([]) == []


def test_dangling_link_is_left_to_its_own_row(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path, list_images([tmp_path / "gone.png"])) == ["gone.png"]


def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(InputError, match="cannot be read"):
        list_images([tmp_path])


def test_natural_order() -> None:
    ordered = ["1", "01", "2", "10", "a/2", "a/10", "A1", "a1", "a2b", "a2b3", "b"]
    for seed in range(3):
        shuffled = [str(name) for name in np.random.default_rng(seed).permutation(ordered)]
        assert sorted(shuffled, key=natural_key) == sorted(ordered, key=natural_key)
    key = natural_key
    assert key("part2") < key("part10") < key("part10b") < key("q")
    assert key("a/part9") < key("a/part10") < key("b")


def test_one_image_or_several(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].png")
    single = [
        tmp_path / "a[1].png", "absent.png", b"x", bytearray(b"x"), memoryview(b"x"), io.BytesIO(b"x"),
        Image.new("L", (1, 1)), np.zeros((2, 2)), np.zeros((2, 2), ">u2"), torch.zeros(3, 2, 2),
    ]  # fmt: skip
    several = [
        tmp_path, str(tmp_path / "*.png"), ["a.png"], (tmp_path,), iter([]), np.zeros((2, 2, 2, 3)),
        np.array(["a.png", "b.png"]), np.array([tmp_path, tmp_path]),
    ]  # fmt: skip
    assert all(is_image_input(value) for value in single)
    assert not any(is_image_input(value) for value in several)
    with (tmp_path / "a[1].png").open("rb") as stream:
        assert is_image_input(stream)


def test_image_names() -> None:
    assert all(map(is_image_name, ["a.png", "B.JPEG", "a.b.tif", "ä ö.webp"]))
    assert not any(map(is_image_name, ["._a.png", ".png", "png", "a.txt", "a.png.part", ""]))
