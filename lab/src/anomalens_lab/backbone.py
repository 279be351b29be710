"""Training the bundled backbone: `pretrain` is the whole recipe, from painted scenes to a file of weights.

1. The stem is EfficientNet-Lite0 with its ImageNet weights, frozen; its channels are standardised on the scenes.
2. The token table is filled from a sentence teacher and frozen, so every English word has a sensible place.
3. The transformers learn on procedural scenes and photographs of surfaces with painted defects: each step compares
   class token, ordinary, value-to-value and self-correlation tokens of one pass with freshly drawn sentences.
4. What is shipped is the running average of the weights.

Everything random hangs on (seed, step): a stopped run continues from its checkpoint with the numbers it would have had.
"""

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from anomalens.backbones.bundle import save_bundle
from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.stem import LiteStem
from anomalens.backbones.streams import Dense
from anomalens.backbones.tokenizer import token_strings, tokenize
from anomalens.backbones.tower import Clip
from anomalens.errors import ConfigError
from anomalens.files import atomic_write, stamp
from anomalens.images.normalisation import PixelFormat
from anomalens_lab.alignment import (
    TEMPERATURE,
    Weights,
    caption_loss,
    dense_loss,
    directions,
    fused_loss,
    image_loss,
    kind_loss,
    rank_loss,
    target_of,
    teacher_loss,
)
from anomalens_lab.scenes import PATCH, Batch, Scenes
from anomalens_lab.synthesis.captions import kind_phrases
from anomalens_lab.synthesis.fields import Random, pick
from anomalens_lab.synthesis.words import KINDS
from anomalens_lab.teacher import (
    STEM_MEAN,
    STEM_STD,
    SentenceTeacher,
    load_imagenet_stem,
    token_table,
)
from anomalens_lab.vocabulary import frame, state_pair, thing

VERSION = "1.1"  # of the weights this recipe makes


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides the weights, given the scenes."""

    width: int = 192  # D of both towers and E, so that Crane can put image features among words
    layers: int = 4  # blocks of the image tower
    text_layers: int = 4
    native: int = 448  # pixels a side the backbone prefers: 28 x 28 tokens
    steps: int = 1500
    batch: int = 32  # most scenes a step, an even number: they are twins
    pixels: int = 32 * 256 * 256  # most pixels a step: larger sides come in smaller batches, at equal cost
    sides: tuple[int, ...] = (224, 256, 320, 384, 448)  # pixels a side; one is drawn each step
    final_steps: int = 90  # last steps at `final_side`, the size the weights are used at
    final_side: int = 448
    final_batch: int = 10
    rate: float = 1e-3  # AdamW's peak learning rate
    warmup: int = 100  # steps
    decay: float = 0.05  # AdamW's weight decay, matrices only
    average: float = 0.997  # of the running average of the weights, a step
    pairs: int = 6  # pairs of state prompts a step
    sentences: int = 4096  # sentences the teacher reads once
    taught: int = 48  # of them compared a step
    windows: int = 10  # windows an image on every third step
    checkpoint_every: int = 100  # steps
    seed: int = 0
    weights: Weights = field(default_factory=Weights)
    bf16: bool = True  # autocast; 1.5 times faster on CPUs with AVX512-BF16

    def __post_init__(self) -> None:
        """Raises ConfigError for numbers that make no schedule."""
        if self.seed < 0 or self.checkpoint_every < 1:
            raise ConfigError(f"seed {self.seed} must be 0 or more, checkpoint_every {self.checkpoint_every} 1 or more")
        if self.steps < 1 or self.final_steps >= self.steps or self.warmup >= self.steps:
            raise ConfigError(
                f"{self.steps} steps leave nothing between warm-up ({self.warmup}) and the last {self.final_steps}"
            )
        if any(side < PATCH or side % PATCH for side in (*self.sides, self.final_side)):
            raise ConfigError(f"sides {self.sides} and {self.final_side} must be multiples of {PATCH} pixels")
        if any(batch < 2 or batch % 2 for batch in (self.batch, self.final_batch)):
            raise ConfigError(f"batches of {self.batch} and {self.final_batch} must be even: scenes stand in twins")
        if self.taught > self.sentences:
            raise ConfigError(f"{self.taught} sentences a step are more than the {self.sentences} there are")

    def clip(self) -> ClipConfig:
        """The sizes of the model this recipe trains."""
        heads = self.width // 64
        return ClipConfig(
            VisionConfig(self.native, 16, self.width, self.layers, heads, stem="efficientnet-lite0"),
            TextConfig(self.width, self.text_layers, heads),
            joint=self.width,
            activation="gelu",
        )


class GatherOnce:
    """The frozen part of a stem, run without gradients and once for the same pixels."""

    def __init__(self, stem: LiteStem) -> None:
        self._gather = stem.gather
        self._pixels: Tensor | None = None
        self._found: Tensor | None = None

    def __call__(self, pixels: Tensor) -> Tensor:
        """As LiteStem.gather."""
        if pixels is not self._pixels or self._found is None:
            with torch.no_grad():
                self._found = self._gather(pixels)
                self._pixels = pixels
        return self._found


class Trained(nn.Module):
    """The model with what training needs beside it."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.clip = Clip(config.clip())
        self.head = nn.Parameter(torch.randn(config.width, 384) * config.width**-0.5)
        nn.init.constant_(self.clip.logit_scale, math.log(1 / TEMPERATURE))
        nn.init.normal_(self.clip.visual.positional_embedding, std=0.02)
        for block in [*self.clip.visual.transformer.blocks, *self.clip.text.transformer.blocks]:
            nn.init.normal_(block.attn.out_proj.weight, std=config.width**-0.5 * (2 * config.layers) ** -0.5)
        self.clip.text.token_embedding.requires_grad_(False)


