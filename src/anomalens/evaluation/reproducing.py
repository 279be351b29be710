"""Reproduce the numbers of papers: the methods asked for on the data sets asked for, each in its paper's protocol.

A reproduction is a benchmark whose settings come from `papers.toml`, so it is resumed and stored as every benchmark is
(`benchmarking.py`). Where nothing learned is published, its trainings come before (`Training`).
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anomalens.datasets import catalog
from anomalens.datasets.catalog import Benchmark, differences
from anomalens.datasets.layouts import open_dataset, parse_spec
from anomalens.errors import AnomalensError, ConfigError
from anomalens.evaluation.benchmark_plan import BenchmarkData, BenchmarkMethod, BenchmarkPlan
from anomalens.evaluation.benchmarking import BenchmarkCell, BenchmarkProgress, collect, run, with_means
from anomalens.evaluation.comparison import Number, numbers
from anomalens.evaluation.evaluator import EvaluationConfig
from anomalens.evaluation.papers import Paper, find_papers
from anomalens.evaluation.stored import read_evaluation
from anomalens.images.sources import natural_key
from anomalens.methods.published.table import find_published, is_published_name, paper_checkpoint
from anomalens.metrics.summary import trapezoid_precision
from anomalens.names import did_you_mean
from anomalens.options import LoadOptions

# Runs of a method that is trained here, unless a number is given: a single training says little.
TRAININGS = 3
_GROUPS = ("all", "industrial", "medical")


@dataclass(frozen=True)
class Training:
    """Describe the training of a checkpoint that a reproduction needs."""

    method: str
    # LAYOUT:PATH of the data sets learned from, and their names joined by "+".
    data: tuple[str, ...]
    name: str
    seed: int
    options: LoadOptions
    # Where the checkpoint is to lie.
    out: Path


@dataclass(frozen=True)
class Task:
    """Describe a method on a data set, in the paper's protocol."""

    paper: Paper
    benchmark: Benchmark
    # LAYOUT:PATH of the data set.
    data: str
    # One a run; the label tells runs with different seeds apart.
    runs: tuple[BenchmarkMethod, ...]
    config: EvaluationConfig
    limit: int | None = None
    trainings: tuple[Training, ...] = ()

    @property
    def benchmark_data(self) -> BenchmarkData:
        """Return the data set as a benchmark takes it."""
        return BenchmarkData(self.data, name=self.benchmark.title, published=self.benchmark.key, limit=self.limit)


@dataclass(frozen=True)
class Compared:
    """Hold a number of ours beside the paper's."""

    number: Number
    # Sample standard deviation over the runs; None of a single run.
    deviation: float | None
    # Percentage points by which they may differ.
    tolerance: float

    @property
    def within(self) -> bool | None:
        """Return whether the difference is within the tolerance; None where there is none."""
        # Both are printed with one decimal: what looks equal to the tolerance is.
        difference = self.number.difference
        return None if difference is None else round(abs(difference), 1) <= self.tolerance


@dataclass(frozen=True)
class Outcome:
    """Hold what came of a task: its cell (with several seeds their mean) and every number beside the paper's."""

    task: Task
    cell: BenchmarkCell
    compared: tuple[Compared, ...]


def chosen_data(names: Iterable[str]) -> list[Benchmark]:
    """Return the data sets of these names: of the catalogue, or "industrial", "medical", "all" of the papers'.

    Raises ConfigError for any other name.
    """
    chosen: dict[str, Benchmark] = {}
    for name in names:
        group = name.strip().casefold()
        if group in _GROUPS:
            members = [entry for entry in catalog.catalog().values() if entry.of_papers]
            members = [entry for entry in members if group in ("all", entry.domain)]
        elif hint := did_you_mean(group, _GROUPS):
            raise ConfigError(f"'{name}' is neither a data set nor a group{hint}")
        else:
            members = [catalog.find(name)]
        chosen |= {entry.key: entry for entry in members}
    return list(chosen.values())


