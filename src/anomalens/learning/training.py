"""Train a learned method on auxiliary data: features once, then a few hundred cheap steps, then a checkpoint.

    samples -> frozen features (cached) -> loss of the method -> Adam -> checkpoint

What stands beside the checkpoint, and how a stopped run goes on, is in `run_files.py`.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip, Features
from anomalens.backbones.weights import LoadedWeights
from anomalens.datasets.layouts import Sample
from anomalens.engines.smaller_batches import Room
from anomalens.errors import ConfigError, TrainingError
from anomalens.files import cache_folder, file_key, make_folder
from anomalens.images.preprocessing import Preprocess
from anomalens.learning import processes
from anomalens.learning.features import Cached, Source, TrainingBatch, build, cache_key, usable
from anomalens.learning.held_out import Subset, measure, split
from anomalens.learning.run_files import Report, RunFiles
from anomalens.locks import locked
from anomalens.methods import base
from anomalens.methods.parts.checkpoints import (
    Checkpoint,
    CheckpointInfo,
    config_of,
    learned_state,
    save_checkpoint,
)
from anomalens.methods.parts.learned import LearnedMethod, Recipe
from anomalens.methods.parts.losses import Loss


@dataclass(frozen=True)
class TrainingPlan:
    """State what a user changes of a method's recipe; None keeps the paper's.

    Raises ConfigError naming the value that cannot work.
    """

    epochs: int | None = None
    # Images a step, over all processes.
    batch: int | None = None
    lr: float | None = None
    # Seed of initial values and order.
    seed: int | None = None
    # Pixels a side; None: what the method prefers for these weights.
    size: int | None = None
    # Share of every class and label that is not learned from but measured on.
    hold_out: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("batch", self.batch), ("size", self.size)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value} must be at least 1")
        if self.lr is not None and not self.lr > 0:
            raise ConfigError(f"lr {self.lr} must be above 0")
        if not 0 <= self.hold_out < 1:
            raise ConfigError(f"hold_out {self.hold_out} must lie in [0, 1): it is a share of the data")

    def recipe(self, paper: Recipe) -> Recipe:
        """Return the paper's recipe with these changes."""
        names = ("epochs", "batch", "lr", "seed")
        return replace(paper, **{name: getattr(self, name) for name in names if getattr(self, name) is not None})


def train(
    method: str,
    samples: Sequence[Sample],
    loaded: LoadedWeights,
    out: Path,
    *,
    auxiliary_data: str,
    licence: str = "",
    plan: TrainingPlan | None = None,
    options: dict[str, Any] | None = None,
    device: torch.device | None = None,
    cache: Path | None = None,
    offline: bool = False,
    report: Report | None = None,
) -> CheckpointInfo:
    """Train `method` and write the checkpoint `out`. What cannot work is refused before the tower runs.

    Args:
        method: name of a learned method.
        samples: auxiliary data; what cannot be learned from is left out (`features.usable`).
        loaded: the backbone.
        out: FILE.safetensors; its neighbours are named after it (`run_files.py`).
        auxiliary_data: names of the data sets, joined by "+"; evaluation on them will be refused.
        licence: of what is learned, as far as the data's licence decides it.
        plan: changes to the paper's recipe.
        options: fields of the method's Config.
        device: where to compute; None is the CPU.
        cache: folder of feature caches; None takes the user's cache folder.
        offline: never touch the network.
        report: called with every line of the log, and with {"event": "features", "done", "total"} while they are made.

    Raises:
        ConfigError: the method learns nothing, an option does not exist or fit, or another run writes `out`.
        InputError: unreadable or unsuitable data, or no room for the features.
        TrainingError: the loss is no longer a number.
    """
    entry, plan, samples = base.entry(method), plan or TrainingPlan(), usable(samples)
    if not issubclass(entry.build, LearnedMethod):
        raise ConfigError(f"method {method!r} learns nothing; `anomalens methods` lists those that do")
    recipe = plan.recipe(entry.build.recipe)
    learn, held_out = split(samples, plan.hold_out, recipe.seed)
    with processes.process_group(), _held(Path(out)):
        device = processes.local_device(device or torch.device("cpu"))
        learner = _untrained(method, loaded, recipe.seed, offline, options or {}).to(device).eval()
        # Sentences are kept on disk too: those of more classes than memory holds would be encoded anew in every step.
        encoder = PromptEncoder(loaded.clip().to(device), loaded.hash, cache or cache_folder())
        preprocess = _preprocess(learner, loaded, plan.size)
        run = RunFiles(out, report or (lambda line: None))
        folder = cache or cache_folder() / "features"
        source = _source(learner, encoder.clip, samples, preprocess, loaded.hash, folder, run)
        info = CheckpointInfo(
            method=method,
            config=config_of(learner),
            backbone=loaded.name,
            weights=loaded.hash,
            auxiliary_data=auxiliary_data,
            licence=licence,
            seed=recipe.seed,
            training={
                "recipe": asdict(recipe),
                "size": preprocess.size,
                "images": len(learn),
                "held_out": len(held_out),
            },
        )
        images = frozenset(file_key(samples[i].image) for i in learn)
        metrics: dict[str, Any] = {}
        for means in fit(learner, encoder, Subset(source, learn), recipe, run, info):
            metrics = dict(means)
            run.draw(learner, encoder, source, samples)
        if held_out:
            metrics["held_out"] = measure(learner, encoder, Subset(source, held_out))
        info = replace(info, metrics=metrics)
        if processes.rank() == 0:
            save_checkpoint(out, Checkpoint(info, learned_state(learner), images))
        run.finish({"event": "end", "checkpoint": Path(out).name, **metrics})
        processes.wait()
    return info


