"""What an image costs in every method: rows through the tower, sentences read, maps made large."""

from typing import Any

import pytest
import torch

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip, ImageTower, TextTower
from anomalens.methods import anoclip, base, winclip
from anomalens.methods.parts import learned

IMAGES = 3
SIZE = (64, 64)

NAMES = [entry.name for entry in base.entries()]

# Pictures the tower sees for one image. WinCLIP embeds once for the whole and once for each scale of windows; AdaCLIP
# makes its prompts from a first pass.
SEEN = dict.fromkeys(NAMES, 1) | {"anoclip": 22, "anoclip+": 22, "winclip": 3, "adaclip": 2}
# AdaCLIP's sentences see the image: the method's own cost.
READS_IN_THE_LOOP = {"adaclip"}
# APRIL-GAN takes the probabilities of its four stages behind the upsampling.
ENLARGED = dict.fromkeys(NAMES, 1) | {"aprilgan": 4}


@pytest.mark.parametrize("name", NAMES)
def test_work_an_image(name: str, tiny_config: ClipConfig, tiny_clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    method = base.create(name, tiny_config).eval()
    pixels = torch.randn(IMAGES, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        text = method.text(PromptEncoder(tiny_clip), "object")
    embed, encode, apply = ImageTower.embed, TextTower.encode, learned.apply
    seen, read, enlarged = [], [], []

    def embedding(self: ImageTower, images: torch.Tensor, *rest: Any, **more: Any) -> Any:
        seen.append(len(images))
        return embed(self, images, *rest, **more)

    def encoding(self: TextTower, *rest: Any, **more: Any) -> Any:
        read.append(1)
        return encode(self, *rest, **more)

    def applying(rows: torch.Tensor, values: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        if rows.shape[0] == SIZE[0] > rows.shape[1]:
            enlarged.append(values.shape[:-2].numel())
        return apply(rows, values, columns)

    monkeypatch.setattr(ImageTower, "embed", embedding)
    monkeypatch.setattr(TextTower, "encode", encoding)
    for module in (learned, anoclip.maps, winclip.maps):
        monkeypatch.setattr(module, "apply", applying)
    with torch.inference_mode():
        method.score(method.encode(tiny_clip, pixels, range(IMAGES)), text, SIZE)
    assert sum(seen) == IMAGES * SEEN[name]
    assert bool(read) == (name in READS_IN_THE_LOOP)
    assert sum(enlarged) == IMAGES * ENLARGED[name]
