"""Run `anomalens evaluate`: numbers on labelled data sets."""

from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomalens.cli.console import Json
from anomalens.cli.data_options import Exclude, NormalName
from anomalens.cli.load_options import load_options
from anomalens.errors import ConfigError
from anomalens.options import LoadOptions

if TYPE_CHECKING:
    from anomalens.detection.detector import Detector
    from anomalens.evaluation.result import Evaluation
    from anomalens.metrics.summary import Mode

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
    shots: Annotated[
        int | None, typer.Option("--shots", min=1, help="Teach each class from this many of its good photos first.")
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option("--draws", min=1, help="With --shots: how often they are drawn, seeds 0, 1, ...; 1 unless given."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse data with faults, do not only report them.")] = False,
    exclude: Exclude = None,
    normal_name: NormalName = None,
    as_json: Json = False,
    options: LoadOptions = LoadOptions(),
) -> None:
    """Measure a method: image and pixel AUROC, AP, F1-max and AUPRO, per class and in the mean, in per cent; decisions.

    With --shots, each class is taught from so many of its good photos first (of its training images, else of its test,
    which they then leave), and the numbers are means over the draws. --recipe measures a part as it was taught.

    With several --data, each has its own folder below --out. LAYOUT is one of mvtec, mvtec3d, visa, meta, folders,
    flat, manifest; without it the layout is recognised. Exit status: 0 all well, 1 some images failed (their rows in
    scores.csv say why), 2 wrong usage.

    Examples:

      anomalens evaluate --data mvtec:datasets/mvtec --method anoclip --out results

      anomalens evaluate --data mvtec:datasets/mvtec --shots 4 --draws 3 --out results
    """
    from anomalens.cli.console import complain, note, progress_bar, show
    from anomalens.datasets.catalog import keys_of
    from anomalens.datasets.layouts import open_dataset
    from anomalens.detection.loading import load_detector, split_options
    from anomalens.evaluation.evaluator import EvaluationConfig, steps
    from anomalens.evaluation.evaluator import evaluate as measure
    from anomalens.images.image_files import MAX_PIXELS
    from anomalens.locks import held_folder
    from anomalens.methods.published.table import with_checkpoint

    if draws is not None and shots is None:
        raise ConfigError("--draws counts how often good photos are drawn: say how many with --shots")
    if shots is not None and options.recipe is not None:
        raise ConfigError("--recipe measures a part as it was taught, --shots teaches it anew: give one of them")
    mode: Mode = "exact" if exact else "histogram"
    config = EvaluationConfig(
        eval_size, limit, mode, class_names, gallery, allow_same_data, detailed, shots or 0, draws or 1
    )
    fit_options: dict[str, Any] = {}
    if config.shots:
        fit_options, options = split_options(options)
    reading: dict[str, Any] = {
        "strict": strict,
        "exclude": exclude or (),
        "normal_names": normal_name or (),
        "max_pixels": options.max_pixels or MAX_PIXELS,
    }
    datasets = [open_dataset(spec, **reading) for spec in data]
    for dataset in datasets:
        note(dataset.summary())
    totals = [steps(dataset, config) for dataset in datasets]
    failed = 0
    rows: list[dict[str, Any]] = []

    @lru_cache(maxsize=1)
    def detector_with(checkpoint: str | None) -> "Detector":
        return load_detector(options.replace(checkpoint=checkpoint))

    with held_folder(out, "evaluate"):
        for number, (dataset, total) in enumerate(zip(datasets, totals, strict=True)):
            # Of what authors published, data sets need the one that did not learn from them.
            detector = detector_with(with_checkpoint(options, keys_of(dataset)).checkpoint)
            with progress_bar() as bar:
                task = bar.add_task(dataset.name, total=total)
                evaluation = measure(
                    detector, dataset, config, fit_options=fit_options, progress=partial(bar.advance, task)
                )
            folder = out if len(datasets) == 1 else out / f"{number:02d}-{dataset.name}"
            evaluation.write(folder)
            # Two data sets may have the same name; their folders do not.
            same = sum(other.name == dataset.name for other in datasets) > 1
            name = folder.name if same else dataset.name
            if as_json:
                rows += [{"dataset": name} | row for row in _numbers(evaluation)]
            else:
                title = f"{evaluation.dataset}: {evaluation.method} on {evaluation.backbone}, per cent"
                named = [({"data set": name} if len(datasets) > 1 else {}) | row for row in _words(evaluation)]
                show(named, title=title, typed=["data set", "class"], as_json=False, headed=number == 0)
            for class_name, reason in evaluation.reasons.items():
                complain(f"not measured: {class_name}: {reason}")
            if tiny := evaluation.protocol["tiny_masks_kept"]:
                note(f"{tiny} masks mark less than one pixel at {eval_size} x {eval_size}: they keep their area")
            note(f"written to {folder}; a page to look at: anomalens report {folder}")
            failed += len(evaluation.failed)
            for row in evaluation.failed[:_EXAMPLES]:
                complain(f"failed: {row.error}")
    if as_json:
        show(rows, as_json=True)
    if failed:
        complain(f"{failed} images failed and count nowhere; scores.csv says why")
        raise typer.Exit(1)


def _numbers(evaluation: "Evaluation") -> list[dict[str, Any]]:
    """Return a row for each class and one for the mean, as metrics.json has them."""
    content = evaluation.to_dict()
    deviations = {f"{name}_std": value for name, value in content.get("mean_std", {}).items()}
    mean = content["mean"] | deviations | {"decisions": content["decisions"]}
    return [{"class": name} | row for name, row in (*content["classes"].items(), ("mean", mean))]


def _words(evaluation: "Evaluation") -> list[dict[str, Any]]:
    """Return the same rows for people: "97.3 ± 0.4", "13 of 15" found."""
    from anomalens.evaluation.decisions import Decisions, decisions_in_words

    rows = []
    for row in _numbers(evaluation):
        made = row["decisions"] or Decisions().to_dict()
        counts = {"normal": row.get("n_normal", ""), "anomalous": row.get("n_anomalous", "")}
        metrics = {key.replace("_", " "): _per_cent(row[key], row.get(f"{key}_std")) for key in evaluation.metrics}
        rows.append({"class": row["class"], **counts, **metrics, **decisions_in_words(made)})
    return rows


def _per_cent(mean: float | None, deviation: float | None) -> Any:
    return mean if mean is None or deviation is None else f"{mean:.1f} ± {deviation:.1f}"
