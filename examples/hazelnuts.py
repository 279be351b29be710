"""Find paint on hazelnuts: with words alone, then taught from four good photographs. The demo behind `make demo`.

Which photographs are taught and which are judged was fixed by their names before anything was scored; see
examples/hazelnuts/README.md. Taught photographs are not judged.
"""

import argparse
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import track
from rich.table import Table

from anomalens import Detector, Prediction, load_detector, open_dataset
from anomalens.datasets.layouts import Sample
from anomalens.files import atomic_write
from anomalens.images.decoding import decode
from anomalens.images.encoding import encode_image
from anomalens.prediction import predictions_of
from anomalens.reporting.rendering import environment

HERE = Path(__file__).parent
# Pixels of the sheet: a picture, the space between two, a line of text, the column of row names.
SIDE, GAP, LINE, NAMES = 150, 6, 22, 104
# Side of a picture on the page, in pixels.
PAGE_SIDE = 300
# How both detectors are called, on the screen, on the sheet and on the page.
WORDS, TAUGHT = "words alone", "taught"
COLOURS = {"anomalous": "#b3261e", "normal": "#1b5e20", "unusable": "#5b6675"}


class Case(NamedTuple):
    """Hold one photograph and what both detectors say of it."""

    sample: Sample
    words: Prediction
    taught: Prediction

    @property
    def truth(self) -> str:
        """Say what the photograph shows."""
        return "painted" if self.sample.label else "sound"

    def right(self, prediction: Prediction) -> bool:
        """Return whether a prediction of this photograph calls it what it is."""
        return prediction.label == ("anomalous" if self.sample.label else "normal")


