"""The stem: shapes, padding, and a novelty that means what it says."""

import math

import pytest
import torch
import torch.nn.functional as F

from anomalens.backbones.stem import (
    EfficientNetLite0,
    LiteStem,
    SameConvolution,
    append_deviations,
    build_stem,
    novelty,
)
from anomalens.errors import ConfigError


@pytest.fixture(scope="module", params=[False, True], ids=["full", "halved"])
def stem(request: pytest.FixtureRequest) -> LiteStem:
    torch.manual_seed(0)
    return LiteStem(64, halved=request.param).eval().requires_grad_(False)


def test_same_convolution_pads_right_and_below_at_stride_two() -> None:
    conv = SameConvolution(1, 1, 3, 2)
    conv.load_state_dict({"weight": torch.ones(1, 1, 3, 3), "bias": torch.zeros(1)})
    actual = conv(torch.ones(1, 1, 4, 4))[0, 0]
    assert torch.equal(actual, torch.tensor([[9.0, 6.0], [6.0, 4.0]]))
    assert conv(torch.ones(1, 1, 5, 7)).shape[-2:] == (3, 4)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (8, 5)])
def test_a_widened_kernel_reads_what_a_frame_would(kernel: int, height: int, width: int) -> None:
    conv = SameConvolution(4, 4, kernel, 2, groups=4)
    x = torch.randn(2, 4, height, width)
    high, wide = ((-(-n // 2) - 1) * 2 + kernel - n for n in (height, width))
    framed = F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
    expected = F.conv2d(framed, conv.weight, conv.bias, 2, groups=4)
    torch.testing.assert_close(conv(x), expected)


def test_backbone_reads_four_strides() -> None:
    actual = EfficientNetLite0()(torch.randn(1, 3, 64, 96))
    assert [tuple(f.shape[1:]) for f in actual] == [(24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3)]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (80, 48), (16, 16)])
def test_any_multiple_of_sixteen(stem: LiteStem, height: int, width: int) -> None:
    actual = stem(torch.randn(2, 3, height, width))
    assert actual.shape == (2, 64, height // 16, width // 16)
    assert torch.isfinite(actual).all()


def test_images_of_a_batch_do_not_meet(stem: LiteStem) -> None:
    images = torch.randn(3, 3, 64, 64)
    alone = torch.cat([stem(image[None]) for image in images])
    assert torch.allclose(stem(images), alone, atol=1e-4)


def test_constant_image_gives_no_number_that_is_none(stem: LiteStem) -> None:
    assert torch.isfinite(stem(torch.zeros(1, 3, 64, 64))).all()


def test_only_the_fusion_is_trained() -> None:
    stem = LiteStem(32)
    trained = {n for n, p in stem.named_parameters() if p.requires_grad}
    assert trained == {"proj.weight", "proj.bias", "mix.weight", "mix.bias"}


def test_the_halved_stem_adds_what_the_picture_at_half_its_size_shows() -> None:
    torch.manual_seed(0)
    halved, full = LiteStem(32, halved=True).eval(), LiteStem(32).eval()
    full.backbone, full.whiten = halved.backbone, halved.whiten
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        gathered, levels = halved.read(pixels)
        alone, same = full.read(pixels)
        _, at_eight, *_ = halved.backbone(F.avg_pool2d(pixels, 2))
    assert gathered.shape == (1, halved.channels, 4, 6)
    torch.testing.assert_close(gathered[:, : full.channels], alone)
    torch.testing.assert_close(gathered[:, full.channels : full.channels + 40], at_eight)
    for level, expected in zip(levels, same, strict=True):
        torch.testing.assert_close(level, expected)


def test_novelty_is_zero_where_all_is_alike_and_peaks_at_the_odd_place() -> None:
    same = torch.ones(1, 8, 6, 6)
    assert novelty(same, same, 32.0).abs().max() < 1e-5
    odd = same.clone()
    odd[0, :4, 2, 3] = -1
    actual = novelty(odd, odd, 8.0)[0, 0]
    assert actual.argmax() == 2 * 6 + 3
    assert 0 <= actual.min() <= actual.max() <= 2


def test_novelty_matches_its_formula() -> None:
    torch.manual_seed(1)
    f, r = torch.randn(1, 5, 3, 2), torch.randn(1, 5, 2, 2)
    cosines = F.normalize(f.flatten(2), dim=1)[0].T @ F.normalize(r.flatten(2), dim=1)[0]
    want = -(torch.exp(8 * (cosines - 1)).mean(1).log()) / 8
    assert torch.allclose(novelty(f, r, 8.0).flatten(), want, atol=1e-5)


def test_novelty_of_a_repeated_image_does_not_change() -> None:
    torch.manual_seed(2)
    f = torch.randn(1, 5, 4, 4)
    twice = torch.cat([f, f], dim=3)
    assert torch.allclose(novelty(twice, twice, 32.0)[..., :4], novelty(f, f, 32.0), atol=1e-5)


def test_standing_out_measures_in_spreads() -> None:
    plane = torch.zeros(1, 1, 2, 2)
    plane[0, 0, 0, 0] = 4.0
    actual = append_deviations(plane)
    assert torch.equal(actual[:, :1], plane)
    assert math.isclose(float(actual[0, 1, 0, 0]), 3 / (math.sqrt(3) + 0.02), rel_tol=1e-5)
    assert not append_deviations(torch.ones(1, 1, 3, 3))[:, 1].any()


def test_unknown_stem_names_the_known() -> None:
    with pytest.raises(ConfigError, match="efficientnet-lite0"):
        build_stem("resnet", 64)
    for name, halved in (("efficientnet-lite0", False), ("efficientnet-lite0-halved", True)):
        built = build_stem(name, 32)
        assert isinstance(built, LiteStem)
        assert built.halved is halved
