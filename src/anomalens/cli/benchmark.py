"""Run `anomalens benchmark`: methods x data sets, resumable, compared with the published numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomalens.cli.console import Json, complain
from anomalens.cli.data_options import Exclude, NormalName
from anomalens.cli.load_options import load_options
from anomalens.errors import ConfigError
from anomalens.options import LoadOptions

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from anomalens.evaluation.benchmarking import BenchmarkCell


@load_options(without=("method", "recipe", "calibration", "threshold", "pixel_threshold", "method_options"))
def benchmark(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of cells and tables; an earlier run is resumed.")],
    config: Annotated[Path | None, typer.Option("--config", help="One TOML file that says everything.")] = None,
    method: Annotated[list[str] | None, typer.Option("--method", help="A method; may be repeated.")] = None,
    data: Annotated[list[str] | None, typer.Option("--data", help="LAYOUT:PATH; may be repeated.")] = None,
    class_names: Annotated[bool, typer.Option("--class-names", help="Name each class in its prompts.")] = False,
    eval_size: Annotated[int, typer.Option(min=16, help="Side in pixels at which maps meet masks.")] = 518,
    shots: Annotated[
        int, typer.Option("--shots", min=0, help="Teach each class from this many of its good photos first.")
    ] = 0,
    draws: Annotated[int, typer.Option("--draws", min=1, help="With --shots: how often they are drawn.")] = 1,
    exclude: Exclude = None,
    normal_name: NormalName = None,
    as_json: Json = False,
    options: LoadOptions = LoadOptions(),
) -> None:
    """Measure many methods on many data sets; write results.md, results.csv and results.html.

    Stopped at any moment, the same command goes on where it was; cells that finished under the same settings are
    kept. A cell that fails is a row with its reason. With --config, only --out counts beside it; the file's form:

      \\[settings]
      backbone = "bundled"

      \\[\\[method]]
      method = "anoclip"

      \\[\\[data]]
      path = "mvtec:datasets/mvtec"

    Exit status: 0 all cells done, 1 some failed, 2 wrong usage, 130 stopped.
    """
    from anomalens.cli.console import note, progress_bar, show
    from anomalens.evaluation.benchmark_plan import BenchmarkData, flags_plan, read_plan
    from anomalens.evaluation.benchmarking import collect, run, with_means
    from anomalens.evaluation.evaluator import EvaluationConfig
    from anomalens.reporting.benchmark_tables import write_tables

    if config is not None:
        if method or data:
            raise ConfigError("give either --config or --method and --data, not both")
        plan = read_plan(config)
    else:
        evaluation = EvaluationConfig(size=eval_size, class_names=class_names, shots=shots, draws=draws)
        chosen = [
            BenchmarkData(spec, exclude=tuple(exclude or ()), normal_names=tuple(normal_name or ()))
            for spec in dict.fromkeys(data or [])
        ]
        plan = flags_plan(method or [], chosen, options, evaluation)
    try:
        with progress_bar() as bar:
            cells = run(plan, out, CellBars(bar, len(plan.methods) * len(plan.data)))
    except KeyboardInterrupt:
        write_tables(with_means(collect(plan, out)), out)
        note(f"stopped; finished cells are in {out}, and the same command goes on from there")
        raise typer.Exit(130) from None
    cells = with_means(cells)
    write_tables(cells, out)
    show([_row(cell) for cell in cells], typed=["method", "data set"], as_json=as_json)
    note(f"tables: {out / 'results.md'}, results.csv, results.html")
    if any(cell.state != "done" for cell in cells):
        raise typer.Exit(1)


class CellBars:
    """Show two bars: cells, and the images of the cell that runs."""

    def __init__(self, bar: "Progress", cells: int) -> None:
        self.bar = bar
        self.cells = bar.add_task("cells", total=cells, rated=False)
        self.images: TaskID | None = None

    def begin(self, cell: "BenchmarkCell", images: int) -> None:
        """See `BenchmarkProgress`."""
        self.images = self.bar.add_task(f"{cell.label} on {cell.data}", total=images)

    def image(self) -> None:
        """See `BenchmarkProgress`."""
        if self.images is not None:
            self.bar.advance(self.images)

    def end(self, cell: "BenchmarkCell", kept: bool) -> None:
        """See `BenchmarkProgress`."""
        if self.images is not None:
            self.bar.remove_task(self.images)
            self.images = None
        self.bar.advance(self.cells)
        if cell.state == "failed":
            complain(f"{cell.label} on {cell.data}: {cell.reason}")


def _row(cell: "BenchmarkCell") -> dict[str, Any]:
    from anomalens.evaluation.decisions import decisions_in_words

    mean = cell.metrics["mean"] if cell.metrics else {}
    made = cell.metrics.get("decisions") if cell.metrics else None
    return {
        "method": cell.label,
        "data set": cell.data,
        "image AUROC": mean.get("image_auroc"),
        "pixel AUROC": mean.get("pixel_auroc"),
        "AUPRO": mean.get("aupro"),
        **(decisions_in_words(made) if made else dict.fromkeys(("found", "false alarms", "unusable"))),
        "remark": "" if cell.state == "done" else f"{cell.state}: {cell.reason}",
    }
