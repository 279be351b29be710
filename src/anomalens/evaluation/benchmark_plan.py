"""Say what a benchmark runs: methods x data sets, from one TOML file or from flags.

[settings]                      # options of every method; any field of `anomalens.options.LoadOptions`
backbone = "bundled"
size = 448

[evaluation]                    # fields of `EvaluationConfig`
size = 518

[[method]]                      # options of one method, which go before those of [settings]
method = "anoclip"
label = "AnoCLIP, one view"     # in the tables; the method's name unless given
group = "AnoCLIP"               # of runs that differ by their seed alone: the tables have their mean
method_options = { views = 1 }

[[method]]
method = "anoclip+"
seeds = 3                       # runs with the seeds 0, 1, 2; the tables have each of them, and their mean

[[method]]
method = "tokenclip"
checkpoints = ["0.safetensors", "1.safetensors"]    # trained with different seeds: as many runs, and their mean

[[method]]
method = "memory"               # compares with good photos: each class is taught from 4, drawn 3 times
shots = 4
draws = 3

[[method]]
recipe = "bottle.anomalens"     # a part that `anomalens fit` has taught

[[data]]
path = "mvtec:datasets/mvtec"   # LAYOUT:PATH or PATH
name = "MVTec AD"               # in the tables; the folder's name unless given
published = "mvtec"             # data set whose published numbers to compare with; the folder's name unless given
exclude = ["*_copy.png"]        # images to leave out, as `--exclude` of `anomalens evaluate`
normal_names = ["gut"]          # further names that say normal, as its `--normal-name`
limit = 5                       # a trial: so many normal and anomalous images of each class at most

Paths, also those of weights, recipes, checkpoints, calibrations and masks, are relative to the file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from anomalens.datasets.layouts import parse_spec
from anomalens.errors import ConfigError
from anomalens.evaluation.evaluator import EvaluationConfig
from anomalens.images.image_files import MAX_PIXELS
from anomalens.options import RENAMED, LoadOptions, refuse_unknown
from anomalens.typed_values import build, checked_value
from anomalens.untrusted import read_toml

_OLD_NAMES = RENAMED | {"name": "method", "any_backbone": "strict_backbone (which means the opposite)"}


@dataclass(frozen=True)
class BenchmarkMethod:
    """Describe a line of the benchmark: a method and how it is run."""

    label: str
    options: LoadOptions
    # Good photos that each class is taught from, and how often they are drawn; None: as [evaluation] says.
    shots: int | None = None
    draws: int | None = None
    # Name of runs that differ by their seed or checkpoint alone; the tables then have their mean too.
    group: str | None = None

    def evaluation(self, general: EvaluationConfig) -> EvaluationConfig:
        """Return the settings of the evaluation with those of the method in their place."""
        own = {name: value for name in ("shots", "draws") if (value := getattr(self, name)) is not None}
        return replace(general, **own)


@dataclass(frozen=True)
class BenchmarkData:
    """Describe a data set of the benchmark."""

    # LAYOUT:PATH or PATH.
    path: str
    # In the tables; the folder's name where None.
    name: str | None = None
    # Key of the published numbers; the folder's name where None.
    published: str | None = None
    # Patterns of images to leave out, and further names of normal images; see `open_dataset`.
    exclude: tuple[str, ...] = ()
    normal_names: tuple[str, ...] = ()
    # Measure on so many normal and anomalous test images of each class at most; None: on all.
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit {self.limit} must be at least 1 image")


@dataclass(frozen=True)
class BenchmarkPlan:
    """Describe the whole benchmark. Raises ConfigError when it is empty or two methods share a label."""

    methods: tuple[BenchmarkMethod, ...]
    data: tuple[BenchmarkData, ...]
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def max_pixels(self) -> int:
        """Return the largest image that a method of the plan reads, in pixels."""
        return max(method.options.max_pixels or MAX_PIXELS for method in self.methods)

    def __post_init__(self) -> None:
        if not self.methods or not self.data:
            raise ConfigError("a benchmark needs at least one method and one data set")
        refuse_repeated([method.label for method in self.methods], "methods", "[[method]] a label")
        for method in self.methods:
            # Numbers that make no sense are refused before anything runs.
            method.evaluation(self.evaluation)


def refuse_repeated(names: list[str], things: str, remedy: str) -> None:
    """Raise ConfigError where two of `names` are equal."""
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"several {things} are called {repeated[0]!r}; give each {remedy} of its own")


def read_plan(path: str | Path) -> BenchmarkPlan:
    """Read a TOML file of the form above. Raises ConfigError naming what is missing, unknown or of a wrong type."""
    file = Path(path)
    content = read_toml(file, named="benchmark file")
    try:
        return _plan(content, file.parent)
    except ConfigError as error:
        raise ConfigError(f"benchmark file {file}: {error}") from error


def flags_plan(
    methods: Iterable[str], data: Iterable[BenchmarkData], options: LoadOptions, evaluation: EvaluationConfig
) -> BenchmarkPlan:
    """Return the plan of command-line flags: every method with the same options."""
    lines = tuple(BenchmarkMethod(name, options.replace(method=name)) for name in dict.fromkeys(methods))
    return BenchmarkPlan(lines, tuple(data), evaluation)


def _plan(content: dict[str, Any], folder: Path) -> BenchmarkPlan:
    refuse_unknown(content, ("settings", "evaluation", "method", "data"), "the file")
    settings, evaluation = _table(content, "settings"), _table(content, "evaluation")
    refuse_unknown(evaluation, _names(EvaluationConfig), "[evaluation]")
    methods = tuple(run for entry in _tables(content, "method") for run in _runs(settings, entry, folder))
    data = tuple(_data(entry, folder) for entry in _tables(content, "data"))
    return BenchmarkPlan(methods, data, EvaluationConfig(**evaluation))


def _runs(settings: Mapping[str, Any], entry: dict[str, Any], folder: Path) -> list[BenchmarkMethod]:
    """Return the runs of a [[method]]: one for each seed and checkpoint."""
    seeds = checked_value("seeds", entry.pop("seeds", None), int | None)
    checkpoints = checked_value("checkpoints", entry.pop("checkpoints", None), list[str] | None)
    if seeds is not None and seeds < 1:
        raise ConfigError(f"seeds {seeds} must be at least 1")
    if seeds is not None and checkpoints is not None:
        raise ConfigError("give either seeds or checkpoints of a [[method]], not both")
    changes = [{"seed": seed} for seed in range(seeds or 0)] + [{"checkpoint": name} for name in checkpoints or []]
    if not changes:
        return [_method(settings, entry, folder)]
    if repeated := [name for name in changes[0] if name in entry]:
        raise ConfigError(f"[[method]] has both {repeated[0]} and {repeated[0]}s; give one of them")
    runs = [_method(settings, entry | change, folder) for change in changes]
    word = next(iter(changes[0]))
    return [replace(run, label=f"{run.label}, {word} {number}", group=run.label) for number, run in enumerate(runs)]


def _method(settings: Mapping[str, Any], entry: dict[str, Any], folder: Path) -> BenchmarkMethod:
    label, group = (checked_value(name, entry.pop(name, None), str | None) for name in ("label", "group"))
    own = {name: checked_value(name, entry.pop(name), int) for name in ("shots", "draws") if name in entry}
    for place, table in (("[settings]", settings), ("[[method]]", entry)):
        if old := next((name for name in table if name in _OLD_NAMES), None):
            raise ConfigError(f"{place}: {old!r} is now called {_OLD_NAMES[old]}")
        refuse_unknown(table, LoadOptions.names(), place)
    values = {**settings, **entry}
    for name in ("method", "recipe", "backbone", "checkpoint", "calibration", "roi"):
        path = folder / str(values.get(name, ""))
        # Weights may be a folder; a folder that happens to be called as a method is, is not meant.
        if name in values and (path.is_file() or (name == "backbone" and path.is_dir())):
            values[name] = str(path)
    options = LoadOptions(**values)
    name = options.method if options.recipe is None else Path(options.recipe).stem
    return BenchmarkMethod(name if label is None else label, options, group=group, **own)


def _data(entry: dict[str, Any], folder: Path) -> BenchmarkData:
    refuse_unknown(entry, _names(BenchmarkData), "[[data]]")
    if not isinstance(entry.get("path"), str):
        raise ConfigError("every [[data]] needs a path, for instance path = 'mvtec:datasets/mvtec'")
    layout, path = parse_spec(entry["path"])
    located = {"path": f"{layout}:{folder / path}" if layout else str(folder / path)}
    return build(BenchmarkData, entry | located, "[[data]]")


def _names(kind: type) -> tuple[str, ...]:
    return tuple(option.name for option in fields(kind))


def _table(content: dict[str, Any], key: str) -> dict[str, Any]:
    table = content.get(key, {})
    if not isinstance(table, dict):
        raise ConfigError(f"write [{key}] as a table")
    return table


def _tables(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    tables = content.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"write every {key} as [[{key}]]")
    return tables