def _held(out: Path) -> AbstractContextManager[None]:
    """Hold a lock on the checkpoint to be written, in the first process."""
    if processes.rank() > 0:
        return nullcontext()
    make_folder(out.parent)
    return locked(out, "train")


def _untrained(name: str, loaded: LoadedWeights, seed: int, offline: bool, options: dict[str, Any]) -> LearnedMethod:
    """Return a method with initial values drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = base.create(name, loaded.config, offline=offline, **options)
    assert isinstance(method, LearnedMethod)
    return method


def _preprocess(method: LearnedMethod, loaded: LoadedWeights, size: int | None) -> Preprocess:
    side, patch = size or method.working_size(loaded.image_size), loaded.config.vision.patch
    return Preprocess(side - side % patch, loaded.pixels.mean, loaded.pixels.std, method.interpolation, "squash", patch)


def _source(
    method: LearnedMethod,
    clip: Clip,
    samples: Sequence[Sample],
    preprocess: Preprocess,
    weights_hash: str,
    cache: Path,
    run: RunFiles,
) -> Source:
    extra = json.dumps({name: value for name, value in config_of(method).items() if name in method.image_options})
    folder = cache / cache_key(method, weights_hash, samples, preprocess, extra)
    if processes.rank() == 0:
        build(
            folder,
            method,
            clip,
            samples,
            preprocess,
            progress=lambda done, total: run.report({"event": "features", "done": done, "total": total}),
            announce=lambda size: run.report({"event": "cache", "folder": str(folder), "bytes": size}),
        )
    processes.wait()
    return Cached(folder, method, clip, samples)


def fit(
    method: LearnedMethod, encoder: PromptEncoder, source: Source, recipe: Recipe, run: RunFiles, info: CheckpointInfo
) -> Iterator[dict[str, float]]:
    """Run the training loop. After each epoch it yields that epoch's mean loss and parts, with `method` in eval mode.

    Raises TrainingError where the loss is no longer a number.
    """
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    parameters, room = list(method.parameters()), Room()
    optimiser = kind(parameters, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)
    first, totals = run.start(method, optimiser, info)
    if first >= recipe.epochs:
        yield totals
    for epoch in range(first, recipe.epochs):
        method.train()
        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(recipe.seed * 100_003 + epoch))
        totals = {}
        for step, indices in enumerate(torch.split(order, recipe.batch)):
            values = _gradients(method, encoder, source, indices.tolist(), room)
            processes.sum_gradients(parameters)
            optimiser.step()
            if not np.isfinite(values["loss"]):
                raise TrainingError(
                    f"the loss is {values['loss']} at epoch {epoch + 1}, step {step + 1}; take a smaller lr than "
                    f"{recipe.lr:g}, or float32 where half_deep is on"
                )
            for part, value in values.items():
                totals[part] = totals.get(part, 0.0) + value * len(indices) / len(source)
            run.write({"event": "step", "epoch": epoch + 1, "step": step + 1, **values})
        method.eval()
        run.keep(method, optimiser, info, epoch + 1, totals)
        run.write({"event": "epoch", "epoch": epoch + 1, "epochs": recipe.epochs, **totals})
        yield totals


def _gradients(
    method: LearnedMethod, encoder: PromptEncoder, source: Source, indices: list[int], room: Room
) -> dict[str, float]:
    """Leave the gradients of this process's share of a batch in the parameters; return the batch's loss and parts.

    Every loss is a mean over images, so that a batch which the memory does not hold is learned from in parts.
    """
    own = indices[processes.rank() :: processes.count()]

    def learn(part: slice) -> dict[str, float]:
        if part.start == 0:
            method.zero_grad()
        images = own[part]
        loss, share = batch_loss(method, encoder, source.batch(images)), len(images) / len(indices)
        (loss.total * share).backward()
        numbers = (torch.stack([loss.total, *loss.parts.values()]).detach().double() * share).tolist()
        return dict(zip(["loss", *loss.parts], numbers, strict=True))

    method.zero_grad()
    values: dict[str, float] = {}
    for part in room.in_parts(len(own), learn) if own else ():
        for name, value in part.items():
            values[name] = values.get(name, 0.0) + value
    return processes.sum_by_name(values)


def batch_loss(method: LearnedMethod, encoder: PromptEncoder, batch: TrainingBatch) -> Loss:
    """Compute the loss of a batch; where object names reach the prompts, each class meets its own sentences."""
    if not method.uses_names:
        return method.loss(batch.features, method.text(encoder, "object"), batch.masks, batch.labels)
    losses: list[tuple[float, Loss]] = []
    for name in sorted(set(batch.names)):
        rows = [i for i, other in enumerate(batch.names) if other == name]
        text = method.text(encoder, name)
        loss = method.loss(_rows(batch.features, rows), text, batch.masks[rows], batch.labels[rows])
        losses.append((len(rows) / len(batch.names), loss))
    # Every loss is a mean over images, so shares add up to the batch's.
    total = torch.stack([share * loss.total for share, loss in losses]).sum()
    parts = {k: torch.stack([share * loss.parts[k] for share, loss in losses]).sum() for k in losses[0][1].parts}
    return Loss(total, parts)


def _rows(features: Features, rows: list[int]) -> Features:
    """Return the features of some images of a batch, of whatever kind they are."""

    def pick(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[rows]
        return tuple(map(pick, value)) if isinstance(value, tuple) else value

    return replace(features, **{part.name: pick(getattr(features, part.name)) for part in fields(features)})
