"""Draw the pictures of docs/calibration.md from the hazelnuts of `make demo`: scores beside thresholds, map and mask.

    python lab/examples/decisions.py

Run it where the shipped weights or thresholds have changed.
"""

import argparse
from pathlib import Path

import matplotlib
from PIL import Image

from anomalens import Prediction, load_detector, open_dataset
from anomalens.datasets.layouts import Sample
from anomalens.images.decoding import decode
from anomalens.prediction import predictions_of

HAZELNUTS = Path(__file__).parents[2] / "examples" / "hazelnuts"
SHOWN = "colour/02.jpg"
SIDE, GAP = 240, 8  # pixels of a panel, and between two
# Label of the truth, name, height in the drawing, marker and colour.
KINDS = ((0, "sound", 0.7, "o", "#0072b2"), (1, "painted", 0.3, "^", "#d55e00"))


def main() -> None:
    """Judge the hazelnuts by words alone and taught, and write scores.png and map.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="the folder to write to")
    out = parser.parse_args().out
    dataset = open_dataset(f"mvtec:{HAZELNUTS}")
    samples = list(dataset.samples())
    words = load_detector()
    taught = words.fit([sample.image for sample in dataset.samples("train")])
    said, compared = (
        predictions_of(detector.predict_iter([sample.image for sample in samples])) for detector in (words, taught)
    )
    draw_scores(out / "scores.png", {"words alone": said, "taught from four good photos": compared}, samples)
    draw_map(out / "map.png", next(p for p in compared if str(p.path).endswith(SHOWN)))


def draw_scores(path: Path, answers: dict[str, list[Prediction]], samples: list[Sample]) -> None:
    """Draw a line of dots for each detector, one for each photograph, and its threshold."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(len(answers), 1, figsize=(8.3, 3.8), layout="constrained")
    for axes, (title, predictions) in zip(rows, answers.items(), strict=True):
        for label, name, height, marker, colour in KINDS:
            scores = [p.score for p, sample in zip(predictions, samples, strict=True) if sample.label == label]
            axes.scatter(scores, [height] * len(scores), s=64, marker=marker, color=colour, alpha=0.85, label=name)
        axes.axvline(predictions[0].threshold, color="black")
        place = (predictions[0].threshold, 0.95)
        axes.annotate("threshold", place, (4, 0), textcoords="offset points", va="top", fontsize=11)
        axes.set(ylim=(0, 1), yticks=[])
        axes.set_title(title, fontsize=14)
        axes.spines[["left", "right", "top"]].set_visible(False)
    rows[0].legend(frameon=False, loc="upper right", fontsize=11)
    rows[-1].set_xlabel("score")
    figure.savefig(path, dpi=100)


def draw_map(path: Path, prediction: Prediction) -> None:
    """Draw a photograph, its heatmap and its mask side by side."""
    assert prediction.path is not None
    panels = [Image.fromarray(decode(prediction.path).rgb), prediction.heatmap(), Image.fromarray(prediction.mask)]
    sheet = Image.new("RGB", (len(panels) * (SIDE + GAP) - GAP, SIDE), "white")
    for number, panel in enumerate(panels):
        shrunk = panel.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        sheet.paste(shrunk, (number * (SIDE + GAP), 0))
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    main()
