import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from anomalens.errors import ConfigError
from anomalens_lab.synthesis import (
    FAMILIES,
    HELD_OUT_FAMILIES,
    KINDS,
    PART_FAMILIES,
    SURFACE_FAMILIES,
    Scene,
    SynthesisConfig,
    render,
    scene,
    scenes,
    twins,
)
from anomalens_lab.synthesis.fields import blur
from anomalens_lab.synthesis.rendering import VISIBLE

SMALL = SynthesisConfig(size=96)


@pytest.fixture(scope="module")
def crowd() -> list[Scene]:
    return [scene(seed, SMALL) for seed in range(400)]


def same(a: Scene, b: Scene) -> bool:
    return (
        np.array_equal(a.image, b.image)
        and np.array_equal(a.kinds, b.kinds)
        and (a.family, a.subject, a.caption, a.defect_words) == (b.family, b.subject, b.caption, b.defect_words)
    )


def test_a_scene_is_a_function_of_its_seed() -> None:
    first = [scene(seed, SMALL) for seed in (3, 11, 2**40)]
    again = [scene(seed, SMALL) for seed in (2**40, 11, 3)][::-1]
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not same(first[0], first[1])


def test_another_process_draws_the_same() -> None:
    code = (
        "import zlib; from anomalens_lab.synthesis import *;"
        "print([zlib.crc32(scene(s, SynthesisConfig(size=96)).image.tobytes()) for s in (5, 6, 7)])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str([zlib.crc32(scene(s, SMALL).image.tobytes()) for s in (5, 6, 7)])


def test_scenes_come_in_order_whatever_the_workers() -> None:
    alone = list(scenes(20, 40, SMALL))
    helped = list(scenes(20, 40, SMALL, workers=2))
    assert [s.seed for s in helped] == list(range(40, 60))
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))
    assert list(scenes(0, 0, SMALL)) == []


def test_shapes_and_consistency(crowd: list[Scene]) -> None:
    for s in crowd:
        assert s.image.shape == (96, 96, 3)
        assert s.image.dtype == np.uint8
        assert s.mask.shape == s.kinds.shape == (96, 96)
        assert s.mask.dtype == bool
        assert np.array_equal(s.mask, s.kinds > 0)
        assert s.anomalous == s.mask.any() == bool(s.kind_names) == bool(s.defect_words)
        assert len(s.defect_words) == len(s.kind_names)
        assert s.family in (*FAMILIES, "photograph")


def test_outside_the_mask_nothing_changed_inside_it_did() -> None:
    for seed in range(120):
        r = render(seed, SMALL, anomalous=True)
        if not r.layers:
            continue
        mask = np.logical_or.reduce([m for _, m in r.layers])
        change = np.abs(blur(r.faulty - r.clean, r.shot.sigma)).max(-1)
        assert np.quantile(change[~mask], 0.999) <= VISIBLE * len(r.layers) + 1e-6
        assert change[~mask].max() <= 3 * VISIBLE  # hairlines that the camera blurs below sight
        assert change[mask].mean() >= 0.9 * VISIBLE


def test_sound_scenes_are_the_clean_rendering() -> None:
    r = render(8, SMALL, anomalous=False)
    assert r.layers == ()
    assert np.array_equal(r.clean, r.faulty)


def test_twins_differ_only_at_the_defect() -> None:
    checked = 0
    for seed in range(30):
        faulty, sound = twins(seed, SMALL)
        assert not sound.anomalous
        assert not sound.mask.any()
        if faulty.anomalous:
            checked += 1
            change = np.abs(faulty.image.astype(float) - sound.image).mean(-1)
            assert change[faulty.mask].mean() > change[~faulty.mask].mean() + 2
    assert checked > 25


def test_shares(crowd: list[Scene]) -> None:
    assert 0.28 < np.mean([not s.anomalous for s in crowd]) < 0.48
    kinds = [k for s in crowd for k in s.kind_names]
    assert set(kinds) == set(KINDS[1:])
    assert max(kinds.count(k) for k in KINDS[1:]) < 0.25 * len(kinds)
    assert len({s.family for s in crowd}) > 0.9 * len(FAMILIES)
    assert 0.35 < np.mean([s.family in PART_FAMILIES for s in crowd]) < 0.65
    areas = np.array([s.mask.mean() for s in crowd if s.anomalous])
    assert (areas < 0.003).mean() > 0.05
    assert (areas > 0.05).mean() > 0.1


