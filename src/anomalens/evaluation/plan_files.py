"""Write a benchmark's plan as the TOML file that `benchmark_plan.read_plan` reads."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from anomalens.datasets.layouts import parse_spec
from anomalens.evaluation.benchmark_plan import BenchmarkData, BenchmarkPlan

# Options that name a file, if one of that name exists.
_PATHS = ("method", "recipe", "backbone", "checkpoint", "calibration", "roi")


def plan_text(plan: BenchmarkPlan) -> str:
    """Return the text of a file that holds a plan; paths are absolute, so that it may lie anywhere.

    Every run is a [[method]] of its own, also where several differ by their seed alone.
    """
    lines = ["[evaluation]", *_entries(_changed(plan.evaluation))]
    for method in plan.methods:
        own: dict[str, Any] = {"method": method.options.method, "label": method.label}
        own |= {name: getattr(method, name) for name in ("group", "shots", "draws")}
        own |= {name: _absolute(name, value) for name, value in method.options.chosen().items()}
        lines += ["", "[[method]]", *_entries(own)]
    for data in plan.data:
        layout, path = parse_spec(data.path)
        located = f"{layout}:{path.absolute()}" if layout else str(path.absolute())
        lines += ["", "[[data]]", *_entries(_changed(data) | {"path": located})]
    return "\n".join(lines) + "\n"


def _changed(settings: Any) -> dict[str, Any]:
    """Return the fields that differ from their default, and those that have none."""
    default = BenchmarkData("") if isinstance(settings, BenchmarkData) else type(settings)()
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def _absolute(name: str, value: Any) -> Any:
    return str(Path(value).absolute()) if name in _PATHS and Path(str(value)).exists() else value


def _entries(values: Mapping[str, Any]) -> Iterator[str]:
    return (f"{name} = {_toml(value)}" for name, value in values.items() if value is not None)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_entries(value)) + " }"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    # Text, numbers and truth values are written as in JSON; TOML wants the sign of deletion escaped too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
