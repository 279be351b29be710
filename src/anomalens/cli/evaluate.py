"""Run `anomalens evaluate`: numbers on labelled data sets."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomalens.cli.console import Json
from anomalens.cli.load_options import load_options
from anomalens.options import LoadOptions

if TYPE_CHECKING:
    from anomalens.evaluation.result import Evaluation

_EXAMPLES = 5  # failed images named on the screen


@load_options()
def evaluate(
    data: Annotated[list[str], typer.Option("--data", help="LAYOUT:PATH of a labelled data set; may be repeated.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for metrics.json, metrics.csv, scores.csv.")],
    class_names: Annotated[bool, typer.Option("--class-names", help="Name each class in its prompts.")] = False,
    eval_size: Annotated[int, typer.Option(min=16, help="Side in pixels at which maps meet masks.")] = 518,
    limit: Annotated[float, typer.Option(help="Largest false-positive rate of AUPRO.")] = 0.3,
    exact: Annotated[bool, typer.Option("--exact", help="Keep every pixel, not histograms (needs memory).")] = False,
    gallery: Annotated[int, typer.Option(min=0, help="Pictures kept for the report, of each sort and class.")] = 3,
    detailed: Annotated[
        bool,
        typer.Option(
            "--detailed",
            help="Also 95 % intervals of the pixel metrics, and AUPIMO; keeps the maps of one class at a time in memory"
            " (1.3 MB an image at 518).",
        ),
    ] = False,
    allow_same_data: Annotated[
        bool, typer.Option("--allow-same-data", help="Measure also on what the checkpoint was trained on.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse data with faults, do not only report them.")] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", help="Leave out images or folders of this name or path, a pattern; repeatable."),
    ] = None,
    normal_name: Annotated[
        list[str] | None,
        typer.Option("--normal-name", help="A further name of folders, or label, of normal images; repeatable."),
    ] = None,
    as_json: Json = False,
    options: LoadOptions = LoadOptions(),
) -> None:
    """Measure a method: image and pixel AUROC, AP, F1-max and AUPRO, per class and in the mean, in per cent.

    With several --data, each has its own folder below --out. LAYOUT is one of mvtec, mvtec3d, visa, meta, folders,
    flat, manifest; without it the layout is recognised. Exit status: 0 all well, 1 some images failed (their rows in
    scores.csv say why), 2 wrong usage.

    Example:

      anomalens evaluate --data mvtec:datasets/mvtec --method anoclip --out results
    """
    from anomalens.cli.console import complain, note, progress_bar, show
    from anomalens.datasets.layouts import open_dataset
    from anomalens.detection.loading import load_detector
    from anomalens.evaluation.evaluator import EvaluationConfig, tested
    from anomalens.evaluation.evaluator import evaluate as measure
    from anomalens.images.image_files import MAX_PIXELS
    from anomalens.locks import held_folder

    config = EvaluationConfig(
        eval_size, limit, "exact" if exact else "histogram", class_names, gallery, allow_same_data, detailed
    )
    reading: dict[str, Any] = {
        "strict": strict,
        "exclude": exclude or (),
        "normal_names": normal_name or (),
        "max_pixels": options.max_pixels or MAX_PIXELS,
    }
    datasets = [open_dataset(spec, **reading) for spec in data]
    for dataset in datasets:
        note(dataset.summary())
    totals = [sum(map(len, tested(dataset).values())) for dataset in datasets]
    failed = 0
    rows: list[dict[str, Any]] = []
    with held_folder(out, "evaluate"):
        detector = load_detector(options)
        for number, (dataset, total) in enumerate(zip(datasets, totals, strict=True)):
            with progress_bar() as bar:
                task = bar.add_task(dataset.name, total=total)
                evaluation = measure(detector, dataset, config, progress=partial(bar.advance, task))
            folder = out if len(datasets) == 1 else out / f"{number:02d}-{dataset.name}"
            evaluation.write(folder)
            # Two data sets may have the same name; their folders do not.
            same = sum(other.name == dataset.name for other in datasets) > 1
            name = folder.name if same else dataset.name
            if as_json:
                rows += [{"dataset": name} | row for row in _rows(evaluation)]
            else:
                title = f"{evaluation.dataset}: {evaluation.method} on {evaluation.backbone}, per cent"
                named = [({"data set": name} if len(datasets) > 1 else {}) | row for row in _rows(evaluation)]
                show(named, title=title, typed=["data set", "class"], as_json=False, headed=number == 0)
            note(f"written to {folder}; a page to look at: anomalens report {folder}")
            failed += len(evaluation.failed)
            for row in evaluation.failed[:_EXAMPLES]:
                complain(f"failed: {row.error}")
    if as_json:
        show(rows, as_json=True)
    if failed:
        complain(f"{failed} images failed and count nowhere; scores.csv says why")
        raise typer.Exit(1)


def _rows(evaluation: "Evaluation") -> list[dict[str, Any]]:
    """Return a row for each class and one for the mean."""
    rows = []
    for name, values in (*evaluation.classes.items(), ("mean", evaluation.mean)):
        counts = {"normal": values.get("n_normal", ""), "anomalous": values.get("n_anomalous", "")}
        rows.append({"class": name} | counts | {key.replace("_", " "): values[key] for key in evaluation.metrics})
    return rows
