"""Train the bundled backbone: sort photographs, then paint scenes and train, stage by stage; all can be resumed.

1. The stem is EfficientNet-Lite0 with its ImageNet weights, frozen unless the recipe thaws its last blocks; its
   channels are standardised on the scenes.
2. The token table is filled from a sentence teacher and frozen, so every English word has a sensible place.
3. The transformers learn on procedural scenes and photographs of surfaces with painted defects: each step compares
   class token, ordinary, value-to-value and self-correlation tokens of one pass with freshly drawn sentences.
4. A stage's weights are the running average of its steps; the backbone is the mean of the weights after the first
   stage and after the last.

All randomness is derived from (seed, step): a stopped run continues from its checkpoint with the numbers it would have
had.
"""

import io
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from anomalens.backbones.bundle import save_bundle
from anomalens.backbones.tower import Clip
from anomalens.engines.torch_engine import pick_device
from anomalens.errors import ConfigError, TrainingError
from anomalens.files import atomic_write, json_ready, stamp
from anomalens.images.normalisation import PixelFormat
from anomalens_lab.averaging import mean_of_weights
from anomalens_lab.model import GatherOnce, Trained, prepare_stem
from anomalens_lab.painting import Progress, paint_scenes, sort_materials
from anomalens_lab.prompts import Teacher, read_lessons
from anomalens_lab.recipe import STAGES, VERSION, PretrainConfig, Stage, parameter_groups, rate_at
from anomalens_lab.shards import Scenes
from anomalens_lab.steps import batches, step_loss
from anomalens_lab.teacher import STEM_MEAN, STEM_STD, SentenceTeacher, require_teachers

SCENES = 20_480  # painted for each stage
PAINTED = 320  # pixels a side
SHARE = 0.3  # of the surfaces that are photographs
CHECKPOINT = "checkpoint.pt"  # what a run goes on from, beside its weights
_LOG_EVERY = 10  # steps


def pretrain_backbone(
    out: str | os.PathLike[str],
    materials: Sequence[str | os.PathLike[str]] = (),
    *,
    stages: Sequence[Stage] = STAGES,
    scenes: int = SCENES,
    size: int = PAINTED,
    workers: int = 2,
    initial: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    teacher: Callable[[], Teacher] = SentenceTeacher,
    progress: Progress | None = None,
) -> Path:
    """Make the bundled backbone from nothing but packages: a quarter of an hour of painting, two hours of one core.

    Args:
        out: folder of everything made, one for each stage and set of scenes; give the same to go on after a stop.
        materials: folders of texture photographs; none trains on procedural surfaces alone.
        stages: what the weights go through, one after the other.
        scenes: number of training scenes of each stage.
        size: pixels a side of the training scenes.
        workers: processes that paint.
        initial: checkpoint.pt of an earlier run for the first stage to start from; None starts from nothing.
        device: where to train, as PyTorch names it: "cpu", "cuda", ...
        teacher: makes what reads sentences.
        progress: called with a description, what is done and the total.

    Returns:
        The path of the weights, the mean of those after the first stage and after the last.

    Raises:
        InputError: no usable photographs, `out` holds what was made otherwise, or the disk has no room (17 GB).
        MissingExtraError: a teacher is missing (the extra `pretrain`). ConfigError, TrainingError: as `pretrain`.
    """
    if teacher is SentenceTeacher:
        require_teachers()
    root = Path(out)
    root.mkdir(parents=True, exist_ok=True)
    photographs = None
    if materials:
        photographs = root / "materials"
        sort_materials(materials, photographs)
    made = []
    for stage in stages:
        painted = root / f"scenes-{stage.scenes_seed}"
        paint_scenes(
            painted,
            scenes,
            size=size,
            seed=stage.scenes_seed,
            materials=photographs,
            share=SHARE,
            wide=stage.wide,
            workers=workers,
            progress=progress,
        )
        weights = pretrain(
            stage.config,
            painted,
            root / stage.name,
            initial=initial,
            device=device,
            teacher=teacher,
            progress=progress,
        )
        made.append(weights)
        initial = weights.with_name(CHECKPOINT)
    mean_of_weights(root / "backbone.safetensors", (made[0], made[-1]))
    return root / "backbone.safetensors"


