"""WinCLIP: recorded window tokens and harmonic maps, and the aggregation against its definition."""

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
from anomalens.methods import base, winclip
from anomalens.methods.base import ScoreMap
from anomalens.methods.winclip import Config, WinCLIP, WindowFeatures

G = golden.load("winclip")
CPU = torch.device("cpu")


def check(name: str, values: Tensor) -> None:
    agrees, report = synthetic.compare(G["values"][name], values)
    assert agrees, (name, report)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip.from_state_dict(synthetic.config(G["clip"], "gelu"), synthetic.state_dict(G["clip"]))


@pytest.fixture(scope="module")
def features(clip: Clip) -> WindowFeatures:
    return WinCLIP(clip.config, Config()).encode(clip, torch.from_numpy(synthetic.make(G["inputs"]["images"])))


@pytest.fixture(scope="module")
def texts(clip: Clip) -> dict[str, Tensor]:
    encoder = PromptEncoder(clip)
    return {name: WinCLIP(clip.config, Config()).text(encoder, name) for name in ("bottle", "carpet")}


# ------------------------------------------------------------------------------------------------------ recorded runs
@pytest.mark.parametrize("scale", [2, 3])
def test_windows(features: WindowFeatures, scale: int) -> None:
    recorded = G["windows"][f"scale{scale}"]
    index = winclip.window_index((15, 15), scale, CPU)
    assert tuple(index.shape) == (recorded["count"], recorded["patches"])
    assert index[0].tolist() == recorded["first"]
    assert index[-1].tolist() == recorded["last"]
    assert synthetic.digest(index.numpy()) == recorded["sha256"]
    check(f"windows{scale}_raw", features.windows[scale - 2])


def test_whole_image(features: WindowFeatures) -> None:
    assert features.cls is not None
    check("full_raw", features.cls)


@pytest.mark.parametrize("name", ["bottle", "carpet"])
def test_text(texts: dict[str, Tensor], name: str) -> None:
    check(f"T_{name}", texts[name])


@pytest.mark.parametrize("name", ["bottle", "carpet"])
@pytest.mark.parametrize("tau", [0.01, 0.07])
def test_scores_and_maps(clip: Clip, features: WindowFeatures, texts: dict[str, Tensor], name: str, tau: float) -> None:
    method = WinCLIP(clip.config, Config(temperature=tau))
    check(f"tau{tau}_score_{name}", method.score(features, texts[name], (15, 15)).score)
    check(f"tau{tau}_grid_{name}", method.score(features, texts[name], (15, 15)).map)
    check(f"tau{tau}_map_{name}", method.score(features, texts[name], (240, 240)).map)


@pytest.mark.parametrize("name", ["bottle", "carpet"])
@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("tau", [0.01, 0.07])
def test_each_scale(features: WindowFeatures, texts: dict[str, Tensor], name: str, scale: int, tau: float) -> None:
    direction = (texts[name][1] - texts[name][0]) / tau
    scores = torch.sigmoid(F.normalize(features.windows[scale - 2], dim=-1) @ direction)
    weights = 2 * winclip.coverage((15, 15), (scale,), CPU)[:, :-1]
    check(f"tau{tau}_scale{scale}_{name}", (1 / (1 / scores @ weights.T)).view(2, 15, 15))


# --------------------------------------------------------------------------------------------------------- behaviour
def small(dtype: torch.dtype = torch.float32) -> Clip:
    torch.manual_seed(0)
    vision = VisionConfig(image_size=32, patch=8, width=32, layers=2, heads=2)
    model = Clip(ClipConfig(vision, TextConfig(width=16, layers=2, heads=2), joint=24))
    return model.eval().requires_grad_(False).to(dtype)


@pytest.fixture(scope="module")
def compact() -> Clip:
    return small()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_aggregation_is_the_harmonic_mean_over_covering_windows(compact: Clip) -> None:
    grid, scales = (4, 5), (2, 3)
    whole = noise(1, 24)
    features = WindowFeatures(whole, (), grid, windows=(noise(1, 12, 24), noise(1, 6, 24)))
    text = F.normalize(noise(2, 24), dim=-1)
    scored = WinCLIP(compact.config, Config()).score(features, text, grid)

    def ascore(token: Tensor) -> float:
        return float(torch.softmax(F.normalize(token, dim=-1) @ text.T / 0.07, dim=-1)[1])

    for i in range(grid[0]):
        for j in range(grid[1]):
            terms = [1 / ascore(whole[0])]
            for scale, tokens in zip(scales, features.windows, strict=True):
                places = [(a, b) for a in range(grid[0] - scale + 1) for b in range(grid[1] - scale + 1)]
                covering = [
                    1 / ascore(token)
                    for (a, b), token in zip(places, tokens[0], strict=True)
                    if a <= i < a + scale and b <= j < b + scale
                ]
                terms.append(sum(covering) / len(covering))
            assert scored.map[0, i, j].item() == pytest.approx(3 / sum(terms), abs=1e-6)
    assert scored.score.item() == pytest.approx(ascore(whole[0]), abs=1e-6)


