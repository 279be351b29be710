"""The benchmarks of the zero-shot papers: what they hold, where they come from, and whether a copy is complete.

The facts stand in `catalog.toml`, this file reads them. Nothing is downloaded: licences differ and several
sources ask for consent, so the user fetches a set once and `prepare` (prepare.py) brings it into a layout.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from anomalens.datasets.layouts import Dataset, fault_lines, open_dataset
from anomalens.errors import ConfigError


@dataclass(frozen=True)
class Counts:
    """Test images a source states."""

    normal: int
    anomalous: int
    source: str

    @property
    def verified(self) -> bool:
        """False for numbers that are only recalled."""
        return not self.source.startswith("unverified")


@dataclass(frozen=True)
class Benchmark:
    """One data set of the papers."""

    key: str  # short name, as in tables and file names
    title: str
    aliases: tuple[str, ...]  # other spellings, folder names of the usual downloads among them
    classes: tuple[str, ...]
    counts: tuple[Counts, ...]  # what sources state; empty: unknown
    task: Literal["image", "pixel", "both"]
    domain: Literal["industrial", "medical"]
    licence: str
    source: str  # where to get it
    layout: str  # layout once prepared
    unpacks: str  # what the download holds
    prepare: str  # name of the rule in prepare.RULES, "" when none is needed
    processed: str  # Google Drive id of AdaCLIP's prepared archive, "" when there is none


@dataclass(frozen=True)
class Check:
    """Outcome of comparing a folder with the catalogue. `ok`: classes and counts are as stated, nothing is broken."""

    key: str
    ok: bool
    classes: int
    normal: int
    anomalous: int
    masks: int
    messages: tuple[str, ...]  # what differs and what to do; empty when ok


@cache
def catalog() -> dict[str, Benchmark]:
    """All benchmarks by key, industrial before medical as in the papers' tables, ELPV last."""
    text = resources.files("anomalens.datasets").joinpath("catalog.toml").read_text(encoding="utf-8")
    found = {}
    for key, entry in tomllib.loads(text).items():
        entry["counts"] = tuple(Counts(*item) for item in entry["counts"])
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()
        }
        found[key] = Benchmark(key=key, **values)
    return found


def find(name: str) -> Benchmark:
    """The benchmark called `name`: key, title, alias, in any case and with - or _. ConfigError if unknown."""
    wanted = _plain(name)
    for benchmark in catalog().values():
        if wanted in map(_plain, (benchmark.key, benchmark.title, *benchmark.aliases)):
            return benchmark
    raise ConfigError(f"'{name}' is not in the catalogue; it holds: {', '.join(catalog())}")


def list_rows() -> list[dict[str, str]]:
    """One row of strings per benchmark, for a table (`anomalens data list`)."""
    return [
        {
            "key": b.key,
            "title": b.title,
            "domain": b.domain,
            "task": b.task,
            "classes": str(len(b.classes)),
            "test normal/anomalous": " or ".join(
                f"{c.normal}/{c.anomalous}{'' if c.verified else ' (unverified)'}" for c in b.counts
            )
            or "not known",
            "licence": b.licence,
            "layout": b.layout,
            "prepare": "needed" if b.prepare else "none",
            "source": b.source,
        }
        for b in catalog().values()
    ]


def describe(name: str) -> str:
    """All the catalogue knows of one benchmark, as lines of text."""
    b = find(name)
    lines = [f"{field.name}: {_shown(getattr(b, field.name))}" for field in fields(b)]
    return "\n".join(lines)


def check(name: str, root: str | Path, *, deep: bool = False) -> Check:
    """Compare the folder (or "LAYOUT:PATH") `root` with what the catalogue states about `name`.

    Counts pass when they equal those of any stated source. Without a stated count only classes, task and
    faults are compared. Raises ConfigError for an unknown name, InputError when nothing can be read.
    """
    benchmark = find(name)
    dataset = open_dataset(root, deep=deep)
    totals = list(dataset.counts().values())
    messages = (*differences(name, dataset), *fault_lines(dataset.faults))
    return Check(
        key=benchmark.key,
        ok=not messages,
        classes=len(totals),
        normal=sum(c.normal for c in totals),
        anomalous=sum(c.anomalous for c in totals),
        masks=sum(c.masks for c in totals),
        messages=messages,
    )


def differences(name: str, dataset: Dataset) -> tuple[str, ...]:
    """What sets a data set already read apart from what the catalogue states about `name`; faults are not repeated."""
    benchmark = find(name)
    totals = list(dataset.counts().values())
    normal, anomalous = sum(c.normal for c in totals), sum(c.anomalous for c in totals)
    return (
        *_class_messages(benchmark, dataset),
        *_count_messages(benchmark, normal, anomalous),
        *_task_messages(benchmark, normal, anomalous, sum(c.masks for c in totals)),
    )


def _class_messages(benchmark: Benchmark, dataset: Dataset) -> list[str]:
    if len(benchmark.classes) == 1:
        # The papers call the one class of a set by different words ("SDD", "electrical commutators").
        extra = len(dataset.classes) - 1
        return [f"expected one class, found {len(dataset.classes)}: {_shown(list(dataset.classes))}"] if extra else []
    expected, found = {c.casefold() for c in benchmark.classes}, {c.casefold() for c in dataset.classes}
    messages = []
    if missing := [c for c in benchmark.classes if c.casefold() not in found]:
        messages.append(f"classes missing: {', '.join(missing)}; unpack them beside the others")
    if extra_classes := [c for c in dataset.classes if c.casefold() not in expected]:
        messages.append(f"classes not in {benchmark.title}: {', '.join(extra_classes)}; move them elsewhere")
    return messages


def _count_messages(benchmark: Benchmark, normal: int, anomalous: int) -> list[str]:
    if not benchmark.counts or any((c.normal, c.anomalous) == (normal, anomalous) for c in benchmark.counts):
        return []
    stated = " or ".join(f"{c.normal}/{c.anomalous} ({c.source})" for c in benchmark.counts)
    return [f"test images normal/anomalous: found {normal}/{anomalous}, stated {stated}; is the copy complete?"]


def _task_messages(benchmark: Benchmark, normal: int, anomalous: int, masks: int) -> list[str]:
    messages = []
    if benchmark.task != "pixel" and not (normal and anomalous):
        messages.append("normal and anomalous images are both needed for image-level metrics; one kind is absent")
    if benchmark.task != "image" and not masks:
        messages.append("no mask found, so pixel-level metrics are impossible; unpack the masks too")
    return messages


def _plain(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "").replace(" ", "")


def _shown(value: object) -> str:
    if isinstance(value, Counts):
        return f"{value.normal} normal + {value.anomalous} anomalous ({value.source})"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_shown, value)) or "not known"
    return str(value) or "none"
