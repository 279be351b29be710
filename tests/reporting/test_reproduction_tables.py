"""The tables of a reproduction: every number beside the paper's, with tolerance and protocol."""

import csv
from pathlib import Path
from typing import Any

from anomalens.datasets.catalog import find
from anomalens.evaluation.benchmarking import BenchmarkCell, State
from anomalens.evaluation.reproducing import Outcome, compare, tasks
from anomalens.metrics.summary import SUMMARY_KEYS
from anomalens.options import LoadOptions
from anomalens.reporting.reproduction_tables import to_csv, write_reproduction


def outcome(value: float | None, state: State = "done", reason: str = "") -> Outcome:
    (task,), _ = tasks("crane", [find("mvtec")], {"mvtec": "/mvtec"}, LoadOptions(), Path("/out"))
    numbers: dict[str, Any] = dict.fromkeys(SUMMARY_KEYS, value)
    metrics = {
        "method": "crane",
        "backbone": "ViT-L-14-336",
        "protocol": {"auxiliary_data": "visa", "image_size": 518, "evaluation_size": 518, "precision": "float32"},
        "classes": {"bottle | <b>": {"n_normal": 20, "n_anomalous": 63} | numbers},
        "mean": numbers,
    }
    cell = BenchmarkCell(
        "crane", "crane", "MVTec AD", "mvtec", Path(), state, reason, metrics if state == "done" else None
    )
    return compare([task], [cell])[0]


def test_a_number_has_a_row_with_all_that_is_to_be_known_of_it(tmp_path: Path) -> None:
    write_reproduction([outcome(94.0)], tmp_path)
    text = (tmp_path / "reproduction.md").read_text()
    assert "| (mean) | image AUROC | 93.8 | 94.0 | +0.2 | 0.3 | yes | yes | Crane, arXiv 2504.11055, Table 1" in text
    assert "| (mean) | pixel AUROC | 91.3 | 94.0 | +2.7 | 0.3 | NO | yes |" in text
    assert "| (mean) | pixel AP | - | 94.0 | - | - | - | - | - |" in text
    assert "| bottle \\| &lt;b> | image AUROC | - | 94.0 |" in text
    page = (tmp_path / "reproduction.html").read_text()
    assert "bottle | &lt;b&gt;" in page
    assert "<b>" not in page.partition("</style>")[2]
    first = next(csv.DictReader((tmp_path / "reproduction.csv").open()))
    assert first["class"] == "(mean)"
    assert (first["paper"], first["ours"], first["difference"], first["tolerance"]) == ("93.8", "94.0", "0.2", "0.3")
    assert (first["within"], first["protocol_equal"], first["status"]) == ("True", "True", "verified")


def test_a_run_without_numbers_is_a_row_with_its_reason(tmp_path: Path) -> None:
    write_reproduction([outcome(None, "failed", "no weights | here"), outcome(None, "not run")], tmp_path)
    text = (tmp_path / "reproduction.md").read_text()
    assert "Failed: no weights \\| here" in text
    assert "Not run yet" in text
    rows = list(csv.DictReader(to_csv([outcome(None, "failed", "no weights")]).splitlines()))
    assert [(row["state"], row["reason"]) for row in rows] == [("failed", "no weights")]
