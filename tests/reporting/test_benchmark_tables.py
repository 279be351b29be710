"""The tables a benchmark ends in: Markdown, CSV and a page."""

import csv
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from anomalens.evaluation.benchmarking import BenchmarkCell
from anomalens.metrics.summary import SUMMARY_KEYS
from anomalens.reporting.benchmark_tables import to_csv, to_html, to_markdown


def metrics(values: dict[str, float | None], **protocol: Any) -> dict[str, Any]:
    known = {"auxiliary_data": None, "image_size": 240, "evaluation_size": 240, "failed_images": 0}
    everything = {key: values.get(key) for key in SUMMARY_KEYS}
    return {
        "method": "anoclip",
        "backbone": "ViT-B-16-plus-240",
        "protocol": known | protocol,
        "classes": {"bottle": {"n_normal": 20, "n_anomalous": 63} | everything},
        "mean": everything,
    }


def cell(values: dict[str, float | None], incomplete: tuple[str, ...] = (), **protocol: Any) -> BenchmarkCell:
    content = metrics(values, **protocol)
    return BenchmarkCell("auto", "AnoCLIP | mine", "MVTec AD", "mvtec", Path(), "done", "", content, incomplete)


def test_the_published_number_stands_beside_ours() -> None:
    text = to_markdown([cell({"image_auroc": 91.25})])
    assert "| AnoCLIP \\| mine | MVTec AD | 91.2 | - |" in text
    assert "| image AUROC | 91.2 | 92.5 | -1.2 | matches | verified | AnoVL" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_size": 448}, "image size: 240, ours 448"),
        ({"evaluation_size": 518}, "evaluation size: 240, ours 518"),
        ({"auxiliary_data": "visa"}, "auxiliary data: none, ours visa"),
        ({"incomplete": ("classes missing: cable",)}, "data: not the whole set"),
    ],
)
def test_another_protocol_is_said(change: dict[str, Any], words: str) -> None:
    part = cell({"image_auroc": 91.25}, **change)
    assert f"differs: {words}" in to_markdown([part])
    row = next(row for row in csv.DictReader(to_csv([part]).splitlines()) if row["published"])
    assert (row["protocol_matches"], row["protocol_differences"]) == ("False", words)


def test_what_a_part_of_a_set_lacks_is_noted_once() -> None:
    part = cell({"image_auroc": 91.25, "image_ap": 90.0}, incomplete=("classes missing: cable",))
    assert to_markdown([part, part]).count("- MVTec AD is not the whole set: classes missing: cable") == 1
    assert "is not the whole set" not in to_markdown([cell({"image_auroc": 91.25})])


def test_csv_has_every_number() -> None:
    failed = BenchmarkCell("crane", "crane", "b", "b", Path(), "failed", "no weights, sorry")
    rows = list(csv.DictReader(to_csv([cell({"image_auroc": 91.25, "aupro": None}), failed]).splitlines()))
    assert len(rows) == 2 * len(SUMMARY_KEYS) + 1
    assert (rows[0]["class"], rows[0]["metric"], rows[0]["value"]) == ("(mean)", "image_auroc", "91.25")
    assert (rows[0]["published"], rows[0]["difference"], rows[0]["protocol_matches"]) == ("92.5", "-1.25", "True")
    assert [rows[0]["method"], rows[-1]["method"]] == ["anoclip", "crane"]
    assert (rows[8]["class"], rows[8]["n_anomalous"]) == ("bottle", "63")
    assert (rows[-1]["state"], rows[-1]["reason"], rows[-1]["value"]) == ("failed", "no weights, sorry", "")


class Reader(HTMLParser):
    """Collect rows of text and everything that would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_is_whole_escaped_and_fetches_nothing() -> None:
    failed = BenchmarkCell("crane", "<b>crane</b>", "b", "b", Path(), "failed", "a < b & c")
    reader = Reader()
    unsure = cell({"image_auroc": 91.25}, image_size=448, failed_images=1)
    reader.feed(to_html([cell({"image_auroc": 91.25}), unsure, failed]))
    assert reader.open == []
    assert reader.links == ["data:,"]
    shown = {"<b>crane</b>", "failed: a < b & c", "matches", "differs: image size: 240, ours 448", "92.5", "–"}
    assert shown | {"AnoCLIP | mine", "1 image failed"} <= set(reader.text)
    assert "nan" not in "".join(reader.text).lower()


def test_markup_in_names_stays_text_in_markdown_too() -> None:
    failed = BenchmarkCell("crane", "<img src=x>", "a|b", "b", Path(), "failed", "no\nweights | none")
    assert "| &lt;img src=x> | a\\|b | - |" in to_markdown([failed])
    assert "| failed: no weights \\| none |" in to_markdown([failed])


def test_markdown_tables_are_whole() -> None:
    """Every line of a table has as many cells as its head."""
    lines = to_markdown([cell({"image_auroc": 91.25, "aupro": 33.333}), cell({"image_ap": 90.0})]).splitlines()
    for first in [number for number, line in enumerate(lines) if line.startswith("|---")]:
        width = lines[first].count("|")
        rows = [line for line in lines[first - 1 :] if line.startswith("|")]
        blank = next((number for number, line in enumerate(lines[first:]) if not line), None)
        for line in rows[: blank and blank + 1]:
            assert line.replace("\\|", "").count("|") == width, line
    assert "| AnoCLIP \\| mine | MVTec AD | 91.2 | - | - | - | - | - | 33.3 | - | - | - | - |  |" in lines


def test_failed_images_are_remarked() -> None:
    assert "| 3 images failed |" in to_markdown([cell({}, failed_images=3)])


def test_draws_and_decisions_are_told() -> None:
    numbers = cell({"image_auroc": 91.25, "aupro": None})
    assert numbers.metrics is not None
    made = {"found": 6, "missed": 2, "false_alarms": 1.5, "passed": 8.5, "unusable": 0}
    row = dict.fromkeys(("n_normal", "n_anomalous", *SUMMARY_KEYS)) | {"reason": "too few"}
    metrics = numbers.metrics | {"mean_std": {"image_auroc": 0.75, "aupro": None}, "decisions": made}
    metrics["classes"] = metrics["classes"] | {"bolt": row}
    told = replace(numbers, metrics=metrics)
    assert "| 91.2 ± 0.8 |" in to_markdown([told])
    assert "| 6 of 8 | 1.5 of 10 | 0 | bolt: too few |" in to_markdown([told])
    assert "<small>± 0.8</small>" in to_html([told])
    rows = list(csv.DictReader(to_csv([told]).splitlines()))
    assert [row["deviation"] for row in rows if row["class"] == "(mean)"][:1] == ["0.75"]