def prepare_stem(stem: LiteStem, scenes: Scenes, seed: int, count: int = 192) -> None:
    """ImageNet weights, whitening of the compared channels and standardisation of all, measured on scenes."""
    load_imagenet_stem(stem)
    rng = np.random.default_rng((seed, 1))
    indices = rng.choice(len(scenes), min(count, len(scenes)), replace=False).tolist()
    pixels = normalise(scenes.batch(indices, 256, rng).pixels)
    with torch.no_grad():
        found = [stem.backbone(part) for part in torch.split(pixels, 32)]
        for conv, level in zip(stem.whiten, (1, 2, 3), strict=True):
            rows = torch.cat([f[level].transpose(0, 1).flatten(1)[:, ::7] for f in found], dim=1).T
            mean, covariance = rows.mean(0), torch.cov(rows.T)
            values, axes = torch.linalg.eigh(covariance)
            kept = cast(nn.Conv2d, conv).out_channels
            values, axes = values[-kept:], axes[:, -kept:]
            # Shrunk: the smallest directions are noise and would drown the rest if made equal to them.
            matrix = (axes / (values + 0.1 * values.mean()).sqrt()).T
            conv.load_state_dict({"weight": matrix[:, :, None, None], "bias": -matrix @ mean})
        gathered = stem.gather(pixels)
        spread, mean = torch.std_mean(gathered, dim=(0, 2, 3), keepdim=True)
        stem.shift.copy_(mean)
        stem.scale.copy_(1 / (spread + 1e-3))


def normalise(pixels: Tensor) -> Tensor:
    """0..1 -> what the stem was trained on."""
    return (pixels - STEM_MEAN) / STEM_STD


@dataclass
class Sentences:
    """The prompts of one step and where their parts are."""

    texts: list[str]
    parts: dict[str, slice]

    @classmethod
    def draw(cls, rng: Random, batch: Batch, pairs: int, words: tuple[str, ...]) -> "Sentences":
        """Captions of the batch, state pairs about anything, one phrase a kind."""
        subjects = tuple(batch.subjects)
        drawn = [state_pair(rng, subjects, words) for _ in range(pairs)]
        groups = {
            "captions": batch.captions,
            "normal": [n for n, _ in drawn],
            "abnormal": [a for _, a in drawn],
            "kinds": [str(pick(rng, kind_phrases(kind))) for kind in KINDS],
        }
        texts: list[str] = []
        parts = {}
        for name, group in groups.items():
            parts[name] = slice(len(texts), len(texts) + len(group))
            texts += group
        return cls(texts, parts)


