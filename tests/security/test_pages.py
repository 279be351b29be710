"""Pages and tables made of what strangers wrote: nothing but the run's own pictures, no markup, no formulas."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hostile
from anomalens.csv_tables import plain, to_csv
from anomalens.errors import ConfigError
from anomalens.evaluation.benchmarking import BenchmarkCell
from anomalens.evaluation.result import Evaluation, ImageRow
from anomalens.evaluation.stored import read_evaluation
from anomalens.prediction import Prediction
from anomalens.reporting.benchmark_tables import to_csv as cells_to_csv
from anomalens.reporting.benchmark_tables import to_html, to_markdown
from anomalens.reporting.evaluation_page import write_report

TEXTS = [name for name in hostile.NAMES if "\udce8" not in name] + ["=cmd|' /C calc'!A0", "</table><script>x</script>"]


def test_there_are_enough_names() -> None:
    assert len(TEXTS) >= 35


@pytest.mark.parametrize("text", TEXTS)
def test_cells_are_no_formulas_and_come_back(text: str) -> None:
    rows = list(csv.reader(io.StringIO(to_csv(["a", "b"], [{"a": text, "b": -0.5}]), newline="")))
    assert len(rows) == 2
    assert not rows[1][0].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert plain(rows[1][0]) == text
    assert rows[1][1] == "-0.5"


def _cell(text: str) -> BenchmarkCell:
    return BenchmarkCell(text, text, text, text, Path(), state="failed", reason=text)


def test_tables_of_a_benchmark_hold_whatever_names() -> None:
    cells = [_cell(text) for text in TEXTS]
    for line in to_markdown(cells).splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) == to_markdown([_cell("x")]).splitlines()[4].count("|")
            assert "<" not in line
            assert "[" not in line
            assert line.isprintable()
    for row in csv.reader(io.StringIO(cells_to_csv(cells), newline="")):
        assert len(row) == 18
    page = to_html(cells)
    assert "<script" not in page
    assert "<img" not in page
    assert "<svg onload" not in page


def test_rows_of_an_evaluation_come_back(tmp_path: Path, evaluated: Path) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))
    rows = [ImageRow(text, "nut", text, 0, 0.5, "normal", text) for text in TEXTS]
    numbers = {
        name: {key: value for key, value in row.items() if key != "decisions"}
        for name, row in metrics["classes"].items()
    }
    wanted = Evaluation("d", "m", "b", metrics["protocol"], numbers, metrics["intervals"], rows)
    wanted.curves = json.loads((evaluated / "report.json").read_text(encoding="utf-8"))["curves"]
    wanted.write(tmp_path)
    assert read_evaluation(tmp_path).rows == rows
    assert "<script>" not in write_report(tmp_path).read_text(encoding="utf-8")


@pytest.fixture
def tampered(evaluated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


def _change(folder: Path, **changes: Any) -> None:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    report["gallery"] = [case | changes for case in report["gallery"]]
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


@pytest.mark.parametrize("how", ["absolute", "relative", "link", "hard to see", "device", "no picture", "nul"])
def test_only_pictures_of_the_run_are_embedded(how: str, tampered: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"\xff\xd8\xff the secret of whoever makes the page")
    gallery = tampered / "gallery"
    name = {
        "absolute": str(secret),
        "relative": "../../secret.jpg",
        "hard to see": "./../../secret.jpg",
        "device": "/dev/zero",
        "link": "link.jpg",
        "no picture": "text.jpg",
        "nul": "a\0b",
    }[how]
    if how == "link":
        os.symlink(secret, gallery / name)
    (gallery / "text.jpg").write_text("<svg onload=alert(1)>")
    _change(tampered, image=name)
    page = write_report(tampered).read_text(encoding="utf-8")
    assert "picture<br>missing" in page
    assert "/9j/IHRoZSBzZWNyZXQ" not in page  # the secret in base64
    assert "svg onload" not in page


def test_texts_of_strangers_are_no_markup(tampered: Path) -> None:
    markup = '"><script>alert(1)</script><img src="http://example.org/x">'
    _change(tampered, path=f"/x/{markup}", kind=markup)
    metrics = json.loads((tampered / "metrics.json").read_text(encoding="utf-8"))
    metrics |= {"dataset": markup, "method": markup, "backbone": markup}
    metrics["protocol"] |= {markup: markup}
    (tampered / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    page = write_report(tampered).read_text(encoding="utf-8")
    assert "<script" not in page
    assert 'src="http' not in page
    assert page.count("<img") == page.count('<img src="data:image/')


@pytest.mark.parametrize("number", ['"</td><script>x</script>"', "[1]", "{}", "1e999", "true"])
def test_numbers_are_numbers(number: str, tampered: Path) -> None:
    path = tampered / "metrics.json"
    text = re.sub(r'"image_auroc": [\d.]+', f'"image_auroc": {number}', path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="damaged"):
        write_report(tampered)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "a\0b", ".."])
def test_a_prediction_is_saved_in_its_folder(name: str, tmp_path: Path) -> None:
    map_ = np.zeros((2, 2), np.float32)
    made = Prediction(None, 4, 4, 0.5, 0.5, "x", 0.5, map_, (0.0, 1.0), None, "x", "x")
    folder = tmp_path / "deep" / "out"
    with contextlib.suppress(ConfigError):
        made.save(folder, name=name)
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and folder not in path.parents]
    assert not outside
