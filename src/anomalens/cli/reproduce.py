"""Run `anomalens reproduce`: a paper's numbers beside ours, in the paper's protocol."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomalens.cli.console import Json
from anomalens.cli.load_options import load_options
from anomalens.errors import ConfigError
from anomalens.options import BUNDLED, LoadOptions

if TYPE_CHECKING:
    from anomalens.evaluation.reproducing import Outcome, Task, Training

_HOW = ("backbone", "checkpoint", "max_pixels", "dtype", "batch_size", "workers", "device", "offline", "cache")
_PAPERS = "the paper's"  # weights, unless others are named


@load_options(only=_HOW, backbone=_PAPERS)
def reproduce(
    method: Annotated[str, typer.Argument(help="A method with published numbers, or 'all'.")],
    on: Annotated[
        list[str] | None,
        typer.Option("--on", help="A data set (`anomalens data list`), industrial, medical or all; repeatable."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="The data set, a folder of data sets, or NAME=LAYOUT:PATH; repeatable."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of results and tables; an earlier run is resumed.")
    ] = Path("reproduction"),
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be fetched and run, and how long it takes; run nothing.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="A trial: so many normal and anomalous images of each class.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="Runs of what is random or trained here; means are told.")
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Train on the paper's data instead of taking published checkpoints.")
    ] = False,
    as_json: Json = False,
    options: LoadOptions = LoadOptions(),
) -> None:
    """Reproduce a paper's table: its weights, checkpoints, sizes and options on its data sets, beside its numbers.

    Weights and published checkpoints are fetched when they are not here. Data sets are yours to get (`anomalens data
    list NAME` says where); each is compared with what the catalogue states of it. Stopped at any moment, the same
    command goes on at the next image. The folder then holds reproduction.md, .csv and .html, and in benchmarks/ the
    settings as files for `anomalens benchmark`. Of tokenclip nothing is published: it is trained first, three times.

    Exit status: 0 all measured, 1 some failed or are not here, 2 wrong usage, 130 stopped.

    Examples:

      anomalens reproduce crane --on mvtec --data datasets/mvtec --plan

      anomalens reproduce crane --on mvtec --data datasets/mvtec

      anomalens reproduce tokenclip --on mvtec --data mvtec=datasets/mvtec --data visa=datasets/visa

      anomalens reproduce all --on all --data datasets
    """
    from anomalens.cli.benchmark import CellBars
    from anomalens.cli.console import complain, note, progress_bar, show
    from anomalens.cli.reproduction_plan import show_plan
    from anomalens.evaluation.reproducing import chosen_data, locate, not_as_stated, reproduced, tasks
    from anomalens.evaluation.reproducing import reproduce as run
    from anomalens.reporting.reproduction_tables import write_reproduction

    if not on or not data:
        raise ConfigError("say what to measure on (--on mvtec) and where it is (--data PATH)")
    if options.backbone == BUNDLED:
        raise ConfigError("no paper used the bundled weights; `anomalens benchmark` measures any method on them")
    if options.backbone == _PAPERS:
        options = options.replace(backbone=BUNDLED)
    wanted = chosen_data(on)
    located = locate(data, wanted)
    chosen, lacking = tasks(method, wanted, located, options, out, limit=limit, seeds=seeds, train=train)
    if not chosen:
        raise ConfigError(lacking[0])
    for line in lacking:
        complain(f"left out: {line}")
    if plan:
        show_plan(chosen, as_json=as_json)
        raise typer.Exit(1 if lacking else 0)
    # Data are read once, however many methods are measured on them.
    for task in {(task.benchmark.key, task.data): task for task in chosen}.values():
        for line in not_as_stated(task):
            complain(line)
    _write_files(chosen, out / "benchmarks")
    try:
        for training in {training.out: training for task in chosen for training in task.trainings}.values():
            _train(training)
        with progress_bar() as bar:
            outcomes = run(chosen, out, CellBars(bar, sum(len(task.runs) for task in chosen)))
    except KeyboardInterrupt:
        write_reproduction(reproduced(chosen, out), out)
        note(f"stopped; what is finished is in {out}, and the same command goes on from there")
        raise typer.Exit(130) from None
    write_reproduction(outcomes, out)
    show(_rows(outcomes), typed=["method", "data set", "metric"], as_json=as_json)
    note(f"every class, and what differs in protocol: {out / 'reproduction.md'}, .csv, .html")
    if lacking or any(outcome.cell.state != "done" for outcome in outcomes):
        raise typer.Exit(1)


def _write_files(chosen: "Sequence[Task]", folder: Path) -> None:
    """Write the settings as files for `anomalens benchmark`: one for all data sets that are measured alike."""
    from anomalens.evaluation.plan_files import plan_text
    from anomalens.evaluation.reproducing import plans
    from anomalens.files import atomic_write, make_folder

    make_folder(folder)
    for plan in plans(chosen):
        name = "-".join([plan.methods[0].options.method, *(data.published or "" for data in plan.data)])
        atomic_write(folder / f"{name[:80]}.toml", plan_text(plan))


def _train(training: "Training") -> None:
    """Train a checkpoint, unless it is there; a training that was stopped goes on."""
    from anomalens.backbones.weights import load_weights
    from anomalens.cli.console import note
    from anomalens.cli.train import TrainingBars
    from anomalens.datasets.layouts import open_dataset
    from anomalens.engines.torch_engine import pick_device
    from anomalens.learning.training import TrainingPlan
    from anomalens.learning.training import train as learn

    if training.out.is_file():
        return
    options = training.options
    note(f"training {training.method} on {training.name}, seed {training.seed}: {training.out}")
    bars = TrainingBars()
    try:
        learn(
            training.method,
            [sample for spec in training.data for sample in open_dataset(spec).samples()],
            load_weights(options.backbone, offline=options.offline),
            training.out,
            auxiliary_data=training.name,
            plan=TrainingPlan(seed=training.seed, size=options.size),
            options=dict(options.method_options),
            device=pick_device(options.device),
            offline=options.offline,
            report=bars,
        )
    finally:
        bars.close()


def _rows(outcomes: "Sequence[Outcome]") -> list[dict[str, Any]]:
    """Return the means over classes for the screen, a row a number."""
    from anomalens.metrics.summary import METRIC_NAMES

    rows: list[dict[str, Any]] = []
    for outcome in outcomes:
        head = {"method": outcome.task.paper.method, "data set": outcome.cell.data}
        for compared in outcome.compared:
            number = compared.number
            if number.class_name is None:
                paper, spread = number.published, compared.deviation
                equal = None if paper is None else not number.mismatches
                ours = number.value if spread is None or number.value is None else f"{number.value:.1f} ± {spread:.1f}"
                rows.append(
                    head
                    | {
                        "metric": METRIC_NAMES[number.metric],
                        "paper": paper.value if paper else None,
                        "ours": ours,
                        "difference": number.difference,
                        "tolerance": compared.tolerance if paper else None,
                        "within": compared.within,
                        "protocol equal": equal,
                    }
                )
    return rows
