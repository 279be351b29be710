"""Where charts put things, and how they are drawn."""

import re
from collections import Counter

import numpy as np
import pytest

from anomalens.reporting.charts import Axis, Chart, Mark, curve_chart, histogram
from anomalens.reporting.rendering import environment


def drawn(chart: Chart) -> str:
    """Return the chart as the page has it."""
    return str(environment().get_template("parts.html").module.chart(chart))  # type: ignore[attr-defined]


def test_curves_run_from_corner_to_corner_of_the_plot() -> None:
    chart = curve_chart(
        "C", [([[0, 0], [0.15, 0.5], [0.3, 1]], "a", "first"), ([], "b", "second")], "x", "y", x_end=0.3
    )
    assert chart.curves == [("first", "M52.0 200.0L179.0 106.0L306.0 12.0")]
    assert chart.legend == [("first", "a")]  # a curve without points is left out
    text = drawn(chart)
    assert '<path class="curve first" d="M52.0 200.0L179.0 106.0L306.0 12.0"/>' in text
    assert re.findall(r">([\d.]+)</text>", text) == ["0", "0.15", "0.3", "0", "0.25", "0.5", "0.75", "1"]
    assert 'aria-label="C: y over x."' in text


def test_a_chart_without_curves_is_a_sentence() -> None:
    text = drawn(curve_chart("C", [([], "a", "first")], "x", "y"))
    assert "<svg" not in text
    assert "C: not defined, because both kinds of images or masks are needed." in text


def test_axes_of_counts_label_whole_numbers_alone() -> None:
    assert [label for _, label in Axis("images", 0, 3, 200, 12, whole=True).ticks] == ["0", "3"]
    assert Axis("images", 0, 2, 200, 12, whole=True).ticks == [(200, "0"), (106, "1"), (12, "2")]
    assert len(Axis("images", 0, 3, 200, 12).ticks) == 5


def test_bars_count_the_scores() -> None:
    normal, anomalous = [0.1, 0.1, 0.1, 0.2], [0.2, 0.9]
    chart = histogram("H", normal, anomalous, [])
    plot = 200 - 12  # units of the drawing for the three scores of the highest bar
    heights = [(bar.kind, round(bar.height / plot * 3)) for bar in chart.bars]
    assert heights == [("normal", 3), ("normal", 1), ("anomalous", 1), ("anomalous", 1)]
    assert chart.axes is not None
    for bar, score in zip(chart.bars, (0.1, 0.2, 0.2, 0.9), strict=True):
        assert bar.x <= chart.axes[0].at(score) <= bar.x + bar.width
    assert chart.legend == [("normal", "normal (4)"), ("anomalous", "anomalous (2)")]


@pytest.mark.parametrize(
    ("normal", "anomalous", "bars"),
    [([], [], 0), ([0.5], [], 1), ([0.5, 0.5], [0.5], 2), ([-1e30, 0.0], [1e30], 3), ([0.0], [], 1)],
)
def test_histograms_of_few_and_of_wild_scores(normal: list[float], anomalous: list[float], bars: int) -> None:
    chart = histogram("H", normal, anomalous, [Mark(0.5, "threshold", "decision")])
    assert len(chart.bars) == bars
    if bars == 0:
        assert "no image could be read" in drawn(chart)
    for bar in chart.bars:
        assert np.isfinite([bar.x, bar.y, bar.width, bar.height]).all()
        assert 52 <= bar.x < bar.x + bar.width <= 306.001
        assert 12 <= bar.y < bar.y + bar.height <= 200.001
    assert drawn(chart).count("<rect") == bars


def test_a_far_threshold_is_named_and_not_drawn() -> None:
    scores = [0.50, 0.51, 0.52]
    far, near = (histogram("H", scores, [], [Mark(at, "threshold", "decision")]) for at in (0.9, 0.53))
    assert ("decision", "threshold 0.9 (far outside)") in far.legend
    assert far.marks == []
    assert ("decision", "threshold 0.53") in near.legend
    assert near.axes is not None
    assert near.marks == [("decision", near.axes[0].at(0.53))]
    assert Counter(re.findall(r'class="mark (\w+)"', drawn(near))) == {"decision": 1}


def test_a_single_score_is_drawn_beside_its_threshold() -> None:
    chart = histogram("H", [], [0.95], [Mark(0.225, "threshold", "decision")])
    assert chart.axes is not None
    assert chart.axes[0].low < 0.225 < 0.95 < chart.axes[0].high < 1.0
    assert len(chart.marks) == 1


def test_names_are_escaped() -> None:
    text = drawn(curve_chart("<b>", [([[0, 0], [1, 1]], "a & b", "first")], "<x>", '"y"'))
    assert "<b>" not in text
    assert "<x>" not in text
    assert 'aria-label="&lt;b&gt;: &#34;y&#34; over &lt;x&gt;."' in text
    assert "a &amp; b" in text
