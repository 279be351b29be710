"""Run `anomalens watch`: answers for images as they arrive in a folder."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomalens.cli.console import Json
from anomalens.cli.data_options import Exclude
from anomalens.cli.history_options import Media, Store, remembering
from anomalens.cli.load_options import load_options
from anomalens.cli.stream_options import Duration
from anomalens.options import LoadOptions

if TYPE_CHECKING:
    from anomalens.runs.store import Row


@load_options()
def watch(
    folder: Annotated[Path, typer.Argument(help="Where images arrive; those that are there are judged first.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for predictions.jsonl, heatmaps and masks.")],
    interval: Annotated[str, typer.Option("--interval", help="Time between two looks at the folder.")] = "1s",
    duration: Duration = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in --out: images that have their rows are not judged again.")
    ] = False,
    on_anomaly: Annotated[
        str | None,
        typer.Option(
            "--on-anomaly",
            help="For each anomalous image, run a command ({path} in it stands for the file, the row comes on its "
            "standard input) or post the row to an address (https://HOST/PATH).",
        ),
    ] = None,
    store: Store = None,
    media: Media = None,
    exclude: Exclude = None,
    as_json: Json = False,
    options: LoadOptions = LoadOptions(),
) -> None:
    """Judge images as they arrive in a folder: a line for each, and the folder of a run as `detect` writes it.

    With --store they are in the history of `anomalens serve` too, under its page History.

    An image is judged once its file has stopped growing, and again when it is replaced. The end is --for, or Ctrl-C.
    A line holds label, score and file, with tabs between them; with --json the whole row.

    Exit status: 0 all well, 1 some images could not be read (each has its row), 2 wrong usage.

    Examples:

      anomalens watch incoming/ --recipe part.anomalens --out results

      anomalens watch incoming/ --out results --for 8h --json

      anomalens watch incoming/ --recipe part.anomalens --out results --store sqlite:///history.db

      anomalens watch incoming/ --recipe part.anomalens --out results --on-anomaly "mv {path} rejects/"
    """
    from anomalens.cli.alarms import alarm_by
    from anomalens.cli.console import complain, note, say, working
    from anomalens.cli.detect import remarks, run_settings
    from anomalens.detection.loading import load_detector
    from anomalens.images.video import seconds_of
    from anomalens.process_memory import return_large_blocks
    from anomalens.runs.arriving import arriving_images
    from anomalens.runs.stored_run import holds_run, read_run
    from anomalens.runs.stream_run import detect_arrivals

    alarm = None if on_anomaly is None else alarm_by(on_anomaly)
    return_large_blocks()
    pause, until = seconds_of(interval), None if duration is None else seconds_of(duration)
    judged = [row["path"] for row in read_run(out).rows()] if resume and holds_run(out) else []
    with working("loading the backbone"):
        detector = load_detector(options)
    detector.require_taught()
    for remark in remarks(detector, options):
        note(remark)
    arrivals = arriving_images(folder, interval=pause, until=until, judged=judged, exclude=exclude or (), out=out)

    def answer(row: "Row") -> None:
        if as_json:
            say(json.dumps(row, allow_nan=False))
        elif "error" in row:
            say(f"failed\t-\t{row['path']}")
            complain(f"failed: {row['error']}")
        else:
            say(f"{row['label']}\t{row['score']:.4f}\t{row['path']}")
        if alarm and row.get("label") == "anomalous" and (problem := alarm(row)):
            complain(f"--on-anomaly for {row['path']}: {problem}")

    note(f"waiting for images in {folder}; Ctrl-C ends it")
    try:
        with remembering(store, media, out, options) as keep:
            summary = detect_arrivals(
                arrivals, out, detector, run_settings(detector), live=True, resume=resume, keep=keep, answered=answer
            )
    except OSError as error:
        complain(f"stopped, cannot write: {error.strerror or error}. Make room and add --resume.")
        raise typer.Exit(1) from None
    counts = summary.counts
    note(f"{counts.rows} images: {counts.anomalous} anomalous, {counts.unusable} unusable, {counts.failed} failed")
    note(f"a page to look at: anomalens report {out}")
    if counts.failed:
        raise typer.Exit(1)