def common_words() -> tuple[str, ...]:
    """Some thousand whole English words: names no caption holds."""
    return tuple(w for w in token_strings()[2000:14000] if w.isalpha() and w.isascii() and len(w) > 3)


def sentence_bank(rng: Random, count: int, words: tuple[str, ...]) -> list[str]:
    """Sentences for the teacher: states and kinds of all sorts of things in all sorts of framings."""
    bank: list[str] = []
    while len(bank) < count:
        name = thing(rng, (), words)
        kind = str(pick(rng, kind_phrases(str(pick(rng, KINDS)))))
        bank += [*state_pair(rng, (), words), name, kind, frame(rng)(name), f"{name} with {kind}"]
    return bank[:count]


def step_loss(
    model: Trained, config: PretrainConfig, batch: Batch, rng: Random, text: "TextSide", step: int
) -> dict[str, Tensor]:
    """The parts of the loss of one step, unweighted."""
    clip = model.clip
    drawn = Sentences.draw(rng, batch, config.pairs, text.words)
    rows = torch.from_numpy(rng.choice(len(text.bank), config.taught, replace=False))
    pixels = normalise(batch.pixels)
    streams = [Dense(), Dense("value-value", start=int(rng.integers(1, 3)))]
    streams += [Dense("self-correlation", start=int(rng.integers(1, 3)))] if step % 2 else []
    # Half precision for the towers only: the losses take small differences of unit vectors.
    with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
        features = clip.text(tokenize(drawn.texts)).float()
        taught = clip.text(text.ids[rows]).float()
        seen = clip.visual(pixels, streams)
    g = directions(features[drawn.parts["normal"]], features[drawn.parts["abnormal"]])
    cls = F.normalize(cast(Tensor, seen.cls).float(), dim=1)
    tokens = F.normalize(torch.stack([d[0] for d in seen.dense]).float(), dim=3)
    cover, kinds = batch.cover.flatten(1), batch.kinds.flatten(1)
    losses = dict(zip(("dense", "dice"), dense_loss(tokens, g, cover), strict=True))
    phrases = F.normalize(features[drawn.parts["kinds"]], dim=1)
    losses["kind"] = kind_loss(tokens[:2], phrases, kinds, cover)
    losses["image"] = image_loss(cls, g, batch.abnormal)
    losses["rank"] = rank_loss(cls, tokens, g, batch.abnormal)
    losses["fused"] = fused_loss(cls, tokens[-1], g, batch.abnormal)
    captions = F.normalize(features[drawn.parts["captions"]], dim=1)
    losses["caption"] = caption_loss(cls, captions, batch.captions, clip.logit_scale)
    losses["teacher"] = teacher_loss(taught, text.taught[rows], model.head)
    if step % 3 == 0:
        losses["window"] = window_loss(model, config, pixels, batch, rng, g)
    return losses


def window_loss(model: Trained, config: PretrainConfig, pixels: Tensor, batch: Batch, rng: Random, g: Tensor) -> Tensor:
    """Class tokens of 2 x 2 or 3 x 3 patches alone know whether those are sound."""
    h, w = batch.cover.shape[1:]
    side, count = int(rng.integers(2, 4)), config.windows
    top, left = rng.integers(0, h - side + 1, count), rng.integers(0, w - side + 1, count)
    inner = (np.arange(side)[:, None] * w + np.arange(side)).ravel()
    index = torch.from_numpy((top * w + left)[:, None] + inner)
    with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
        found = model.clip.visual.windows(pixels, index)
    found = F.normalize(found.float(), dim=2)
    cover = batch.cover.flatten(1)[:, index].mean(2)
    logits = found @ (g / TEMPERATURE).T
    wanted = target_of(cover)[..., None].expand_as(logits)
    return F.binary_cross_entropy_with_logits(logits, wanted)


