"""Check that a program's own default type of PyTorch's numbers changes nothing."""

from collections.abc import Iterator

import pytest
import torch

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip
from anomalens.methods import base
from anomalens.methods.base import Method, ScoreMap

NAMES = [entry.name for entry in base.list_methods()]


@pytest.fixture
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@torch.no_grad()
def run(method: Method, clip: Clip, side: int) -> ScoreMap:
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    text = method.text(PromptEncoder(clip), "bottle")
    return method.score(method.encode(clip, images, (10, 11)), text, (side, side))


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("name", NAMES)
def test_methods_compute_in_float32_whatever_the_default(name: str, tiny_config: ClipConfig, tiny_clip: Clip) -> None:
    torch.manual_seed(2)
    method = base.create(name, tiny_config).eval()
    assert {value.dtype for value in method.parameters()} <= {torch.float32}
    # A grid that no other test uses, so that tables kept from one call to the next are made here.
    result = run(method, tiny_clip, 112)
    assert result.map.dtype == result.score.dtype == torch.float32
    torch.set_default_dtype(torch.float32)
    again = run(method, tiny_clip, 112)
    assert torch.equal(result.map, again.map)
    assert torch.equal(result.score, again.score)
