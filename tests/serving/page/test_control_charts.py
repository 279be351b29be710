"""Check the control charts against limits computed by hand."""

import math
from typing import Any

import pytest

from anomalens.serving.page.control_charts import alarm_chart, p_value_chart


def bucket(hour: int, normal: int, anomalous: int, median: float | None = 0.5) -> dict[str, Any]:
    values = None if median is None else {"low": 0.1, "median": median, "high": 0.9}
    return {"begin": f"2026-01-01T{hour:02}:00:00Z", "normal": normal, "anomalous": anomalous, "p_values": values}


def test_points_above_three_deviations_of_the_promised_rate_are_out() -> None:
    # The limit of 100 images at a rate of 1 in 10 is 0.1 + 3 * sqrt(0.1 * 0.9 / 100) = 0.19.
    chart = alarm_chart([bucket(0, 90, 10), bucket(1, 81, 19), bucket(2, 80, 20)], 0.1)
    assert chart is not None
    assert [point.out for point in chart.points] == [False, False, True]
    assert "1 of 3 points" in chart.description
    limit = next(path for kind, path in chart.lines if kind == "limit")
    height = float(limit[1:].split("L")[0].split()[1])
    share = (chart.up.start - height) / (chart.up.start - chart.up.end) * chart.up.high / 100
    assert share == pytest.approx(0.1 + 3 * math.sqrt(0.1 * 0.9 / 100), abs=0.002)


def test_without_a_promise_the_mean_is_the_centre() -> None:
    chart = alarm_chart([bucket(0, 95, 5), bucket(1, 85, 15)], None)
    assert chart is not None
    centre = next(path for kind, path in chart.lines if kind == "centre")
    assert float(centre[1:].split("L")[0].split()[1]) == pytest.approx(chart.up.at(10), abs=0.1)
    assert "the mean" in chart.note


def test_a_rate_of_nothing_and_a_rate_of_everything_can_be_drawn() -> None:
    for buckets in ([bucket(0, 5, 0)], [bucket(0, 0, 5)]):
        chart = alarm_chart(buckets, None)
        assert chart is not None
        assert not any(point.out for point in chart.points)


def test_nothing_is_drawn_of_nothing() -> None:
    assert alarm_chart([bucket(0, 0, 0, None)], 0.1) is None
    assert p_value_chart([bucket(0, 0, 3, None)], 0.1) is None


def test_p_values_are_drawn_with_their_spread() -> None:
    chart = p_value_chart([bucket(0, 9, 1, 0.5), bucket(1, 0, 1, None), bucket(2, 9, 1, 0.25)], 0.2)
    assert chart is not None
    assert chart.lines[0][1].split()[1].startswith(f"{chart.up.at(0.6):.1f}")
    assert [point.y for point in chart.points] == [chart.up.at(0.5), chart.up.at(0.25)]
    assert [kind for kind, _ in chart.lines] == ["centre", "spread", "spread", "line"]


def test_a_line_is_interrupted_where_there_was_a_pause() -> None:
    chart = alarm_chart([bucket(hour, 9, 1) for hour in (0, 1, 2, 3, 14, 15)], 0.1)
    assert chart is not None
    line = next(path for kind, path in chart.lines if kind == "line")
    assert [part.count("L") for part in line.split("M")[1:]] == [3, 1]


def test_labels_of_the_axis_are_whole() -> None:
    chart = alarm_chart([bucket(0, 83, 17)], 0.1)
    assert chart is not None
    assert [text for _, text in chart.up.ticks] == ["0", "5", "10", "15", "20"]
