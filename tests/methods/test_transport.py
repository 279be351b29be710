"""Properties of the transport, its agreement with an independent library, and the assignments made from it."""

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from anomalens.errors import ConfigError
from anomalens.methods.parts.transport import assign, sinkhorn

ALL_COLUMNS = ("uniform", "similarity", "relaxed", "capped", "free")


def affinity(seed: int = 0, images: int = 2, tokens: int = 60, subspaces: int = 5, spread: float = 0.1) -> Tensor:
    """Draw cosines around a common level, unbalanced between subspaces as real ones are."""
    generator = torch.Generator().manual_seed(seed)
    popular = torch.linspace(0, spread, subspaces)
    return 0.2 + popular + spread * torch.randn(images, tokens, subspaces, generator=generator)


@given(
    seed=st.integers(0, 1000),
    subspaces=st.integers(1, 8),
    tokens=st.integers(8, 80),
    epsilon=st.sampled_from([0.02, 0.05, 0.1, 1.0]),
)
@settings(max_examples=25, deadline=None)
def test_rows_and_columns_hold_their_mass(seed: int, subspaces: int, tokens: int, epsilon: float) -> None:
    plan = sinkhorn(affinity(seed, 2, tokens, subspaces), epsilon, iterations=2000)
    torch.testing.assert_close(plan.sum(-1), torch.full((2, tokens), 1 / tokens), rtol=1e-5, atol=0)
    torch.testing.assert_close(plan.sum(-2), torch.full((2, subspaces), 1 / subspaces), rtol=1e-3, atol=1e-6)
    assert (plan >= 0).all()


@pytest.mark.parametrize("columns", ALL_COLUMNS)
@pytest.mark.parametrize("iterations", [0, 1, 100])
def test_rows_are_exact_whatever_the_iterations(columns: Any, iterations: int) -> None:
    plan = sinkhorn(affinity(), 0.02, columns=columns, iterations=iterations)
    torch.testing.assert_close(plan.sum(-1), torch.full((2, 60), 1 / 60), rtol=1e-6, atol=0)


@pytest.mark.parametrize("columns", ALL_COLUMNS)
def test_permuting_subspaces_or_tokens_permutes_the_plan(columns: Any) -> None:
    s = affinity(3)
    plan = sinkhorn(s, 0.05, columns=columns)
    order, shuffled = torch.tensor([3, 0, 4, 2, 1]), torch.randperm(60, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(sinkhorn(s[..., order], 0.05, columns=columns), plan[..., order], atol=1e-7, rtol=1e-4)
    moved = sinkhorn(s[:, shuffled], 0.05, columns=columns)
    torch.testing.assert_close(moved, plan[:, shuffled], atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("columns", ALL_COLUMNS)
def test_images_do_not_touch_one_another(columns: Any) -> None:
    s = affinity(4, images=3)
    together = sinkhorn(s, 0.05, columns=columns)
    for image, expected in zip(s, together, strict=True):
        torch.testing.assert_close(sinkhorn(image, 0.05, columns=columns), expected, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("columns", ALL_COLUMNS)
def test_one_subspace_takes_everything(columns: Any) -> None:
    plan = sinkhorn(affinity(subspaces=1), 0.05, columns=columns)
    torch.testing.assert_close(plan, torch.full_like(plan, 1 / 60))


def test_all_subspaces_at_large_epsilon_are_the_mean() -> None:
    weights = assign(sinkhorn(affinity(), 1e4), k=5)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 5), atol=1e-5, rtol=0)


def test_small_epsilon_is_nearly_one_hot_and_balanced() -> None:
    """Where the greedy choice would crowd one subspace, transport uses all of them."""
    s = affinity(5, tokens=100)
    balanced = sinkhorn(s, 0.005, iterations=3000).argmax(-1)
    greedy = s.argmax(-1)
    counts, crowd = (torch.nn.functional.one_hot(x, 5).sum(1) for x in (balanced, greedy))
    assert crowd.max() >= 30
    assert crowd.min() <= 10
    assert counts.max() <= 24
    assert counts.min() >= 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1e-8, 1e-3, 1.0, 1e3, 1e8, 1e20])
@pytest.mark.parametrize("columns", ALL_COLUMNS)
def test_no_scale_gives_nan(dtype: torch.dtype, scale: float, columns: Any) -> None:
    s = (affinity() * scale).to(dtype)
    plan = sinkhorn(s, 0.02, columns=columns)
    assert plan.dtype == torch.float32
    assert torch.isfinite(plan).all()
    torch.testing.assert_close(plan.sum(-1), torch.full((2, 60), 1 / 60), rtol=1e-4, atol=0)
    for weighing in ("renormalised", "scaled", "equal"):
        assert torch.isfinite(assign(plan, 2, weighing)).all()


@pytest.mark.parametrize("columns", ALL_COLUMNS)
def test_gradients_agree_with_finite_differences(columns: Any) -> None:
    s = affinity(tokens=6, subspaces=3, images=1).double().requires_grad_()
    weight = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def value(x: Tensor) -> Tensor:
        return (assign(sinkhorn(x, 0.1, columns=columns, iterations=50, tolerance=0.0), 2) * weight).sum()

    assert torch.autograd.gradcheck(value, (s,), eps=1e-6, atol=1e-6)


