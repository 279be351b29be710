"""Scenes on disk and in batches."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomalens.errors import InputError
from anomalens_lab import painting
from anomalens_lab.materials import collect, unevenness
from anomalens_lab.painting import paint_scenes, paint_shard, shard_config, sort_materials
from anomalens_lab.shards import PATCH, SHARD, SHARDS, Scenes, write_shard
from anomalens_lab.synthesis.config import HELD_OUT_FAMILIES, SynthesisConfig
from anomalens_lab.synthesis.words import KINDS
from anomalens_lab.vocabulary import frame, state_pair, thing


@pytest.fixture
def scenes(tmp_path: Path) -> Scenes:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (SHARD, 64, 64, 3), dtype=np.uint8)
    kinds = np.zeros((SHARD, 64, 64), np.uint8)
    kinds[1::2, 8:24, 8:24] = 3
    words = [{"captions": [f"thing {k}"], "subject": "thing", "family": "f", "kinds": []} for k in range(SHARD)]
    write_shard(tmp_path / "00000.json", images, kinds, words)
    return Scenes(tmp_path)


def test_a_shard_comes_back(scenes: Scenes) -> None:
    assert len(scenes) == SHARD
    assert scenes.image(5).shape == (64, 64, 3)
    batch = scenes.batch([0, 1], 64, np.random.default_rng(0), augment=False)
    assert torch.equal((batch.pixels[1] * 255).round().byte().permute(1, 2, 0), torch.tensor(scenes.image(1)))
    assert batch.abnormal.tolist() == [False, True]
    assert batch.captions == ["thing 0", "thing 1"]
    assert batch.cover[1, 0, 0] == 0.25
    assert batch.kinds[1, 0, 0] == 3
    assert batch.cover[1].sum() * 256 == 16 * 16


def test_augmented_batches_hang_on_the_generator_alone(scenes: Scenes) -> None:
    first, again, other = (scenes.batch([1, 3, 5], 48, np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, other.pixels)
    assert first.pixels.shape == (3, 3, 48, 48)
    assert first.pixels.min() >= 0
    assert first.pixels.max() <= 1


def test_no_crop_loses_the_defect(scenes: Scenes) -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        assert scenes.batch(list(range(1, 33, 2)), 64, rng).abnormal.all()


def test_twins_are_framed_alike(scenes: Scenes) -> None:
    batch = scenes.batch([1, 3, 5, 7], 64, np.random.default_rng(4), twins=True)
    assert torch.equal(batch.cover[0::2], batch.cover[1::2])
    apart = scenes.batch([1, 3, 5, 7], 64, np.random.default_rng(4))
    assert not torch.equal(apart.cover[0::2], apart.cover[1::2])


def test_a_share_of_the_twins_is_framed_apart(scenes: Scenes) -> None:
    indices = list(range(1, 128, 2))
    batch = scenes.batch(indices, 64, np.random.default_rng(4), twins=True, apart=0.5)
    alike = [torch.equal(a, b) for a, b in zip(batch.cover[0::2], batch.cover[1::2], strict=True)]
    assert 4 < sum(alike) < 28
    none = scenes.batch(indices, 64, np.random.default_rng(4), twins=True, apart=0.0)
    assert torch.equal(none.cover[0::2], none.cover[1::2])


def test_a_share_of_the_twins_is_as_soft_as_enlarged_photographs(scenes: Scenes) -> None:
    def grain(soft: float) -> torch.Tensor:
        pixels = scenes.batch(range(64), 64, np.random.default_rng(4), False, twins=True, soft=soft).pixels
        return (pixels[..., 1:] - pixels[..., :-1]).abs().mean((1, 2, 3))

    sharp, some, soft = grain(0.0), grain(0.5), grain(1.0)
    assert bool((soft < sharp).all())
    changed = some != sharp
    assert torch.equal(changed[0::2], changed[1::2]), "twins are alike"
    assert 4 < int(changed[0::2].sum()) < 28


def test_a_share_of_the_images_is_lit_unevenly(scenes: Scenes) -> None:
    def lit(uneven: float) -> torch.Tensor:
        return scenes.batch(range(64), 64, np.random.default_rng(4), False, twins=True, uneven=uneven).pixels

    even, some = lit(0.0), lit(0.5)
    changed = (even != some).flatten(1).any(1)
    assert 16 < int(changed.sum()) < 48
    assert not torch.equal(changed[0::2], changed[1::2]), "twins stand in a light of their own"
    middle = slice(31, 33)
    torch.testing.assert_close(some[..., middle, middle], even[..., middle, middle], atol=0.03, rtol=0)


def test_finer_cells_add_up_to_the_patches_they_fill(scenes: Scenes) -> None:
    coarse, fine = (
        scenes.batch([1, 3], 96, np.random.default_rng(0), twins=True, patch=patch) for patch in (PATCH, PATCH // 2)
    )
    assert fine.cover.shape == (2, 12, 12)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(fine.cover, 2), coarse.cover)
    torch.testing.assert_close(fine.pixels, coarse.pixels)


def test_painted_twins_differ_by_the_fault_alone(tmp_path: Path) -> None:
    path = tmp_path / "00000.json"
    paint_shard(path, 5, SynthesisConfig(size=64, exclude=HELD_OUT_FAMILIES))
    painted = Scenes(tmp_path)
    faulty = sum(bool(painted.kind(2 * k).any()) for k in range(SHARD // 2))
    assert faulty > SHARD // 4
    for k in range(SHARD // 2):
        assert not painted.kind(2 * k + 1).any()
        assert painted.words[2 * k]["subject"] == painted.words[2 * k + 1]["subject"]


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="paint them first"):
        Scenes(tmp_path)


def test_a_shard_without_words_does_not_exist(tmp_path: Path) -> None:
    np.save(tmp_path / "00000.images.npy", np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(InputError):
        Scenes(tmp_path)


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_materials_are_sorted_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grain = rng.integers(60, 200, (160, 160, 3), dtype=np.uint8)
    halves = grain.copy()
    halves[:, 80:] = halves[:, 80:] // 4
    picture(tmp_path / "a/stone.png", grain)
    picture(tmp_path / "a/stone_copy.png", grain)
    picture(tmp_path / "a/door.png", halves)
    picture(tmp_path / "a/stone_norm.png", rng.integers(0, 256, (160, 160, 3), dtype=np.uint8))
    picture(tmp_path / "a/tiny.png", grain[:32, :32])
    picture(tmp_path / "a/flat.png", np.full((160, 160, 3), 90, np.uint8))
    picture(tmp_path / "skies/sky.png", 255 - grain)
    (tmp_path / "a/broken.png").write_bytes(b"no picture")
    materials = collect([tmp_path])
    assert len(materials.surfaces) == 1
    assert len(materials.things) == 1
    assert unevenness(grain) < 0.4 < unevenness(halves)
    out = tmp_path / "sorted"
    assert sort_materials([tmp_path / "a"], out) == (1, 1)
    (tmp_path / "a").rename(tmp_path / "b")
    assert sort_materials([tmp_path / "a"], out) == (1, 1)  # all is there already
    with pytest.raises(InputError, match="other folders"):
        sort_materials([tmp_path / "b"], out)


def test_no_materials_is_an_answer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no usable"):
        collect([tmp_path])
    with pytest.raises(InputError, match="no folder"):
        collect([tmp_path / "gone"])


def test_held_out_families_are_never_trained_on(tmp_path: Path) -> None:
    held_out = shard_config(0, 256, None, 0.5, held_out=True)
    assert set(held_out.surfaces + held_out.parts) == set(HELD_OUT_FAMILIES)
    for number in (0, 9):
        config = shard_config(number, 256, tmp_path, 0.5, held_out=False)
        assert not set(config.surfaces + config.parts + config.skins) & set(HELD_OUT_FAMILIES)
    assert shard_config(9, 256, tmp_path, 0.5, held_out=False).materials == (tmp_path / "things",)


def test_wide_defects_are_drawn_in_every_shard(tmp_path: Path) -> None:
    for number, materials, held_out in ((0, None, True), (0, None, False), (1, tmp_path, False), (9, tmp_path, False)):
        assert shard_config(number, 256, materials, 0.5, held_out, wide=0.3).wide_share == 0.3


def test_prompts_are_about_opposite_states_of_one_thing() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        normal, abnormal = state_pair(rng, ("woven fabric",), ("quantum",))
        assert normal != abnormal
        assert "{" not in normal + abnormal
    names = {thing(rng, ("woven fabric",), ("quantum",)) for _ in range(400)}
    assert {"object", "woven fabric", "quantum"} <= names
    assert all("quantum" in frame(rng)("quantum") for _ in range(100))


def test_kinds_begin_with_sound() -> None:
    assert KINDS[0] == "none"


@pytest.mark.parametrize("other", [{"seed": 2}, {"size": 80}, {"held_out": True}, {"materials": True}, {"wide": 0.3}])
def test_scenes_painted_otherwise_do_not_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    picture(tmp_path / "photographs/surfaces/0.png", np.zeros((64, 64, 3), np.uint8))
    changes = other | ({"materials": tmp_path / "photographs"} if "materials" in other else {})
    monkeypatch.setattr(painting, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(painting, "paint_shard", lambda path, *_: path.write_text("[]"))
    for count in (SHARD, 2 * SHARD):
        paint_scenes(tmp_path / "scenes", count, size=64, seed=1)
    assert [p.name for p in sorted((tmp_path / "scenes").glob(SHARDS))] == ["00000.json", "00001.json"]
    with pytest.raises(InputError, match="painted otherwise"):
        paint_scenes(tmp_path / "scenes", SHARD, **{"size": 64, "seed": 1, **changes})
    (tmp_path / "scenes/settings.json").unlink()  # nobody knows what these are
    with pytest.raises(InputError, match="painted otherwise"):
        paint_scenes(tmp_path / "scenes", SHARD, size=64, seed=1)


class Inline:
    """Work at once, in place of an executor."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., None], *arguments: object) -> "Future[None]":
        done: Future[None] = Future()
        try:
            work(*arguments)
            done.set_result(None)
        except OSError as error:
            done.set_exception(error)
        return done

    def shutdown(self, *, cancel_futures: bool) -> None:
        assert cancel_futures


def test_a_shard_that_fails_ends_the_painting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(painting, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(painting, "paint_shard", full)
    with pytest.raises(OSError, match="no space"):
        paint_scenes(tmp_path, SHARD, size=64)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1e6))
    with pytest.raises(InputError, match=r"the scenes take 0\.2 GB and 0\.0 GB are free"):
        paint_scenes(tmp_path, 40 * SHARD, size=64)
