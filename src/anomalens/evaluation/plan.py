"""What a benchmark runs: methods x data sets, from one TOML file or from flags.

[settings]                      # of every method, and what a [[method]] may set for itself
backbone = "bundled"            # besides: object, size, also, tile, overlap, dtype, seed, checkpoint,
size = 448                      # any_backbone, batch_size, workers, device, offline

[evaluation]                    # see EvaluationConfig
size = 518

[[method]]
name = "anoclip"
label = "AnoCLIP, one view"     # in the tables; the name unless given
options = { views = 1 }         # of the method

[[data]]
path = "mvtec:datasets/mvtec"   # LAYOUT:PATH or PATH, relative to the TOML file
name = "MVTec AD"               # in the tables; the folder's name unless given
published = "mvtec"             # whose published numbers stand beside ours; the folder's name unless given
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from anomalens.datasets.layouts import parse_spec
from anomalens.errors import ConfigError
from anomalens.evaluation.evaluator import EvaluationConfig

# Settings that change speed only: a finished cell stays finished when they change.
_SPEED = ("batch_size", "workers", "device", "offline")
_SCORES = ("backbone", "object", "checkpoint", "any_backbone", "size", "also", "tile", "overlap", "dtype", "seed")


@dataclass(frozen=True)
class MethodPlan:
    """One line of the benchmark: a method and how it is run."""

    name: str
    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)  # keys of [settings]
    options: Mapping[str, Any] = field(default_factory=dict)  # of the method

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `load_detector` beside the method's name."""
        given = {("object_name" if key == "object" else key): value for key, value in self.settings.items()}
        return given | dict(self.options)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the scores."""
        scores = {key: value for key, value in self.settings.items() if key not in _SPEED}
        return {"method": self.name, "settings": scores, "options": dict(self.options)}


@dataclass(frozen=True)
class DataPlan:
    """One data set of the benchmark."""

    path: str  # LAYOUT:PATH or PATH
    name: str | None = None  # in the tables; None: the folder's
    published: str | None = None  # key of the published numbers; None: the folder's name


@dataclass(frozen=True)
class Plan:
    """The whole benchmark. Raises ConfigError when it is empty or two methods share a label."""

    methods: tuple[MethodPlan, ...]
    data: tuple[DataPlan, ...]
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        if not self.methods or not self.data:
            raise ConfigError("a benchmark needs at least one method and one data set")
        labels = [method.label for method in self.methods]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ConfigError(f"several methods are called {twice[0]!r}; give each [[method]] a label of its own")


def read_plan(path: str | Path) -> Plan:
    """Read a TOML file of the form above. Raises ConfigError naming what is missing, unknown or of a wrong type."""
    file = Path(path)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"benchmark file {file}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"benchmark file {file} is no TOML: {error}") from error
    _known(content, ("settings", "evaluation", "method", "data"), f"{file}")
    base = _table(content, "settings", file)
    _known(base, (*_SCORES, *_SPEED), f"{file}, [settings]")
    methods = [_method(entry, base, file) for entry in _tables(content, "method", file)]
    data = [_data(entry, file) for entry in _tables(content, "data", file)]
    evaluation = _table(content, "evaluation", file)
    _known(evaluation, tuple(one.name for one in fields(EvaluationConfig)), f"{file}, [evaluation]")
    try:
        config = EvaluationConfig(**evaluation)
    except TypeError as error:
        raise ConfigError(f"{file}, [evaluation]: a value is of the wrong type ({error})") from error
    return Plan(tuple(methods), tuple(data), config)


def flags_plan(methods: Iterable[str], data: Iterable[str], settings: Mapping[str, Any], evaluation: Any) -> Plan:
    """The plan of command-line flags: every method with the same settings (keys as in [settings])."""
    lines = tuple(MethodPlan(name, name, dict(settings)) for name in dict.fromkeys(methods))
    return Plan(lines, tuple(DataPlan(path) for path in dict.fromkeys(data)), evaluation)


def _method(entry: dict[str, Any], base: dict[str, Any], file: Path) -> MethodPlan:
    _known(entry, ("name", "label", "options", *_SCORES, *_SPEED), f"{file}, [[method]]")
    name = entry.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"{file}: every [[method]] needs a name, for instance name = 'anoclip'")
    options = entry.get("options", {})
    if not isinstance(options, dict):
        raise ConfigError(f"{file}, method {name}: options are a table, as in options = {{ views = 1 }}")
    settings = base | {key: value for key, value in entry.items() if key in (*_SCORES, *_SPEED)}
    for key in ("checkpoint", "backbone"):
        if key in settings and (file.parent / str(settings[key])).exists():
            settings[key] = str(file.parent / str(settings[key]))
    return MethodPlan(name, str(entry.get("label", name)), settings, options)


def _data(entry: dict[str, Any], file: Path) -> DataPlan:
    _known(entry, ("path", "name", "published"), f"{file}, [[data]]")
    if not isinstance(entry.get("path"), str):
        raise ConfigError(f"{file}: every [[data]] needs a path, for instance path = 'mvtec:datasets/mvtec'")
    layout, path = parse_spec(entry["path"])
    spec = f"{layout}:{file.parent / path}" if layout else str(file.parent / path)
    return DataPlan(spec, entry.get("name"), entry.get("published"))


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    if unknown := sorted(set(table) - set(keys)):
        raise ConfigError(f"{where}: {', '.join(unknown)} is unknown; there is {', '.join(keys)}")


def _table(content: dict[str, Any], key: str, file: Path) -> dict[str, Any]:
    found = content.get(key, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: write [{key}] as a table")
    return found


def _tables(content: dict[str, Any], key: str, file: Path) -> list[dict[str, Any]]:
    found = content.get(key, [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise ConfigError(f"{file}: write every {key} as [[{key}]]")
    return found
