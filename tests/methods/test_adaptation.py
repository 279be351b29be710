"""AnoCLIP+'s adapter: the recorded runs of the published code, autograd, torch's AdamW, and each image on its own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import golden
import synthetic
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip
from anomalens.errors import ConfigError
from anomalens.methods import anoclip
from anomalens.methods.parts import upsampling as maps
from anomalens.methods.parts.adaptation import AdamW, AdaptationConfig, Adapted, Weights, adapt, loss_and_gradient
from anomalens.methods.parts.draws import Draws
from synthetic import Rule

G = golden.load("anoclip")
DEFAULT = AdaptationConfig()


def check(name: str, values: Tensor) -> None:
    agrees, report = synthetic.compare(G["values"][name], values)
    assert agrees, (name, report)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip.from_state_dict(synthetic.config(G["clip"], "gelu"), synthetic.state_dict(G["clip"]))


@pytest.fixture(scope="module")
def tokens(clip: Clip) -> Tensor:
    method = anoclip.AnoCLIP(clip.config, anoclip.Config(views=1))
    return method.encode(clip, torch.from_numpy(synthetic.make(G["inputs"]["images"]))).dense[0][0]


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    t, table = synthetic.text_pair(**G["inputs"]["text_pair"])
    return torch.from_numpy(t[1] - t[0]), torch.from_numpy(table)


def recorded_draws(rule: Rule) -> tuple[tuple[Tensor, Tensor], Tensor]:
    weight, bias = synthetic.adapter_init(rule["init_seed"], rule["rows"], rule["dim"])
    noise = np.stack([synthetic.token_noise(rule["noise_seed"], step, rule["noise_shape"]) for step in range(5)])
    return (torch.from_numpy(weight)[None], torch.from_numpy(bias)[None]), torch.from_numpy(noise)[None]


def abnormal_map(tokens: Tensor, direction: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    delta = F.normalize(tokens, dim=-1) @ direction
    return maps.apply(rows, torch.sigmoid(delta).view(-1, rows.shape[1], columns.shape[1]), columns)


def run_recorded(
    rule: Rule,
    tokens: Tensor,
    direction: Tensor,
    table: Tensor,
    *,
    spread: maps.Operators | None = None,
    reorder: Callable[[Tensor], Tensor] | None = None,
    optimizer: AdamW | None = None,
) -> tuple[Adapted, Tensor, Tensor]:
    """Adapt as the recorded run of `rule` did; also return the gradients of the first step."""
    init, noise = recorded_draws(rule)
    if reorder:
        noise = reorder(noise)
    words = table if rule["adapter"] == "A" else None
    adapted = adapt(tokens, direction, init, noise, DEFAULT, table=words, spread=spread, optimizer=optimizer)
    noisy = tokens + noise[:, 0]
    _, (weight, bias) = loss_and_gradient(tokens, noisy, direction, init, table=words, spread=spread)
    return adapted, weight[0], bias[0]


SQUARE = maps.resampler(15, 240, align_corners=True, mean3=True)


@pytest.mark.parametrize("name", ["tta_A", "tta_B", "tta_A_second", "ttaclass_A", "ttaclass_A_texture"])
def test_recorded_runs(name: str, clip: Clip, tokens: Tensor, pair: tuple[Tensor, Tensor]) -> None:
    rule = G["inputs"]["tta"][name]
    direction, table = pair
    if rule["text"] != "pair":
        text = anoclip.AnoCLIP(clip.config, anoclip.Config()).text(PromptEncoder(clip), rule["text"])
        direction, table = text.direction, text.table
    image_tokens = tokens[rule["image"]][None]
    adapted, weight, bias = run_recorded(rule, image_tokens, direction, table)
    check(f"{name}_losses", adapted.losses[0])
    check(f"{name}_grad_w", weight)
    check(f"{name}_grad_b", bias)
    check(f"{name}_grad_norms", adapted.norms[0])
    check(f"{name}_map", abnormal_map(adapted.tokens, direction, SQUARE, SQUARE))


def test_recorded_run_with_one_optimizer_for_both_images(tokens: Tensor, pair: tuple[Tensor, Tensor]) -> None:
    direction, table = pair
    optimizer = AdamW()
    runs = [
        run_recorded(rule, tokens[rule["image"]][None], direction, table, optimizer=optimizer)
        for rule in G["inputs"]["tta"]["tta_A_shared"]
    ]
    adapted = [run[0] for run in runs]
    check("tta_A_shared_losses", torch.cat([f.losses[0] for f in adapted]))
    check("tta_A_shared_grad_norms", torch.cat([f.norms[0] for f in adapted]))
    check("tta_A_shared_grad_w", runs[0][1])
    check("tta_A_shared_grad_b", runs[0][2])
    check("tta_A_shared_map", abnormal_map(torch.cat([f.tokens for f in adapted]), direction, SQUARE, SQUARE))
    assert optimizer.step == 10


def test_recorded_run_over_two_tiles(clip: Clip, pair: tuple[Tensor, Tensor]) -> None:
    direction, table = pair
    method = anoclip.AnoCLIP(clip.config, anoclip.Config(views=1, geometry="wide"))
    features = method.encode(clip, torch.from_numpy(synthetic.make(G["inputs"]["wide_image"])))
    spread = (maps.tile_merger(15, 240, 240), maps.tile_merger(15, 240, 300))

    def reorder(noise: Tensor) -> Tensor:  # tile after tile -> rows of the joined grid
        return anoclip.join(noise.view(-1, 225, 64), (15, 15), (1, 2)).view(1, 5, 450, 64)

    name = "tta_tiled_B"
    adapted, weight, bias = run_recorded(
        G["inputs"]["tta"][name], features.dense[0][0], direction, table, spread=spread, reorder=reorder
    )
    check(f"{name}_losses", adapted.losses[0])
    check(f"{name}_grad_w", weight)
    check(f"{name}_grad_b", bias)
    check(f"{name}_grad_norms", adapted.norms[0])
    smooth = (maps.tile_merger(15, 240, 240, mean3=True), maps.tile_merger(15, 240, 300, mean3=True))
    check(f"{name}_map", abnormal_map(adapted.tokens, direction, *smooth))


# ------------------------------------------------------------------------------------------ against autograd, float64
class Problem(NamedTuple):
    """Describe an adaptation of `images` images of 3 x 4 tokens, 8 wide, to a table of ten sentences, in float64."""

    tokens: Tensor
    noise: Tensor
    direction: Tensor
    table: Tensor
    spread: maps.Operators
    # Draws further numbers of a shape.
    random: Callable[..., Tensor]


def problem(images: int = 3) -> Problem:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tokens = 3 * random(images, 12, 8)
    noise = 0.3 * random(images, 5, 12, 8)
    table = F.normalize(random(10, 8), dim=-1)
    spread = random(7, 3).softmax(dim=1), random(9, 4).softmax(dim=1)
    return Problem(tokens, noise, random(8), table, spread, random)


def written_out(
    clean: Tensor,
    noisy: Tensor,
    direction: Tensor,
    weights: Weights,
    table: Tensor | None,
    spread: maps.Operators | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """Compute the loss by its equations: softmax over two channels of cosines, then entropy and log-likelihoods."""
    weight, bias = weights
    text = torch.stack([torch.zeros_like(direction), direction], dim=1)  # [E, 2]: only the difference matters

    def probability(tokens: Tensor) -> Tensor:
        branch = F.normalize(tokens, dim=-1) @ weight.mT + bias[:, None]
        branch = branch if table is None else branch.tanh() @ table
        cosines = F.normalize(0.5 * tokens + 0.5 * branch, dim=-1) @ text  # [B, M, 2]
        if spread is not None:
            rows, columns = spread
            cells = cosines.view(-1, rows.shape[1], columns.shape[1], 2)
            cosines = torch.einsum("hi,bijc,wj->bhwc", rows, cells, columns).flatten(1, 2)
        return cosines.softmax(dim=-1)

    p, p_noisy = probability(clean), probability(noisy)
    wanted = p if labels is None else torch.stack([1 - labels, labels], dim=-1).view_as(p)
    pseudo = -(wanted * p.log()).sum(dim=-1).mean(dim=-1)
    corrupted = -(p_noisy[..., 1].log() + p[..., 0].log()).mean(dim=-1)
    return pseudo + 0.5 * corrupted


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("adapter", ["dictionary", "linear"])
def test_closed_form_gradient_is_autograds(adapter: str, tiled: bool, frozen: bool) -> None:
    tokens, noise, direction, sentences, operators, random = problem()
    spread, table = operators if tiled else None, sentences if adapter == "dictionary" else None
    rows = 10 if adapter == "dictionary" else 8
    weight, bias = random(3, rows, 8).requires_grad_(), random(3, rows).requires_grad_()
    labels = None
    if frozen:
        delta = F.normalize(tokens, dim=-1) @ direction
        labels = torch.sigmoid(maps.apply(spread[0], delta.view(3, 3, 4), spread[1]) if spread else delta)
    noisy = tokens + noise[:, 0]
    expected = written_out(tokens, noisy, direction, (weight, bias), table, spread, labels)
    expected.sum().backward()
    with torch.no_grad():
        loss, (grad_weight, grad_bias) = loss_and_gradient(
            tokens, noisy, direction, (weight, bias), table=table, spread=spread, labels=labels
        )
    torch.testing.assert_close(loss, expected.detach(), rtol=0, atol=1e-13)
    for gradient, exact in ((grad_weight, weight.grad), (grad_bias, bias.grad)):
        assert exact is not None
        assert (gradient - exact).abs().max() < 1e-10 * exact.abs().max()


def test_loss_is_twice_log_two_where_nothing_points_anywhere() -> None:
    tokens, noise, _, _, _, random = problem()
    nowhere = torch.zeros(8, dtype=torch.float64)
    loss, _ = loss_and_gradient(tokens, tokens + noise[:, 0], nowhere, (random(3, 8, 8), random(3, 8)))
    torch.testing.assert_close(loss, torch.full_like(loss, 1.3862943611198906))


@pytest.mark.parametrize("adapter", ["dictionary", "linear"])
def test_five_steps_are_those_of_torchs_adamw(adapter: str) -> None:
    tokens, noise, direction, sentences, _, random = problem(images=1)
    table = sentences if adapter == "dictionary" else None
    rows = 10 if adapter == "dictionary" else 8
    weight, bias = random(1, rows, 8), random(1, rows)
    adapted = adapt(tokens, direction, (weight, bias), noise, DEFAULT, table=table)
    w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    reference = torch.optim.AdamW([w, b], lr=DEFAULT.lr, weight_decay=DEFAULT.weight_decay)
    for step in range(DEFAULT.steps):
        reference.zero_grad()
        loss = written_out(tokens, tokens + noise[:, step], direction, (w, b), table)
        loss.sum().backward()
        torch.testing.assert_close(adapted.losses[0, step], loss.detach()[0])
        reference.step()
    branch = F.normalize(tokens, dim=-1) @ w.mT + b[:, None]
    expected = 0.5 * tokens + 0.5 * (branch if table is None else branch.tanh() @ table)
    torch.testing.assert_close(adapted.tokens, expected.detach(), rtol=0, atol=1e-9)


# --------------------------------------------------------------------------------------------------------- behaviour
def drawn(keys: Sequence[int], rows: int, count: int, width: int, seed: int = 0) -> tuple[Weights, Tensor]:
    """Draw initial weights and noise of images with these keys, as tensors."""
    draws = Draws(rows, count, width, DEFAULT.steps, DEFAULT.noise, seed)
    weight, bias, noise = (torch.from_numpy(part) for part in draws.draw(keys))
    return (weight, bias), noise


@pytest.mark.parametrize("pseudo", ["self", "frozen"])
def test_a_batch_is_its_images_one_by_one_in_any_order(pseudo: Literal["self", "frozen"]) -> None:
    tokens, _, direction, table, _, _ = problem()
    tokens, direction, table = tokens.float(), direction.float(), table.float()
    config = replace(DEFAULT, pseudo=pseudo)
    keys = (7, -3, 2**63)
    init, noise = drawn(keys, 10, 12, 8)
    together = adapt(tokens, direction, init, noise, config, table=table)
    order = [2, 0, 1]
    init, noise = drawn([keys[i] for i in order], 10, 12, 8)
    shuffled = adapt(tokens[order], direction, init, noise, config, table=table)
    torch.testing.assert_close(shuffled.tokens, together.tokens[order], rtol=0, atol=1e-6)
    init, noise = drawn(keys[1:2], 10, 12, 8)
    alone = adapt(tokens[1:2], direction, init, noise, config, table=table)
    torch.testing.assert_close(alone.tokens[0], together.tokens[1], rtol=0, atol=1e-6)


def test_steps_lower_the_loss_and_frozen_labels_change_it() -> None:
    tokens, noise, direction, table, _, random = problem()
    config = replace(DEFAULT, steps=40, lr=0.02)
    noise = noise[:, :1].expand(-1, 40, -1, -1)
    init = (random(3, 10, 8), random(3, 10))
    own = adapt(tokens, direction, init, noise, config, table=table)
    frozen = adapt(tokens, direction, init, noise, replace(config, pseudo="frozen"), table=table)
    assert (own.losses[:, -1] < own.losses[:, 0]).all()
    assert not torch.allclose(own.tokens, frozen.tokens)


def test_draws_follow_seed_and_content_only() -> None:
    init, noise = drawn([1, 2], 6, 5, 16)
    again, _ = drawn([2], 6, 5, 16)
    other, _ = drawn([2], 6, 5, 16, seed=1)
    assert torch.equal(init[0][1], again[0][0])
    assert not torch.equal(init[0][1], other[0][0])
    assert not torch.equal(init[0][0], init[0][1])
    assert init[0].shape == (2, 6, 16)
    assert init[1].shape == (2, 6)
    assert noise.shape == (2, 5, 5, 16)
    assert init[0].abs().max() <= 0.25
    assert noise.std().item() == pytest.approx(0.055, rel=0.1)


def test_no_steps_is_the_adapter_as_drawn() -> None:
    tokens, _, direction, table, _, random = problem(images=2)
    weight, bias = random(2, 10, 8), random(2, 10)
    adapted = adapt(
        tokens, direction, (weight, bias), tokens.new_empty(2, 0, 12, 8), replace(DEFAULT, steps=0), table=table
    )
    branch = torch.tanh(F.normalize(tokens, dim=-1) @ weight.mT + bias[:, None]) @ table
    torch.testing.assert_close(adapted.tokens, 0.5 * tokens + 0.5 * branch)
    assert adapted.losses.shape == (2, 0)
    assert adapted.norms.shape == (2, 0, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter": "mlp"}, "'dictionary' or 'linear'"),
        ({"pseudo": "hard"}, "'self' or 'frozen'"),
        ({"steps": -1}, "must not be negative"),
        ({"noise": -0.1}, "must not be negative"),
    ],
)
def test_wrong_options_say_what_would_be_right(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdaptationConfig(**options)
