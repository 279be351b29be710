"""Lay out small charts: where curves, bars, marks and ticks lie. The template parts.html draws them as inline SVG."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

Points = Sequence[Sequence[float]]
"""A curve as [[x, y], ...]."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 306, 12, 200  # edges of the plot inside the drawing
_BINS = 30
_FAR = 4  # widths of the scores within which a mark is drawn


@dataclass(frozen=True)
class Axis:
    """Describe an axis: values from `low` to `high`, drawn from position `start` to position `end`."""

    name: str
    low: float
    high: float
    start: float
    end: float
    # Label only ticks at whole numbers, as for counts.
    whole: bool = False

    def at(self, value: float) -> float:
        """Return the position of `value` in the drawing."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Return position and label of ends, middle and quarters; fewer where only whole numbers are labelled."""
        values = [self.low + share * (self.high - self.low) for share in (0, 0.25, 0.5, 0.75, 1)]
        return [(self.at(value), f"{value:.3g}") for value in values if not self.whole or value == int(value)]


@dataclass(frozen=True)
class Bar:
    """Describe a bar of a histogram, in units of the drawing; `kind` is a class of the style sheet."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Mark:
    """Describe a score that a histogram marks; `kind` is a class of the style sheet: "decision" or "best"."""

    score: float
    name: str
    kind: str


@dataclass(frozen=True)
class Chart:
    """Describe a chart. Without axes it is a sentence: `description` then says why there is nothing to draw.

    A `kind` is a class of the style sheet, so that a chart is drawn in the colours of the page, light or dark.
    """

    # Size of every drawing in its own units; the browser scales it to the page.
    width: ClassVar[int] = 320
    height: ClassVar[int] = 240

    title: str
    description: str
    axes: tuple[Axis, Axis] | None = None
    # Kind of each curve, and its path as SVG writes it.
    curves: list[tuple[str, str]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    # Kind and position of each vertical line.
    marks: list[tuple[str, float]] = field(default_factory=list)
    # Kind and text of each entry below the chart.
    legend: list[tuple[str, str]] = field(default_factory=list)


def curve_chart(
    title: str, curves: Sequence[tuple[Points, str, str]], x_name: str, y_name: str, x_end: float = 1.0
) -> Chart:
    """Draw curves over [0, x_end] x [0, 1].

    Args:
        curves: points, name in the legend (may be empty) and kind ("first": solid, "second": dashed) of each curve;
            one without points is left out, and a chart without any is a sentence.
    """
    drawn = [(points, name, kind) for points, name, kind in curves if points]
    if not drawn:
        return Chart(title, f"{title}: not defined, because both kinds of images or masks are needed.")
    x, y = Axis(x_name, 0, x_end, _LEFT, _RIGHT), Axis(y_name, 0, 1, _BOTTOM, _TOP)
    paths = [
        (kind, "M" + "L".join(f"{x.at(across):.1f} {y.at(up):.1f}" for across, up in points))
        for points, _, kind in drawn
    ]
    legend = [(kind, name) for _, name, kind in drawn if name]
    return Chart(title, f"{title}: {y_name} over {x_name}.", (x, y), curves=paths, legend=legend)


def histogram(title: str, normal: Sequence[float], anomalous: Sequence[float], marks: Sequence[Mark]) -> Chart:
    """Draw counts of normal and of anomalous scores in the same bins; a sentence where there is no score.

    A mark so far from the scores that they would be squeezed into a corner is named below the chart and not drawn.
    """
    scores = np.array([*normal, *anomalous], np.float64)
    if scores.size == 0:
        return Chart(title, f"{title}: no image could be read.")
    low, high = float(scores.min()), float(scores.max())
    reach = _FAR * (high - low) or max(abs(high), 1.0)
    near = [mark for mark in marks if low - reach <= mark.score <= high + reach]
    low, high = min([low, *(mark.score for mark in near)]), max([high, *(mark.score for mark in near)])
    margin = 0.02 * ((high - low) or max(abs(high), 1.0) * 0.01)
    edges = np.linspace(low - margin, high + margin, _BINS + 1)
    counts = {"normal": np.histogram(normal, edges)[0], "anomalous": np.histogram(anomalous, edges)[0]}
    x = Axis("image score", float(edges[0]), float(edges[-1]), _LEFT, _RIGHT)
    y = Axis("images", 0, float(max(count.max() for count in counts.values())), _BOTTOM, _TOP, whole=True)
    bars = [
        Bar(kind, x.at(left), y.at(number), x.at(right) - x.at(left), _BOTTOM - y.at(number))
        for kind, count in counts.items()
        for left, right, number in zip(edges[:-1], edges[1:], count, strict=True)
        if number
    ]
    legend = [("normal", f"normal ({len(normal)})"), ("anomalous", f"anomalous ({len(anomalous)})")]
    legend += [(mark.kind, f"{mark.name} {mark.score:.4g}{'' if mark in near else ' (far outside)'}") for mark in marks]
    return Chart(
        title,
        f"{title}: counts of {len(normal)} normal and {len(anomalous)} anomalous images.",
        (x, y),
        bars=bars,
        marks=[(mark.kind, x.at(mark.score)) for mark in near],
        legend=legend,
    )
