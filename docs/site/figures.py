"""Draw the figures of docs/calibration.md from the photographs in examples/hazelnuts: python docs/site/figures.py"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import beta

from anomalens import Detector, load_detector, open_dataset
from anomalens.prediction import predictions_of

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs/images"
# Told apart by colour-blind readers too.
SOUND, PAINTED = "#0072b2", "#d55e00"


def main() -> None:
    """Write scores.png, promise.png and map.png."""
    mpl.use("agg")
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 130})
    words = load_detector()
    dataset = open_dataset(f"mvtec:{ROOT / 'examples/hazelnuts'}")
    taught = words.fit([sample.image for sample in dataset.samples("train")])
    draw_scores(words, taught)
    draw_promise()
    draw_map(taught, ROOT / "examples/hazelnuts/peeled_hazelnut/test/colour/02.jpg")


def draw_scores(words: Detector, taught: Detector) -> None:
    """Draw the scores of the test photographs by both detectors, with the thresholds."""
    samples = list(open_dataset(f"mvtec:{ROOT / 'examples/hazelnuts'}").samples())
    figure, axes = plt.subplots(2, 1, figsize=(6.4, 2.9), layout="constrained")
    for axis, detector, name in zip(
        axes, (words, taught), ("words alone", "taught from four good photos"), strict=True
    ):
        predictions = predictions_of(detector.predict_iter([sample.image for sample in samples]))
        for label, title, colour, marker, height in ((0, "sound", SOUND, "o", 0.2), (1, "painted", PAINTED, "^", -0.2)):
            scores = [part.score for part, sample in zip(predictions, samples, strict=True) if sample.label == label]
            axis.scatter(scores, np.full(len(scores), height), s=34, c=colour, marker=marker, label=title, alpha=0.8)
        axis.axvline(predictions[0].threshold, color="black", linewidth=1)
        axis.text(predictions[0].threshold, 0.62, " threshold", va="top")
        axis.set(yticks=[], ylim=(-0.5, 0.65), title=name)
        axis.spines["left"].set_visible(False)
    axes[1].set_xlabel("score")
    axes[0].legend(frameon=False, loc="upper right")
    save(figure, "scores.png")


def draw_promise() -> None:
    """Draw nineteen scores with their threshold, and how far true rates of false alarms lie around the promise."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.4), layout="constrained", width_ratios=(1.2, 1))
    scores = np.sort(np.random.default_rng(3).normal(1, 0.25, 19))
    left.scatter(scores, np.zeros(19), s=30, c=SOUND, alpha=0.8)
    left.axvline(scores[-1], color="black", linewidth=1)
    left.axvspan(scores[-1], scores[-1] + 0.6, color=PAINTED, alpha=0.25, linewidth=0)
    left.text(scores[-1] + 0.03, 0.045, "1 gap of 20:\nfalse alarm", va="top")
    left.set(yticks=[], ylim=(-0.05, 0.05), xlim=(scores[0] - 0.1, scores[-1] + 0.6), xlabel="score of good photos")
    left.spines["left"].set_visible(False)
    for row, (count, rank) in enumerate(((19, 19), (99, 95), (500, 476))):
        # The true rate of one draw of n photographs and the k-th smallest score follows Beta(n + 1 - k, k).
        low, high = (100 * beta.ppf(share, count + 1 - rank, rank) for share in (0.05, 0.95))
        right.plot((low, high), (row, row), color=SOUND, linewidth=6, solid_capstyle="butt")
        right.plot(100 * (count + 1 - rank) / (count + 1), row, "|", color="black", markersize=16)
    right.set(yticks=range(3), yticklabels=["19 photos", "99 photos", "500 photos"], ylim=(-0.6, 2.6), xlim=(0, 16))
    right.set_xlabel("false alarms among sound images, %")
    save(figure, "promise.png")


def draw_map(taught: Detector, photo: Path) -> None:
    """Draw a photograph, its heatmap and its mask side by side."""
    prediction = taught.predict(photo)
    mask = Image.fromarray(prediction.mask).convert("RGB")
    parts = [part.resize((240, 240)) for part in (Image.open(photo).convert("RGB"), prediction.heatmap(), mask)]
    strip = Image.new("RGB", (3 * 240 + 16, 240), "white")
    for number, part in enumerate(parts):
        strip.paste(part, (number * 248, 0))
    strip.save(IMAGES / "map.png", optimize=True)


def save(figure: Figure, name: str) -> None:
    """Write a figure, without the date and the version that would change the file at every run."""
    figure.savefig(IMAGES / name, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
