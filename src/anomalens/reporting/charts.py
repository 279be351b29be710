"""Small charts as inline SVG. Colours are classes of the style sheet, so a chart follows light and dark by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

Points = Sequence[Sequence[float]]  # [[x, y], ...]

_WIDTH, _HEIGHT = 320, 240  # of the drawing, in units of its own
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 40  # margins
_BINS = 30


@dataclass(frozen=True)
class Line:
    """One curve of a chart."""

    points: Points
    name: str  # in the legend; may be empty where there is one line
    kind: str  # class of the style sheet: "first" (solid) or "second" (dashed)


@dataclass(frozen=True)
class Mark:
    """A vertical line of a histogram."""

    at: float  # score units
    name: str
    kind: str  # class of the style sheet: "decision" or "best"


def curves(title: str, lines: Sequence[Line], x: str, y: str, x_end: float = 1.0) -> str:
    """Curves over [0, x_end] x [0, 1] with axes called `x` and `y`; a sentence where no curve is defined."""
    drawn = [line for line in lines if line.points]
    if not drawn:
        return _frame(title, f"{title}: not defined here, because both kinds of images or masks are needed.", None)
    parts = [_axes((0.0, x_end), (0.0, 1.0), x, y)]
    for line in drawn:
        path = "L".join(f"{_x(a, 0.0, x_end):.1f} {_y(b, 0.0, 1.0):.1f}" for a, b in line.points)
        parts.append(f'<path class="curve {line.kind}" d="M{path}"/>')
    keys = [(line.name, f"key {line.kind}") for line in drawn if line.name]
    return _frame(title, f"{title}: {y} over {x}.", "".join(parts), keys)


def histogram(title: str, normal: Sequence[float], anomalous: Sequence[float], marks: Sequence[Mark]) -> str:
    """Counts of normal and of anomalous scores in the same bins, with vertical lines; a sentence without scores.

    A mark farther from the scores than they are wide is named below the chart and not drawn.
    """
    scores = np.array([*normal, *anomalous], np.float64)
    if scores.size == 0:
        return _frame(title, f"{title}: no image could be read.", None)
    low, high = float(scores.min()), float(scores.max())
    span = (high - low) or max(abs(high), 1.0) * 0.01
    near = [mark for mark in marks if low - span <= mark.at <= high + span]
    low, high = min([low, *(mark.at for mark in near)]), max([high, *(mark.at for mark in near)])
    low, high = low - 0.02 * span, high + 0.02 * span
    edges = np.linspace(low, high, _BINS + 1)
    counts = {kind: np.histogram(values, edges)[0] for kind, values in (("normal", normal), ("anomalous", anomalous))}
    top = float(max(count.max() for count in counts.values()))
    parts = [_axes((low, high), (0.0, top), "image score", "images", whole=True)]
    for kind, count in counts.items():
        for left, right, height in zip(edges[:-1], edges[1:], count, strict=True):
            if height:
                x, width = _x(left, low, high), _x(right, low, high) - _x(left, low, high)
                y = _y(float(height), 0.0, top)
                box = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_HEIGHT - _BOTTOM - y:.1f}"'
                parts.append(f'<rect class="bar {kind}" {box}/>')
    for mark in near:
        x = _x(mark.at, low, high)
        parts.append(f'<line class="mark {mark.kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
    keys = [(f"normal ({len(normal)})", "key normal"), (f"anomalous ({len(anomalous)})", "key anomalous")]
    keys += [
        (f"{mark.name} {mark.at:.4g}{'' if mark in near else ' (far outside)'}", f"key {mark.kind}") for mark in marks
    ]
    description = f"{title}: counts of {len(normal)} normal and {len(anomalous)} anomalous images."
    return _frame(title, description, "".join(parts), keys)


def _frame(title: str, description: str, drawing: str | None, keys: Sequence[tuple[str, str]] = ()) -> str:
    head = f"<figcaption>{escape(title)}</figcaption>"
    if drawing is None:
        return f'<figure class="chart">{head}<p class="soft">{escape(description)}</p></figure>'
    picture = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(description)}">{drawing}</svg>'
    legend = "".join(f'<li class="{kind}">{escape(name)}</li>' for name, kind in keys)
    return f'<figure class="chart">{head}{picture}{f"<ul>{legend}</ul>" if legend else ""}</figure>'


def _axes(x: tuple[float, float], y: tuple[float, float], x_name: str, y_name: str, *, whole: bool = False) -> str:
    parts = []
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at, value = _x(share, 0.0, 1.0), x[0] + share * (x[1] - x[0])
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        if share in (0.0, 0.5, 1.0):
            anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[share]
            parts.append(f'<text x="{at:.1f}" y="{bottom + 14}" text-anchor="{anchor}">{value:.3g}</text>')
        at, value = _y(share, 0.0, 1.0), y[0] + share * (y[1] - y[0])
        if not whole or value == int(value):
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text class="name" x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_name)}</text>')
    centre = (_TOP + bottom) / 2
    parts.append(
        f'<text class="name" transform="translate(11 {centre:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_name)}</text>"
    )
    return "".join(parts)


def _x(value: float, low: float, high: float) -> float:
    return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, low: float, high: float) -> float:
    return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
