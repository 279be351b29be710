"""Training a learned method on auxiliary data: features once, then a few hundred cheap steps, then a checkpoint.

    samples -> features (cached, or the tower every step) -> loss of the method -> Adam -> checkpoint

Beside the checkpoint FILE.safetensors stand FILE.jsonl (one JSON object a line: start, step, epoch, end), FILE.png
(after each epoch: images, truth and maps of the first anomalous samples) and, until the end, FILE.resume, from which a
run that was stopped goes on at its last whole epoch with the result it would have had.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip, Features
from anomalens.backbones.weight_files import load_torch
from anomalens.backbones.weights import LoadedWeights
from anomalens.datasets.layouts import Sample
from anomalens.errors import ConfigError
from anomalens.files import atomic_write, cache_folder
from anomalens.images.decoding import decode
from anomalens.images.preprocessing import Preprocess
from anomalens.learning import processes
from anomalens.learning.features import Batch, Cached, Pixels, Source, build, cache_key, usable
from anomalens.learning.held_out import Part, measure, split
from anomalens.methods import base
from anomalens.methods.parts.checkpoints import (
    Checkpoint,
    CheckpointInfo,
    config_of,
    file_key,
    learned_state,
    save_checkpoint,
)
from anomalens.methods.parts.learned import LearnedMethod, Recipe
from anomalens.methods.parts.losses import Loss

Report = Callable[[dict[str, Any]], None]
_GUIDE = ("guide", "beta", "gamma", "batch_threshold")  # settings of a guided stream
_SHOWN = 4  # samples on the picture
_THUMB = 160  # pixels a side of each


@dataclass(frozen=True)
class Plan:
    """What a user may change of a method's recipe; None keeps the paper's."""

    epochs: int | None = None
    batch: int | None = None  # images a step, over all processes
    lr: float | None = None
    seed: int | None = None  # of initial values and order
    size: int | None = None  # pixels a side; None: what the method prefers for these weights
    hold_out: float = 0.0  # share of every class and label that is not learned from but measured on

    def recipe(self, paper: Recipe) -> Recipe:
        """The paper's recipe with these changes. Raises ConfigError where they cannot work."""
        given = {k: v for k, v in asdict(self).items() if v is not None and k not in ("size", "hold_out")}
        found = replace(paper, **given)
        if found.epochs < 1 or found.batch < 1 or found.lr <= 0:
            raise ConfigError(
                f"epochs {found.epochs} and batch {found.batch} must be at least 1, lr {found.lr} above 0"
            )
        return found


def train(
    method: str,
    samples: Sequence[Sample],
    loaded: LoadedWeights,
    out: Path,
    *,
    auxiliary_data: str,
    licence: str = "",
    plan: Plan | None = None,
    options: dict[str, Any] | None = None,
    device: torch.device | None = None,
    cache: Path | None = None,
    report: Report | None = None,
) -> CheckpointInfo:
    """Train `method` and write the checkpoint `out`.

    Args:
        method: name of a learned method.
        samples: auxiliary data; what cannot be learned from is left out (`features.usable`).
        loaded: the backbone.
        out: FILE.safetensors; its neighbours are named after it (see the module text).
        auxiliary_data: names of the data sets, joined by "+"; evaluation on them will be refused.
        licence: of what is learned, as far as the data's licence decides it.
        plan: changes to the paper's recipe.
        options: fields of the method's Config.
        device: where to compute; None is the CPU.
        cache: folder of feature caches; None takes the user's cache folder.
        report: called with every line of the log, and with {"event": "features", "done", "total"} while they are made.

    Raises:
        ConfigError: the method learns nothing, an option does not exist, or the loss stopped being a number.
        InputError: unreadable or unsuitable data, or no room for the features.
    """
    with processes.process_group():
        return _train(
            method,
            usable(samples),
            loaded,
            Path(out),
            auxiliary_data,
            licence,
            plan or Plan(),
            options or {},
            processes.local_device(device or torch.device("cpu")),
            cache or cache_folder() / "features",
            report or (lambda _: None),
        )