def test_a_detached_affinity_gives_a_plan_without_gradient() -> None:
    assert not sinkhorn(affinity().requires_grad_().detach(), 0.05).requires_grad


def test_early_stopping_changes_nothing_that_matters() -> None:
    s = affinity(7)
    torch.testing.assert_close(
        sinkhorn(s, 0.05, iterations=5000), sinkhorn(s, 0.05, iterations=5000, tolerance=0.0), atol=1e-7, rtol=1e-4
    )


def test_relaxation_runs_from_free_to_uniform() -> None:
    s = affinity(8)
    free, uniform = sinkhorn(s, 0.05, columns="free"), sinkhorn(s, 0.05, iterations=1000)
    none = sinkhorn(s, 0.05, columns="relaxed", relaxation=0.0)
    much = sinkhorn(s, 0.05, columns="relaxed", relaxation=1e6, iterations=1000)
    some = sinkhorn(s, 0.05, columns="relaxed", relaxation=0.05)
    torch.testing.assert_close(none, free)
    torch.testing.assert_close(much, uniform, atol=1e-6, rtol=1e-3)
    spread = [p.sum(-2).std().item() for p in (free, some, uniform)]
    assert spread[0] > spread[1] > spread[2]


def test_capped_columns_stay_under_their_capacity() -> None:
    s = affinity(9)
    plan = sinkhorn(s, 0.05, columns="capped", capacity=1.5, iterations=2000)
    assert (plan.sum(-2) <= 1.5 / 5 * 1.001).all()
    assert plan.sum(-2).min() < 1 / 5  # unlike uniform columns they need not fill
    roomy = sinkhorn(s, 0.05, columns="capped", capacity=100.0)
    torch.testing.assert_close(roomy, sinkhorn(s, 0.05, columns="free"))


def test_similarity_columns_follow_the_mean_similarity() -> None:
    s = affinity(10, images=1)
    plan = sinkhorn(s, 0.05, columns="similarity", iterations=2000)
    torch.testing.assert_close(plan.sum(-2), torch.softmax(s.mean(1) / 0.05, -1), rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore:If reg_type = entropy")
@pytest.mark.parametrize("columns", ["uniform", "relaxed", "capped"])
def test_plans_equal_those_of_python_optimal_transport(columns: Any) -> None:
    ot = pytest.importorskip("ot", reason="needs the test dependency POT")
    s = affinity(11, images=1, tokens=40).double()[0]
    a, b, cost = torch.ones(40).double() / 40, torch.ones(5).double() / 5, 1 - s
    plan = sinkhorn(s, 0.05, columns=columns, relaxation=0.1, capacity=1.3, iterations=20_000, tolerance=1e-13)
    if columns == "uniform":
        reference = ot.sinkhorn(a, b, cost, 0.05, method="sinkhorn_log", numItermax=20_000, stopThr=1e-13)
    elif columns == "relaxed":
        reference = ot.unbalanced.sinkhorn_unbalanced(
            a, b, cost, 0.05, (float("inf"), 0.1), reg_type="entropy", numItermax=20_000, stopThr=1e-13
        )
    else:
        reference = ot.partial.entropic_partial_wasserstein(
            a, 1.3 * b, cost, 0.05, m=1.0, numItermax=20_000, stopThr=1e-13
        )
    torch.testing.assert_close(plan, reference, atol=1e-7, rtol=1e-5)
    if columns == "uniform":
        assert (plan * cost).sum().item() == pytest.approx((reference * cost).sum().item(), abs=1e-9)


# -------------------------------------------------------------------------------------------------- assignments
def test_top_k_keeps_the_largest_and_renormalises() -> None:
    plan = torch.tensor([[[0.1, 0.3, 0.1], [0.2, 0.05, 0.25]]])
    torch.testing.assert_close(assign(plan, 2)[0, 1], torch.tensor([4 / 9, 0.0, 5 / 9]))
    torch.testing.assert_close(assign(plan, 1)[0], torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    torch.testing.assert_close(assign(plan, 2, "scaled")[0, 1], torch.tensor([0.4, 0.0, 0.5]))
    torch.testing.assert_close(assign(plan, 2, "equal")[0, 1], torch.tensor([0.5, 0.0, 0.5]))
    torch.testing.assert_close(assign(plan, 3, "scaled"), 2 * plan)


def test_ties_go_to_the_first() -> None:
    assert assign(torch.full((1, 1, 4), 0.25), 2).tolist() == [[[0.5, 0.5, 0.0, 0.0]]]


@pytest.mark.parametrize("k", [0, 4])
def test_an_impossible_k_is_refused(k: int) -> None:
    with pytest.raises(ConfigError, match="between 1 and"):
        assign(torch.full((1, 2, 3), 1 / 6), k)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="positive"):
        sinkhorn(affinity(), 0.0)
    with pytest.raises(ConfigError, match="capacity"):
        sinkhorn(affinity(), 0.05, columns="capped", capacity=0.5)
