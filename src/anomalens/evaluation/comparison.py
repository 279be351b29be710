"""Compare our numbers with the papers': the published one, the difference, and whether the protocol is the same."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from anomalens.evaluation.published_numbers import Published, protocol_differences, published

# What the papers' tables call the weights that our table of backbones knows by another name.
_PAPERS_NAMES = {
    "ViT-L-14-336": "ViT-L/14@336, OpenAI",
    "ViT-L-14-336-gelu": "ViT-L/14@336, OpenAI",
    "ViT-B-16-plus-240": "ViT-B/16+ 240, LAION-400M",
}
_GUIDES = dict.fromkeys(("facebook/dinov2-with-registers-base", "dinov2-with-registers-base"), "DINOv2 ViT-B/14")
"""What the papers' tables call networks that guide the attention of a method, by our option `guide`."""


@dataclass(frozen=True)
class Number:
    """Hold one number of ours and, where there is one, the most trustworthy published one."""

    # None: the mean over the classes.
    class_name: str | None
    metric: str
    # Per cent; None where it is not defined.
    value: float | None
    published: Published | None
    # What differs in protocol; empty where all that is stated agrees.
    mismatches: tuple[str, ...]

    @property
    def difference(self) -> float | None:
        """Return ours minus the published one, in percentage points."""
        return None if self.value is None or self.published is None else self.value - self.published.value


def numbers(metrics: dict[str, Any], dataset: str, *, complete: bool = True) -> Iterator[Number]:
    """Yield all numbers of one evaluation, the mean first, each with what was published.

    Args:
        metrics: the content of metrics.json.
        dataset: key of the catalogue whose published numbers to look up.
        complete: whether the data was the whole benchmark (`catalog.differences`); a part of it is a mismatch.
    """
    for name, values in ((None, metrics["mean"]), *metrics["classes"].items()):
        for metric in metrics["mean"]:
            candidates = [
                (row, (*_mismatches(row, metrics), *(() if complete else ("data: not the whole set",))))
                for row in published(metrics["method"], dataset, metric, name)
            ]
            # A row whose protocol is ours goes first; else the most trustworthy one, which `published` puts first.
            row, mismatches = min(candidates, key=lambda candidate: bool(candidate[1]), default=(None, ()))
            yield Number(name, metric, values[metric], row, mismatches)


def _mismatches(row: Published, metrics: dict[str, Any]) -> tuple[str, ...]:
    protocol = metrics["protocol"]
    backbone = _PAPERS_NAMES.get(metrics["backbone"], metrics["backbone"])
    if guide := protocol.get("prompts", {}).get("options", {}).get("guide"):
        backbone = f"{backbone}, with {_GUIDES.get(guide, guide)}"
    differences = protocol_differences(
        row,
        auxiliary=protocol["auxiliary_data"] or "",
        backbone=backbone,
        image_size=protocol["image_size"],
        evaluation_size=protocol["evaluation_size"],
    )
    return (*differences, *_ways_of_seeing(protocol))


def _ways_of_seeing(protocol: dict[str, Any]) -> Iterator[str]:
    """Yield how the tower saw the images otherwise than any paper's did, in words."""
    if (precision := protocol.get("precision", "float32")) != "float32":
        yield f"precision: ours {precision}"
    if sides := protocol.get("also"):
        yield f"further image sizes: {', '.join(map(str, sides))}"
    if protocol.get("tile"):
        yield f"tiles of {protocol['tile']} pixels"
