"""Tests of counts over time, of the test for drift, and of tables."""

import csv
import io
from datetime import datetime
from typing import Any

import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient
from openpyxl import load_workbook

from anomalens.serving.statistics import drift
from small_photos import photo


def sent(client: TestClient, count: int, **data: str) -> list[dict[str, Any]]:
    """Send images, every second one anomalous; return the answers."""
    files = [("images", (f"{seed}.png", photo(seed, bright=seed % 2 == 1))) for seed in range(count)]
    answers: list[dict[str, Any]] = client.post("/api/v1/inspections", files=files, data=data).json()["inspections"]
    return answers


def test_counts_of_an_empty_history(client: TestClient) -> None:
    counts = client.get("/api/v1/statistics").json()
    assert (counts["total"], counts["alarm_rate"], counts["recipes"]) == (0, None, [])
    assert counts["agreement"]["rate"] is None


def test_counts(client: TestClient) -> None:
    answers = sent(client, 6)
    for answer, verdict in zip(answers, ("right", "right", "missed", "false alarm"), strict=False):
        client.post(f"/api/v1/inspections/{answer['id']}/review", json={"verdict": verdict})
    counts = client.get("/api/v1/statistics", params={"bucket": "hour"}).json()
    assert (counts["total"], counts["normal"], counts["anomalous"], counts["alarm_rate"]) == (6, 3, 3, 0.5)
    assert counts["agreement"] == {
        "reviewed": 4, "right": 2, "false_alarms": 1, "missed": 1, "unusable": 0, "rate": 0.5,
    }  # fmt: skip
    (recipe,) = counts["recipes"]
    assert recipe["recipe"] is None
    assert sum(bucket["total"] for bucket in recipe["buckets"]) == 6
    assert all(datetime.fromisoformat(bucket["begin"]).minute == 0 for bucket in recipe["buckets"])
    assert 0 < recipe["buckets"][0]["p_values"]["low"] <= recipe["buckets"][0]["p_values"]["high"] <= 1
    later = client.get("/api/v1/statistics", params={"since": "2100-01-01T00:00:00Z"}).json()
    assert later["total"] == 0


@pytest.mark.parametrize(
    ("p_values", "warning"),
    [
        ([0.1] * 10, False),
        ([0.9, 0.1] * 30, False),
        ([0.9] * 60, False),
        ([0.1] * 30, True),
        ([0.9] * 200 + [0.1] * 100, True),
    ],
)
def test_drift_is_noticed_where_good_images_score_high(p_values: list[float], warning: bool) -> None:
    result = drift(p_values, None)
    assert result.warning is warning
    assert ("have changed" in result.sentence) is warning


def test_the_chance_of_a_drift_is_that_of_a_coin() -> None:
    # 15 or more heads of 20: (15504 + 4845 + 1140 + 190 + 20 + 1) / 2**20.
    assert drift([0.1] * 15 + [0.9] * 5, None).p_value == pytest.approx(21700 / 2**20)


def test_tables_hold_every_inspection_and_no_formulas(client: TestClient) -> None:
    answers = sent(client, 3)
    client.post(f"/api/v1/inspections/{answers[0]['id']}/review", json={"verdict": "right", "comment": "=1+1"})
    client.post("/api/v1/inspections", params={"name": "=cmd.png"}, content=photo(9))
    rows = list(csv.DictReader(io.StringIO(client.get("/api/v1/export.csv").text)))
    assert [row["id"] for row in rows[:3]] == [answer["id"] for answer in answers]
    assert float(rows[0]["score"]) == answers[0]["score"]
    assert (rows[0]["comment"], rows[3]["name"]) == ("'=1+1", "'=cmd.png")
    table = pyarrow.parquet.read_table(io.BytesIO(client.get("/api/v1/export.parquet").content)).to_pylist()
    assert [row["score"] for row in table[:3]] == [answer["score"] for answer in answers]
    assert table[0]["created"].tzinfo is not None
    sheet = load_workbook(io.BytesIO(client.get("/api/v1/export.xlsx").content)).active
    cells = [[cell.value for cell in line] for line in sheet.iter_rows()]
    assert len(cells) == 5
    assert cells[1][cells[0].index("comment")] == "'=1+1"
    response = client.get("/api/v1/export.csv", params={"label": "anomalous"})
    assert len(response.text.splitlines()) == 2
    assert "attachment" in response.headers["content-disposition"]
