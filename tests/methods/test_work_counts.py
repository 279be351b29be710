"""What an image costs in every method: pictures through the tower, sentences read, maps made large."""

from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip
from anomalens.methods import base

IMAGES = 3
SIZE = (64, 64)
# Of the maps; no other matrix of the tiny dual encoder has these sides.
MAP = (72, 56)

NAMES = [entry.name for entry in base.list_methods()]

# Pictures the tower sees for one image. WinCLIP embeds once for the whole and once for each scale of windows; AdaCLIP
# makes its prompts from a first pass.
SEEN = dict.fromkeys(NAMES, 1) | {"anoclip": 22, "anoclip+": 22, "winclip": 3, "adaclip": 2}
# AdaCLIP's sentences see the image: the method's own cost.
READS_IN_THE_LOOP = {"adaclip"}
# APRIL-GAN takes the probabilities of its four stages behind the upsampling.
ENLARGED = dict.fromkeys(NAMES, 1) | {"aprilgan": 4}


class CountMaps(TorchFunctionMode):
    """Count the maps that matrix products enlarge to the size MAP."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        products = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)
        # A product along a side of the map itself is a blur.
        if func in products and result.shape[-2:] == MAP and args[0].shape[-1] < min(MAP):
            self.maps += result.shape[:-2].numel()
        return result


@pytest.mark.parametrize("name", NAMES)
def test_work_an_image(name: str, tiny_config: ClipConfig, tiny_clip: Clip) -> None:
    method = base.create(name, tiny_config).eval()
    pixels = torch.randn(IMAGES, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    seen: list[int] = []
    read: list[int] = []
    with torch.inference_mode():
        text = method.text(PromptEncoder(tiny_clip), "object")
        # Every pass of a tower goes through these two once.
        hooks = [
            tiny_clip.visual.ln_pre.register_forward_hook(lambda module, args, result: seen.append(len(result))),
            tiny_clip.text.transformer.blocks[0].ln_1.register_forward_hook(
                lambda module, args, result: read.append(len(result))
            ),
        ]
        with CountMaps() as enlarged:
            method.score(method.encode(tiny_clip, pixels, range(IMAGES)), text, MAP)
    for hook in hooks:
        hook.remove()
    assert sum(seen) == IMAGES * SEEN[name]
    assert bool(read) == (name in READS_IN_THE_LOOP)
    assert enlarged.maps == IMAGES * ENLARGED[name]
