"""Define what every run shares: the contract of a store of rows, counts of rows, and the loop that fills a store."""

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol, TypeVar

from anomalens.prediction import SURE

Row = dict[str, Any]
"""One input's result, JSON-ready: what `Prediction.to_dict` or `Failure.to_dict` gives."""

_NAMED = 5  # images that stand out most and are kept by name

Item = TypeVar("Item")
ItemIn = TypeVar("ItemIn", contravariant=True)


@dataclass(frozen=True)
class RunCounts:
    """Count some rows of a run; hold the range of their scores and the images that stand out most."""

    rows: int = 0
    failed: int = 0
    anomalous: int = 0
    # Scores are None where every row failed.
    lowest: float | None = None
    highest: float | None = None
    # Rows whose decision is not clear.
    unsure: int = 0
    # How many images could not be judged, by the reason in words.
    unusable_reasons: Mapping[str, int] = field(default_factory=dict)
    # Score and path (of a frame also its time) of the anomalous images with the highest scores, the highest first.
    worst: tuple[tuple[float, str], ...] = ()

    def __post_init__(self) -> None:
        # JSON, in which counts travel, has lists in the place of tuples.
        object.__setattr__(self, "worst", tuple((float(score), str(path)) for score, path in self.worst))

    @classmethod
    def of(cls, *rows: Row) -> "RunCounts":
        """Count `rows`."""
        scores = [row["score"] for row in rows if "score" in row]
        anomalous = [(row["score"], _name(row)) for row in rows if row.get("label") == "anomalous"]
        unusable = Counter(row.get("reason") or "no reason" for row in rows if row.get("label") == "unusable")
        return cls(
            rows=len(rows),
            failed=sum("error" in row for row in rows),
            anomalous=len(anomalous),
            lowest=min(scores, default=None),
            highest=max(scores, default=None),
            unsure=sum(row.get("confidence", 100) < SURE and row.get("label") != "unusable" for row in rows),
            unusable_reasons=dict(unusable),
            worst=_highest(anomalous),
        )

    def __add__(self, other: "RunCounts") -> "RunCounts":
        """Count both together."""
        lowest = [counts.lowest for counts in (self, other) if counts.lowest is not None]
        highest = [counts.highest for counts in (self, other) if counts.highest is not None]
        return RunCounts(
            rows=self.rows + other.rows,
            failed=self.failed + other.failed,
            anomalous=self.anomalous + other.anomalous,
            lowest=min(lowest, default=None),
            highest=max(highest, default=None),
            unsure=self.unsure + other.unsure,
            unusable_reasons=dict(Counter(self.unusable_reasons) + Counter(other.unusable_reasons)),
            worst=_highest([*self.worst, *other.worst]),
        )

    @property
    def unusable(self) -> int:
        """Return the number of rows that say "unusable"."""
        return sum(self.unusable_reasons.values())

    @property
    def normal(self) -> int:
        """Return the number of rows that say "normal"."""
        return self.rows - self.failed - self.anomalous - self.unusable


def _name(row: Row) -> str:
    """Return what a row is about: an image, or a moment of a video."""
    return f"{row['path']} at {row['time']:.2f} s" if "time" in row else str(row["path"])


def _highest(images: Sequence[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    return tuple(sorted(images, key=lambda image: (-image[0], image[1]))[:_NAMED])


@dataclass
class RunSummary:
    """State how far a run has come."""

    # Inputs asked for.
    total: int
    # All rows of the run, those of earlier sittings included.
    counts: RunCounts
    # Rows that earlier sittings wrote.
    resumed: int = 0
    # Duration of this sitting.
    seconds: float = 0.0

    @property
    def rate(self) -> float | None:
        """Return images per second of this sitting; None where it had nothing to do."""
        done = self.counts.rows - self.resumed
        return done / self.seconds if done and self.seconds else None


class RunStore(Protocol[ItemIn]):
    """Keep the rows of a run, so that it can be stopped anywhere and go on.

    Making a store opens or begins the run. An item is what is stored whole or not at all: a row, or a part of many.
    """

    def done(self) -> RunCounts:
        """Count the rows that are stored."""

    def append(self, items: Sequence[ItemIn]) -> RunCounts:
        """Store items for good and count their rows; an item that is stored already counts nothing.

        Raises OSError where there is no room; what was stored before stays whole.
        """

    def finish(self, summary: RunSummary) -> None:
        """Write down how far the run has come, at its end or where it stops."""


def fill(
    store: RunStore[Item],
    items: Generator[Item],
    total: int,
    progress: Callable[[RunSummary], None] | None = None,
) -> RunSummary:
    """Append `items` to `store` one by one as they come, and have the run described however it ends.

    Args:
        total: inputs of the whole run.
        progress: called before the first item and after each.
    """
    done = store.done()
    summary = RunSummary(total, done, resumed=done.rows)
    begin = perf_counter()
    try:
        with closing(items):
            if progress:
                progress(summary)
            for item in items:
                summary.counts += store.append([item])
                summary.seconds = perf_counter() - begin
                if progress:
                    progress(summary)
    finally:
        summary.seconds = perf_counter() - begin
        store.finish(summary)
    return summary