def _train(
    name: str,
    samples: list[Sample],
    loaded: LoadedWeights,
    out: Path,
    auxiliary_data: str,
    licence: str,
    plan: Plan,
    options: dict[str, Any],
    device: torch.device,
    cache: Path,
    report: Report,
) -> CheckpointInfo:
    with torch.random.fork_rng(devices=[]):
        seed = LearnedMethod.recipe.seed if plan.seed is None else plan.seed
        torch.manual_seed(seed)
        method = base.create(name, loaded.config, **options)
    if not isinstance(method, LearnedMethod):
        raise ConfigError(f"method {name!r} learns nothing; `anomalens methods` lists those that do")
    method = method.to(device).eval()
    recipe = plan.recipe(method.recipe)
    clip = loaded.clip().to(device)
    encoder = PromptEncoder(clip, loaded.hash)
    side = plan.size or method.working_size(loaded.image_size)
    patch = loaded.config.vision.patch
    how = Preprocess(side - side % patch, loaded.pixels.mean, loaded.pixels.std, method.interpolation, "squash", patch)
    source = _source(method, clip, samples, how, loaded.hash, cache, report)

    learn, held = split(samples, plan.hold_out, recipe.seed)
    training = {"recipe": asdict(recipe), "size": how.size, "images": len(learn), "held_out": len(held)}
    info = CheckpointInfo(
        method=name,
        config=config_of(method),
        backbone=loaded.name,
        weights=loaded.hash,
        auxiliary_data=auxiliary_data,
        licence=licence,
        seed=recipe.seed,
        training=training,
    )
    images = frozenset(file_key(samples[i].image) for i in learn)
    log = _Log(out.with_suffix(".jsonl"), report)
    metrics: dict[str, Any] = {}
    for means in fit(method, encoder, Part(source, learn), recipe, out.with_suffix(".resume"), log, info):
        metrics = dict(means)
        if processes.rank() == 0:
            _picture(out.with_suffix(".png"), method, encoder, source, samples)
    if held:
        metrics["held_out"] = measure(method, encoder, Part(source, held))
    info = replace(info, metrics=metrics)
    if processes.rank() == 0:
        save_checkpoint(out, Checkpoint(info, learned_state(method), images))
        out.with_suffix(".resume").unlink(missing_ok=True)
        log.write({"event": "end", "checkpoint": out.name, **metrics})
    processes.wait()
    return info


def _source(
    method: LearnedMethod,
    clip: Clip,
    samples: list[Sample],
    how: Preprocess,
    weights_hash: str,
    cache: Path,
    report: Report,
) -> Source:
    if not method.frozen_features:
        return Pixels(method, clip, samples, how)
    # The guide of Crane+ and its settings shape the features too.
    extra = json.dumps({k: v for k, v in config_of(method).items() if k in _GUIDE})
    folder = cache / cache_key(method, weights_hash, samples, how, extra)
    if processes.rank() == 0:
        build(
            folder,
            method,
            clip,
            samples,
            how,
            progress=lambda done, total: report({"event": "features", "done": done, "total": total}),
            announce=lambda size: report({"event": "cache", "folder": str(folder), "bytes": size}),
        )
    processes.wait()
    return Cached(folder, samples, clip.visual.proj.device)


def fit(
    method: LearnedMethod,
    encoder: PromptEncoder,
    source: Source,
    recipe: Recipe,
    resume: Path,
    log: "_Log",
    info: CheckpointInfo,
) -> Iterator[dict[str, float]]:
    """The training loop. After each epoch it gives that epoch's mean loss and parts, with `method` in eval mode."""
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    parameters = list(method.parameters())
    optimiser = kind(parameters, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)
    first, totals = _resumed(resume, method, optimiser, info)
    if processes.rank() == 0:
        log.open(fresh=first == 0)
        log.write({"event": "start", "method": info.method, "epoch": first, **info.training})
    if first >= recipe.epochs:
        yield totals
    for epoch in range(first, recipe.epochs):
        method.train()
        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(recipe.seed * 100_003 + epoch))
        totals = {}
        for step, indices in enumerate(torch.split(order, recipe.batch)):
            optimiser.zero_grad()
            values = _gradients(method, encoder, source, indices.tolist())
            processes.sum_gradients(parameters)
            optimiser.step()
            _check(values, epoch, step, recipe)
            for part, value in values.items():
                totals[part] = totals.get(part, 0.0) + value * len(indices) / len(source)
            if processes.rank() == 0:
                log.write({"event": "step", "epoch": epoch + 1, "step": step + 1, **values})
        method.eval()
        if processes.rank() == 0:
            _keep(resume, method, optimiser, info, epoch + 1, totals)
            log.write({"event": "epoch", "epoch": epoch + 1, "epochs": recipe.epochs, **totals})
        yield totals


