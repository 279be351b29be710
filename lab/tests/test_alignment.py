"""The losses of the bundled backbone."""

import math

import pytest
import torch
import torch.nn.functional as F

from anomalens_lab.alignment import (
    caption_loss,
    dense_loss,
    directions,
    fused_loss,
    image_loss,
    kind_loss,
    rank_loss,
    soft_focal,
    target_of,
    teacher_loss,
)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_directions_are_pairs_and_their_ensemble() -> None:
    normal, abnormal = torch.randn(3, 8), torch.randn(3, 8)
    vectors = directions(normal, abnormal)
    assert vectors.shape == (6, 8)
    assert torch.allclose(vectors[0], F.normalize(abnormal, dim=1)[0] - F.normalize(normal, dim=1)[0])
    ensemble = F.normalize(abnormal.mean(0), dim=0) - F.normalize(normal.mean(0), dim=0)
    assert torch.allclose(vectors[3:], ensemble.expand(3, 8))


def test_soft_focal_is_zero_at_its_target() -> None:
    target = torch.tensor([0.25, 0.5, 0.9])
    assert soft_focal(torch.logit(target), target).abs().max() < 1e-12
    assert soft_focal(torch.tensor([4.0]), torch.tensor([0.0])) > 3


def test_thin_defects_count_more_than_their_share() -> None:
    assert torch.equal(target_of(torch.tensor([0.0, 0.04, 0.25, 1.0])), torch.tensor([0.0, 0.2, 0.5, 1.0]))


def test_right_maps_cost_less_than_wrong_ones() -> None:
    g = torch.tensor([[1.0, 0.0]])
    cover = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    right = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])[None, None]
    good, bad = dense_loss(right, g, cover), dense_loss(-right, g, cover)
    assert good[0] < 1e-3 < bad[0]
    assert good[1] < 0.01 < 0.5 < bad[1]


def test_kinds_are_named_at_defective_patches_only() -> None:
    phrases = torch.eye(4)
    kinds, cover = torch.tensor([[0, 2, 3]]), torch.tensor([[0.0, 1.0, 0.1]])
    tokens = torch.stack([phrases[1], phrases[2], phrases[1]])[None, None]
    assert kind_loss(tokens, phrases, kinds, cover) < 1e-4
    assert kind_loss(tokens, phrases, kinds, torch.zeros(1, 3)) == 0


def test_image_losses_want_the_right_side() -> None:
    g = torch.tensor([[1.0, 0.0]])
    cls = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    abnormal = torch.tensor([True, False])
    assert image_loss(cls, g, abnormal) < 1e-4 < image_loss(cls, g, ~abnormal)
    tokens = cls[:, None].expand(2, 5, 2)
    assert fused_loss(cls, tokens, g, abnormal) < 1e-4


def test_equal_captions_are_right_for_each_other() -> None:
    cls = unit(3, 6)
    captions = torch.stack([cls[0], cls[0], cls[2]])
    cls = torch.stack([cls[0], cls[0], cls[2]])
    scale = torch.tensor(math.log(50.0))
    ambiguous = caption_loss(cls, captions, ["a", "a", "b"], scale)
    assert math.isclose(float(ambiguous), 2 / 3 * math.log(2), rel_tol=0.05)


def test_teacher_loss_is_one_minus_cosine() -> None:
    texts = unit(4, 6)
    assert teacher_loss(texts, texts, torch.eye(6)) < 1e-6
    assert math.isclose(float(teacher_loss(texts, -texts, torch.eye(6))), 2, rel_tol=1e-5)


def test_ranking_compares_twins_and_nothing_else() -> None:
    g = torch.tensor([[1.0, 0.0]])
    hot, cold = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])

    def loss(faulty: torch.Tensor, sound: torch.Tensor, abnormal: list[bool]) -> float:
        cls = torch.stack([faulty, sound])
        tokens = cls[None, :, None].expand(1, 2, 50, 2)
        return float(rank_loss(cls, tokens, g, torch.tensor(abnormal)))

    assert loss(hot, cold, [True, False]) < 1e-6
    assert loss(cold, hot, [True, False]) > 10
    assert loss(hot, hot, [True, False]) == pytest.approx(math.log(2))
    assert loss(cold, hot, [False, False]) == 0  # nothing of the fault is left in the picture
