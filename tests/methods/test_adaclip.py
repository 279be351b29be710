"""AdaCLIP: structure against a literal form, deterministic clusters, gradients everywhere that is learned."""

from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip
from anomalens.errors import ConfigError
from anomalens.methods import base
from anomalens.methods.adaclip import AdaCLIP, PromptedFeatures, k_means, semantic_embedding
from anomalens.methods.parts.ensembles import adaclip as ensemble

SIZE = (80, 80)


@cache
def clip() -> Clip:
    torch.manual_seed(0)
    vision = VisionConfig(image_size=64, patch=16, width=128, layers=8, heads=2)
    return Clip(ClipConfig(vision, TextConfig(width=64, layers=5, heads=1), joint=32)).eval().requires_grad_(False)


def build(**options: Any) -> AdaCLIP:
    torch.manual_seed(1)
    method = base.create("adaclip", clip().config, **options)
    assert isinstance(method, AdaCLIP)
    return method.eval()


def pixels(count: int = 2) -> Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(2))


def encode(method: AdaCLIP) -> PromptedFeatures:
    with torch.no_grad():
        return method.encode(clip(), pixels())


def test_the_text_of_an_image_equals_the_literal_form() -> None:
    """One image and one sentence at a time, prompts written into the rows between blocks."""
    method, text_tower = build(), clip().text
    features = encode(method)
    with torch.no_grad():
        pairs = method.pairs(features, method.text(PromptEncoder(clip()), "bottle"))
        text = method.text(PromptEncoder(clip()), "bottle")
        count = len(ensemble("bottle").normal)
        for image in range(2):
            dynamic = method.text_dynamic(features.plain[image]).view(5, -1)
            each = []
            for sentence, end in zip(text.rows, text.end, strict=True):
                x = (sentence[: end + 1] + text_tower.positional_embedding[: end + 1])[None]
                for number, block in enumerate(text_tower.transformer.blocks):
                    if 1 <= number <= 3:
                        x = x.clone()
                        x[0, 1:6] = method.text_static[number - 1] + dynamic
                    x = block(x, causal=True)
                each.append(F.normalize(text_tower.ln_final(x[0, -1]) @ text_tower.text_projection, dim=-1))
            stacked = torch.stack(each)
            expected = torch.stack([stacked[:count].mean(0), stacked[count:].mean(0)])
            torch.testing.assert_close(pairs[image], F.normalize(expected, dim=-1), atol=1e-5, rtol=0)


def test_image_prompts_follow_the_image_and_its_embedding() -> None:
    method = build()
    features = encode(method)
    assert features.cls is not None
    with torch.no_grad():
        torch.testing.assert_close(features.plain, clip().visual(pixels(), positions="bicubic-unfiltered").cls)
    assert not torch.allclose(features.plain, features.cls, atol=1e-3)  # prompts have an effect
    assert [t.shape for t in features.dense[0]] == [(2, 25, 128)] * 4


def test_every_parameter_learns() -> None:
    method = build().train()
    masks = torch.zeros(2, *SIZE)
    masks[0, 10:40, 20:60] = 1
    text = method.text(PromptEncoder(clip()), "bottle")
    optimiser = torch.optim.AdamW(method.parameters(), lr=1e-3)
    history = []
    for _ in range(4):
        optimiser.zero_grad()
        loss = method.loss(method.encode(clip(), pixels()), text, masks, torch.tensor([1, 0]))
        loss.total.backward()
        for name, p in method.named_parameters():
            assert p.grad is not None, name
            assert p.grad.abs().sum() > 0, name
        optimiser.step()
        history.append(loss.total.item())
    assert history[-1] < history[0]
    assert all(p.grad is None for p in clip().parameters())


def test_a_batch_gives_what_single_images_give() -> None:
    method = build()
    text = method.text(PromptEncoder(clip()), "bottle")
    with torch.no_grad():
        together = method.score(method.encode(clip(), pixels()), text, SIZE)
        for i in range(2):
            alone = method.score(method.encode(clip(), pixels()[i : i + 1]), text, SIZE)
            torch.testing.assert_close(alone.score[0], together.score[i], atol=1e-4, rtol=0)
            torch.testing.assert_close(alone.map[0], together.map[i], atol=1e-4, rtol=0)


def test_parameters_on_the_papers_backbone_are_as_counted() -> None:
    """10.67 M in the paper; 5 x 768 fewer here, the first static text prompt that nothing reads."""
    big = ClipConfig(VisionConfig(336, 14, 1024, 24, 16), TextConfig(768, 12, 12), 768)
    with torch.device("meta"):
        method = base.create("adaclip", big)
    count = sum(p.numel() for p in method.parameters())
    assert round((count + 5 * 768) / 1e6, 2) == 10.67


# ------------------------------------------------------------------------------------------------------ clusters
def blobs() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    centres = 10 * torch.randn(4, 6, generator=generator)
    return (centres[:, None] + torch.randn(4, 8, 6, generator=generator)).flatten(0, 1)


def test_clusters_are_those_of_another_library() -> None:
    member = k_means(blobs()[None], 4, 50)[0]
    scikit_learn = torch.from_numpy(KMeans(4, n_init=10, random_state=0).fit(blobs().numpy()).labels_).long()
    own = member.argmax(1)
    pairs = {(int(a), int(b)) for a, b in zip(own, scikit_learn, strict=True)}
    assert len(pairs) == 4  # the same partition under other names


def test_clusters_are_the_same_every_time_and_survive_twins() -> None:
    assert torch.equal(k_means(blobs()[None], 4, 50)[0], k_means(blobs()[None], 4, 50)[0])
    twins = torch.ones(6, 3)
    member = k_means(twins[None], 3, 50)[0]
    assert member.sum() == 6
    assert torch.isfinite(member).all()


def test_the_semantic_embedding_weighs_kinds_not_patches() -> None:
    """Nine patches of one kind and one of another: centres count the same, as two clusters."""
    kinds = torch.tensor([[1.0, 0.0, 0.0]] * 9 + [[0.0, 1.0, 0.0]])
    tokens = kinds.expand(4, 1, 10, 3).clone().requires_grad_()
    embedding = semantic_embedding(tokens, torch.arange(10.0)[None], 2)
    torch.testing.assert_close(embedding, F.normalize(torch.tensor([[1.0, 1.0, 0.0]]), dim=-1))
    embedding.sum().backward()
    assert tokens.grad is not None
    assert tokens.grad.abs().sum() > 0


def test_only_the_most_anomalous_patches_count() -> None:
    tokens = torch.zeros(1, 1, 20, 2)
    tokens[..., 0] = 1
    tokens[0, 0, :5] = torch.tensor([0.0, 1.0])
    logits = torch.zeros(1, 20)
    logits[0, :5] = 1
    torch.testing.assert_close(semantic_embedding(tokens, logits, 1), torch.tensor([[0.0, 1.0]]))


def test_the_fusion_can_be_left_out() -> None:
    method, plain = build(), build(clusters=0)
    text = method.text(PromptEncoder(clip()), "bottle")
    with torch.no_grad():
        fused, alone = (m.score(encode(m), text, SIZE) for m in (method, plain))
    torch.testing.assert_close(fused.map, alone.map)
    assert not torch.allclose(fused.score, alone.score)


@pytest.mark.parametrize("bad", [{"depth": 0}, {"length": 0}, {"clusters": -1}])
def test_settings_that_cannot_work_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        build(**bad)
