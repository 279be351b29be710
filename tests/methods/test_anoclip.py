"""AnoCLIP and AnoCLIP+: the recorded runs of the published code, the work done, and what must not change a result."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import golden
import synthetic
from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip
from anomalens.errors import ConfigError
from anomalens.methods import anoclip, base
from anomalens.methods.anoclip import AnoCLIP, Config, TextSide, TileFeatures
from anomalens.methods.base import ScoreMap

G = golden.load("anoclip")


def check(name: str, values: Tensor) -> None:
    agrees, report = synthetic.compare(G["values"][name], values)
    assert agrees, (name, report)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip.from_state_dict(synthetic.config(G["clip"], "gelu"), synthetic.state_dict(G["clip"]))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.from_numpy(synthetic.make(G["inputs"]["images"]))


@pytest.fixture(scope="module")
def features(clip: Clip, images: Tensor) -> TileFeatures:
    return AnoCLIP(clip.config, Config()).encode(clip, images)


@pytest.fixture(scope="module")
def wide_features(clip: Clip) -> TileFeatures:
    method = AnoCLIP(clip.config, Config(geometry="wide", views=1))
    return method.encode(clip, torch.from_numpy(synthetic.make(G["inputs"]["wide_image"])))


@pytest.fixture(scope="module")
def texts(clip: Clip) -> dict[str, TextSide]:
    method, encoder = AnoCLIP(clip.config, Config()), PromptEncoder(clip)
    pair, table = (torch.from_numpy(rows) for rows in synthetic.text_pair(**G["inputs"]["text_pair"]))
    return {"pair": TextSide("pair", pair, table), **{n: method.text(encoder, n) for n in ("bottle", "carpet")}}


# ------------------------------------------------------------------------------------------------------ recorded runs
@pytest.mark.parametrize("name", ["bottle", "carpet"])
def test_text_side(texts: dict[str, TextSide], name: str) -> None:
    check(f"T_{name}", texts[name].pair)
    check(f"E_{name}", texts[name].table)


def test_features(features: TileFeatures) -> None:
    assert features.cls is not None
    check("cls", features.cls)
    check("dense", features.dense[0][0])
    assert features.classes is not None
    check("views_cls", features.classes[0])
    assert features.grid == (15, 15)


def test_views(images: Tensor) -> None:
    check("views", anoclip.views(images)[0])


@pytest.mark.parametrize(("name", "prefix"), [("bottle", ""), ("carpet", ""), ("pair", "pair_")])
def test_scores_and_maps(
    clip: Clip, features: TileFeatures, texts: dict[str, TextSide], name: str, prefix: str
) -> None:
    suffix = "" if prefix else f"_{name}"
    scored = AnoCLIP(clip.config, Config()).score(features, texts[name], (240, 240))
    check(f"{prefix}tfa_map{suffix}", scored.map)
    check(f"{prefix}score_22views{suffix}", scored.score)


@pytest.mark.parametrize("name", ["bottle", "carpet"])
def test_scores_of_one_view_and_of_each_view(
    clip: Clip, features: TileFeatures, texts: dict[str, TextSide], name: str
) -> None:
    identity = TileFeatures(features.cls, features.dense, features.grid)
    method = AnoCLIP(clip.config, Config(views=1))
    check(f"score_1view_{name}", method.score(identity, texts[name], (8, 8)).score)
    assert features.classes is not None
    every = features.classes[0]
    one_by_one = [
        method.score(TileFeatures(v[None], features.dense, (15, 15)), texts[name], (8, 8)).score for v in every
    ]
    check(f"score_per_view_{name}", torch.cat([s[:1] for s in one_by_one]))


@pytest.mark.parametrize(("name", "prefix"), [("bottle", ""), ("carpet", ""), ("pair", "pair_")])
def test_wide_images_are_two_merged_tiles(
    clip: Clip, wide_features: TileFeatures, texts: dict[str, TextSide], name: str, prefix: str
) -> None:
    suffix = "" if prefix else f"_{name}"
    method = AnoCLIP(clip.config, Config(geometry="wide", views=1))
    scored = method.score(wide_features, texts[name], (240, 300))
    check(f"{prefix}tiled_tfa_map{suffix}", scored.map)
    check(f"{prefix}tiled_score{suffix}", scored.score)


# ------------------------------------------------------------------------------------------------------ a small model
def small(layers: int = 3, image_size: int = 32, dtype: torch.dtype = torch.float32) -> Clip:
    torch.manual_seed(0)
    vision = VisionConfig(image_size=image_size, patch=8, width=32, layers=layers, heads=2)
    model = Clip(ClipConfig(vision, TextConfig(width=16, layers=2, heads=2), joint=24))
    return model.eval().requires_grad_(False).to(dtype)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def compact() -> Clip:
    return small()


def run(
    clip: Clip,
    pixels: Tensor,
    keys: Sequence[int] = (),
    name: str = "anoclip+",
    size: tuple[int, int] | None = None,
    **options: Any,
) -> ScoreMap:
    method = base.create(name, clip.config, **options)
    text = method.text(PromptEncoder(clip), "widget")
    return method.score(method.encode(clip, pixels, keys), text, size or (pixels.shape[-2], pixels.shape[-1]))


# --------------------------------------------------------------------------------------------------------------- work
@pytest.mark.parametrize(("views", "tiles"), [(1, 1), (22, 1), (1, 2), (22, 2)])
def test_tower_and_text_are_asked_for_no_more_than_needed(views: int, tiles: int) -> None:
    clip = small()
    passes: list[tuple[int, int]] = []
    clip.visual.register_forward_hook(
        lambda _, args, output: passes.append((args[0].shape[0], sum(len(taps) for taps in output.dense)))
    )
    method = base.create("anoclip+", clip.config, views=views, geometry="wide" if tiles > 1 else "squash")
    encoder = PromptEncoder(clip)
    text = method.text(encoder, "widget")
    for pixels in (noise(3, 3, 32, 32 * tiles), noise(3, 3, 32, 32 * tiles, seed=2)):
        passes.clear()
        method.score(method.encode(clip, pixels), method.text(encoder, "widget"), (32, 32))
        assert sum(images for images, dense in passes if dense) == 3 * tiles, "one dual-path pass a tile"
        assert sum(images for images, _ in passes) == 3 * tiles * views, "further views give their class token only"
        assert len([1 for _, dense in passes if dense]) == 1
    assert encoder.encoded == 924, "sentences are encoded once"
    assert text.table.shape == (924, 24)


def test_views_run_in_bounded_groups() -> None:
    clip = small(layers=1)
    rows: list[int] = []
    clip.visual.register_forward_hook(lambda _, args, __: rows.append(args[0].shape[0]))
    AnoCLIP(clip.config, Config()).encode(clip, noise(9, 3, 32, 32))
    assert max(rows) <= 64
    assert sum(rows) == 9 * 22


# ---------------------------------------------------------------------------------------------------------- behaviour
def test_adaptation_changes_the_map_and_not_a_bit_of_the_score(compact: Clip) -> None:
    pixels = noise(2, 3, 32, 32)
    plain, plus = (run(compact, pixels, name=name) for name in ("anoclip", "anoclip+"))
    assert torch.equal(plain.score, plus.score)
    assert (plain.map - plus.map).abs().max() > 1e-4


@pytest.mark.parametrize("adapter", ["dictionary", "linear"])
@pytest.mark.parametrize("geometry", ["squash", "wide"])
def test_batch_and_order_change_nothing(compact: Clip, adapter: str, geometry: str) -> None:
    pixels = noise(4, 3, 32, 40 if geometry == "wide" else 32)
    options: dict[str, Any] = {"adapter": adapter, "geometry": geometry}
    together = run(compact, pixels, keys=[3, 1, 4, 1], **options)
    order = [2, 0, 3, 1]
    shuffled = run(compact, pixels[order], keys=[4, 3, 1, 1], **options)
    alone = [run(compact, pixels[i : i + 1], keys=[key], **options) for i, key in enumerate((3, 1, 4, 1))]
    for actual, expected in (
        (shuffled.map, together.map[order]),
        (torch.cat([a.map for a in alone]), together.map),
        (torch.cat([a.score for a in alone]), together.score),
    ):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


def test_random_numbers_follow_seed_and_content(compact: Clip) -> None:
    pixels = noise(1, 3, 32, 32).repeat(2, 1, 1, 1)
    same = run(compact, pixels, views=1)
    torch.testing.assert_close(same.map[0], same.map[1], rtol=0, atol=1e-6)
    keyed = run(compact, pixels, keys=[1, 2], views=1)
    assert (keyed.map[0] - keyed.map[1]).abs().max() > 1e-5
    seeded = run(compact, pixels, keys=[1, 2], views=1, seed=5)
    assert (keyed.map[0] - seeded.map[0]).abs().max() > 1e-5


def test_carried_optimizer_depends_on_order_and_only_within_an_object(compact: Clip) -> None:
    pixels = noise(2, 3, 32, 32)
    fresh = run(compact, pixels, keys=[1, 2], views=1)
    carried = run(compact, pixels, keys=[1, 2], views=1, carry_optimizer=True)
    torch.testing.assert_close(carried.map[0], fresh.map[0], rtol=0, atol=1e-6)
    assert (carried.map[1] - fresh.map[1]).abs().max() > 1e-6
    method = base.create("anoclip+", compact.config, views=1, carry_optimizer=True)
    encoder = PromptEncoder(compact)
    maps = [
        method.score(method.encode(compact, pixels[:1], [1]), method.text(encoder, name), (32, 32)).map
        for name in ("bolt", "nut", "bolt")
    ]
    other = base.create("anoclip+", compact.config, views=1)
    alone = other.score(other.encode(compact, pixels[:1], [1]), other.text(encoder, "nut"), (32, 32)).map
    torch.testing.assert_close(maps[1], alone, rtol=0, atol=1e-6)
    assert (maps[2] - maps[0]).abs().max() > 1e-6


def test_the_map_comes_at_any_size_and_keeps_its_corners(compact: Clip) -> None:
    pixels = noise(1, 3, 32, 32)
    native, large = (run(compact, pixels, name="anoclip", views=1, size=size).map for size in ((32, 32), (200, 77)))
    assert large.shape == (1, 200, 77)
    torch.testing.assert_close(large[0, [0, 0, -1, -1], [0, -1, 0, -1]], native[0, [0, 0, -1, -1], [0, -1, 0, -1]])


def test_a_wide_geometry_on_a_square_image_is_the_square_one(compact: Clip) -> None:
    pixels = noise(2, 3, 32, 32)
    squash, wide = (run(compact, pixels, name="anoclip", geometry=g) for g in ("squash", "wide"))
    torch.testing.assert_close(wide.map, squash.map)
    torch.testing.assert_close(wide.score, squash.score)


@pytest.mark.parametrize(("height", "width", "layout"), [(32, 33, (1, 2)), (32, 90, (1, 3)), (75, 32, (3, 1))])
def test_any_aspect_is_covered(compact: Clip, height: int, width: int, layout: tuple[int, int]) -> None:
    pixels = noise(2, 3, height, width)
    tiles, found_layout = anoclip.cut(pixels)
    assert found_layout == layout
    assert tiles.shape == (2 * layout[0] * layout[1], 3, 32, 32)
    scored = run(compact, pixels, geometry="wide", views=1)
    assert scored.map.shape == (2, height, width)
    assert scored.map.min() > 0
    assert run(compact, pixels, geometry="wide", views=1, size=(20, 50)).map.shape == (2, 20, 50)


def test_tiles_are_joined_as_they_lie_in_the_image() -> None:
    cell = torch.arange(4 * 60.0).view(1, 1, 4, 60).expand(1, 3, 4, 60)
    tiles, layout = anoclip.cut(cell)  # 15 tiles without overlap
    tokens = tiles[:, 0].reshape(-1, 16, 1)  # one token a pixel
    assert torch.equal(anoclip.join(tokens, (4, 4), layout).view(4, 60), cell[0, 0])
    tiles, layout = anoclip.cut(cell.mT)
    assert torch.equal(anoclip.join(tiles[:, 0].reshape(-1, 16, 1), (4, 4), layout).view(60, 4), cell[0, 0].T)


def test_flips_and_turns_are_exact_and_shifts_move() -> None:
    pixels = noise(1, 3, 32, 32)
    views = anoclip.views(pixels)
    assert views.shape == (1, 22, 3, 32, 32)
    assert torch.equal(views[:, 0], pixels)
    assert torch.equal(views[:, 17], pixels.flip(-1))
    assert torch.equal(views[:, 19].rot90(-1, (-2, -1)), pixels)
    assert (views[:, 18] == views[:, 18, :1]).all()
    ramp = torch.linspace(-1, 1, 33).expand(1, 3, 33, 33)  # its value is its x coordinate
    torch.testing.assert_close(anoclip.views(ramp)[0, 9, 0, 16, 10], torch.tensor(-0.375 + 0.2))


def test_the_stream_starts_late_in_towers_of_more_than_twelve_blocks() -> None:
    deep = ClipConfig(VisionConfig(32, 8, 32, 24, 2), TextConfig(16, 2, 2), joint=24)
    assert AnoCLIP(deep, Config()).dense[0].start == 13
    assert AnoCLIP(deep, Config(start=1)).dense[0].start == 1
    assert AnoCLIP(small().config, Config()).dense[0].start == 1
    with pytest.raises(ConfigError, match="stream start 25"):
        AnoCLIP(deep, Config(start=25))


def test_texture_marks_a_name(compact: Clip) -> None:
    encoder = PromptEncoder(compact)
    plain, marked = (AnoCLIP(compact.config, Config(texture=t)).text(encoder, "slate") for t in (None, True))
    assert (plain.pair - marked.pair).abs().max() > 1e-4
    torch.testing.assert_close(marked.pair.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(marked.table, F.normalize(marked.table, dim=1))


def test_bfloat16_towers_give_float32_results(compact: Clip) -> None:
    pixels = noise(1, 3, 32, 32)
    exact, rough = run(compact, pixels, keys=[1]), run(small(dtype=torch.bfloat16), pixels, keys=[1])
    assert rough.map.dtype == rough.score.dtype == torch.float32
    torch.testing.assert_close(rough.score, exact.score, rtol=0, atol=5e-3)
    torch.testing.assert_close(rough.map, exact.map, rtol=0, atol=2e-2)


def test_works_in_inference_mode_first_and_outside_afterwards(compact: Clip) -> None:
    pixels = noise(1, 3, 48, 48)  # 6 x 6 patches on a table of 4 x 4
    with torch.inference_mode():
        first = run(compact, pixels, keys=[1], size=(31, 31))
    torch.testing.assert_close(run(compact, pixels, keys=[1], size=(31, 31)).map, first.map.clone())


def test_registry_lines() -> None:
    for name, adapts in (("anoclip", False), ("anoclip+", True)):
        assert "seed" in base.entry(name).options
        assert not base.entry(name).learned
        assert base.create(name, small().config).config.adapt is adapts
    assert not base.create("anoclip+", small().config, adapt=False).config.adapt


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 3}, "1 or 22"),
        ({"geometry": "tall"}, "'squash' or 'wide'"),
        ({"adapter": "mlp"}, "'dictionary' or 'linear'"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_options_say_what_would_be_right(compact: Clip, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        base.create("anoclip", compact.config, **options)


def test_misfits_are_named(compact: Clip) -> None:
    method = base.create("anoclip+", compact.config)
    with pytest.raises(ConfigError, match="takes squares"):
        method.encode(compact, noise(1, 3, 32, 40))
    text = method.text(PromptEncoder(compact), "widget")
    with pytest.raises(ConfigError, match="one key an image"):
        method.score(method.encode(compact, noise(2, 3, 32, 32), keys=[1]), text, (32, 32))
