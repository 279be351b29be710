"""Lay out control charts over time: where points, lines and ticks lie. The template parts.html draws them as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, ClassVar

from anomalens.reporting.charts import Axis

# Edges of the plot inside the drawing.
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 548.0, 12.0, 160.0
# Standard deviations from the centre line to a control limit, as in Shewhart's charts.
_SIGMAS = 3.0
# A pause is longer than this many of the shortest steps from point to point.
_PAUSE = 4.5

Bucket = Mapping[str, Any]
"""Counts of one stretch of time, as the service's statistics give them."""


@dataclass(frozen=True)
class Point:
    """Describe a point, in units of the drawing, and what it says of itself."""

    x: float
    y: float
    # When its stretch of time begins, ISO 8601.
    time: str
    text: str
    # Beyond a control limit.
    out: bool = False


@dataclass(frozen=True)
class TimeChart:
    """Describe a chart over time."""

    # Size of every drawing in its own units; the browser scales it to the page.
    width: ClassVar[int] = 560
    height: ClassVar[int] = 184

    title: str
    description: str
    # A sentence on how to read it.
    note: str
    across: Axis
    up: Axis
    # Position, time and anchor of the labels below.
    times: Sequence[tuple[float, str, str]]
    # Class of the style sheet and path of each line.
    lines: list[tuple[str, str]] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)


def alarm_chart(buckets: Sequence[Bucket], promised: float | None) -> TimeChart | None:
    """Draw the share of alarms over time with the limit it stays below by chance; None where nothing was judged.

    The centre line is the promised rate of false alarms, or the mean where none was promised. The limit of a stretch
    of n images lies three standard deviations of a binomial share above it, so it is wider where there are fewer.
    """
    counted = [(bucket, bucket["normal"] + bucket["anomalous"]) for bucket in buckets]
    counted = [(bucket, count) for bucket, count in counted if count]
    if not counted:
        return None
    shares = [bucket["anomalous"] / count for bucket, count in counted]
    centre = promised or sum(bucket["anomalous"] for bucket, _ in counted) / sum(count for _, count in counted)
    limits = [min(1.0, centre + _SIGMAS * math.sqrt(centre * (1 - centre) / count)) for _, count in counted]
    across, times = _time_axis([bucket for bucket, _ in counted])
    # A multiple of four, so that the labels of the quarters are whole.
    highest = min(100, 4 * math.ceil(25 * max(*shares, *limits, 0.01)))
    up = Axis("alarms", 0, highest, _BOTTOM, _TOP)
    places = [_middle(across, bucket) for bucket, _ in counted]
    points = [
        Point(
            x,
            up.at(100 * value),
            bucket["begin"],
            f"{bucket['anomalous']} of {count} ({100 * value:.3g} %)",
            value > limit,
        )
        for x, value, limit, (bucket, count) in zip(places, shares, limits, counted, strict=True)
    ]
    beyond = sum(point.out for point in points)
    name = "the promised rate" if promised else "the mean"
    note = f"Dotted: {name}. Dashed: chance alone stays below it 999 times in 1,000."
    return TimeChart(
        "Alarms, per cent",
        f"Share of alarms over time; {beyond} of {len(points)} points lie above the control limit.",
        note + (f" {beyond} of {len(points)} points lie above." if beyond else ""),
        across,
        up,
        times,
        [
            ("centre", _level(across, up.at(100 * centre))),
            ("limit", _path([(x, up.at(100 * limit)) for x, limit in zip(places, limits, strict=True)])),
            ("line", _through(points)),
        ],
        points,
    )


def p_value_chart(buckets: Sequence[Bucket], promised: float | None) -> TimeChart | None:
    """Draw the middle p-value of images called normal over time, with their spread; None where there are none.

    The p-values of sound parts are even between 0 and 1. What is called normal are those above the promised rate, so
    that half of them lie above (1 + rate) / 2: the centre line.
    """
    shown = [bucket for bucket in buckets if bucket["p_values"]]
    if not shown:
        return None
    across, times = _time_axis(shown)
    up = Axis("p-value", 0, 1, _BOTTOM, _TOP)
    places = [_middle(across, bucket) for bucket in shown]
    lines = [("centre", _level(across, up.at((1 + (promised or 0)) / 2)))]
    for x, bucket in zip(places, shown, strict=True):
        low, high = up.at(bucket["p_values"]["low"]), up.at(bucket["p_values"]["high"])
        lines.append(("spread", _path([(x, low), (x, high)])))
    points = [
        Point(x, up.at(bucket["p_values"]["median"]), bucket["begin"], f"{bucket['p_values']['median']:.3g}")
        for x, bucket in zip(places, shown, strict=True)
    ]
    lines.append(("line", _through(points)))
    return TimeChart(
        "p-value of what was called normal",
        f"Middle p-value over time in {len(points)} points.",
        "Sound parts that look as taught lie around the dotted line; a fall says that they look different now.",
        across,
        up,
        times,
        lines,
        points,
    )


def _time(bucket: Bucket) -> datetime:
    return datetime.fromisoformat(bucket["begin"])


def _time_axis(buckets: Sequence[Bucket]) -> tuple[Axis, list[tuple[float, str, str]]]:
    """Return the axis of time and the labels of its ends."""
    first, last = _time(buckets[0]), _time(buckets[-1])
    room = max((last - first).total_seconds() * 0.03, 1800.0)
    axis = Axis("time", first.timestamp() - room, last.timestamp() + room, _LEFT, _RIGHT)
    begin, end = buckets[0]["begin"], buckets[-1]["begin"]
    if len(buckets) == 1:
        return axis, [(axis.at(first.timestamp()), begin, "middle")]
    return axis, [(_LEFT, begin, "start"), (_RIGHT, end, "end")]


def _middle(axis: Axis, bucket: Bucket) -> float:
    return axis.at(_time(bucket).timestamp())


def _level(axis: Axis, y: float) -> str:
    return _path([(axis.start, y), (axis.end, y)])


def _through(points: Sequence[Point]) -> str:
    """Return a line through points, which is interrupted where there was a longer pause."""
    steps = [later.x - earlier.x for earlier, later in pairwise(points)]
    longest = _PAUSE * min(steps, default=0.0)
    parts = [[points[0]]]
    for step, point in zip(steps, points[1:], strict=True):
        if step > longest:
            parts.append([])
        parts[-1].append(point)
    return "".join(_path([(point.x, point.y) for point in part]) for part in parts)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