def test_diversity_of_colour_contrast_and_detail(crowd: list[Scene]) -> None:
    pictures = np.stack([s.image for s in crowd]).astype(np.float32) / 255
    brightness, contrast = pictures.mean((1, 2, 3)), pictures.std((1, 2)).mean(-1)
    detail = np.abs(np.diff(pictures, axis=2)).mean((1, 2, 3)) / (contrast + 1e-3)
    colourful = (pictures.max(-1) - pictures.min(-1)).mean((1, 2))
    for values, spread in ((brightness, 0.12), (contrast, 0.05), (detail, 0.1), (colourful, 0.05)):
        assert values.std() > spread
    assert np.quantile(contrast, 0.1) < 0.06 < 0.14 < np.quantile(contrast, 0.9)
    assert 0.15 < (colourful < 0.02).mean() < 0.6
    # No two scenes are alike: nearest neighbours in thumbnails stay apart.
    thumbs = pictures[:, ::8, ::8].reshape(len(crowd), -1)
    gaps = ((thumbs[:200, None] - thumbs[None, :200]) ** 2).mean(-1) + np.eye(200)
    assert gaps.min() > 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_draws_both_states(family: str) -> None:
    config = SynthesisConfig(size=64, include=(family,))
    pairs = [twins(seed, config) for seed in range(4)]
    assert all(f.family == family for f, _ in pairs)
    assert any(f.anomalous for f, _ in pairs)
    assert all(s.image.std() > 0 for _, s in pairs)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_every_kind_can_be_asked_for_alone(kind: str) -> None:
    config = SynthesisConfig(size=64, kinds=(kind,), normal_share=0)
    drawn = [scene(seed, config) for seed in range(10)]
    assert {k for s in drawn for k in s.kind_names} == {kind}


def test_wide_defects_cover_much_of_the_thing() -> None:
    usual, wide = (
        [scene(seed, SynthesisConfig(size=96, part_share=0, normal_share=0, wide_share=share)) for seed in range(60)]
        for share in (0.0, 1.0)
    )
    assert {k for s in wide for k in s.kind_names} == {"crack", "stain", "discolouration", "worn"}
    usual_area, wide_area = (np.median([s.mask.mean() for s in drawn if s.anomalous]) for drawn in (usual, wide))
    assert wide_area > 3 * usual_area
    no_wide_kind = SynthesisConfig(size=64, kinds=("dent",), normal_share=0, wide_share=1)
    assert {k for seed in range(10) for k in scene(seed, no_wide_kind).kind_names} == {"dent"}


def test_held_out_families_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from anomalens_lab.synthesis.surfaces import SURFACES

    assert 0.15 < len(HELD_OUT_FAMILIES) / len(FAMILIES) < 0.25
    assert set(HELD_OUT_FAMILIES) & set(SURFACE_FAMILIES)
    assert set(HELD_OUT_FAMILIES) & set(PART_FAMILIES)
    for name in set(HELD_OUT_FAMILIES) & set(SURFACES):
        monkeypatch.delitem(SURFACES, name)  # drawing one of them anywhere would now fail
    config = SynthesisConfig(size=64, exclude=HELD_OUT_FAMILIES)
    assert not {s.family for s in scenes(150, 0, config)} & set(HELD_OUT_FAMILIES)
    kept = SynthesisConfig(size=64, include=HELD_OUT_FAMILIES[6:], exclude=HELD_OUT_FAMILIES[:6])
    assert {s.family for s in scenes(40, 0, kept)} <= set(HELD_OUT_FAMILIES[6:])


def test_photographs_become_surfaces(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(3):
        Pillow.fromarray(rng.integers(0, 255, (90 + k, 200, 3), np.uint8)).save(tmp_path / f"{k}.png")
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    Pillow.new("RGB", (100, 100), "red").save(tmp_path / "flat.png")
    config = SynthesisConfig(size=64, materials=(tmp_path,), material_share=0.7)
    drawn = [scene(seed, config) for seed in range(40)]
    assert any(s.family == "photograph" for s in drawn)
    assert any(s.family in SURFACE_FAMILIES for s in drawn)
    assert all(same(s, scene(s.seed, config)) for s in drawn[:5])


@pytest.mark.parametrize("materials", ["empty", "missing"])
def test_no_photographs_is_no_error(tmp_path: Path, materials: str) -> None:
    (tmp_path / "empty").mkdir()
    config = SynthesisConfig(size=64, materials=(tmp_path / materials,), material_share=1.0)
    assert scene(1, config).family in FAMILIES


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": 20}, "size"),
        ({"normal_share": 1.5}, "normal_share"),
        ({"grey_share": -0.1}, "grey_share"),
        ({"wide_share": 1.1}, "wide_share"),
        ({"include": ("unicorn",)}, "unicorn"),
        ({"exclude": FAMILIES}, "exclude"),
        ({"kinds": ("none",)}, "kinds"),
        ({"kinds": ()}, "kinds"),
        ({"max_defects": 0}, "max_defects"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        SynthesisConfig(**options)


def test_bad_seeds_and_counts() -> None:
    for call in (lambda: scene(-1), lambda: twins(-1), lambda: list(scenes(-1)), lambda: list(scenes(1, workers=-1))):
        with pytest.raises(ConfigError):
            call()
