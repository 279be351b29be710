"""Learn what is shipped with the bundled backbone: `python -m anomalens_lab ship WORK` makes all of it anew.

Auxiliary data are procedural scenes: drawn from other seeds than the backbone's, without the families that calibration
and the choice of the best method are made on, so these stay unseen by backbone and prompts alike. Recipes are the
papers' but for `PLANS`. Everything is a function of the seeds and of the backbone's weights; when those change, this
must run again (a checkpoint names the weights it was learned with and is refused with others).
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from anomalens.backbones.weights import LoadedWeights, load_weights
from anomalens.datasets.layouts import Sample, open_dataset
from anomalens.learning.run_files import Report
from anomalens.learning.training import TrainingPlan, train
from anomalens.methods.parts import checkpoints
from anomalens.methods.parts.checkpoints import CheckpointInfo
from anomalens.options import BUNDLED
from anomalens_lab import calibrate
from anomalens_lab.synthesis import HELD_OUT_FAMILIES, SynthesisConfig, synthesize

METHODS = ("anomalyclip", "tokenclip", "crane", "crane+", "aprilgan", "adaclip")
NAME, LICENCE = "anomalens procedural scenes", "Apache-2.0"
# Recipes that differ from the paper's. TokenCLIP's full heads at 1e-3 forget the backbone's own alignment within an
# epoch (pixel AUROC on held-out families 75 to 86, 90 at this rate); it is unspecified in public. The seeds of
# APRIL-GAN and AdaCLIP are the best of three on held-out families (lab/benchmarks/seeds.py).
PLANS = {
    "tokenclip": TrainingPlan(epochs=5, lr=1e-4),
    "aprilgan": TrainingPlan(seed=1),
    "adaclip": TrainingPlan(epochs=1, seed=0),
}
FIRST_SEED = 50_000_000  # of the scenes; those of the backbone's seed s begin at (s + 1) * 100,000,000
COUNT = 320  # scenes that prompts are learned from
# Scenes for methods that learn more than prompts: maps of patch tokens, which begin at random.
COUNTS = {"aprilgan": 1024, "adaclip": 384}


def scenes(folder: Path, count: int, size: int) -> str:
    """Draw the auxiliary data, or what is missing of them, into `folder`; returns their LAYOUT:PATH."""
    config = SynthesisConfig(exclude=tuple(HELD_OUT_FAMILIES), normal_share=0.45)
    synthesize(folder, count, FIRST_SEED, size, config=config, train_share=0.0)
    return f"mvtec:{folder}"


def learned_from(folder: Path, count: int, size: int) -> list[Sample]:
    """Return the first `count` scenes of the auxiliary data; missing ones are drawn, `folder` may hold more."""
    last = FIRST_SEED + count
    return [s for s in open_dataset(scenes(folder, count, size)).samples() if int(s.image.stem) < last]


def learn(
    method: str,
    work: Path,
    out: Path,
    *,
    count: int | None = None,
    plan: TrainingPlan | None = None,
    backbone: LoadedWeights | None = None,
    report: Report | None = None,
) -> CheckpointInfo:
    """Learn `method` on drawn scenes and write the checkpoint `out`; a call after a stop goes on.

    Args:
        method: one of `METHODS`.
        work: keeps scenes and features; a second call uses what is there.
        out: FILE.safetensors.
        count: scenes to learn from; None takes what the method ships with.
        plan: changes to the paper's recipe; None takes `PLANS`.
        backbone: the weights; None takes the bundled ones.
        report: as in `train`.
    """
    loaded = backbone or load_weights(BUNDLED)
    return train(
        method,
        learned_from(work / "scenes", count or COUNTS.get(method, COUNT), loaded.image_size),
        loaded,
        out,
        auxiliary_data=NAME,
        licence=LICENCE,
        plan=plan or PLANS.get(method),
        options=dict(calibrate.METHODS[method]),
        cache=work / "features",
        report=report,
    )


def ship(
    work: Path,
    methods: Sequence[str] = METHODS,
    *,
    count: int | None = None,
    plan: TrainingPlan | None = None,
    backbone: LoadedWeights | None = None,
    report: Report | None = None,
) -> list[CheckpointInfo]:
    """Learn `methods` in the folder `work` and put the checkpoints beside the backbone; arguments as `learn`."""
    done = []
    for method in methods:
        out = work / f"{method}.safetensors"
        done.append(learn(method, work, out, count=count, plan=plan, backbone=backbone, report=report))
        checkpoints.SHIPPED.mkdir(exist_ok=True)
        shutil.copyfile(out, checkpoints.SHIPPED / out.name)
    return done
