"""Our numbers beside the papers': the published one, the difference, and whether the protocol is the same."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from anomalens.evaluation.published_numbers import Published, protocol_differences, published
from anomalens.metrics.summary import SUMMARY_KEYS

# What the papers' tables call the weights that our table of backbones knows by another name.
_PAPERS_WORDS = {
    "ViT-L-14-336": "ViT-L/14@336, OpenAI",
    "ViT-B-16-plus-240": "ViT-B/16+ 240, LAION-400M",
}


@dataclass(frozen=True)
class Number:
    """One number of ours and, where there is one, the most trustworthy published one."""

    class_name: str | None  # None: the mean over the classes
    metric: str
    value: float | None  # per cent; None: undefined
    published: Published | None
    mismatches: tuple[str, ...]  # what differs in protocol; empty where all that is stated agrees

    @property
    def difference(self) -> float | None:
        """Ours minus the published, in points."""
        return None if self.value is None or self.published is None else self.value - self.published.value


def numbers(method: str, dataset: str, metrics: dict[str, Any], *, complete: bool = True) -> Iterator[Number]:
    """All numbers of one metrics.json, the mean first, each beside what was published.

    Args:
        method, dataset: names to look up; `dataset` a key of the catalogue.
        metrics: the content of metrics.json.
        complete: whether the data was the whole benchmark (`catalog.differences`); a part of it is a mismatch.
    """
    for name, values in ((None, metrics["mean"]), *metrics["classes"].items()):
        for metric in SUMMARY_KEYS:
            found = [
                (row, (*_mismatches(row, metrics), *(() if complete else ("data: not the whole set",))))
                for row in published(method, dataset, metric, name)
            ]
            # A row whose protocol is ours goes first; else the most trustworthy one, which `published` puts first.
            row, mismatches = min(found, key=lambda pair: bool(pair[1]), default=(None, ()))
            yield Number(name, metric, values[metric], row, mismatches)


def _mismatches(row: Published, metrics: dict[str, Any]) -> tuple[str, ...]:
    protocol = metrics["protocol"]
    backbone = metrics["backbone"]
    return protocol_differences(
        row,
        auxiliary=protocol["auxiliary_data"] or "",
        backbone=_PAPERS_WORDS.get(backbone, backbone),
        image_size=protocol["image_size"],
        evaluation_size=protocol["evaluation_size"],
    )