def locate(specs: Sequence[str], wanted: Sequence[Benchmark]) -> dict[str, str]:
    """Return LAYOUT:PATH of each data set that is here, by its key.

    Args:
        specs: "NAME=LAYOUT:PATH" or "NAME=PATH" of a data set; or a folder: of data sets that are called as the
            catalogue calls them, or of the one data set that is wanted.
        wanted: the data sets asked for.

    Raises ConfigError for a folder that does not exist.
    """
    located: dict[str, str] = {}
    for spec in specs:
        name, sign, place = spec.partition("=")
        if sign and catalog.key_of(name) in catalog.catalog():
            located[catalog.key_of(name)] = place
            continue
        folder = parse_spec(spec)[1]
        if not folder.exists():
            hint = did_you_mean(name, catalog.catalog()) if sign else ""
            raise ConfigError(f"--data {spec}: no such file or folder{hint}")
        keys = {catalog.key_of(part.name): str(part) for part in _folders(folder)}
        below = {key: place for key, place in keys.items() if key in catalog.catalog()}
        located |= {wanted[0].key: spec} if not below and len(wanted) == 1 else below
    return located


def tasks(
    method: str,
    data: Sequence[Benchmark],
    located: Mapping[str, str],
    options: LoadOptions,
    out: Path,
    *,
    limit: int | None = None,
    seeds: int | None = None,
    train: bool = False,
) -> tuple[list[Task], list[str]]:
    """Return what is to be run, each method on each of the data sets, and what cannot be, a line of text each.

    Args:
        method: its name, or "all".
        data: the data sets asked for.
        located: where they are, and others to learn from, as `locate` returns it.
        options: where and how to compute; a backbone and a checkpoint go before the paper's.
        out: folder of the reproduction, for what is trained.
        limit: so many images of each label and class at most.
        seeds: runs of a method that draws random numbers or is trained here; None: one, of a trained one three.
        train: train also where a checkpoint is published.

    Raises ConfigError for an unknown method or published checkpoint.
    """
    papers = find_papers(method)
    if options.checkpoint is not None and is_published_name(options.checkpoint):
        # A misspelled name is refused before weights are fetched.
        find_published(options.checkpoint)
    lacking = [
        f"{entry.title} ({entry.key}) is not here: get it from {entry.source} (licence: {entry.licence}), then "
        f"`anomalens data prepare {entry.key} ARCHIVE --out FOLDER` and --data {entry.key}=FOLDER"
        for entry in data
        if entry.key not in located
    ]
    chosen = []
    for paper in papers:
        for entry in data:
            if entry.key not in located:
                continue
            auxiliary = _learned_from(paper, entry.key, options, train)
            if missing := [name for name in auxiliary if name not in located]:
                names = "+".join(auxiliary)
                lacking.append(
                    f"{paper.method} is trained on {names} before it is measured on {entry.key}: say where "
                    f"{missing[0]} is, --data {missing[0]}=PATH"
                )
            else:
                chosen.append(_task(paper, entry, located, options, out, limit, seeds, auxiliary))
    return chosen, lacking


def not_as_stated(task: Task) -> tuple[str, ...]:
    """Return what sets the data of a task apart from what the catalogue states, a line of text each.

    Nothing where it cannot be read: its run says why. Raises ConfigError for a folder that holds none of the classes.
    """
    try:
        dataset = open_dataset(task.data)
        lines = differences(task.benchmark.key, dataset)
    except AnomalensError:
        return ()
    expected = {name.casefold() for name in task.benchmark.classes}
    if len(expected) > 1 and expected.isdisjoint(name.casefold() for name in dataset.classes):
        raise ConfigError(
            f"{task.data} is not {task.benchmark.title}: it holds {', '.join(list(dataset.classes)[:5])}, and none of "
            f"{', '.join(task.benchmark.classes)}"
        )
    return tuple(f"{task.benchmark.title}: {line}" for line in lines)


def _learned_from(paper: Paper, data: str, options: LoadOptions, train: bool) -> tuple[str, ...]:
    """Return the data sets that a method is trained on here before `data` is measured; none where it is not trained."""
    if options.checkpoint is not None:
        return ()
    if (auxiliary := paper.learned_from(data)) is not None:
        return (auxiliary,)
    published = paper_checkpoint(paper.method, data)
    return published.trained_on if published and train else ()


