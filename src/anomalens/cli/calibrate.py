"""Run `anomalens calibrate`: a threshold from a user's own images, as a small file that `detect --calibration` uses."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomalens.cli.console import Json
from anomalens.cli.data_options import Exclude, NormalName
from anomalens.cli.load_options import load_options
from anomalens.errors import ConfigError
from anomalens.options import LoadOptions

if TYPE_CHECKING:
    from anomalens.datasets.layouts import Dataset
    from anomalens.decision.calibration import SavedCalibration


class By(StrEnum):
    """Say how a threshold is chosen where labels are known."""

    f1 = "f1"
    recall = "recall"
    cost = "cost"


@load_options(without=("calibration", "threshold", "pixel_threshold"))
def calibrate(
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write, for `detect --calibration`.")],
    normals: Annotated[
        list[str] | None, typer.Option("--normals", help="Folder, image or pattern of normal images; repeatable.")
    ] = None,
    fpr: Annotated[float, typer.Option(help="With --normals: the false-alarm rate not to exceed.")] = 0.01,
    data: Annotated[str | None, typer.Option("--data", help="Instead: LAYOUT:PATH of labelled images.")] = None,
    by: Annotated[By, typer.Option(help="With --data: what the threshold is chosen by.")] = By.f1,
    recall: Annotated[float, typer.Option(help="With --by recall: share of defects to find.")] = 0.95,
    miss_cost: Annotated[float, typer.Option(help="With --by cost: cost of a defect let through.")] = 10.0,
    alarm_cost: Annotated[float, typer.Option(help="With --by cost: cost of a good part stopped.")] = 1.0,
    exclude: Exclude = None,
    normal_name: NormalName = None,
    as_json: Json = False,
    options: LoadOptions = LoadOptions(),
) -> None:
    """Turn a handful of unlabelled normal images into a threshold with a guarantee, or labels into a good threshold.

    With --normals, a new normal image is then called anomalous with probability at most --fpr, for any detector and
    any kind of image, provided that it and the images given are exchangeable: same object, camera and light, none
    hand-picked, no copies. A rate of 0.01 needs at least 99 images, 0.05 needs 19.

    Examples:

      anomalens calibrate --normals good_parts/ --fpr 0.01 --out line3.json

      anomalens detect shots/ --calibration line3.json --out results
    """
    from anomalens.cli.console import note, progress_bar, say, show_facts, working
    from anomalens.decision.conformal import needed
    from anomalens.detection import calibrating
    from anomalens.detection.loading import load_detector
    from anomalens.images.sources import IMAGE_SUFFIXES, list_images

    if (normals is None) == (data is None):
        raise ConfigError("give either --normals (unlabelled normal images) or --data (labelled images)")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{out.parent} is no folder; make it, or choose another --out")
    if out.suffix.lower() in IMAGE_SUFFIXES:
        raise ConfigError(f"--out {out}: a calibration is no image; call the file .json")
    images = list_images(normals or [], exclude=exclude or ())
    labelled = None if data is None else _labelled(data, exclude, normal_name, options)
    if labelled is None and len(images) < needed(fpr):
        raise ConfigError(
            f"--fpr {fpr:g} needs at least {needed(fpr)} normal images, found {len(images)}; "
            "add images or raise the rate"
        )
    with working("loading the backbone"):
        detector = load_detector(options)
    with progress_bar() as bar:
        total = len(images) if labelled is None else sum(s.label is not None for s in labelled.samples())
        task = bar.add_task("calibrating", total=total)
        step = partial(bar.advance, task)
        if labelled is None:
            saved = calibrating.calibrate(detector, images, fpr=fpr, progress=step)
        else:
            costs = {"miss": miss_cost, "alarm": alarm_cost}
            saved = calibrating.calibrate_on_labels(detector, labelled, by.value, recall=recall, **costs, progress=step)
    try:
        saved.write(out)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror or error}; choose another --out") from error
    for reason in saved.left_out:
        note(f"left out: {reason}")
    if as_json:
        show_facts(saved.made_from | saved.calibration.to_dict() | {"file": str(out)}, as_json=True)
    else:
        say(_words(saved))
        say(f"written to {out}")


def _labelled(data: str, exclude: list[str] | None, normal_name: list[str] | None, options: LoadOptions) -> "Dataset":
    from anomalens.datasets.layouts import open_dataset
    from anomalens.images.image_files import MAX_PIXELS

    limit = options.max_pixels or MAX_PIXELS
    return open_dataset(data, exclude=exclude or (), normal_names=normal_name or (), max_pixels=limit)


def _words(saved: "SavedCalibration") -> str:
    made, calibration = saved.made_from, saved.calibration
    lines = [f"threshold {calibration.threshold:.6g}: {calibration.source}"]
    if made["rule"] == "conformal":
        low, high = made["true_rate_90"]
        lines += [
            made["guarantee"],
            f"For one choice of images the true rate varies: between {100 * low:.2g} % and {100 * high:.2g} % "
            "in 9 of 10 cases; more images narrow it.",
        ]
        if made["n_equal_scores"]:
            lines.append(
                f"note: {made['n_equal_scores']} images score exactly as another does; copies of one image void the "
                "guarantee"
            )
    else:
        lines.append(
            f"on these images: {made['missed']} of {made['n_anomalous']} anomalous missed, "
            f"{made['false_alarms']} of {made['n_normal']} normal called anomalous (no promise about others)"
        )
    return "\n".join(lines)
