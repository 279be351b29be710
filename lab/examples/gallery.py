"""Make the picture of lab/README.md: drawn scenes of families the bundled backbone never saw, and what it finds."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from anomalens import load_detector
from anomalens_lab.synthesis import HELD_OUT_FAMILIES, SynthesisConfig, scene

SIDE = 200  # pixels of a panel
GAP = 6  # pixels between panels


def main() -> None:
    """Draw scenes in a row, overlays of the same scenes below."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/gallery.png"))
    parser.add_argument("--normal", type=int, default=2, help="scenes without a defect")
    parser.add_argument("--anomalous", type=int, default=4, help="scenes with one")
    parser.add_argument("--seed", type=int, default=0, help="first scene tried")
    asked = parser.parse_args()

    config = replace(SynthesisConfig(), size=256, include=HELD_OUT_FAMILIES)
    wanted = {False: asked.normal, True: asked.anomalous}
    images: dict[bool, list[np.ndarray]] = {False: [], True: []}
    seed = asked.seed
    while any(len(images[label]) < wanted[label] for label in wanted):
        drawn = scene(seed, config)
        seed += 1
        label = bool(drawn.mask.any())
        if len(images[label]) < wanted[label]:
            images[label].append(drawn.image)

    detector = load_detector()
    columns = images[False] + images[True]
    sheet = Image.new("RGB", (len(columns) * (SIDE + GAP) - GAP, 2 * SIDE + GAP), "white")
    for column, image in enumerate(columns):
        prediction = detector.predict(image)
        for row, picture in enumerate((Image.fromarray(image), prediction.overlay(image))):
            sheet.paste(
                picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (column * (SIDE + GAP), row * (SIDE + GAP))
            )
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(asked.out, optimize=True)


if __name__ == "__main__":
    main()
