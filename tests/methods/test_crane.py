"""Crane and Crane+ against the published code's figures; the guide; options and bad input."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import golden
import synthetic
from anomalens.backbones.config import ClipConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip, Features
from anomalens.errors import ConfigError, WeightsError
from anomalens.images.normalisation import Triple
from anomalens.methods import base
from anomalens.methods.crane import Config, Crane, CranePlus, PlusConfig, guided_attention

SIZE = (126, 126)


class GivenFeatures:
    """Give the figures' own features as a guide."""

    def features(self, pixels: Tensor, mean: Triple, std: Triple) -> Tensor:
        dino = torch.from_numpy(synthetic.make(figures()["inputs"]["dino"])).flatten(2).transpose(1, 2)
        return dino[: len(pixels)]


def figures() -> dict[str, Any]:
    return golden.load("crane")


@cache
def clip() -> Clip:
    cfg = figures()["clip"]
    return Clip.from_state_dict(synthetic.config(cfg), synthetic.state_dict(cfg))


def build(name: str, **options: Any) -> Crane:
    """Return a method with the learned prompts of the figures."""
    options = {"half_deep": True} | options
    if name == "crane+":
        method: Crane = CranePlus(clip().config, PlusConfig(**options), GivenFeatures())
    else:
        method = Crane(clip().config, Config(**options))
    rule = synthetic.prompts(**figures()["inputs"]["prompts"])
    state = {"prompts.normal": rule["ctx_pos"][0, 0], "prompts.abnormal": rule["ctx_neg"][0, 0]}
    state["prompts.deep"] = np.stack(rule["deep"])
    method.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    return method.eval()


@cache
def features(name: str, batch_threshold: bool = True) -> Features:
    pixels = torch.from_numpy(synthetic.make(figures()["inputs"]["images"]))
    with torch.no_grad():
        return build(name, batch_threshold=batch_threshold).encode(clip(), pixels)


def check(name: str, array: Tensor) -> None:
    ok, report = synthetic.compare(figures()["values"][name], array.detach().numpy())
    assert ok, (name, report)


def test_features_equal_the_published_code() -> None:
    plus = features("crane+")
    assert plus.cls is not None
    check("g", plus.cls)
    check("Z_D", plus.dense[0][0])
    check("Z_E", plus.dense[1][0])
    check("Z_E", features("crane").dense[0][0])
    check("Z_D_per_image", features("crane+", False).dense[0][0])


@pytest.mark.parametrize("context", [False, True])
def test_text_equals_the_published_code(context: bool) -> None:
    method, encoded = build("crane", context=context), features("crane")
    assert encoded.cls is not None
    with torch.no_grad():
        text = method.text(PromptEncoder(clip()), "anything")
        pairs = text.pairs(torch.nn.functional.normalize(encoded.cls, dim=-1))
    check("text_context" if context else "text_static", pairs if context else pairs[0])


@pytest.mark.parametrize("fusion", ["soft", "hard"])
@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize(("name", "per_image"), [("crane", False), ("crane+", False), ("crane+", True)])
def test_maps_and_scores_equal_the_published_code(name: str, per_image: bool, context: bool, fusion: str) -> None:
    method, encoded = build(name, context=context, fusion=fusion), features(name, not per_image)
    key = f"{name.replace('+', 'p')}_{'context' if context else 'static'}_{fusion}"
    suffix = "_per_image" if per_image else ""
    with torch.no_grad():
        text = method.text(PromptEncoder(clip()), "object")
        result = method.score(encoded, text, SIZE)
        check(f"{key}_score{suffix}", result.score)
        check(f"{key}_map{suffix}", result.map)
        if not context and not per_image:
            sharp = build(name, context=context, fusion=fusion, sigma=0.0)
            check(f"{key}_map_unblurred", sharp.score(encoded, text, SIZE).map)


@pytest.mark.parametrize("name", ["crane", "crane+"])
@pytest.mark.parametrize("case", [0, 1])
def test_three_training_steps_equal_the_published_code(name: str, case: int) -> None:
    method, encoded, rule = build(name).train(), features(name), figures()["inputs"]["train"][case]
    masks = torch.from_numpy(synthetic.masks(rule["rects"], SIZE[0]))
    labels = torch.tensor(rule["labels"])
    optimiser = torch.optim.Adam(method.parameters(), lr=1e-3, betas=(0.6, 0.999))
    key = f"{name.replace('+', 'p')}_{rule['name']}"
    losses, parts = [], []
    for step in range(3):
        optimiser.zero_grad()
        loss = method.loss(encoded, method.text(PromptEncoder(clip()), "object"), masks, labels)
        loss.total.backward()
        if step == 0:
            grads = [method.prompts.normal.grad, method.prompts.abnormal.grad, method.prompts.deep.grad]
            normal, abnormal, deep = (g for g in grads if g is not None)
            check(f"{key}_grad_ctx_pos", normal[None, None])
            check(f"{key}_grad_ctx_neg", abnormal[None, None])
            for i, prompt in enumerate(deep):
                check(f"{key}_grad_compound_prompts_text.{i}", prompt)
            check(f"{key}_grad_norms", torch.stack([normal.norm(), abnormal.norm(), *deep.flatten(1).norm(dim=1)]))
        optimiser.step()
        losses.append(loss.total.detach())
        parts.append(torch.stack([loss.parts[p].detach() for p in ("focal", "dice", "image")]))
    check(f"{key}_loss", torch.stack(losses))
    check(f"{key}_focal_dice_ce", torch.stack(parts))


