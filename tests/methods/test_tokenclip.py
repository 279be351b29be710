"""TokenCLIP: its limits, its alternatives, gradients, and what each part of the loss moves."""

from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip, Features
from anomalens.errors import ConfigError
from anomalens.methods import base
from anomalens.methods.parts.subspaces import Heads, orthogonality
from anomalens.methods.tokenclip import Text, TokenCLIP

GRID, SIZE = (5, 5), (80, 80)
ALTERNATIVES: list[dict[str, Any]] = [
    {"head": "linear"},
    {"head": "low-rank", "rank": 4},
    {"head": "split", "subspaces": 4},
    {"shared_heads": False},
    {"share_deep": True},
    {"detach_base": True},
    {"cost": "max"},
    {"cost": "per-class"},
    {"standardise": True},
    {"columns": "similarity"},
    {"columns": "relaxed"},
    {"columns": "capped"},
    {"columns": "free"},
    {"through_plan": True},
    {"weighing": "scaled"},
    {"weighing": "equal"},
    {"combine": "vector"},
    {"combine": "vector", "head": "split", "subspaces": 4},
    {"combine": "probability"},
    {"class_token": True},
    {"taps": (2, 4, 6)},
    {"regulariser": "cosine"},
    {"regulariser": "weights"},
    {"map": "average"},
    {"image_score": "global"},
    {"half_deep": True},
]


@cache
def clip() -> Clip:
    torch.manual_seed(0)
    vision = VisionConfig(image_size=64, patch=16, width=128, layers=6, heads=2)
    return Clip(ClipConfig(vision, TextConfig(width=64, layers=3, heads=1), joint=64)).eval().requires_grad_(False)


@cache
def encoder() -> PromptEncoder:
    return PromptEncoder(clip())


def build(seed: int = 1, **options: Any) -> TokenCLIP:
    torch.manual_seed(seed)
    method = base.create("tokenclip", clip().config, **options)
    assert isinstance(method, TokenCLIP)
    return method.eval()


def encode(method: TokenCLIP, count: int = 3) -> Features:
    pixels = torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return method.encode(clip(), pixels)


def target() -> tuple[Tensor, Tensor]:
    masks = torch.zeros(3, *SIZE)
    masks[0, 10:40, 20:60] = 1
    masks[2, 60:, :16] = 1
    return masks, torch.tensor([1, 0, 1])


def tokens(method: TokenCLIP) -> Tensor:
    return F.normalize(encode(method).dense[0][0], dim=-1)


@pytest.mark.parametrize("options", ALTERNATIVES, ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()))
def test_every_alternative_scores_and_trains(options: dict[str, Any]) -> None:
    method = build(**options)
    features = encode(method)
    with torch.no_grad():
        result = method.score(features, method.text(encoder(), "object"), SIZE)
    assert result.score.shape == (3,)
    assert result.map.shape == (3, *SIZE)
    for values in result.score, result.map:
        assert (values > 0).all()
        assert (values < 1).all()
    loss = method.train().loss(features, method.text(encoder(), "object"), *target())
    loss.total.backward()
    for name, p in method.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().sum() > 0, name
    with torch.no_grad():
        default = build(subspaces=method.config.subspaces)
        text = default.text(encoder(), "object")
        other = default.score(encode(default), text, SIZE)
        default_loss = default.loss(encode(default), text, *target()).total
    # An option without effect would be a dead option. Two change gradients only, one the parameters' sharing only.
    if not {"through_plan", "detach_base", "half_deep"} & options.keys():
        same_map = torch.allclose(other.map, result.map, atol=1e-7)
        same_score = torch.allclose(other.score, result.score, atol=1e-7)
        assert not (same_map and same_score and torch.allclose(default_loss, loss.total.detach(), atol=1e-7))


def test_one_identical_subspace_equals_the_base() -> None:
    method = build(subspaces=1)
    with torch.no_grad():
        method.heads.weight.copy_(torch.eye(64).expand(1, 1, 64, 64))
        text = method.text(encoder(), "object")
        torch.testing.assert_close(method.dynamic(tokens(method), text), method.base(tokens(method), text))
        assert orthogonality("squared-cosine", text.subspaces, method.heads) == 0


