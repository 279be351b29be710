"""Listing what a user names, and the bounded background stream."""

import gc
import io
import itertools
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalens.errors import ConfigError, InputError
from anomalens.images.sources import is_image_input, is_image_name, list_images, natural_key
from anomalens.threads import map_ordered


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def names(root: Path, found: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in found]


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
    given = [tmp_path / "y/1.png", str(tmp_path / "x"), tmp_path / "photo.dat", tmp_path / "y/1.png"]
    assert names(tmp_path, list_images(given)) == ["y/1.png", "x/1.png", "x/2.png", "photo.dat", "y/1.png"]


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
    for given, reason in [
        ("absent.png", "no such file"),
        ("nothing here", "no images in this folder"),
        ("texts", "no images in this folder"),
        ("*.jpg", "no image matches"),
    ]:
        with pytest.raises(InputError, match=reason) as caught:
            list_images([tmp_path / given])
        assert given in str(caught.value)
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


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 5), (4, 50)])
def test_stream_keeps_order(workers: int, ahead: int) -> None:
    assert list(map_ordered(range(30), lambda item: item * 2, workers, ahead)) == [
        (item, item * 2) for item in range(30)
    ]
    assert list(map_ordered([], str)) == []


def test_errors_are_results() -> None:
    results = dict(map_ordered([2, 0, 1], lambda item: 2 // item))
    assert isinstance(results.pop(0), ZeroDivisionError)
    assert results == {2: 1, 1: 2}


def test_memory_is_bounded_even_for_endless_input() -> None:
    class Picture:
        pass

    alive: weakref.WeakSet[Picture] = weakref.WeakSet()

    def load(item: int) -> Picture:
        picture = Picture()
        alive.add(picture)
        return picture

    most = 0
    produced = map_ordered(itertools.count(), load, workers=4, ahead=3)
    for item, _picture in produced:
        most = max(most, len(alive))
        if item == 40:
            break
    produced.close()
    assert most <= 3 + 1  # three waiting, one in hand
    del _picture
    gc.collect()
    assert len(alive) == 0


def test_loading_runs_ahead_but_no_further() -> None:
    begun: list[int] = []
    arrived = threading.Event()

    def load(item: int) -> int:
        begun.append(item)
        if item == 2:
            arrived.set()
        return item

    results = map_ordered(range(10), load, workers=1, ahead=3)
    assert next(results) == (0, 0)
    assert arrived.wait(10)  # items 1 and 2 are loaded without being asked for
    assert begun == [0, 1, 2]
    results.close()


@pytest.mark.parametrize("stop", [GeneratorExit, KeyboardInterrupt])
def test_closing_ends_the_threads(stop: type[BaseException]) -> None:
    results = map_ordered(range(1000), lambda item: item, workers=3, ahead=10)
    next(results)
    with pytest.raises(stop):
        results.throw(stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("anomalens")]


def test_failing_source_ends_the_stream_cleanly() -> None:
    def items():
        yield 1
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="source broke"):
        list(map_ordered(items(), str, ahead=4))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("anomalens")]


@pytest.mark.parametrize("bad", [{"workers": 0}, {"ahead": 0}])
def test_bad_stream_options_are_told_at_the_call(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        map_ordered([1], str, **bad)
