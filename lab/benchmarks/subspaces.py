"""What TokenCLIP's subspaces do on the bundled backbone: how evenly they are used, and where.

    python lab/benchmarks/subspaces.py --picture docs/images/subspaces.png      procedural scenes of held-out families
    python lab/benchmarks/subspaces.py --data ../shared/data/peeled_hazelnut    the anomalous images of a data set

For every image each patch is coloured by the subspace that weighs most in its mixture. Usage is the share of the
weights over all patches and images; a subspace that had a region to itself would be concentrated (see "regions": the
mean share of a patch's four neighbours that have its subspace, against what the usage alone would give).
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from anomalens.datasets.layouts import open_dataset
from anomalens.detection.loading import load_detector
from anomalens.engines.torch_engine import TorchEngine
from anomalens.images.decoding import decode
from anomalens.images.preprocessing import preprocess
from anomalens.methods.tokenclip import TokenCLIP
from anomalens_lab.synthesis import HELD_OUT_FAMILIES, SynthesisConfig, twins

COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0)], np.uint8
)  # told apart by everyone (Okabe & Ito)
SIDE = 168  # pixels of a panel
SHOWN = 6
SCENES = 48


def neighbours_alike(labels: npt.NDArray[np.int64]) -> float:
    """Return the share of neighbouring pairs of patches [h, w] with the same subspace."""
    across, down = labels[:, 1:] == labels[:, :-1], labels[1:] == labels[:-1]
    return float(np.concatenate([across.ravel(), down.ravel()]).mean())


def main() -> None:
    """Print the figures and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set in MVTec layout, instead of scenes")
    parser.add_argument("--picture", type=Path, help="where to draw")
    parser.add_argument("--checkpoint", type=Path, help="other prompts than the shipped ones")
    asked = parser.parse_args()
    detector = load_detector("tokenclip", checkpoint=asked.checkpoint)
    engine = detector.engine
    assert isinstance(engine, TorchEngine)
    method = engine.method
    assert isinstance(method, TokenCLIP)
    if asked.data:
        samples = open_dataset(f"mvtec:{asked.data}").samples("test")
        images = [decode(sample.image).rgb for sample in samples if sample.label == 1]
    else:
        config = SynthesisConfig(size=448, include=HELD_OUT_FAMILIES)
        images = [twins(seed, config)[0].image for seed in range(SCENES)]
    usage, alike, panels = np.zeros(method.config.subspaces), [], []
    for number, rgb in enumerate(images):
        with torch.inference_mode():
            features = method.encode(engine.clip, torch.from_numpy(preprocess(rgb, detector.preprocess))[None])
            tokens = F.normalize(features.dense[0][-1], dim=-1)
            weights = method.assignment(method.similarities(tokens, engine.text)).mean(dim=2)[0]
        labels = weights.argmax(dim=1).view(features.grid).numpy()
        usage += weights.mean(dim=0).numpy() / len(images)
        alike.append(neighbours_alike(labels))
        if number < SHOWN:
            flat = Image.fromarray(COLOURS[labels % len(COLOURS)]).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            panels.append((Image.fromarray(rgb).resize((SIDE, SIDE)), flat))
    name = asked.data.name if asked.data else "held-out procedural families"
    print(f"{len(images)} anomalous images of {name}, Q = {len(usage)}, k = {method.config.k}")
    print("usage: " + ", ".join(f"{100 * share:.1f} %" for share in usage))
    print(f"regions: {np.mean(alike):.2f} of neighbours alike, by usage alone {np.square(usage).sum():.2f}")
    with torch.inference_mode():
        cosines = engine.text.subspaces @ engine.text.subspaces.transpose(1, 2)
    apart = cosines[:, ~torch.eye(len(usage), dtype=torch.bool)]
    print(f"cosine of different subspaces of a class: mean {apart.mean():.3f}, mean square {apart.square().mean():.3f}")
    if asked.picture:
        sheet = Image.new("RGB", (SIDE * len(panels), 2 * SIDE))
        for column, pair in enumerate(panels):
            for row, panel in enumerate(pair):
                sheet.paste(panel, (column * SIDE, row * SIDE))
        sheet.save(asked.picture, optimize=True)


if __name__ == "__main__":
    main()
