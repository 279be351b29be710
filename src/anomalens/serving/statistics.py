"""Count answers over time, and notice where good images no longer look like those that were taught.

The test for drift: of good images that look like the taught ones as many score above as below the middle of what is
called normal. Where far more of the latest ones score above it (a one-sided binomial test), the images have changed:
light, camera, product.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from sqlalchemy import select

from anomalens.serving.database import Database
from anomalens.serving.history import Filters
from anomalens.serving.schema import Inspection, RecipeVersion

Bucket = Literal["hour", "day"]

# The latest inspections that are counted, at most.
_MOST = 200_000
# The latest normal images that are tested for drift, at most and at least.
_TESTED, _LEAST_TESTED = 100, 20
# A warning is given where chance would do as much less often than this.
_WARNING = 1e-3


class Quantiles(BaseModel):
    """Hold the smallest, the middle and the largest p-value of the images called normal."""

    low: float
    median: float
    high: float


class Counts(BaseModel):
    """Count answers; the alarm rate is anomalous / (normal + anomalous)."""

    total: int
    normal: int
    anomalous: int
    unusable: int
    failed: int
    alarm_rate: float | None


class BucketCounts(Counts):
    """Count the answers of an hour or a day."""

    begin: datetime
    p_values: Quantiles | None


class Drift(BaseModel):
    """Say whether good images still look like those that were taught."""

    images: int
    higher_than_half: int
    p_value: float | None
    warning: bool
    sentence: str


class RecipeCounts(Counts):
    """Count the answers of a recipe; `recipe` is null for words alone."""

    recipe: str | None
    version: int | None
    promised: float | None
    buckets: list[BucketCounts]
    drift: Drift


class Agreement(BaseModel):
    """Count reviews; `rate` is the share of right answers."""

    reviewed: int
    right: int
    false_alarms: int
    missed: int
    unusable: int
    rate: float | None


class StatisticsAnswer(Counts):
    """Hold all statistics."""

    waiting: int
    agreement: Agreement
    recipes: list[RecipeCounts]


class _Row(NamedTuple):
    created: datetime
    recipe: str | None
    state: str
    label: str | None
    p_value: float | None
    verdict: str | None


@dataclass(frozen=True)
class _Promise:
    version: int
    rate: float | None


def statistics(database: Database, filters: Filters, bucket: Bucket = "day") -> StatisticsAnswer:
    """Count the inspections that are meant, the latest 200,000 of them at most."""
    columns = (Inspection.created, Inspection.recipe, Inspection.state, Inspection.label, Inspection.p_value)
    statement = select(*columns, Inspection.verdict).where(*filters.conditions())
    with database.reading() as session:
        latest = session.execute(statement.order_by(Inspection.created.desc()).limit(_MOST))
        rows = [_Row(*row) for row in latest][::-1]
        active = session.scalars(select(RecipeVersion).where(RecipeVersion.active))
        promises = {row.name: _Promise(row.version, row.facts.get("promised")) for row in active}
    by_recipe: dict[str | None, list[_Row]] = {}
    for row in rows:
        by_recipe.setdefault(row.recipe, []).append(row)
    names = sorted(by_recipe, key=lambda name: (name is None, name or ""))
    verdicts = Counter(row.verdict for row in rows if row.verdict)
    reviewed = verdicts.total()
    return StatisticsAnswer(
        **_counts(rows),
        waiting=sum(row.state == "waiting" for row in rows),
        agreement=Agreement(
            reviewed=reviewed,
            right=verdicts["right"],
            false_alarms=verdicts["false alarm"],
            missed=verdicts["missed"],
            unusable=verdicts["unusable"],
            rate=verdicts["right"] / reviewed if reviewed else None,
        ),
        recipes=[_recipe(name, by_recipe[name], promises.get(name or ""), bucket) for name in names],
    )


def _recipe(name: str | None, rows: Sequence[_Row], promise: _Promise | None, bucket: Bucket) -> RecipeCounts:
    return RecipeCounts(
        **_counts(rows),
        recipe=name,
        version=promise.version if promise else None,
        promised=promise.rate if promise else None,
        buckets=_buckets(rows, bucket),
        drift=drift([row.p_value for row in rows if row.label == "normal" and row.p_value is not None], promise),
    )


def _buckets(rows: Iterable[_Row], bucket: Bucket) -> list[BucketCounts]:
    groups: dict[datetime, list[_Row]] = {}
    for row in rows:
        begin = row.created.replace(minute=0, second=0, microsecond=0)
        groups.setdefault(begin if bucket == "hour" else begin.replace(hour=0), []).append(row)
    return [
        BucketCounts(**_counts(group), begin=begin, p_values=_quantiles(group))
        for begin, group in sorted(groups.items())
    ]


def _quantiles(rows: Iterable[_Row]) -> Quantiles | None:
    values = [row.p_value for row in rows if row.label == "normal" and row.p_value is not None]
    return Quantiles(low=min(values), median=median(values), high=max(values)) if values else None


def drift(p_values: Sequence[float], promise: "_Promise | None") -> Drift:
    """Test whether the latest images called normal score higher than those that were taught.

    Args:
        p_values: of images called normal, the latest last.
        promise: of the recipe; None for words alone, which have learned from no image.
    """
    latest = list(p_values)[-_TESTED:]
    rate = promise.rate if promise and promise.rate is not None else 0.0
    middle = (1 + rate) / 2
    higher = sum(value < middle for value in latest)
    if len(latest) < _LEAST_TESTED:
        sentence = f"Too few normal images to say: {len(latest)} of at least {_LEAST_TESTED}."
        return Drift(images=len(latest), higher_than_half=higher, p_value=None, warning=False, sentence=sentence)
    # The share of all ways to fall above or below the middle in which as many or more fall above it.
    ways = sum(math.comb(len(latest), count) for count in range(higher, len(latest) + 1))
    chance = ways / 2 ** len(latest)
    warning = chance < _WARNING
    sentence = (
        f"{higher} of the last {len(latest)} normal images score above the middle of the taught ones; "
        f"{len(latest) // 2} would be expected."
    )
    if warning:
        sentence += " The images have changed: look at light, camera and product, or teach the recipe again."
    return Drift(images=len(latest), higher_than_half=higher, p_value=chance, warning=warning, sentence=sentence)


def _counts(rows: Iterable[_Row]) -> dict[str, Any]:
    rows = list(rows)
    labels = Counter(row.label for row in rows)
    judged = labels["normal"] + labels["anomalous"]
    return {
        "total": len(rows),
        "normal": labels["normal"],
        "anomalous": labels["anomalous"],
        "unusable": labels["unusable"],
        "failed": sum(row.state == "failed" for row in rows),
        "alarm_rate": labels["anomalous"] / judged if judged else None,
    }
