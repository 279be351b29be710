"""Find defects in photographs of solar cells without having seen one: what `make demo-solar` runs.

The images are electroluminescence photographs of real photovoltaic cells (the `elpv-dataset` package, Buerhop-Lutz
et al. 2018 and Deitsch et al. 2019, CC BY-NC-SA 4.0): functional ones and ones with cracks, dead areas and broken
contacts.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from anomalens import Prediction, load_detector
from anomalens.datasets.elpv import demo_samples
from anomalens.metrics.summary import auroc


def main() -> None:
    """Detect on a balanced sample, print a table and the image AUROC, write the heatmaps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60, help="images, half of them defective (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="which images (default 0)")
    parser.add_argument("--method", default="auto", help="a method from `anomalens methods`")
    parser.add_argument("--out", type=Path, default=Path("demo/solar_cells"), help="folder for the heatmaps")
    arguments = parser.parse_args()

    console = Console()
    samples = demo_samples(arguments.count, arguments.seed)
    detector = load_detector(arguments.method, object_name="solar cell")
    paths = [sample.image for sample in samples]
    results = track(detector.predict_iter(paths), total=len(paths), description="detecting", console=console)
    predictions = [result for result in results if isinstance(result, Prediction)]
    heatmaps = arguments.out / "heatmaps"
    heatmaps.mkdir(parents=True, exist_ok=True)

    table = Table("image", "truth", "score", "decision", "regions", title=f"{detector.method_name}, bundled backbone")
    pairs = list(zip(samples, predictions, strict=True))
    for sample, prediction in sorted(pairs, key=lambda pair: -pair[1].score):
        prediction.save_overlay(heatmaps / f"{sample.image.stem}.png")
        decision = f"[red]{prediction.label}" if prediction.label == "anomalous" else prediction.label
        truth = "defective" if sample.label else "functional"
        table.add_row(sample.image.name, truth, f"{prediction.score:.4f}", decision, str(len(prediction.regions)))
    console.print(table)

    labels = np.array([sample.label for sample in samples])
    scores = np.array([prediction.score for prediction in predictions])
    right = sum((prediction.label == "anomalous") == bool(sample.label) for sample, prediction in pairs)
    area = auroc(scores, labels)
    assert area is not None  # it is where both kinds of cells are among the labels
    console.print(
        f"image AUROC {100 * area:.1f} on {len(labels)} cells ({labels.sum()} defective); "
        f"{right} decisions right at the threshold {predictions[0].threshold:.4f} ({predictions[0].threshold_source})"
    )
    console.print(f"heatmaps: {heatmaps}/")


if __name__ == "__main__":
    main()
