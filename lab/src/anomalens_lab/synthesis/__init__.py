"""Draw procedural scenes with exact masks, defect kinds and captions: training data without a licence question.

    from anomalens_lab.synthesis import SynthesisConfig, scene
    picture = scene(7, SynthesisConfig(size=256))

`scene(seed)` is a pure function of its seed and configuration. Surfaces are painted in `surfaces` and `patterns`;
parts are planned in `hardware`, `goods`, `electronics` and `arrays` with the tools of `workshop` and painted in
`items`; `defects` changes a surface, `faults` rearranges pieces, `camera` photographs, `rendering` joins them,
`captions` draws the sentences, `export` writes a data set.
"""

from anomalens_lab.synthesis.captions import kind_phrases, state_captions
from anomalens_lab.synthesis.config import (
    FAMILIES,
    HELD_OUT_FAMILIES,
    PART_FAMILIES,
    SURFACE_FAMILIES,
    SynthesisConfig,
)
from anomalens_lab.synthesis.export import synthesize
from anomalens_lab.synthesis.rendering import Rendering, render
from anomalens_lab.synthesis.scene import Scene, scene, scenes, twins
from anomalens_lab.synthesis.words import GENERIC, KINDS

__all__ = [
    "FAMILIES",
    "GENERIC",
    "HELD_OUT_FAMILIES",
    "KINDS",
    "PART_FAMILIES",
    "SURFACE_FAMILIES",
    "Rendering",
    "Scene",
    "SynthesisConfig",
    "kind_phrases",
    "render",
    "scene",
    "scenes",
    "state_captions",
    "synthesize",
    "twins",
]
