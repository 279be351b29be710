"""AnomalyCLIP against the published code's figures."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import golden
import synthetic
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip, Features
from anomalens.methods import base
from anomalens.methods.anomalyclip import AnomalyCLIP

SIZE = (126, 126)
FOUR = (6, 12, 18, 24)


def figures() -> dict[str, Any]:
    return golden.load("anomalyclip")


@cache
def clip() -> Clip:
    cfg = figures()["clip"]
    return Clip.from_state_dict(synthetic.config(cfg), synthetic.state_dict(cfg))


def build(**options: Any) -> AnomalyCLIP:
    """Return the method with the learned prompts of the figures."""
    method = base.create("anomalyclip", clip().config, **({"half_deep": True} | options))
    assert isinstance(method, AnomalyCLIP)
    rule = synthetic.prompts(**figures()["inputs"]["prompts"])
    state = {"prompts.normal": rule["ctx_pos"][0, 0], "prompts.abnormal": rule["ctx_neg"][0, 0]}
    state["prompts.deep"] = np.stack(rule["deep"])
    method.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    return method.eval()


@cache
def features(taps: tuple[int, ...] = (24,)) -> Features:
    pixels = torch.from_numpy(synthetic.make(figures()["inputs"]["images"]))
    with torch.no_grad():
        return build(taps=taps).encode(clip(), pixels)


def check(name: str, array: Tensor) -> None:
    ok, report = synthetic.compare(figures()["values"][name], array.detach().numpy())
    assert ok, (name, report)


def test_features_equal_the_published_code() -> None:
    encoded = features(FOUR)
    assert encoded.cls is not None
    check("cls_no_ln_post", encoded.cls)
    pixels = torch.from_numpy(synthetic.make(figures()["inputs"]["images"]))
    method = build(taps=FOUR)
    method.dense = (replace(method.dense[0], class_row=True),)  # the figures keep the class token as row 0
    for block, with_class in zip(FOUR, method.encode(clip(), pixels).dense[0], strict=True):
        check(f"F_{block}", with_class)
    for tokens, with_class in zip(encoded.dense[0], method.encode(clip(), pixels).dense[0], strict=True):
        torch.testing.assert_close(tokens, with_class[:, 1:], atol=1e-5, rtol=0)


def test_text_equals_the_published_code() -> None:
    check("text", build().text(PromptEncoder(clip()), "anything"))


@pytest.mark.parametrize("taps", [(24,), FOUR])
def test_maps_and_scores_equal_the_published_code(taps: tuple[int, ...]) -> None:
    key = "taps" + "_".join(map(str, taps))
    for sigma, name in ((4.0, f"{key}_map"), (0.0, f"{key}_map_unblurred")):
        method = build(taps=taps, sigma=sigma)
        scored = method.score(features(taps), method.text(PromptEncoder(clip()), "object"), SIZE)
        check(name, scored.map)
        check("score", scored.score)
        assert method.heat_range == (0.0, len(taps))


@pytest.mark.parametrize("case", [0, 1])
def test_three_training_steps_equal_the_published_code(case: int) -> None:
    method, encoded, rule = build().train(), features(), figures()["inputs"]["train"][case]
    masks = torch.from_numpy(synthetic.masks(rule["rects"], SIZE[0]))
    labels = torch.tensor(rule["labels"])
    recipe = method.recipe
    optimiser = torch.optim.Adam(method.parameters(), lr=recipe.lr, betas=recipe.betas)
    losses, parts = [], []
    for step in range(3):
        optimiser.zero_grad()
        loss = method.loss(encoded, method.text(PromptEncoder(clip()), "object"), masks, labels)
        loss.total.backward()
        if step == 0:
            grads = [method.prompts.normal.grad, method.prompts.abnormal.grad, method.prompts.deep.grad]
            normal, abnormal, deep = (g for g in grads if g is not None)
            check(f"{rule['name']}_grad_ctx_pos", normal[None, None])
            check(f"{rule['name']}_grad_ctx_neg", abnormal[None, None])
            for i, prompt in enumerate(deep):
                check(f"{rule['name']}_grad_compound_prompts_text.{i}", prompt)
            norms = torch.stack([normal.norm(), abnormal.norm(), *deep.flatten(1).norm(dim=1)])
            check(f"{rule['name']}_grad_norms", norms)
        optimiser.step()
        losses.append(loss.total.detach())
        parts.append(torch.stack([4 * loss.parts["local"].detach(), loss.parts["image"].detach()]))
    check(f"{rule['name']}_loss", torch.stack(losses))
    check(f"{rule['name']}_local_image", torch.stack(parts))


def test_only_prompts_are_learned() -> None:
    assert set(build().state_dict()) == {"prompts.normal", "prompts.abnormal", "prompts.deep"}
