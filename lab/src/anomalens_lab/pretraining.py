"""`python -m anomalens_lab pretrain`: sort photographs, paint scenes, train the backbone; each step resumes."""

import os
from collections.abc import Sequence
from pathlib import Path

from anomalens_lab.backbone import PretrainConfig, pretrain
from anomalens_lab.painting import paint_scenes, sort_materials
from anomalens_lab.teacher import require_teachers

SCENES = 28_672  # painted for one run
PAINTED = 448  # pixels a side, that of the largest steps, so that drawn grain is as fine as a photograph's


def pretrain_backbone(
    out: str | os.PathLike[str],
    materials: Sequence[str | os.PathLike[str]] = (),
    *,
    config: PretrainConfig | None = None,
    scenes: int = SCENES,
    workers: int = 2,
    initial: str | os.PathLike[str] | None = None,
) -> Path:
    """Make the bundled backbone from nothing but packages: about 15 minutes of painting, 70 of training on 2 cores.

    Args:
        out: folder of everything made; give the same to go on after a stop.
        materials: folders of texture photographs; none trains on procedural surfaces alone.
        scenes: number of training scenes.
        workers: processes that paint.
        initial: checkpoint.pt of an earlier run to start from; None starts from nothing.

    Returns:
        The path of the weights.

    Raises:
        InputError: no usable photographs, `out` holds what was made otherwise, or the disk has no room (23 GB).
        MissingExtraError: a teacher is missing (the extra `pretrain`).
    """
    require_teachers()
    root = Path(out)
    root.mkdir(parents=True, exist_ok=True)
    config = config or PretrainConfig()
    sorted_out = root / "materials"
    if materials:
        sort_materials(materials, sorted_out)
    paint_scenes(
        root / "scenes",
        scenes,
        size=PAINTED,
        seed=1 + config.seed,
        materials=sorted_out if materials else None,
        workers=workers,
    )
    return pretrain(config, root / "scenes", root, initial=initial)