@dataclass
class _State:
    """Hold what a checkpoint holds."""

    model: Trained
    optimiser: torch.optim.Optimizer
    # Config, scenes and start; a checkpoint goes on with the same only.
    made_with: dict[str, Any]
    # Running average of the trained parameters, by name.
    average: dict[str, Tensor] = field(init=False)
    # Steps done.
    step: int = 0

    def __post_init__(self) -> None:
        self.average = {name: p.detach().clone() for name, p in self.trained().items()}

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that learn, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def follow(self, most: float) -> None:
        """Move the average towards the parameters; early on it forgets faster than `most` says."""
        keep = min(most, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, value in self.trained().items():
                self.average[name].lerp_(value, 1 - keep)

    def save(self, path: Path) -> None:
        """Write the checkpoint, atomically."""
        raw = io.BytesIO()
        state = {
            "made_with": json.dumps(self.made_with),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "step": self.step,
        }
        torch.save(state, raw)
        atomic_write(path, raw.getvalue())

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint. Raises ConfigError where it was made with anything else than this run."""
        saved = torch.load(path, weights_only=True, map_location=self.model.head.device)
        before = json.loads(saved["made_with"])
        if differing := [key for key in self.made_with if self.made_with[key] != before.get(key)]:
            raise ConfigError(f"{path} was made with other {', '.join(differing)}; use another folder")
        self.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.average, self.step = saved["average"], saved["step"]


def pretrain(
    config: PretrainConfig,
    scenes_folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    initial: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    teacher: Callable[[], Teacher] = SentenceTeacher,
    progress: Progress | None = None,
) -> Path:
    """Train the backbone and write `out`/backbone.safetensors, `out`/log.jsonl and checkpoints.

    Goes on from `out`/checkpoint.pt where there is one.

    Args:
        config: the recipe's numbers.
        scenes_folder: shards made by `paint_scenes`; the teacher's answers are kept there too.
        out: folder of the results; created where missing.
        initial: checkpoint.pt of an earlier run, whose weights (not its optimiser) are the starting point.
        device: where to train, as PyTorch names it; the same seed gives the same weights on the same kind of device.
        teacher: makes what reads sentences; not called where its answers are kept already.
        progress: called with a description, the number of steps done and their total.

    Returns:
        The path of the weights: float16, in the project's own format (`anomalens.backbones.bundle`).

    Raises:
        InputError: no scenes. ConfigError: a checkpoint of another config, scenes or start, or no such device.
        TrainingError: the loss is no longer a number. MissingExtraError: a teacher is missing.
    """
    target, folder = pick_device(device), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    scenes = Scenes(Path(scenes_folder))
    torch.manual_seed(config.seed)
    model = Trained(config)
    lessons, table = read_lessons(config, Path(scenes_folder), teacher)
    model.clip.text.token_embedding.weight.data.copy_(table)
    model.to(target)
    prepare_stem(model.stem, scenes, config.seed, config.measured)
    checkpoint, weights, log_path = (folder / name for name in (CHECKPOINT, "backbone.safetensors", "log.jsonl"))
    if initial is not None and not checkpoint.exists():
        _start_from(model, initial)
    model.stem.read = GatherOnce(model.stem)  # type: ignore[method-assign]
    optimiser = torch.optim.AdamW(parameter_groups(model, config.decay), lr=config.rate, betas=(0.9, 0.98))
    start = {"scenes": {"count": len(scenes), "painted": scenes.settings}, "initial": stamp(initial)}
    state = _State(model, optimiser, json_ready(asdict(config) | start))
    if checkpoint.exists():
        state.restore(checkpoint)
    _keep_rows(log_path, state.step)
    with log_path.open("a", encoding="utf-8") as log:
        began = time.monotonic()
        for step, batch, rng in batches(config, scenes, state.step, target):
            rate = rate_at(config, step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            losses = step_loss(model, config, batch, rng, lessons, step)
            total = cast(Tensor, sum(losses[name] * getattr(config.weights, name) for name in losses))
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            norm = nn.utils.clip_grad_norm_(list(state.trained().values()), 1.0)
            if not torch.isfinite(norm + total.detach()):
                raise TrainingError(f"training diverged at step {step}; the last checkpoint stands, take a lower rate")
            optimiser.step()
            state.follow(config.average)
            state.step = step + 1
            if step % _LOG_EVERY == 0:
                row = {"step": step, "rate": rate, "loss": total.item(), "norm": float(norm)}
                row["seconds"] = time.monotonic() - began
                log.write(json.dumps(row | {name: round(v.item(), 4) for name, v in losses.items()}) + "\n")
                log.flush()
            if state.step % config.checkpoint_every == 0 or state.step == config.steps:
                # The checkpoint comes last, so that all it tells of is on disk.
                _save_weights(weights, model.clip, state.average, config)
                state.save(checkpoint)
            if progress is not None:
                progress(f"pretraining, loss {total.item():.2f}", state.step, config.steps)
    return weights


def _start_from(model: Trained, path: str | os.PathLike[str]) -> None:
    """Load the weights of a checkpoint. Raises ConfigError where it is none, or of a backbone of other sizes."""
    try:
        model.load_state_dict(torch.load(path, weights_only=True, map_location=model.head.device)["model"])
    except OSError:
        raise
    except Exception as error:  # a damaged file can make torch raise anything
        raise ConfigError(f"{path} is no checkpoint of a backbone of these sizes") from error


def _keep_rows(path: Path, first: int) -> None:
    """Leave the log's rows of steps before `first`: later ones are run again."""
    if path.exists():
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        atomic_write(path, "".join(row for row in rows if row.endswith("\n") and json.loads(row)["step"] < first))


def _save_weights(path: Path, clip: Clip, average: dict[str, Tensor], config: PretrainConfig) -> None:
    averaged = Clip(config.clip())
    averaged.load_state_dict(
        clip.state_dict() | {n.removeprefix("clip."): v for n, v in average.items() if n.startswith("clip.")}
    )
    pixel_format = PixelFormat((STEM_MEAN,) * 3, (STEM_STD,) * 3)
    save_bundle(path, averaged, licence="Apache-2.0", version=VERSION, pixels=pixel_format, dtype=torch.float16)