def _gradients(method: LearnedMethod, encoder: PromptEncoder, source: Source, indices: list[int]) -> dict[str, float]:
    """Leave the gradients of this process's share of a batch in the parameters; give the batch's loss and parts."""
    own = indices[processes.rank() :: processes.count()]
    device = next(method.parameters()).device
    names, values = ["loss"], torch.zeros(8, device=device, dtype=torch.float64)
    if own:
        loss, share = batch_loss(method, encoder, source.batch(own)), len(own) / len(indices)
        (loss.total * share).backward()  # type: ignore[no-untyped-call]
        names += loss.parts
        found = torch.stack([loss.total, *loss.parts.values()]).detach().double() * share
        values[: len(found)] = found
    return dict(zip(names, processes.summed(values).tolist(), strict=False))


def batch_loss(method: LearnedMethod, encoder: PromptEncoder, batch: Batch) -> Loss:
    """The loss of a batch; where object names reach the prompts, each class meets its own sentences."""
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


def _check(values: dict[str, float], epoch: int, step: int, recipe: Recipe) -> None:
    if not np.isfinite(values["loss"]):
        raise ConfigError(
            f"the loss is {values['loss']} at epoch {epoch + 1}, step {step + 1}; take a smaller lr than {recipe.lr:g},"
            " or float32 where half_deep is on"
        )


# ----------------------------------------------------------------------------------------------- stopping, going on
def _keep(
    path: Path,
    method: LearnedMethod,
    optimiser: torch.optim.Optimizer,
    info: CheckpointInfo,
    done: int,
    totals: dict[str, float],
) -> None:
    buffer = io.BytesIO()
    state = {"run": _run(info), "done": done, "totals": totals}
    torch.save(state | {"method": method.state_dict(), "optimiser": optimiser.state_dict()}, buffer)
    atomic_write(path, buffer.getvalue())


def _resumed(
    path: Path, method: LearnedMethod, optimiser: torch.optim.Optimizer, info: CheckpointInfo
) -> tuple[int, dict[str, float]]:
    """Epochs already done and the last one's means, with their state put back; 0 where there is none of this run."""
    if not path.is_file():
        return 0, {}
    state = load_torch(path, next(method.parameters()).device)
    if state["run"] != _run(info):
        return 0, {}
    method.load_state_dict(state["method"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["done"]), dict(state["totals"])


def _run(info: CheckpointInfo) -> str:
    """What must be equal for a run to go on. More epochs than before may be asked."""
    facts = asdict(info)
    facts["training"] = facts["training"] | {"recipe": facts["training"]["recipe"] | {"epochs": 0}}
    return json.dumps(facts, sort_keys=True)


# -------------------------------------------------------------------------------------------------------- reporting
class _Log:
    """JSON lines in a file, and to whoever listens."""

    def __init__(self, path: Path, report: Report) -> None:
        self.path, self.report = path, report

    def open(self, *, fresh: bool) -> None:
        """Start anew, or go on behind what is there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            self.path.unlink(missing_ok=True)

    def write(self, line: dict[str, Any]) -> None:
        """One object, one line; a reader may follow the file."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self.report(line)


def _picture(
    path: Path, method: LearnedMethod, encoder: PromptEncoder, source: Source, samples: Sequence[Sample]
) -> None:
    """A row for each of the first anomalous samples: image, truth, map (black 0, white the largest of these maps)."""
    shown = [i for i, s in enumerate(samples) if s.label == 1][:_SHOWN]
    rows = []
    for i in shown:
        with torch.no_grad():
            batch = source.batch([i])
            found = method.score(batch.features, method.text(encoder, batch.names[0]), (_THUMB, _THUMB))
        rows.append((samples[i], batch.masks[0].cpu().numpy(), found.map[0].float().cpu().numpy()))
    brightest = max((float(heat.max()) for _, _, heat in rows), default=1.0) or 1.0
    sheet = Image.new("RGB", (3 * _THUMB, len(rows) * _THUMB))
    for row, (sample, mask, heat) in enumerate(rows):
        cells = [decode(sample.image).rgb, 255 * mask, 255 * heat / brightest]
        for column, cell in enumerate(cells):
            tile = Image.fromarray(cell.astype(np.uint8)).convert("RGB").resize((_THUMB, _THUMB))
            sheet.paste(tile, (column * _THUMB, row * _THUMB))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    atomic_write(path, buffer.getvalue())