@dataclass
class TextSide:
    """What is known of language before training."""

    words: tuple[str, ...]
    bank: list[str]
    ids: Tensor  # [S, 77]
    taught: Tensor  # [S, 384]


def text_side(config: PretrainConfig, kept: Path) -> tuple[TextSide, Tensor]:
    """The sentence bank with the teacher's answers, and the token table [vocab, D]; read from `kept` where it is."""
    words = common_words()
    bank = sentence_bank(np.random.default_rng((config.seed, 2)), config.sentences, words)
    # Named by what was read: other sentences would be taught with these answers and nothing would show it.
    read = hashlib.sha256("\n".join([*bank, *token_strings()]).encode()).hexdigest()[:16]
    path = kept / f"text-{read}-{config.width}.pt"
    if not path.exists():
        teacher = SentenceTeacher()
        raw = io.BytesIO()
        torch.save({"taught": teacher(bank), "table": token_table(teacher, config.width)}, raw)
        atomic_write(path, raw.getvalue())
    saved = torch.load(path, weights_only=True)
    return TextSide(words, bank, tokenize(bank), saved["taught"]), saved["table"]


def rate_at(config: PretrainConfig, step: int) -> float:
    """Learning rate: linear warm-up, then half a cosine down to 2 %."""
    if step < config.warmup:
        return config.rate * (step + 1) / config.warmup
    along = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.rate * (0.02 + 0.98 * (1 + math.cos(math.pi * along)) / 2)