def test_only_prompts_are_learned() -> None:
    method = build("crane+").train()
    assert set(method.state_dict()) == {"prompts.normal", "prompts.abnormal", "prompts.deep"}
    encoded = features("crane+")
    masks, labels = torch.zeros(2, *SIZE), torch.zeros(2)
    total = method.loss(encoded, method.text(PromptEncoder(clip()), "object"), masks, labels).total
    total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
    assert all(p.grad is None for p in clip().parameters())


def test_shared_prefix_changes_no_gradient_that_matters() -> None:
    """Without the fp16 round trip training shares the prefix between images: the same gradient, a tenth of the rows."""
    encoded, rule = features("crane"), figures()["inputs"]["train"][1]
    masks, labels = torch.from_numpy(synthetic.masks(rule["rects"], SIZE[0])), torch.tensor(rule["labels"])
    grads = []
    for half in (False, True):
        method = build("crane").train()
        method.config = Config(half_deep=half)
        method.prompts.half_deep = half
        text = method.text(PromptEncoder(clip()), "object")
        assert (text.prefix is None) == half
        method.loss(encoded, text, masks, labels).total.backward()
        grads.append(method.prompts.deep.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=0.02)


# ---------------------------------------------------------------------------------------------- guided attention
def test_attention_rows_sum_to_one_and_mask_the_dissimilar() -> None:
    tokens = torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    attention = guided_attention(tokens, beta=1.2, gamma=3.0)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 30))
    unit = torch.nn.functional.normalize(tokens, dim=-1)
    s = unit @ unit.transpose(1, 2)
    below = s < 1.2 * s.mean((1, 2), keepdim=True) - 1e-5
    assert below.any()
    assert (attention[below] == 0).all()


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_an_image_without_contrast_gives_no_nan(noise: float) -> None:
    """All patches alike: the published rule masks every entry of every row; here a patch keeps itself."""
    tokens = torch.ones(1, 9, 4) + noise * torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(guided_attention(tokens, 1.2, 3.0), torch.eye(9)[None])


def test_a_threshold_per_image_does_not_depend_on_the_batch() -> None:
    level = torch.tensor([0.1, 0.5, 1.0]).view(3, 1, 1)
    tokens = torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(2)) + level
    together, shared = guided_attention(tokens, 1.2, 3.0), guided_attention(tokens, 1.2, 3.0, batch_threshold=True)
    torch.testing.assert_close(guided_attention(tokens[1:2], 1.2, 3.0), together[1:2])
    assert not torch.allclose(shared, together, atol=1e-3)


def test_without_a_guide_or_a_stem_there_is_a_warning(
    tiny_config: ClipConfig, tiny_clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    method = base.create("crane+", tiny_config).eval()
    assert "DINOv2 with registers" in caplog.text
    encoded = method.encode(tiny_clip, torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert [taps[0].shape for taps in encoded.dense] == [(1, 16, 32), (1, 16, 32)]


def test_a_guide_by_hub_id_is_not_fetched_while_offline(
    tiny_config: ClipConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="offline"):
        base.create("crane+", tiny_config, offline=True, guide="nobody/no-such-guide")


@pytest.mark.parametrize("name", ["crane", "crane+", "adaclip"])
def test_the_stem_runs_once_an_image(name: str, tiny_config: ClipConfig, tiny_clip: Clip) -> None:
    runs: list[int] = []
    assert tiny_clip.visual.conv1 is not None
    handle = tiny_clip.visual.conv1.register_forward_hook(lambda *_: runs.append(1))
    base.create(name, tiny_config).eval().encode(tiny_clip, torch.zeros(1, 3, 64, 64))
    handle.remove()
    assert len(runs) == 1


# ------------------------------------------------------------------------------------------------------- options
def test_pooling_context_and_stream_can_be_switched_off() -> None:
    encoded, encoder = features("crane"), PromptEncoder(clip())
    with torch.no_grad():
        alone = build("crane", pooling=0.0)
        text = alone.text(encoder, "object")
        assert encoded.cls is not None
        image = torch.nn.functional.normalize(encoded.cls, dim=-1)
        direction = text.pairs(image)[0, 1] - text.pairs(image)[0, 0]
        torch.testing.assert_close(alone.score(encoded, text, SIZE).score, (image @ direction / 0.07).sigmoid())
    assert build("crane", stream="plain").dense[0].stream == "plain"
    assert build("crane").dense[0].start == 6


def test_the_input_size_is_the_papers_where_the_patch_divides_it(tiny_config: ClipConfig) -> None:
    assert build("crane").working_size(336) == 518
    assert base.create("crane", tiny_config).working_size(64) == 64


def test_image_tokens_need_equal_widths(tiny_config: ClipConfig, tiny_clip: Clip) -> None:
    method = base.create("crane", tiny_config, context=True).eval()
    encoded = method.encode(tiny_clip, torch.zeros(1, 3, 64, 64))
    with pytest.raises(ConfigError, match="context=False"):
        method.score(encoded, method.text(PromptEncoder(tiny_clip), "object"), (64, 64))


def test_masks_must_fit_the_grid() -> None:
    method = build("crane").train()
    with pytest.raises(ConfigError, match="do not divide"):
        method.loss(
            features("crane"), method.text(PromptEncoder(clip()), "x"), torch.zeros(2, 100, 100), torch.zeros(2)
        )
