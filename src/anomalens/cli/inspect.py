"""Run `anomalens inspect`: one image in, one answer on the screen and one picture."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomalens.cli.console import Json
from anomalens.cli.load_options import load_options
from anomalens.errors import ConfigError
from anomalens.options import LoadOptions

if TYPE_CHECKING:
    from anomalens.prediction import Prediction

_REGIONS = 10  # regions that are named on the screen; --json has all


class FailOn(StrEnum):
    """Name the answers that end the command with exit status 1."""

    anomalous = "anomalous"
    unusable = "unusable"


@load_options()
def inspect(
    image: Annotated[Path, typer.Argument(help="An image.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The picture, a .png file; IMAGE-inspected.png in this folder unless given."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the picture with the system's viewer.")] = False,
    fail_on: Annotated[
        FailOn | None,
        typer.Option(
            help="End with exit status 1. anomalous: unless the image is called normal (one that cannot be judged does "
            "not pass); unusable: where it cannot be judged."
        ),
    ] = None,
    as_json: Json = False,
    options: LoadOptions = LoadOptions(),
) -> None:
    """Judge one image: label, confidence, regions and the reason, and a picture with what stands out.

    Exit status: 0, 1 as --fail-on says, 2 wrong usage or an image that cannot be read.

    Examples:

      anomalens inspect photo.jpg

      anomalens inspect photo.jpg --recipe part.anomalens --fail-on anomalous
    """
    from PIL.PngImagePlugin import PngInfo

    from anomalens.cli.console import note, say, say_json, show_facts, working
    from anomalens.cli.detect import remarks
    from anomalens.detection.loading import load_detector
    from anomalens.files import atomic_write
    from anomalens.images.encoding import encode_image
    from anomalens.images.result_folders import INSPECTED, MARK
    from anomalens.images.sources import is_image_input

    if not is_image_input(image):
        raise ConfigError(f"{image}: inspect takes one image; for folders and patterns there is anomalens detect")
    target = out or Path(f"{image.stem}{INSPECTED}")
    if target.suffix.lower() != ".png":
        raise ConfigError(f"--out {target}: the picture is a .png file")
    if target.exists() and image.exists() and target.samefile(image):
        raise ConfigError(f"--out {target}: the picture would take the place of the image; choose another name")
    with working("loading the backbone"):
        detector = load_detector(options)
    detector.require_taught()
    for remark in remarks(detector, options):
        note(remark)
    prediction = detector.predict(image)
    mark = PngInfo()
    mark.add_text("Software", MARK)
    picture = encode_image(prediction.overlay(), pnginfo=mark)
    try:
        atomic_write(target, picture)
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror or error}; choose another --out") from error
    if as_json:
        say_json(prediction.to_dict() | {"picture": str(target)})
    else:
        say(f"{prediction.label.upper()}: {prediction.reason}")
        show_facts(_facts(prediction, target), as_json=False)
    if show:
        typer.launch(str(target))
    if _fails(prediction, fail_on):
        raise typer.Exit(1)


def _facts(prediction: "Prediction", picture: Path) -> dict[str, Any]:
    """Return the lines that people read below the answer."""
    judged = prediction.unusable is None
    score = f"{prediction.score:.4f}, threshold {prediction.threshold:.4f}: {prediction.threshold_source}"
    regions = [
        f"{right - left} x {bottom - top} pixels at x {left}, y {top}"
        for left, top, right, bottom in (region.box for region in prediction.regions)
    ]
    if len(regions) > _REGIONS:
        regions = [*regions[:_REGIONS], f"and {len(regions) - _REGIONS} more"]
    return {
        "confidence": str(prediction.confidence) if judged else None,
        "score": score if judged else None,
        "p-value": f"{prediction.p_value:.3g}" if judged and prediction.p_value is not None else None,
        "regions": "; ".join(regions) or None,
        "note": prediction.note,
        "method": f"{prediction.method} on {prediction.backbone}",
        "picture": str(picture),
    }


def _fails(prediction: "Prediction", fail_on: FailOn | None) -> bool:
    if fail_on is FailOn.anomalous:
        return prediction.label != "normal"
    return fail_on is FailOn.unusable and prediction.label == "unusable"
