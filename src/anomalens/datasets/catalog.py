"""Describe the benchmarks of the zero-shot papers: what they hold, where they come from, whether a copy is complete.

The facts stand in `catalog.toml`. Nothing is downloaded by itself: licences differ and several sources ask for consent,
so the user fetches a set once, or accepts its licence, and `prepare` (prepare.py) brings it into a layout.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any, Literal

from anomalens.datasets.layouts import Dataset
from anomalens.errors import ConfigError
from anomalens.names import did_you_mean

_TELLING = 3  # classes by which a benchmark is known under another name


@dataclass(frozen=True)
class StatedCounts:
    """State how many test images a source says there are."""

    normal: int
    anomalous: int
    source: str

    @property
    def verified(self) -> bool:
        """Return False for numbers that are only recalled."""
        return not self.source.startswith("unverified")


@dataclass(frozen=True)
class Benchmark:
    """Describe a data set of the papers."""

    # Short name, as in tables and file names.
    key: str
    title: str
    # Other spellings, among them the folder names of the usual downloads.
    aliases: tuple[str, ...]
    classes: tuple[str, ...]
    # What sources state; empty where no number is known.
    counts: tuple[StatedCounts, ...]
    task: Literal["image", "pixel", "both"]
    domain: Literal["industrial", "medical"]
    licence: str
    # Where to get it.
    source: str
    # Address of the archive itself; "" where there is none, or a form or an account stands before it.
    archive: str
    # Layout once prepared.
    layout: str
    # What the download holds.
    unpacks: str
    # Name of the rule in prepare.py, "" where none is needed.
    prepare: str
    # Google Drive id of the archive that AdaCLIP's authors prepared, "" where there is none.
    processed: str

    @property
    def of_papers(self) -> bool:
        """Return whether the papers' tables have it: all but the solar cells, which come as a Python package."""
        return self.layout != "manifest"


# How `describe` names the fields whose own name does not say what they hold.
_CAPTIONS = {
    "source": "get it from",
    "archive": "archive that can be fetched",
    "processed": "prepared by AdaCLIP's authors (Google Drive id)",
}


@cache
def catalog() -> dict[str, Benchmark]:
    """Return all benchmarks by key: industrial before medical as in the papers' tables, ELPV last."""
    text = resources.files("anomalens.datasets").joinpath("catalog.toml").read_text(encoding="utf-8")
    benchmarks = {}
    for key, entry in tomllib.loads(text).items():
        entry["counts"] = tuple(StatedCounts(*row) for row in entry["counts"])
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()
        }
        benchmarks[key] = Benchmark(key=key, **values)
    return benchmarks


def find(name: str) -> Benchmark:
    """Return the benchmark whose key, title or alias is `name`, in any case and with - or _.

    Raises ConfigError naming all keys where there is none.
    """
    wanted = _normalised(name)
    for benchmark in catalog().values():
        if wanted in map(_normalised, (benchmark.key, benchmark.title, *benchmark.aliases)):
            return benchmark
    hint = did_you_mean(name, catalog())
    raise ConfigError(f"'{name}' is not in the catalogue{hint}; it holds: {', '.join(catalog())}")


def key_of(name: str) -> str:
    """Return the key of the benchmark that `find` finds; for any other data set its own name in lower case."""
    try:
        return find(name).key
    except ConfigError:
        return name.strip().casefold()


def keys_of(dataset: Dataset) -> tuple[str, ...]:
    """Return the keys of what a data set may be: by its name, and by its classes where these are a benchmark's.

    A folder may be called anything; three classes or more, none of them foreign, are those of the benchmark.
    """
    present = {_normalised(name) for name in dataset.classes}
    by_classes = [
        benchmark.key
        for benchmark in catalog().values()
        if len(present) >= _TELLING and present <= {_normalised(name) for name in benchmark.classes}
    ]
    return tuple(dict.fromkeys((key_of(dataset.name), *by_classes)))


def list_rows() -> list[dict[str, str]]:
    """Return one row of text per benchmark, for a table."""
    return [
        {
            "key": benchmark.key,
            "title": benchmark.title,
            "domain": benchmark.domain,
            "task": benchmark.task,
            "classes": str(len(benchmark.classes)),
            "test normal/anomalous": " or ".join(
                f"{counts.normal}/{counts.anomalous}{'' if counts.verified else ' (unverified)'}"
                for counts in benchmark.counts
            )
            or "not known",
            "licence": benchmark.licence,
            "layout": benchmark.layout,
            "prepare": "needed" if benchmark.prepare else "none",
            "source": benchmark.source,
        }
        for benchmark in catalog().values()
    ]


def describe(name: str) -> str:
    """Return all the catalogue knows of one benchmark, as lines of text. Raises ConfigError as `find` does."""
    benchmark = find(name)
    values = {field.name: getattr(benchmark, field.name) for field in fields(benchmark)}
    return "\n".join(f"{_CAPTIONS.get(name, name)}: {_in_words(value)}" for name, value in values.items())


def differences(name: str, dataset: Dataset) -> tuple[str, ...]:
    """Return what sets `dataset` apart from what the catalogue states about `name`, a line of text each.

    Counts pass where they equal those of any source; where no source states any, classes and task alone are compared.
    The faults of the data set are not repeated. Raises ConfigError as `find` does.
    """
    benchmark = find(name)
    totals = list(dataset.counts().values())
    normal, anomalous = sum(counts.normal for counts in totals), sum(counts.anomalous for counts in totals)
    return (
        *_class_differences(benchmark, dataset),
        *_count_differences(benchmark, normal, anomalous),
        *_task_differences(benchmark, normal, anomalous, sum(counts.masks for counts in totals)),
    )


def _class_differences(benchmark: Benchmark, dataset: Dataset) -> list[str]:
    if len(benchmark.classes) == 1:
        # The papers call the one class of a set by different words ("SDD", "electrical commutators").
        count = len(dataset.classes)
        return [f"expected one class, found {count}: {_in_words(list(dataset.classes))}"] if count != 1 else []
    expected = {name.casefold() for name in benchmark.classes}
    present = {name.casefold() for name in dataset.classes}
    lines = []
    if missing := [name for name in benchmark.classes if name.casefold() not in present]:
        lines.append(f"classes missing: {', '.join(missing)}; unpack them beside the others")
    if foreign := [name for name in dataset.classes if name.casefold() not in expected]:
        lines.append(f"classes not in {benchmark.title}: {', '.join(foreign)}; move them elsewhere")
    return lines


def _count_differences(benchmark: Benchmark, normal: int, anomalous: int) -> list[str]:
    stated = benchmark.counts
    if not stated or any((counts.normal, counts.anomalous) == (normal, anomalous) for counts in stated):
        return []
    text = " or ".join(f"{counts.normal}/{counts.anomalous} ({counts.source})" for counts in stated)
    return [f"test images normal/anomalous: found {normal}/{anomalous}, stated {text}; is the copy complete?"]


def _task_differences(benchmark: Benchmark, normal: int, anomalous: int, masks: int) -> list[str]:
    lines = []
    if benchmark.task != "pixel" and not (normal and anomalous):
        lines.append("normal and anomalous images are both needed for image-level metrics; one kind is absent")
    if benchmark.task != "image" and not masks:
        lines.append("no mask found, so pixel-level metrics are impossible; unpack the masks too")
    return lines


def _normalised(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "").replace(" ", "")


def _in_words(value: object) -> str:
    if isinstance(value, StatedCounts):
        return f"{value.normal} normal + {value.anomalous} anomalous ({value.source})"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_in_words, value)) or "not known"
    return str(value) or "none"
