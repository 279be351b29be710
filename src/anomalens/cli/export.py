"""Run `anomalens export`: a detector as files that run without PyTorch."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomalens.cli.load_options import load_options
from anomalens.errors import ConfigError
from anomalens.options import LoadOptions

if TYPE_CHECKING:
    from anomalens.export.exporter import Report

_SCENES = 4  # bundled scenes compared where no images are given


class Format(StrEnum):
    """Say what the file is for."""

    onnx = "onnx"
    openvino = "openvino"


@load_options(
    without=("tile", "overlap", "extra_sizes", "fast_jpeg", "dtype", "batch_size", "workers", "device", "engine")
)
def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write: .onnx, or .xml for OpenVINO.")],
    format: Annotated[Format, typer.Option("--format", help="What the file is for.")] = Format.onnx,
    any_size: Annotated[
        bool, typer.Option("--dynamic-size", help="Leave the size open, for --size at the time of use.")
    ] = False,
    check: Annotated[
        list[str] | None, typer.Option("--check", help="Images to compare on: files, folders, patterns; repeatable.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Round the tower's weights to 8 bits (ONNX).")] = False,
    judge_on: Annotated[
        str | None, typer.Option("--gate", help="With --int8: LAYOUT:PATH of labelled images to judge it on.")
    ] = None,
    images: Annotated[int, typer.Option(help="With --int8: images to judge it on.", min=1)] = 32,
    auroc_drop: Annotated[float, typer.Option(help="With --int8: largest loss of pixel AUROC.", min=0)] = 0.005,
    aupro_drop: Annotated[float, typer.Option(help="With --int8: largest loss of AUPRO.", min=0)] = 0.01,
    options: LoadOptions = LoadOptions(),
) -> None:
    """Write a detector as one graph, with a JSON file beside it, for machines without PyTorch.

    The original and the exported detector are run on the same images and their largest difference is printed; a graph
    that differs by more than 0.001 of the map's range is not kept (exit status 1). Use the file as a method:

      anomalens export --format onnx --method anoclip --object bottle --out bottle.onnx

      anomalens detect shots/ --method bottle.onnx --out results
    """
    from anomalens.cli.console import working
    from anomalens.detection.loading import load_detector
    from anomalens.engines.exported import format_of
    from anomalens.export import gate
    from anomalens.export.exporter import export as write
    from anomalens.images.sources import list_images

    if format_of(out) != format.value:
        raise ConfigError(f"--format {format.value} and --out {out} do not fit: .onnx is ONNX, .xml is OpenVINO")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{out.parent} is no folder; make it, or choose another --out")
    paths = list_images(check or [])
    with working("loading the backbone"):
        detector = load_detector(options.replace(batch_size=2))
        compared = paths or [image for image, _ in gate.labelled_images(gate.SCENES, _SCENES)]
        labelled = gate.labelled_images(judge_on or gate.SCENES, images) if int8 else None
    limits = gate.Gate(auroc_drop, aupro_drop)
    try:
        with working("exporting and comparing"):
            report = write(detector, out, compared, any_size=any_size, labelled=labelled, limits=limits)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror or error}; choose another --out") from error
    _print(report, out)
    if not report.passed:
        raise typer.Exit(1)


def _print(report: "Report", out: Path) -> None:
    from anomalens.cli.console import say
    from anomalens.export.exporter import LIMIT

    difference, verdict = report.difference, report.verdict
    lines = [
        f"compared with PyTorch on {difference.images} images: map differs by at most {difference.map:.2g} of its "
        f"range, score by at most {difference.score:.2g} (limit {LIMIT:g})"
    ]
    if difference.allowed and difference.beyond:
        lines.append(
            f"{difference.beyond:.2%} of the pixels differ by more (limit {difference.allowed:.0%}): a tie decides "
            f"{report.switches}, and runtimes differ in the last digit"
        )
    if verdict:
        for name, (exact, rounded), limit in (
            ("pixel AUROC", verdict.auroc, verdict.gate.auroc),
            ("AUPRO", verdict.aupro, verdict.gate.aupro),
        ):
            lines.append(
                f"int8 on {verdict.images} labelled images: {name} {exact:.4f} -> {rounded:.4f}, "
                f"a loss of {exact - rounded:.4f} (limit {limit:g})"
            )
    if report.passed:
        lines.append(f"written to {out} ({report.megabytes:.1f} MB) and {out.name}.json")
    else:
        lines.append("refused: nothing was written")
    say("\n".join(lines))