def _task(
    paper: Paper,
    benchmark: Benchmark,
    located: Mapping[str, str],
    options: LoadOptions,
    out: Path,
    limit: int | None,
    seeds: int | None,
    auxiliary: tuple[str, ...],
) -> Task:
    chosen = paper.load_options(benchmark.key, options)
    published = paper_checkpoint(paper.method, benchmark.key)
    if chosen.checkpoint is None and published is not None:
        chosen = chosen.replace(checkpoint=published.name)
    name, trainings = "+".join(auxiliary), list[Training]()
    if auxiliary:
        chosen = chosen.replace(checkpoint=None)
        for seed in range(seeds or TRAININGS):
            file = out / "checkpoints" / f"{paper.method}-{name}-{seed}.safetensors"
            places = tuple(located[key] for key in auxiliary)
            trainings.append(Training(paper.method, places, name, seed, chosen, file))
        runs = [chosen.replace(checkpoint=str(training.out)) for training in trainings]
    else:
        runs = [chosen.replace(seed=seed) for seed in range(seeds or 1)] if paper.random else [chosen]
    several = len(runs) > 1
    methods = tuple(
        BenchmarkMethod(f"{paper.method}, seed {seed}", run, group=paper.method)
        if several
        else BenchmarkMethod(paper.method, run)
        for seed, run in enumerate(runs)
    )
    place = located[benchmark.key]
    return Task(paper, benchmark, place, methods, paper.evaluation(), limit, tuple(trainings))


def plans(chosen: Sequence[Task]) -> list[BenchmarkPlan]:
    """Return the benchmarks that the tasks are: one for all data sets that are measured with the same settings."""
    groups: list[tuple[tuple[BenchmarkMethod, ...], EvaluationConfig, list[BenchmarkData]]] = []
    for task in chosen:
        same = next((data for runs, config, data in groups if (runs, config) == (task.runs, task.config)), None)
        if same is None:
            groups.append((task.runs, task.config, [task.benchmark_data]))
        else:
            same.append(task.benchmark_data)
    return [BenchmarkPlan(runs, tuple(data), config) for runs, config, data in groups]


def reproduce(chosen: Sequence[Task], out: Path, progress: BenchmarkProgress | None = None) -> list[Outcome]:
    """Run all tasks that an earlier run has not finished, and return what came of all. Errors as `benchmarking.run`."""
    return compare(chosen, [cell for plan in plans(chosen) for cell in run(plan, out, progress)])


def reproduced(chosen: Sequence[Task], out: Path) -> list[Outcome]:
    """Return what came of all tasks so far, without running any."""
    return compare(chosen, [cell for plan in plans(chosen) for cell in collect(plan, out)])


def compare(chosen: Sequence[Task], cells: Sequence[BenchmarkCell]) -> list[Outcome]:
    """Return each task with its cell among `cells`, of several runs their mean, and its numbers beside the paper's."""
    outcomes = []
    for task in chosen:
        labels = [method.label for method in task.runs]
        own = [
            _with_trapezoids(cell) if task.paper.trapezoid_ap else cell
            for cell in cells
            if cell.data == task.benchmark.title and cell.label in labels
        ]
        # The mean of several runs stands last, and needs all of them.
        cell = next((run for run in own if run.state != "done"), with_means(own)[-1])
        outcomes.append(Outcome(task, cell, tuple(_compared(task.paper, cell))))
    return outcomes


def _compared(paper: Paper, cell: BenchmarkCell) -> Iterable[Compared]:
    """Yield the numbers of a cell that are defined here or published, each beside the paper's."""
    if cell.metrics is None:
        return
    for number in numbers(cell.metrics, cell.published, complete=not cell.incomplete):
        if number.value is None and number.published is None:
            continue
        if number.class_name is None:
            deviation = cell.metrics.get("mean_std", {}).get(number.metric)
        else:
            deviation = cell.metrics["classes"][number.class_name].get(f"{number.metric}_std")
        yield Compared(number, deviation, paper.tolerance[number.class_name is not None])


def _with_trapezoids(cell: BenchmarkCell) -> BenchmarkCell:
    """Return a cell whose image AP is computed as the paper's authors did: by straight lines between the points."""
    if cell.metrics is None:
        return cell
    scores: dict[str, list[tuple[float, int]]] = {}
    for row in read_evaluation(cell.folder).rows:
        if row.score is not None:
            scores.setdefault(row.class_name, []).append((row.score, row.label))
    classes = {name: dict(row) for name, row in cell.metrics["classes"].items()}
    for name, pairs in scores.items():
        area = trapezoid_precision(*zip(*pairs, strict=True))
        classes[name]["image_ap"] = None if area is None else 100 * area
    known = [row["image_ap"] for row in classes.values() if row.get("image_ap") is not None]
    mean = cell.metrics["mean"] | {"image_ap": statistics.fmean(known) if known else None}
    return replace(cell, metrics=cell.metrics | {"classes": classes, "mean": mean})


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((part for part in folder.iterdir() if part.is_dir()), key=lambda part: natural_key(part.name))
