"""Define what every run shares: the contract of a store of rows, counts of rows, and the loop that fills a store."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, TypeVar

Row = dict[str, Any]
"""One input's result, JSON-ready: what `Prediction.to_dict` or `Failure.to_dict` gives."""

Item = TypeVar("Item")
ItemIn = TypeVar("ItemIn", contravariant=True)


@dataclass(frozen=True)
class RunCounts:
    """Count some rows of a run, and the range of their scores."""

    rows: int = 0
    failed: int = 0
    anomalous: int = 0
    # Scores are None where every row failed.
    lowest: float | None = None
    highest: float | None = None

    @classmethod
    def of(cls, *rows: Row) -> "RunCounts":
        """Count `rows`."""
        scores = [row["score"] for row in rows if "score" in row]
        failed = sum("error" in row for row in rows)
        anomalous = sum(row.get("label") == "anomalous" for row in rows)
        return cls(len(rows), failed, anomalous, min(scores, default=None), max(scores, default=None))

    def __add__(self, other: "RunCounts") -> "RunCounts":
        """Count both together."""
        lowest = [counts.lowest for counts in (self, other) if counts.lowest is not None]
        highest = [counts.highest for counts in (self, other) if counts.highest is not None]
        return RunCounts(
            self.rows + other.rows,
            self.failed + other.failed,
            self.anomalous + other.anomalous,
            min(lowest, default=None),
            max(highest, default=None),
        )

    @property
    def normal(self) -> int:
        """Return the number of rows that say "normal"."""
        return self.rows - self.failed - self.anomalous


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