def test_all_subspaces_at_large_epsilon_are_the_mean() -> None:
    method = build(subspaces=4, k=4, epsilon=1e4, temperature=0.07)
    with torch.no_grad():
        text, unit = method.text(encoder(), "object"), tokens(method)
        mean = text.subspaces.mean(dim=1)
        expected = (unit @ (mean[1] - mean[0]) / 0.07).sigmoid()
        torch.testing.assert_close(method.dynamic(unit, text), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("combine", ["similarity", "vector", "probability"])
def test_permuting_subspaces_changes_nothing(combine: str) -> None:
    method = build(combine=combine)
    with torch.no_grad():
        text, unit = method.text(encoder(), "object"), tokens(method)
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        mixed = Text(text.global_pair, text.local_pair, text.subspaces[:, order])
        torch.testing.assert_close(method.dynamic(unit, mixed), method.dynamic(unit, text), atol=2e-5, rtol=0)


@pytest.mark.parametrize("options", [{}, {"head": "split", "subspaces": 4}])
def test_vector_combination_equals_the_literal_one(options: dict[str, Any]) -> None:
    """The Gram form against normalising every token's own text vector t̃ = Σ_q w_q t^q."""
    method = build(combine="vector", **options)
    with torch.no_grad():
        text, unit = method.text(encoder(), "object"), tokens(method)
        weights = method.assignment(method.similarities(unit, text)).expand(-1, -1, 2, -1)
        if options:
            own = F.normalize(unit.unflatten(-1, (4, -1)), dim=-1)
            mixture = torch.einsum("bmcq,cqe->bmcqe", weights, text.subspaces)
            similarity = torch.einsum("bmqe,bmcqe->bmc", own, mixture) / mixture.flatten(3).norm(dim=-1)
        else:
            mixture = F.normalize(torch.einsum("bmcq,cqe->bmce", weights, text.subspaces), dim=-1)
            similarity = torch.einsum("bme,bmce->bmc", unit, mixture)
        expected = ((similarity[..., 1] - similarity[..., 0]) / 0.07).sigmoid()
        torch.testing.assert_close(method.dynamic(unit, text), expected, atol=1e-5, rtol=1e-4)


def test_the_plan_carries_gradient_only_when_asked() -> None:
    for through in (False, True):
        method = build(through_plan=through, k=6)
        text = method.text(encoder(), "object")
        weights = method.assignment(method.similarities(tokens(method), text))
        assert weights.requires_grad == through


def test_detached_heads_leave_the_local_prompts_to_the_base_loss() -> None:
    grads = []
    for detach in (False, True):
        method = build(detach_base=detach, base_weight=0.0)
        method.loss(encode(method), method.text(encoder(), "object"), *target()).total.backward()
        grads.append(method.local_prompts.normal.grad)
    assert grads[0] is not None
    assert grads[0].abs().sum() > 0
    assert grads[1] is not None
    assert grads[1].abs().sum() == 0


def test_global_and_local_prompts_are_decoupled() -> None:
    method = build()
    loss = method.loss(encode(method), method.text(encoder(), "object"), *target())
    image = torch.autograd.grad(loss.parts["image"], list(method.parameters()), retain_graph=True, allow_unused=True)
    moved = {
        n for (n, _), g in zip(method.named_parameters(), image, strict=True) if g is not None and g.abs().sum() > 0
    }
    assert moved == {f"global_prompts.{p}" for p in ("normal", "abnormal", "deep")}


def test_shared_deep_prompts_are_one_parameter() -> None:
    assert len(list(build(share_deep=True).parameters())) == len(list(build().parameters())) - 1


def test_parameters_on_the_papers_backbone_are_as_counted() -> None:
    big = ClipConfig(VisionConfig(336, 14, 1024, 24, 16), TextConfig(768, 12, 12), 768)
    with torch.device("meta"):
        method = base.create("tokenclip", big)
    assert sum(p.numel() for p in method.parameters()) == 2 * 43_008 + 6 * 768 * 768


def test_training_lowers_the_loss_and_parts_the_subspaces() -> None:
    method = build(orthogonal_weight=1.0).train()
    features, optimiser = encode(method), torch.optim.Adam(method.parameters(), lr=1e-3, betas=method.recipe.betas)
    history = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = method.loss(features, method.text(encoder(), "object"), *target())
        loss.total.backward()
        optimiser.step()
        history.append((loss.total.item(), loss.parts["orthogonal"].item()))
    assert history[-1][0] < history[0][0]
    assert history[-1][1] < history[0][1]


def test_transport_uses_subspaces_evenly_where_greedy_crowds() -> None:
    """The claim behind the transport: every subspace gets work. Greedy assignment leaves some without."""
    usage = {}
    for columns in ("uniform", "free"):
        method = build(columns=columns, epsilon=0.01, k=1, iterations=2000)
        with torch.no_grad():
            text = method.text(encoder(), "object")
            usage[columns] = method.assignment(method.similarities(tokens(method), text)).mean(dim=(0, 1, 2))
    assert usage["uniform"].max() < usage["free"].max()
    assert usage["uniform"].min() > usage["free"].min()


# --------------------------------------------------------------------------------------------- heads, regulariser
def test_heads_start_near_the_prior_or_apart_as_documented() -> None:
    torch.manual_seed(4)
    pair = torch.randn(2, 768)

    def cosine(heads: Heads) -> float:
        unit = F.normalize(heads(pair), dim=-1).detach()
        return float(unit[0, 0] @ unit[0, 1])

    assert cosine(Heads(768, 3, 1, "identity", 0)) == pytest.approx(1 / (1 + 0.02**2 * 768), abs=0.05)
    assert cosine(Heads(768, 3, 1, "low-rank", 32)) == pytest.approx(1 / (1 + 0.02**2 * 768), abs=0.05)
    assert abs(cosine(Heads(768, 3, 1, "linear", 0))) < 0.15
    assert Heads(768, 6, 2, "split", 0)(pair).shape == (2, 6, 128)


def test_regularisers_equal_their_literal_forms() -> None:
    torch.manual_seed(5)
    heads = Heads(12, 3, 2, "linear", 0)
    t = F.normalize(heads(torch.randn(2, 12)), dim=-1)
    off = [t[c] @ t[c].T - torch.eye(3) for c in range(2)]
    literal = sum(o.square().sum() for o in off) / 2 / (3 * 2)
    torch.testing.assert_close(orthogonality("squared-cosine", t, heads), literal)
    torch.testing.assert_close(orthogonality("cosine", t, heads), sum(o.triu(1).abs().sum() for o in off) / 2)
    w = heads.matrices()
    ratios = [
        (w[c, q].T @ w[c, r]).norm() / (w[c, q].norm() * w[c, r].norm())
        for c in range(2)
        for q, r in ((0, 1), (0, 2), (1, 2))
    ]
    torch.testing.assert_close(orthogonality("weights", t, heads), torch.stack(ratios).mean())


@pytest.mark.parametrize("bad", [{"subspaces": 0}, {"k": 0}, {"head": "split", "subspaces": 7}])
def test_settings_that_cannot_work_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build(**bad)
