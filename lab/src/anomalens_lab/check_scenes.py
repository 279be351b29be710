"""Draw the scenes that come with anomalens: exports are compared and int8 is judged on them where no data is named.

They show families that the backbone and the shipped prompts have never seen, as many sound as faulty.
"""

import shutil
from pathlib import Path

from anomalens_lab.synthesis import HELD_OUT_FAMILIES, SynthesisConfig, scene
from anomalens_lab.synthesis.export import write_scene

SIZE = 256  # pixels a side
EACH = 2  # sound scenes of every family, and as many faulty ones
FIRST_SEED = 2_000_000  # of the scenes tried


def write_check_scenes(folder: Path) -> int:
    """Draw the scenes into `folder` in MVTec layout and return their number.

    What the folder held before is removed. Seeds are tried in order; a scene is kept while its family still lacks one
    of its state.
    """
    shutil.rmtree(folder, ignore_errors=True)
    config = SynthesisConfig(size=SIZE, include=HELD_OUT_FAMILIES)
    lacking = {(family, anomalous): EACH for family in HELD_OUT_FAMILIES for anomalous in (False, True)}
    count, seed = sum(lacking.values()), FIRST_SEED
    while any(lacking.values()):
        picture = scene(seed, config)
        if lacking[picture.family, picture.anomalous]:
            lacking[picture.family, picture.anomalous] -= 1
            write_scene(folder, picture, kind="JPEG")
        seed += 1
    return count
