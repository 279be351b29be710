"""Look up the numbers that papers printed: value, source, protocol, and how trustworthy the transcription is.

The tables stand in `published_numbers.toml`; this file reads them. Values are per cent. A number can only be compared
with ours where the protocols agree: `protocol_differences` says what differs.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from anomalens.datasets.catalog import key_of
from anomalens.errors import ConfigError

Status = Literal["verified", "third-party", "recalled"]

# Most trustworthy first: lookups are ordered by it.
STATUSES: tuple[Status, ...] = ("verified", "third-party", "recalled")
_MARKS: dict[str, Status] = {"v": "verified", "m": "recalled"}


@dataclass(frozen=True)
class Protocol:
    """State how numbers were obtained."""

    key: str
    # Target set -> sets trained on ("visa+clinicdb"); "" none, "?" not stated.
    auxiliary: Mapping[str, str]
    # "?" when not stated.
    backbone: str
    # Pixels; 0 when not stated.
    image_size: int
    evaluation_size: int
    notes: str = ""
    # Normal images of the target class that were seen; 0 is zero-shot.
    shots: int = 0

    def trained_on(self, dataset: str) -> str:
        """Return the auxiliary sets when `dataset` is the target, "" for none, "?" when not stated."""
        return self.auxiliary.get(dataset, self.auxiliary["default"])


@dataclass(frozen=True)
class Published:
    """State one number that a paper or a repository printed."""

    # "winclip", "crane+", ...; variants of ablations in brackets: "adaclip (no prompts)".
    method: str
    # Key of the catalogue, or "mean-..." for a printed average over sets.
    dataset: str
    # None: the mean over the classes of the set.
    class_name: str | None
    # As in metrics.json: "image_auroc", "aupro_200", ...
    metric: str
    # Per cent.
    value: float
    # Where it is printed.
    source: str
    protocol: Protocol
    status: Status


def published(method: str, dataset: str, metric: str, class_name: str | None = None) -> tuple[Published, ...]:
    """Return the numbers published for a method on a data set (or on one class of it), most trustworthy first.

    Within a status, numbers with a known protocol come before quoted ones. Empty when nothing is known.
    """
    return _index().get((method.lower(), key_of(dataset), class_name, metric), ())


@cache
def rows() -> tuple[Published, ...]:
    """Return all published numbers, in the file's order."""
    text = resources.files("anomalens.evaluation").joinpath("published_numbers.toml").read_text(encoding="utf-8")
    return tuple(parse(text))


def protocol_differences(
    row: Published, *, auxiliary: str, backbone: str, image_size: int, evaluation_size: int
) -> tuple[str, ...]:
    """Say in words what sets our run apart from how `row` was obtained; nothing when all that is stated agrees.

    `auxiliary` names the sets our weights were trained on, joined by "+" ("" for none). What the source does
    not state is reported as such, because an unknown protocol is not a matching one.
    """
    protocol = row.protocol
    compared = {
        "auxiliary data": (protocol.trained_on(row.dataset) or "none", auxiliary or "none"),
        "backbone": (protocol.backbone, backbone),
        "image size": (str(protocol.image_size or "?"), str(image_size)),
        "evaluation size": (str(protocol.evaluation_size or "?"), str(evaluation_size)),
    }
    differences = []
    for name, (published_value, own) in compared.items():
        if published_value == "?":
            differences.append(f"{name}: not stated")
        elif sorted(published_value.split("+")) != sorted(own.split("+")):
            differences.append(f"{name}: {published_value}, ours {own}")
    if protocol.shots:
        differences.append(f"normal images seen: {protocol.shots}")
    return tuple(differences)


def parse(text: str) -> Iterator[Published]:
    """Yield the rows of a file in the form of `published_numbers.toml`, whose head explains it.

    Raises ConfigError naming table and row where cells and metrics do not match or a number is no percentage.
    """
    content = tomllib.loads(text)
    protocols = {key: Protocol(key=key, **entry) for key, entry in content["protocols"].items()}
    for table in content["table"]:
        source = content["sources"][table["source"]]
        for line in table["rows"].strip().splitlines():
            label, *cells = (part.strip() for part in line.split("|"))
            if len(cells) != len(table["columns"]):
                expected = len(table["columns"])
                raise ConfigError(f"{table['source']}, row '{label}': {len(cells)} cells, expected {expected}")
            for column, cell in zip(table["columns"], cells, strict=True):
                yield from _cell(table, column, label, cell, source, protocols[column["protocol"]])


def _cell(
    table: dict[str, Any], column: dict[str, str], label: str, cell: str, source: str, protocol: Protocol
) -> Iterator[Published]:
    values = cell.split()
    if len(values) != len(table["metrics"]):
        expected = len(table["metrics"])
        raise ConfigError(f"{table['source']}, row '{label}': {len(values)} values, expected {expected} in '{cell}'")
    per_class = "dataset" in table
    for metric, printed in zip(table["metrics"], values, strict=True):
        if printed == "-":
            continue
        mark = printed[-1] if printed[-1] in _MARKS else ""
        # Rounding undoes what multiplying a decimal fraction by 100 adds (0.935 * 100 = 93.50000000000001).
        value = round(float(printed.removesuffix(mark)) * table.get("scale", 1), 6)
        if not 0 <= value <= 100:
            raise ConfigError(f"{table['source']}, row '{label}': {printed} is no percentage")
        status = _MARKS[mark] if mark else column["status"]
        if status not in STATUSES:
            raise ConfigError(f"{table['source']}: status '{status}' is none of {', '.join(STATUSES)}")
        yield Published(
            method=column["method"],
            dataset=table["dataset"] if per_class else label,
            class_name=label if per_class else None,
            metric=metric,
            value=value,
            source=source,
            protocol=protocol,
            status=status,
        )


@cache
def _index() -> dict[tuple[str, str, str | None, str], tuple[Published, ...]]:
    groups: dict[tuple[str, str, str | None, str], list[Published]] = {}
    for row in rows():
        groups.setdefault((row.method, row.dataset, row.class_name, row.metric), []).append(row)
    return {
        key: tuple(sorted(group, key=lambda row: (STATUSES.index(row.status), row.protocol.backbone == "?")))
        for key, group in groups.items()
    }
