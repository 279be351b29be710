"""Learn the prompts shipped with the bundled backbone: `python -m anomalens_lab ship WORK` makes all of them anew.

Auxiliary data are procedural scenes: drawn from other seeds than the backbone's, without the families that calibration
and the choice of the best method are made on, so these stay unseen by backbone and prompts alike. Recipes are the
papers' but for `PLANS`. Everything is a function of the seeds and of the backbone's weights; when those change, this
must run again (a checkpoint names the weights it was learned with and is refused with others).
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anomalens.backbones.weights import LoadedWeights, load_weights
from anomalens.datasets.layouts import open_dataset
from anomalens.learning.training import TrainingPlan, train
from anomalens.methods.parts import checkpoints
from anomalens.methods.parts.checkpoints import CheckpointInfo
from anomalens.options import BUNDLED
from anomalens_lab.synthesis import HELD_OUT_FAMILIES, SynthesisConfig, synthesize

METHODS = ("anomalyclip", "tokenclip", "crane", "crane+")
NAME, LICENCE = "anomalens procedural scenes", "Apache-2.0"
# Recipes that differ from the paper's. TokenCLIP's full heads at 1e-3 forget the backbone's own alignment within an
# epoch (pixel AUROC on held-out families 75 to 86, 90 at this rate); it is unspecified in public.
PLANS = {"tokenclip": TrainingPlan(epochs=5, lr=1e-4)}
FIRST_SEED = 50_000_000  # of the scenes; those of the backbone's seed s begin at (s + 1) * 100,000,000
COUNT = 320  # scenes


def scenes(folder: Path, count: int, size: int) -> str:
    """Draw the auxiliary data, or what is missing of them, into `folder`; returns their LAYOUT:PATH."""
    config = SynthesisConfig(exclude=tuple(HELD_OUT_FAMILIES), normal_share=0.45)
    synthesize(folder, count, FIRST_SEED, size, config=config, train_share=0.0)
    return f"mvtec:{folder}"


def ship(
    work: Path,
    methods: Sequence[str] = METHODS,
    *,
    count: int = COUNT,
    plan: TrainingPlan | None = None,
    backbone: LoadedWeights | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> list[CheckpointInfo]:
    """Train `methods` in the folder `work` and put the checkpoints beside the bundled backbone.

    Args:
        work: keeps scenes, features, logs and pictures; a second call uses what is there.
        count: scenes to draw.
        plan: changes to the papers' recipes; None takes `PLANS`.
        backbone: the weights; None takes the bundled ones.
        report: as in `train`.
    """
    loaded = backbone or load_weights(BUNDLED)
    samples = list(open_dataset(scenes(work / "scenes", count, loaded.image_size)).samples())
    done = []
    for method in methods:
        out = work / f"{method}.safetensors"
        done.append(
            train(
                method,
                samples,
                loaded,
                out,
                auxiliary_data=NAME,
                licence=LICENCE,
                plan=plan or PLANS.get(method),
                cache=work / "features",
                report=report,
            )
        )
        checkpoints.SHIPPED.mkdir(exist_ok=True)
        shutil.copyfile(out, checkpoints.SHIPPED / out.name)
    return done
