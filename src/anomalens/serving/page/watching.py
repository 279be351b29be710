"""Gather what the page Watch shows: how often each part raises an alarm, and whether it still looks as taught."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlencode

from anomalens.serving.page.control_charts import alarm_chart, p_value_chart


@dataclass(frozen=True)
class Span:
    """Describe a stretch of time that ends now."""

    words: str
    length: timedelta
    # What one point of a chart stands for.
    bucket: Literal["hour", "day"]

    @property
    def begin(self) -> datetime:
        """Return when it begins, in UTC."""
        return datetime.now(UTC) - self.length


SPANS = {
    "day": Span("a day", timedelta(days=1), "hour"),
    "week": Span("a week", timedelta(days=7), "hour"),
    "quarter": Span("three months", timedelta(days=92), "day"),
}
"""The stretches by the name they have in an address."""

DEFAULT_SPAN = "week"


def watched(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's statistics as the template shows them."""
    recipe, version = part["recipe"], part["version"]
    charts = (alarm_chart(part["buckets"], part["promised"]), p_value_chart(part["buckets"], part["promised"]))
    drift = part["drift"] or {"warning": False, "sentence": ""}
    return {
        "name": f"{recipe}, version {version}" if recipe else "by words alone",
        "address": f"/history?{urlencode({'recipe': recipe})}" if recipe else None,
        "total": part["total"],
        "alarm_rate": part["alarm_rate"],
        "promised": part["promised"],
        "charts": [chart for chart in charts if chart],
        "warning": drift["warning"],
        "sentence": drift["sentence"],
    }