def main() -> None:
    """Judge all photographs twice; print a table, write the taught part, a picture and a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=f"mvtec:{HERE / 'hazelnuts'}", help="LAYOUT:PATH of labelled images")
    parser.add_argument("--columns", type=int, default=6, help="photographs on the picture, half of them sound")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="the folder to write to")
    arguments = parser.parse_args()

    console, out = Console(), arguments.out
    out.mkdir(parents=True, exist_ok=True)
    dataset = open_dataset(arguments.data)
    samples = list(dataset.samples())
    photos = [sample.image for sample in dataset.samples("train")]

    words = load_detector()
    said = judged(words, samples, console, WORDS)
    with console.status("teaching"):
        taught = words.fit(photos)
    taught.save(out / "hazelnut.anomalens")
    compared = judged(taught, samples, console, TAUGHT)
    cases = [Case(*parts) for parts in zip(samples, said, compared, strict=True)]

    console.print(decisions(cases))
    console.print(summary(cases, len(photos)))
    half = arguments.columns // 2
    shown = [case for case in cases if not case.sample.label][:half]
    shown += [case for case in cases if case.sample.label][: arguments.columns - half]
    atomic_write(out / "hazelnuts.png", encode_image(sheet(shown), optimize=True))
    atomic_write(out / "index.html", page(cases, photos, (words, taught)))
    print(f"the taught part, for anomalens detect --recipe: {out / 'hazelnut.anomalens'}")
    print(f"one picture: {out / 'hazelnuts.png'}")
    print(f"a page to look at: {out / 'index.html'}")


def judged(detector: Detector, samples: Sequence[Sample], console: Console, name: str) -> list[Prediction]:
    """Predict all photographs. Raises InputError where one of them cannot be read."""
    results = detector.predict_iter([sample.image for sample in samples])
    return predictions_of(track(results, name, total=len(samples), console=console))


def counts(cases: Sequence[Case], name: str) -> dict[str, str]:
    """Say in words what a detector found, and how often it was wrong about a sound nut."""
    rows = [(case.sample.label, case.words if name == WORDS else case.taught) for case in cases]
    faulty = [prediction.label for label, prediction in rows if label]
    sound = [prediction.label for label, prediction in rows if not label]
    return {
        "painted nuts found": f"{faulty.count('anomalous')} of {len(faulty)}",
        "false alarms": f"{sound.count('anomalous')} of {len(sound)}",
        "cannot be judged": str((faulty + sound).count("unusable")),
        "decisions it is not sure of": str(sum(not prediction.sure for _, prediction in rows)),
    }


def decisions(cases: Sequence[Case]) -> Table:
    """Return a row for each photograph: what it shows and what both detectors call it; wrong decisions say so."""
    table = Table("photograph", "shows", WORDS, TAUGHT, title=f"{len(cases)} photographs of peeled hazelnuts")
    for case in cases:
        cells = []
        for prediction in (case.words, case.taught):
            text = prediction.label if prediction.sure else f"{prediction.label}, not sure"
            cells.append(text if case.right(prediction) else f"[red]{text}, wrong")
        table.add_row(short_name(case.sample), case.truth, *cells)
    return table


def summary(cases: Sequence[Case], photos: int) -> Table:
    """Return the counts of both detectors side by side."""
    both = [counts(cases, WORDS), counts(cases, TAUGHT)]
    table = Table("", WORDS, f"{TAUGHT} from {photos} good photos")
    for question in both[0]:
        table.add_row(question, *(answers[question] for answers in both))
    return table


def short_name(sample: Sample) -> str:
    """Name a photograph by its last folder and file."""
    return f"{sample.image.parent.name}/{sample.image.name}"


def sheet(cases: Sequence[Case]) -> Image.Image:
    """Draw a column for each case: the photograph, then the heatmap, the mask's contour and the decision of each."""
    row = SIDE + LINE + GAP
    picture = Image.new("RGB", (NAMES + len(cases) * (SIDE + GAP) - GAP, 3 * row - GAP), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    for number, name in enumerate(("photograph", WORDS, TAUGHT)):
        draw.text((GAP, number * row + SIDE / 2), name, "black", font, anchor="lm")
    for column, case in enumerate(cases):
        left = NAMES + column * (SIDE + GAP)
        photograph = Image.fromarray(decode(case.sample.image).rgb)
        cells = [(photograph, case.truth, "black")]
        for part in (case.words, case.taught):
            text = part.label if case.right(part) else f"{part.label}, wrong"
            cells.append((part.overlay(), text, COLOURS[part.label]))
        for number, (drawn, text, colour) in enumerate(cells):
            picture.paste(drawn.resize((SIDE, SIDE)), (left, number * row))
            draw.text((left + SIDE / 2, number * row + SIDE + 2), text, colour, font, anchor="ma")
    return picture


def page(cases: Sequence[Case], photos: Sequence[Path], detectors: tuple[Detector, Detector]) -> str:
    """Return the page: one file that fetches nothing, in the style of `anomalens report`."""
    shown = [
        {
            "name": short_name(case.sample),
            "truth": case.truth,
            "photograph": embedded(Image.fromarray(decode(case.sample.image).rgb)),
            "answers": [
                {
                    "by": name,
                    "picture": embedded(prediction.overlay()),
                    "label": prediction.label,
                    "right": case.right(prediction),
                    "confidence": prediction.confidence,
                }
                for name, prediction in ((WORDS, case.words), (TAUGHT, case.taught))
            ],
        }
        for case in cases
    ]
    both = [counts(cases, WORDS), counts(cases, TAUGHT)]
    template = environment().from_string((HERE / "hazelnuts.html").read_text(encoding="utf-8"))
    return template.render(
        photos=[(photo.name, embedded(Image.fromarray(decode(photo).rgb))) for photo in photos],
        counts=[(question, *(answers[question] for answers in both)) for question in both[0]],
        columns=["", WORDS, f"{TAUGHT} from {len(photos)} good photos"],
        thresholds=[(name, part.calibration.source) for name, part in zip((WORDS, TAUGHT), detectors, strict=True)],
        groups=[(truth, [case for case in shown if case["truth"] == truth]) for truth in ("painted", "sound")],
    )


def embedded(picture: Image.Image) -> str:
    """Return a picture as a data URI, reduced to the page's size."""
    small = picture.copy()
    small.thumbnail((PAGE_SIDE, PAGE_SIDE))
    return f"data:image/jpeg;base64,{base64.b64encode(encode_image(small, 'JPEG', quality=80)).decode()}"


if __name__ == "__main__":
    main()