def test_saturated_scores_stay_finite(compact: Clip) -> None:
    text = torch.zeros(2, 24)
    text[0, 0] = text[1, 1] = 1.0
    normal = torch.zeros(1, 9, 24)
    normal[..., 0] = 1.0  # exactly the normal direction: odds of e^-100 at temperature 0.01
    method = WinCLIP(compact.config, Config(scales=(2,), temperature=0.01))
    one_abnormal = normal.clone()
    one_abnormal[0, -1] = text[1]
    scored = method.score(WindowFeatures(one_abnormal[:, -1], (), (4, 4), windows=(one_abnormal,)), text, (4, 4))
    assert scored.map[0, 0, 0] < 1e-30
    assert scored.map[0, -1, -1] > 0.99, "the last patch lies in the abnormal window only"


def test_work_per_image(compact: Clip) -> None:
    clip = small()
    sequences: list[tuple[int, int]] = []
    clip.visual.transformer.blocks[0].ln_1.register_forward_hook(
        lambda _, args, __: sequences.append((args[0].shape[0], args[0].shape[1]))
    )
    method, encoder = WinCLIP(clip.config, Config()), PromptEncoder(clip)
    for _ in range(2):
        method.text(encoder, "widget")
    assert encoder.encoded == 154 + 88
    method.encode(clip, noise(2, 3, 32, 32))
    assert sequences == [(2, 17), (2 * 9, 5), (2 * 4, 10)], "one plain pass, then every scale's windows as one batch"


def test_batch_size_and_order_change_nothing(compact: Clip) -> None:
    method = WinCLIP(compact.config, Config())
    text = method.text(PromptEncoder(compact), "widget")
    pixels = noise(3, 3, 32, 48)

    def run(x: Tensor) -> ScoreMap:
        return method.score(method.encode(compact, x), text, (20, 30))

    together, turned = run(pixels), run(pixels.flip(0))
    alone = [run(x[None]) for x in pixels]
    for other in (torch.cat([a.map for a in alone]), turned.map.flip(0)):
        torch.testing.assert_close(other, together.map, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.cat([a.score for a in alone]), together.score, rtol=0, atol=1e-6)


def test_bfloat16_towers_give_float32_results(compact: Clip) -> None:
    rough = small(torch.bfloat16)
    method = WinCLIP(compact.config, Config())
    exact, rounded = (
        method.score(method.encode(model, noise(1, 3, 32, 32)), method.text(PromptEncoder(model), "nut"), (32, 32))
        for model in (compact, rough)
    )
    assert rounded.map.dtype == rounded.score.dtype == torch.float32
    spread = exact.map.max() - exact.map.min()
    assert spread > 0
    assert (rounded.map - exact.map).abs().max() < 0.1 * spread


def test_the_fixed_colour_scale_follows_the_temperature(compact: Clip) -> None:
    low, high = WinCLIP(compact.config, Config()).heat_range
    assert low + high == pytest.approx(1)
    assert high == pytest.approx(0.671, abs=1e-3)
    assert WinCLIP(compact.config, Config(temperature=0.01)).heat_range[1] > 0.99


def test_registry_line(compact: Clip) -> None:
    assert base.entry("winclip").options == ("scales", "temperature")
    assert base.create("winclip", compact.config, scales=[2]).config.scales == (2,)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"scales": ()}, "window sides"), ({"scales": (0, 2)}, "window sides"), ({"temperature": 0}, "above 0")],
)
def test_wrong_options_say_what_would_be_right(compact: Clip, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        base.create("winclip", compact.config, **options)


def test_a_grid_smaller_than_a_window_is_refused(compact: Clip) -> None:
    with pytest.raises(ConfigError, match="holds no window of 3 x 3"):
        WinCLIP(compact.config, Config()).encode(compact, noise(1, 3, 16, 32))
