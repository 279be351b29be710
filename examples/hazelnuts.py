"""Look for paint on twelve hazelnuts with nothing but words, and draw what was found: the picture in the README."""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.progress import track

from anomalens import Prediction, load_detector, open_dataset
from anomalens.images.decoding import decode

HERE = Path(__file__).parent
SIDE, GAP, LINE = 200, 6, 22  # pixels of the sheet: a picture, the space between two, a line of text


def main() -> None:
    """Detect on all twelve, print each decision, write a sheet of photographs, heatmaps and decisions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=f"mvtec:{HERE / 'hazelnuts'}", help="LAYOUT:PATH of labelled images")
    parser.add_argument("--columns", type=int, default=6, help="images on the sheet, half of them sound (default 6)")
    parser.add_argument("--out", type=Path, default=Path("demo/hazelnuts.png"), help="the sheet to write")
    arguments = parser.parse_args()

    samples = list(open_dataset(arguments.data).samples())
    detector = load_detector()
    results = track(detector.predict_iter([sample.image for sample in samples]), "detecting", total=len(samples))
    pairs = [(s, r) for s, r in zip(samples, results, strict=True) if isinstance(r, Prediction)]
    for sample, prediction in pairs:
        truth = "painted" if sample.label else "sound"
        print(f"{sample.image.name:12} {truth:8} {prediction.label:10} score {prediction.score:.3f}")
    right = sum((prediction.label == "anomalous") == bool(sample.label) for sample, prediction in pairs)
    print(f"{right} of {len(pairs)} decisions are right")

    half = arguments.columns // 2
    sound = [pair for pair in pairs if not pair[0].label][:half]
    painted = [pair for pair in pairs if pair[0].label][: arguments.columns - half]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    sheet([prediction for _, prediction in sound + painted]).save(arguments.out)
    print(f"written to {arguments.out}")


def sheet(predictions: list[Prediction]) -> Image.Image:
    """Draw a column for each prediction: the photograph, the heatmap over it with the mask's contour, the decision."""
    width = len(predictions) * (SIDE + GAP) - GAP
    page = Image.new("RGB", (width, 2 * SIDE + GAP + LINE), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for column, prediction in enumerate(predictions):
        left = column * (SIDE + GAP)
        for row, picture in enumerate((Image.fromarray(decode(str(prediction.path)).rgb), prediction.overlay())):
            page.paste(picture.resize((SIDE, SIDE)), (left, row * (SIDE + GAP)))
        colour = "#b3261e" if prediction.label == "anomalous" else "#1b5e20"
        text = f"{prediction.label}, {prediction.score:.2f}"
        draw.text((left + SIDE / 2, 2 * SIDE + GAP + 3), text, colour, font, anchor="ma")
    return page


if __name__ == "__main__":
    main()
