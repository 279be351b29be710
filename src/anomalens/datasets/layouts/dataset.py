"""Define what every data folder becomes: samples grouped by class, and the faults noticed in reading it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from anomalens.names import on_one_line

Split = Literal["train", "test"]
Label = Literal[0, 1]
"""0 normal, 1 anomalous."""

# Every kind of fault with its meaning and remedy; summaries print it, so a user knows what to do next.
FAULT_KINDS: dict[str, str] = {
    "missing_image": "listed but not on disk; correct the path or remove the row (left out)",
    "unreadable_image": "not an image that can be opened; replace or remove it (left out)",
    "duplicate_image": "listed more than once; keep one row (the first is used)",
    "missing_mask": "anomalous image without a mask in a class that has masks; add it (image level only)",
    "orphan_mask": "mask of no known image; remove it or add the image (ignored)",
    "wrongly_named_mask": "mask whose name does not fit its image; rename it (not used)",
    "swapped_mask": "mask named after another image; check the table (used as written)",
    "ambiguous_mask": "several images share one name, so their mask cannot be told apart; rename (not used)",
    "mask_size": "mask and image differ in size; export the mask at the image's size (not used)",
    "unreadable_mask": "not a mask that can be opened; replace it (not used)",
    "empty_class": "class without a single test image; add images or remove the folder (left out)",
    "bad_label": "label that is neither normal (0) nor anomalous (1); correct it (row left out)",
    "bad_split": "split that is neither 'train' nor 'test'; correct it (row left out)",
    "contradiction": "labelled normal, yet its mask marks a defect; correct the label or the mask",
    "empty_mask": "labelled anomalous, yet its mask marks nothing; correct the label or the mask",
}


@dataclass(frozen=True)
class Sample:
    """Describe an image and what is known about it."""

    image: Path
    # None where it is not known.
    label: Label | None
    # A mask file, or a folder whose masks are united; None where there is no mask.
    mask: Path | None
    # Kind of defect, "good" for normal images, "" where it is not known.
    kind: str
    class_name: str
    split: Split
    # Unique in its dataset: path relative to the root, with forward slashes.
    id: str


@dataclass(frozen=True)
class Fault:
    """Describe something wrong with the data; `kind` is a key of FAULT_KINDS."""

    kind: str
    path: Path
    detail: str


@dataclass(frozen=True)
class ClassCounts:
    """Count how many test images a class has."""

    normal: int
    anomalous: int
    unlabelled: int
    # Anomalous test images that have a usable mask.
    masks: int


@dataclass(frozen=True)
class Dataset:
    """Hold what was read of a folder of images. Classes and samples are in natural order ("img2" before "img10")."""

    name: str
    layout: str
    root: Path
    classes: Mapping[str, tuple[Sample, ...]]
    faults: tuple[Fault, ...] = ()
    # How the layout was recognised, and what else a user should know.
    notes: tuple[str, ...] = ()

    def samples(self, split: Split = "test") -> Iterator[Sample]:
        """Yield all samples of one split, class after class."""
        for members in self.classes.values():
            yield from (sample for sample in members if sample.split == split)

    def counts(self) -> dict[str, ClassCounts]:
        """Return how many test images each class has."""
        return {name: _counts(members) for name, members in self.classes.items()}

    def first(self, limit: int) -> "Dataset":
        """Return a part for a trial: of each class the first `limit` normal and anomalous test images, and all others
        that are no test."""
        classes = {name: _first(members, limit) for name, members in self.classes.items()}
        return replace(self, classes=classes, notes=(*self.notes, f"at most {limit} images of each label and class"))

    def summary(self, examples: int = 5) -> str:
        """Return what was read and what is wrong, for a person: counts, then up to `examples` faults of each kind."""
        totals = [_counts(members) for members in self.classes.values()]
        lines = [
            f"{self.name} ({self.layout}): {len(totals)} {'class' if len(totals) == 1 else 'classes'}, test images: "
            f"{sum(counts.normal for counts in totals)} normal, "
            f"{sum(counts.anomalous for counts in totals)} anomalous "
            f"({sum(counts.masks for counts in totals)} with mask), "
            f"{sum(counts.unlabelled for counts in totals)} unlabelled"
        ]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*map(on_one_line, lines), *fault_lines(self.faults, examples)])


def fault_lines(faults: tuple[Fault, ...], examples: int = 5) -> list[str]:
    """Return lines of text: each kind of fault with its count and remedy, then up to `examples` of its cases."""
    lines = []
    for kind, count in Counter(fault.kind for fault in faults).items():
        lines.append(f"{count} x {kind}: {FAULT_KINDS[kind]}")
        cases = [fault for fault in faults if fault.kind == kind]
        lines += [on_one_line(f"  {fault.path}: {fault.detail}") for fault in cases[:examples]]
        if count > examples:
            lines.append(f"  ... and {count - examples} more")
    return lines


def _first(members: tuple[Sample, ...], limit: int) -> tuple[Sample, ...]:
    seen: Counter[Label | None] = Counter()
    chosen = []
    for sample in members:
        if sample.split == "test":
            seen[sample.label] += 1
        if sample.split != "test" or seen[sample.label] <= limit:
            chosen.append(sample)
    return tuple(chosen)


def _counts(members: tuple[Sample, ...]) -> ClassCounts:
    test = [sample for sample in members if sample.split == "test"]
    return ClassCounts(
        normal=sum(sample.label == 0 for sample in test),
        anomalous=sum(sample.label == 1 for sample in test),
        unlabelled=sum(sample.label is None for sample in test),
        masks=sum(sample.label == 1 and sample.mask is not None for sample in test),
    )