def batches(config: PretrainConfig, scenes: Scenes, first: int) -> Iterator[tuple[int, Batch, Random]]:
    """The batch of every step from `first` on: a pass over the twins in a new order, then the next.

    A step passes by `batch` scenes whatever its size, so that step and order hang together alone.
    """
    pairs = len(scenes) // 2
    for step in range(first, config.steps):
        rng = np.random.default_rng((config.seed, 3, step))
        late = step >= config.steps - config.final_steps
        side = config.final_side if late else int(pick(rng, config.sides))
        size = (config.final_batch if late else max(2, min(config.batch, config.pixels // side**2))) // 2
        start = step * (config.batch // 2)
        epoch, offset = divmod(start, max(1, pairs - config.batch // 2))
        order = np.random.default_rng((config.seed, 4, epoch)).permutation(pairs)[offset : offset + size]
        twins = np.stack([2 * order, 2 * order + 1], axis=1).ravel()
        yield step, scenes.batch(twins.tolist(), side, rng, twins=True), rng


def parameter_groups(model: Trained, decay: float) -> list[dict[str, Any]]:
    """Matrices decay; vectors, tables and temperatures do not."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    heavy = [p for n, p in named if p.ndim > 1 and "embedding" not in n]
    light = [p for n, p in named if not (p.ndim > 1 and "embedding" not in n)]
    return [{"params": heavy, "weight_decay": decay}, {"params": light, "weight_decay": 0.0}]


def pretrain(
    config: PretrainConfig,
    scenes_folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    initial: str | os.PathLike[str] | None = None,
) -> Path:
    """Train the backbone and write `out`/backbone.safetensors, `out`/log.jsonl and checkpoints.

    Goes on from `out`/checkpoint.pt where there is one.

    Args:
        config: the recipe's numbers.
        scenes_folder: shards made by `training.painting.paint_scenes`.
        out: folder of the results; created where missing.
        initial: checkpoint.pt of an earlier run, whose weights (not its optimiser) are the starting point.

    Returns:
        The path of the weights: float16, in the project's own format (backbones/bundle.py).

    Raises:
        InputError: no scenes. ConfigError: a checkpoint of another config, scenes or start; training diverged.
        MissingExtraError: a teacher is missing.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    scenes = Scenes(Path(scenes_folder))
    torch.manual_seed(config.seed)
    model = Trained(config)
    text, table = text_side(config, Path(scenes_folder))
    model.clip.text.token_embedding.weight.data.copy_(table)
    stem = cast(LiteStem, model.clip.visual.stem)
    prepare_stem(stem, scenes, config.seed)
    checkpoint = folder / "checkpoint.pt"
    if initial is not None and not checkpoint.exists():
        try:
            model.load_state_dict(torch.load(initial, weights_only=True)["model"])
        except OSError:
            raise
        except Exception as error:  # what a damaged file makes torch raise is anything
            raise ConfigError(f"{initial} is no checkpoint of a backbone of these sizes") from error
    stem.gather = GatherOnce(stem)  # type: ignore[method-assign]
    optimiser = torch.optim.AdamW(parameter_groups(model, config.decay), lr=config.rate, betas=(0.9, 0.98))
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    average = {n: p.detach().clone() for n, p in trained.items()}
    first = 0
    start = {"scenes": {"count": len(scenes), "painted": scenes.settings}, "initial": stamp(initial)}
    made_with = json.loads(json.dumps(asdict(config) | start))
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        before = json.loads(saved["made_with"])
        if differing := [key for key in made_with if made_with[key] != before.get(key)]:
            raise ConfigError(f"{checkpoint} was made with other {', '.join(differing)}; use another folder")
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        average, first = saved["average"], saved["step"]

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    log_path = folder / "log.jsonl"
    _keep_rows(log_path, first)
    with Progress(*columns) as progress, log_path.open("a", encoding="utf-8") as log:
        task = progress.add_task("pretraining", total=config.steps, completed=first)
        began = time.monotonic()
        for step, batch, rng in batches(config, scenes, first):
            rate = rate_at(config, step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            losses = step_loss(model, config, batch, rng, text, step)
            total = cast(Tensor, sum(losses[name] * getattr(config.weights, name) for name in losses))
            optimiser.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
            if not torch.isfinite(norm + total.detach()):
                raise ConfigError(f"training diverged at step {step}; the last checkpoint stands, take a lower rate")
            optimiser.step()
            keep = min(config.average, (step + 1) / (step + 10))
            with torch.no_grad():
                for name, value in trained.items():
                    average[name].lerp_(value, 1 - keep)
            if step % 10 == 0:
                row = {
                    "step": step,
                    "rate": rate,
                    "loss": total.item(),
                    "norm": float(norm),
                    "seconds": time.monotonic() - began,
                }
                log.write(json.dumps(row | {name: round(v.item(), 4) for name, v in losses.items()}) + "\n")
                log.flush()
            progress.update(task, completed=step + 1, description=f"pretraining, loss {total.item():.2f}")
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                # The checkpoint last: what it says was reached is on disk.
                _save_weights(folder / "backbone.safetensors", model.clip, average, config)
                _save_checkpoint(checkpoint, made_with, model, optimiser, average, step + 1)
    return folder / "backbone.safetensors"


def _keep_rows(path: Path, first: int) -> None:
    """Leave the log's rows of steps before `first`: later ones are run again."""
    if path.exists():
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        atomic_write(path, "".join(row for row in rows if row.endswith("\n") and json.loads(row)["step"] < first))


def _save_checkpoint(
    path: Path,
    made_with: dict[str, Any],
    model: Trained,
    optimiser: torch.optim.Optimizer,
    average: dict[str, Tensor],
    step: int,
) -> None:
    raw = io.BytesIO()
    state = {
        "made_with": json.dumps(made_with),
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    torch.save(state | {"average": average, "step": step}, raw)
    atomic_write(path, raw.getvalue())


def _save_weights(path: Path, clip: Clip, average: dict[str, Tensor], config: PretrainConfig) -> None:
    averaged = Clip(config.clip())
    averaged.load_state_dict(
        clip.state_dict() | {n.removeprefix("clip."): v for n, v in average.items() if n.startswith("clip.")}
    )
    pixels = PixelFormat((STEM_MEAN,) * 3, (STEM_STD,) * 3)
    save_bundle(path, averaged, licence="Apache-2.0", version=VERSION, pixels=pixels, dtype=torch.float16)
