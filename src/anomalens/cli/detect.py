"""`anomalens detect`: images in, one folder of results out."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomalens.cli import options

if TYPE_CHECKING:
    from anomalens.detector import Detector
    from anomalens.runs import RunSummary


class Maps(StrEnum):
    """How raw anomaly maps are written."""

    none = "none"
    png = "png"
    npy = "npy"


def detect(
    inputs: Annotated[list[str], typer.Argument(help="Images, folders (searched recursively) or glob patterns.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for predictions.jsonl, heatmaps and masks.")],
    method: options.Method = "auto",
    backbone: options.Backbone = "bundled",
    object_name: options.ObjectName = "object",
    checkpoint: options.Checkpoint = None,
    any_backbone: options.AnyBackbone = False,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="Decide by this file of `anomalens calibrate`.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Image score above which an image is anomalous.")] = None,
    pixel_threshold: Annotated[float | None, typer.Option(help="Map value above which a pixel is in the mask.")] = None,
    size: options.Size = None,
    tile: options.Tile = None,
    batch_size: options.BatchSize = 8,
    device: options.Device = "auto",
    dtype: options.Precision = options.Dtype.float32,
    seed: options.Seed = 0,
    maps: Annotated[Maps, typer.Option(help="Also write raw anomaly maps: 16-bit PNG or .npy.")] = Maps.none,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in --out.")] = False,
    offline: options.Offline = False,
    chosen: options.Set = None,
) -> None:
    """Find defects: one row, one heatmap and one mask for every image.

    Results: [bold]predictions.jsonl[/] (one object per input, in input order), [bold]heatmaps/[/], [bold]masks/[/]
    and [bold]run.json[/]. Exit status: 0 all well, 1 some inputs failed (each has its row), 2 wrong usage.

    Examples:

      anomalens detect photos/ --out results

      anomalens detect "shots/*.jpg" -o results --object "metal nut" --tile 512
    """
    from anomalens.cli.console import errors, progress_bar
    from anomalens.detector import load_detector
    from anomalens.runs import RunFolder
    from anomalens.sources import list_images

    paths = list_images(inputs)
    with errors.status("loading the backbone"):
        detector = load_detector(
            method,
            backbone,
            object_name=object_name,
            checkpoint=checkpoint,
            any_backbone=any_backbone,
            calibration=calibration,
            threshold=threshold,
            pixel_threshold=pixel_threshold,
            size=size,
            tile=tile,
            batch_size=batch_size,
            device=device,
            dtype=dtype.value,
            offline=offline,
            seed=seed,
            **options.method_options(chosen),
        )
    settings = settings_of(detector) | {"dtype": dtype.value, "seed": seed, "maps": maps.value}
    run = RunFolder(out, settings, paths, resume=resume)
    try:
        with progress_bar() as bar:
            task = bar.add_task("detecting", total=len(paths), completed=len(run.rows))
            summary = run.write(detector, maps.value, lambda s: bar.update(task, completed=s.done))
    except KeyboardInterrupt:
        errors.print(f"stopped; what is done is in {out}. Add --resume to go on.", highlight=False)
        raise typer.Exit(130) from None
    except OSError as error:
        errors.print(
            f"stopped, cannot write: {error.strerror or error}. Everything written so far is whole; "
            "make room and add --resume.",
            highlight=False,
        )
        raise typer.Exit(1) from None
    _report(summary, detector, out)
    if summary.failed:
        raise typer.Exit(1)


def settings_of(detector: "Detector") -> dict[str, Any]:
    """Everything that decides the numbers, for run.json and for refusing to resume under other settings."""
    config, calibration, prepared = detector.config, detector.calibration, detector.preprocess
    return {
        "method": detector.method_name,
        "backbone": detector.backbone,
        "weights": detector.weights_hash,
        "options": detector.engine.identity.options,
        "object": config.object_name,
        "size": prepared.size,
        "geometry": prepared.geometry,
        "tile": config.tile,
        "overlap": config.overlap,
        "calibration": calibration.to_dict(),
    }


def _report(summary: "RunSummary", detector: "Detector", out: Path) -> None:
    from rich.table import Table

    from anomalens.cli.console import output

    table = Table(title=f"{detector.method_name} on {detector.backbone}", show_header=False)
    done = summary.done - summary.failed
    table.add_row("images", f"{summary.total}")
    table.add_row("anomalous", f"{summary.anomalous}")
    table.add_row("normal", f"{done - summary.anomalous}")
    if summary.failed:
        table.add_row("failed", f"[red]{summary.failed}[/] (reasons in predictions.jsonl)")
    if summary.scores:
        table.add_row("scores", f"{min(summary.scores):.4f} to {max(summary.scores):.4f}")
    table.add_row("threshold", f"{detector.calibration.threshold:.4f}, {detector.calibration.source}")
    table.add_row("speed", f"{summary.rate:.1f} images/s")
    table.add_row("results", str(out))
    output.print(table)
