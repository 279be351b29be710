"""Learn prompts: context vectors before fixed words, deep prompts inside the text tower, an image token (Crane).

Object-agnostic prompt learning (AnomalyCLIP, arXiv 2310.18961, section 3; taken over by Crane and TokenCLIP):

    normal    [start] V_1 … V_12 [object] [.] [end]
    abnormal  [start] W_1 … W_12 [damaged] [object] [.] [end]

Before text block l = 2..9 rows 1..4 are overwritten by the deep prompts D_(l-1), which both sentences share; the
first four context vectors therefore act in block 1 only. With an image token ĝ (Crane, arXiv 2504.11055) the unit
image embedding stands as one more row right behind the context vectors:

    normal    [start] V_1 … V_12 [ĝ] [object] [.] [end]

Sequences end at their end-of-text token; the causal mask makes everything behind it, and so the padding to 77 rows
of the published code, without effect. Rows up to the image token are common to all images and run once
(`backbones/prefix.py`), both when prompts are trained and when they are used.

Shapes: C = 2 (normal, abnormal), B images, D text width, E joint width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from anomalens.backbones.config import TextConfig
from anomalens.backbones.prefix import Prefix, encode_behind, encode_prefix
from anomalens.backbones.tokenizer import encode
from anomalens.backbones.tower import TextTower
from anomalens.errors import ConfigError
from anomalens.methods.parts.method_config import MethodConfig

SENTENCES = ("object.", "damaged object.")
"""The words behind the context vectors: normal, abnormal."""


@dataclass(frozen=True)
class PromptConfig(MethodConfig):
    """Hold the sizes of the learned prompts; the defaults are AnomalyCLIP's and Crane's."""

    # Context vectors of each sentence.
    n_ctx: int = 12
    # Text blocks reached: block 1 by context vectors, 2..depth by deep prompts; cut at the tower.
    depth: int = 9
    # Rows that each deep prompt overwrites.
    length: int = 4
    # Round deep prompts and their gradients through fp16, as the published code does.
    half_deep: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.length <= self.n_ctx:
            raise ConfigError(
                f"length {self.length} must lie between 1 and n_ctx {self.n_ctx}: deep prompts would reach the words"
            )
        if self.depth < 1:
            raise ConfigError(f"depth {self.depth} must be at least 1 (1: context vectors only)")


class Prompts(nn.Module):
    """Hold a pair of learned sentences. Its parameters are all that is learned.

    Attributes:
        normal, abnormal: [n_ctx, D] context vectors.
        deep: [min(depth, text blocks) - 1, length, D] deep prompts, shared by both sentences.
    """

    def __init__(self, text: TextConfig, config: PromptConfig) -> None:
        super().__init__()
        if 1 + config.n_ctx + 1 + 4 > text.context:
            raise ConfigError(f"{config.n_ctx} context vectors do not fit a text tower of {text.context} rows")
        self.half_deep = config.half_deep
        reach = min(config.depth, text.layers) - 1
        self.deep = nn.Parameter(0.02 * torch.randn(reach, config.length, text.width))
        self.normal = nn.Parameter(0.02 * torch.randn(config.n_ctx, text.width))
        self.abnormal = nn.Parameter(0.02 * torch.randn(config.n_ctx, text.width))

    def forward(self, text: TextTower) -> Tensor:
        """Encode the sentences without an image token -> [C, E] float32, not normalised."""
        return encode_together(text, [self])[0]

    def sentences(self, text: TextTower) -> list[Tensor]:
        """Return the embeddings of both sentences, each [rows, D], without positions."""
        start, words = _fixed(text)
        return [
            torch.cat([start, context.to(start), fixed])
            for context, fixed in zip((self.normal, self.abnormal), words, strict=True)
        ]

    def deep_rows(self, sequences: int) -> Tensor:
        """Return the deep prompts of every sequence: [depth - 1, sequences, length, D].

        With `half_deep` the cast comes after the expansion, so that each sequence's gradient is rounded by itself
        and summed in float32 afterwards, as in the published code.
        """
        rows = self.deep.unsqueeze(1).expand(-1, sequences, -1, -1)
        return rows.half() if self.half_deep else rows

    def prefix(self, text: TextTower) -> Prefix:
        """Run once what both sentences have before the image token: the start and the context vectors."""
        start, _ = _fixed(text)
        rows = torch.stack([torch.cat([start, context.to(start)]) for context in (self.normal, self.abnormal)])
        return encode_prefix(text, rows, self.deep_rows(2))

    def with_image(self, text: TextTower, prefix: Prefix | None, image: Tensor) -> Tensor:
        """Encode the sentences with image tokens [B, E] of unit length -> [B, C, E] float32, not normalised.

        With a prefix only 4 + 5 rows an image are run. Without one every image's sentences are run whole: slower, the
        same features, but with `half_deep` each image's gradient is rounded by itself, as in the published code.
        Raises ConfigError where E is not D: the embedding takes a word's place.
        """
        start, words = _fixed(text)
        token = image.unsqueeze(1).to(start.dtype)
        if token.shape[-1] != text.width:
            raise ConfigError(
                f"an image token of width {token.shape[-1]} does not fit a text tower of width {text.width};"
                " use this backbone with context=False and train_context=False"
            )
        behind = [torch.cat([token, w.expand(len(token), -1, -1)], dim=1) for w in words]
        if prefix is not None:
            return torch.stack([encode_behind(text, prefix.pick(c), rows) for c, rows in enumerate(behind)], dim=1)
        encoded = []
        for context, rows in zip((self.normal, self.abnormal), behind, strict=True):
            before = torch.cat([start, context.to(start)]).expand(len(token), -1, -1)
            whole = torch.cat([before, rows], dim=1)
            end = torch.full((len(token),), whole.shape[1] - 1, device=whole.device)
            encoded.append(text.encode(whole, end, self.deep_rows(len(token))))
        return torch.stack(encoded, dim=1)


def encode_together(text: TextTower, learners: Sequence[Prompts]) -> Tensor:
    """Encode several pairs of sentences in one pass, each with its own deep prompts -> [len(learners), C, E], raw.

    TokenCLIP's decoupled global and local prompts are two learners: four short sequences, one pass.
    """
    rows = [sentence for learner in learners for sentence in learner.sentences(text)]
    end = torch.tensor([len(r) - 1 for r in rows], device=rows[0].device)
    deep = torch.cat([learner.deep_rows(2) for learner in learners], dim=1)
    features = text.encode(pad_sequence(rows, batch_first=True), end, deep)
    return features.view(len(learners), 2, -1)


@cache
def _word_ids() -> tuple[int, tuple[tuple[int, ...], ...]]:
    """Return the start token, and each sentence's words with the end-of-text token."""
    rows = [tuple(ids) for ids in encode(SENTENCES)]
    return rows[0][0], tuple(row[1:] for row in rows)


def _fixed(text: TextTower) -> tuple[Tensor, list[Tensor]]:
    """Return frozen embeddings: the start row [1, D] and the words of each sentence [m, D]."""
    start, words = _word_ids()
    table = text.token_embedding.weight
    return table[start : start + 1], [table[torch.tensor(ids, device=table.device)] for ids in words]
