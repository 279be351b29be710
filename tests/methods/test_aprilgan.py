"""APRIL-GAN against the published code's figures, for both activations."""

from functools import cache
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import golden
import synthetic
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip, Features
from anomalens.methods import base
from anomalens.methods.aprilgan import AprilGan

SIZE = (126, 126)
Activation = Literal["gelu", "quickgelu"]
ACTIVATIONS: tuple[Activation, ...] = ("gelu", "quickgelu")


def figures() -> dict[str, Any]:
    return golden.load("aprilgan")


@cache
def clip(activation: Activation) -> Clip:
    cfg = figures()["clip"]
    name = {"gelu": "gelu", "quickgelu": "quick_gelu"}[activation]
    return Clip.from_state_dict(synthetic.config(cfg, name), synthetic.state_dict(cfg))


@cache
def encoder(activation: Activation) -> PromptEncoder:
    return PromptEncoder(clip(activation))


def build(activation: Activation) -> AprilGan:
    """Build the method with the affine maps of the figures."""
    method = base.create("aprilgan", clip(activation).config)
    assert isinstance(method, AprilGan)
    state: dict[str, Tensor] = {}
    for k, (weight, bias) in enumerate(synthetic.linear_stages(**figures()["inputs"]["linear_stages"])):
        state |= {f"maps.{k}.weight": torch.from_numpy(weight), f"maps.{k}.bias": torch.from_numpy(bias)}
    method.load_state_dict(state)
    return method.eval()


@cache
def features(activation: Activation) -> Features:
    pixels = torch.from_numpy(synthetic.make(figures()["inputs"]["images"]))
    with torch.no_grad():
        return build(activation).encode(clip(activation), pixels)


def check(name: str, array: Tensor) -> None:
    ok, report = synthetic.compare(figures()["values"][name], array.detach().numpy())
    assert ok, (name, report)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_features_equal_the_published_code(activation: Activation) -> None:
    encoded, method = features(activation), build(activation)
    assert encoded.cls is not None
    check(f"{activation}_plain_image", encoded.cls)
    for k, (block, tokens) in enumerate(zip((6, 12, 18, 24), encoded.dense[0], strict=True)):
        check(f"{activation}_tokens_block{block}", tokens)
        check(f"{activation}_projected{k + 1}", method.maps[k](tokens))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["bottle", "carpet"])
def test_text_maps_and_scores_equal_the_published_code(activation: Activation, name: str) -> None:
    method = build(activation)
    text = method.text(encoder(activation), name)
    check(f"{activation}_T_{name}", text)
    scored = method.score(features(activation), text, SIZE)
    check(f"{activation}_map_{name}", scored.map)
    check(f"{activation}_score_{name}", scored.score)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("case", [0, 1])
def test_three_training_steps_equal_the_published_code(activation: Activation, case: int) -> None:
    method, rule = build(activation).train(), figures()["inputs"]["train"][case]
    masks = torch.from_numpy(synthetic.masks(rule["rects"], SIZE[0]))
    text = method.text(encoder(activation), "bottle")
    recipe = method.recipe
    optimiser = torch.optim.Adam(method.parameters(), lr=recipe.lr, betas=recipe.betas)
    key, losses = f"{activation}_{rule['name']}", []
    for step in range(3):
        optimiser.zero_grad()
        loss = method.loss(features(activation), text, masks, torch.tensor(rule["labels"]))
        loss.total.backward()
        if step == 0:
            grads = [p.grad for p in method.parameters()]  # w1, b1, w2, b2, …
            norms = []
            for i, grad in enumerate(grads):
                assert grad is not None
                check(f"{key}_grad_{'wb'[i % 2]}{i // 2 + 1}", grad)
                norms.append(grad.norm())
            check(f"{key}_grad_norms", torch.stack(norms))
        optimiser.step()
        losses.append(loss.total.detach())
    check(f"{key}_losses", torch.stack(losses))


def test_the_published_size_and_taps() -> None:
    method = build("gelu")
    assert method.dense[0].taps == (6, 12, 18, 24)
    assert method.heat_range == (0.0, 4.0)
    assert method.working_size(336) == 518
    assert len(method.state_dict()) == 8
