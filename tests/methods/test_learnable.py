"""Learned prompts against the published code's figures, and the shared prefix against whole sequences."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import golden
import synthetic
from anomalens.backbones.config import TextConfig
from anomalens.backbones.tower import Clip, TextTower
from anomalens.errors import ConfigError
from anomalens.methods.parts.learnable import PromptConfig, Prompts, encode_together

WIDTH = 64


@cache
def clip() -> Clip:
    """Return the synthetic dual encoder of the Crane figures (24 and 12 blocks)."""
    cfg = golden.load("crane")["clip"]
    return Clip.from_state_dict(synthetic.config(cfg), synthetic.state_dict(cfg))


def learned(half_deep: bool = True) -> Prompts:
    """Return the learned prompts of the figures."""
    rule = synthetic.prompts(**golden.load("crane")["inputs"]["prompts"])
    prompts = Prompts(clip().config.text, PromptConfig(half_deep=half_deep))
    deep = torch.stack([torch.from_numpy(d) for d in rule["deep"]])
    state = {"normal": rule["ctx_pos"][0, 0], "abnormal": rule["ctx_neg"][0, 0]}
    prompts.load_state_dict({"deep": deep} | {k: torch.from_numpy(v) for k, v in state.items()})
    return prompts


def check(name: str, array: Tensor) -> None:
    ok, report = synthetic.compare(golden.load("crane")["values"][name], array.detach().numpy())
    assert ok, report


def images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.nn.functional.normalize(torch.randn(count, WIDTH, generator=generator), dim=-1)


def test_sentences_without_an_image_equal_the_published_code() -> None:
    raw = learned()(clip().text)
    check("text_static_raw", raw)
    check("text_static", torch.nn.functional.normalize(raw, dim=-1))


def test_the_fp16_round_trip_matters_and_can_be_left_out() -> None:
    with torch.no_grad():
        difference = (learned(True)(clip().text) - learned(False)(clip().text)).abs().max().item()
    assert 1e-6 < difference < 2e-3


def test_sentences_with_an_image_token_equal_whole_sequences() -> None:
    """The shared prefix is exact: the same numbers as every image's own complete sequence."""
    prompts, text, image = learned(False), clip().text, images(3)
    with torch.no_grad():
        fast = prompts.with_image(text, prompts.prefix(text), image)
        torch.testing.assert_close(fast, prompts.with_image(text, None, image), atol=2e-5, rtol=0)


def test_gradients_of_the_shared_prefix_equal_those_of_whole_sequences() -> None:
    text, image = clip().text, images(2)
    weight = torch.randn(2, 2, WIDTH, generator=torch.Generator().manual_seed(5))
    fast, slow = learned(False), learned(False)
    (fast.with_image(text, fast.prefix(text), image) * weight).sum().backward()
    (slow.with_image(text, None, image) * weight).sum().backward()
    for name, p in slow.named_parameters():
        torch.testing.assert_close(fast.get_parameter(name).grad, p.grad, atol=1e-3, rtol=1e-4)


def rows_through(text: TextTower, work: Any) -> int:
    """Return how many token rows pass the feed-forward of the second block while `work` runs."""
    count = 0

    def add(_module: Any, args: tuple[Tensor, ...], _out: Tensor) -> None:
        nonlocal count
        count += args[0].shape[0] * args[0].shape[1]

    handle = text.transformer.blocks[1].mlp.register_forward_hook(add)
    with torch.no_grad():
        work()
    handle.remove()
    return count


def test_an_image_costs_nine_token_rows_of_text() -> None:
    """Counted work: the prefix 2 x 13 rows once, then 4 + 5 rows an image instead of 2 x 77."""
    prompts, text = learned(), clip().text
    prefix = prompts.prefix(text)
    assert rows_through(text, lambda: prompts.prefix(text)) == 2 * 13
    assert rows_through(text, lambda: prompts.with_image(text, prefix, images(1))) == 9
    assert rows_through(text, lambda: prompts.with_image(text, prefix, images(7))) == 7 * 9
    assert rows_through(text, lambda: prompts(text)) == 2 * 17


def test_several_learners_in_one_pass_equal_each_alone() -> None:
    torch.manual_seed(0)
    first, second = learned(), Prompts(clip().config.text, PromptConfig())
    with torch.no_grad():
        together = encode_together(clip().text, [second, second])
        torch.testing.assert_close(together[0], second(clip().text), atol=1e-5, rtol=0)
        assert not torch.allclose(first(clip().text), second(clip().text), atol=1e-2)


def test_only_the_learned_vectors_are_parameters() -> None:
    prompts = Prompts(TextConfig(768, 12, 12), PromptConfig())
    assert sum(p.numel() for p in prompts.parameters()) == 43_008  # the papers' figure for ViT-L/14@336
    assert set(prompts.state_dict()) == {"normal", "abnormal", "deep"}


def test_deep_prompts_stop_at_a_shallow_tower() -> None:
    assert Prompts(TextConfig(64, 4, 1), PromptConfig()).deep.shape == (3, 4, 64)
    assert Prompts(TextConfig(64, 4, 1), PromptConfig(depth=1)).deep.shape == (0, 4, 64)


def test_half_deep_gradients_pass_through_fp16() -> None:
    prompts = learned(True)
    prompts(clip().text).square().sum().backward()
    grad = prompts.deep.grad
    assert grad is not None
    assert torch.isfinite(grad).all()
    assert (grad.float() - grad.half().float()).abs().max() <= grad.abs().max() * 2**-9


@pytest.mark.parametrize("bad", [{"length": 13}, {"length": 0}, {"depth": 0}, {"n_ctx": 3}])
def test_sizes_that_do_not_fit_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        PromptConfig(**bad)  # type: ignore[arg-type]


def test_a_context_that_overflows_the_tower_is_refused() -> None:
    with pytest.raises(ConfigError, match="do not fit"):
        Prompts(TextConfig(64, 4, 1, context=16), PromptConfig())


def test_an_image_of_another_width_is_refused_with_the_remedy() -> None:
    prompts, text = learned(), clip().text
    with pytest.raises(ConfigError, match="context=False"):
        prompts.with_image(text, prompts.prefix(text), torch.zeros(1, 32))
