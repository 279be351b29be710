"""Runs read back: rows of both kinds of folder, and rows that somebody damaged or made up."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from anomalens.errors import InputError
from anomalens.runs import stored_run
from anomalens.runs.ray_parts import FinishedPart
from anomalens.runs.stored_run import StoredRun, holds_run, read_run
from hostile import texts
from stored_runs import Shot, write_run

SHOTS = [
    Shot("a/1.png", 0.9),
    Shot("a/2.png", 0.1),
    Shot("b/1.png", error="is empty"),
    Shot("b/2.png", unusable="black"),
]


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    return read_run(write_run(tmp_path, SHOTS))


def lines(run: StoredRun) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()]


def test_rows_come_back_as_they_were_written(run: StoredRun) -> None:
    assert list(run.rows()) == lines(run)
    assert run.settings["method"] == "by hand"


def test_rows_of_a_cluster_are_the_same(run: StoredRun, tmp_path: Path) -> None:
    before = [
        {name: part for name, part in row.items() if name not in ("heatmap", "mask", "map")} for row in lines(run)
    ]
    (run.folder / "predictions.jsonl").unlink()
    for number in range(2):
        target = run.folder / "rows" / f"part={number:05d}" / "x.parquet"
        target.parent.mkdir(parents=True)
        target.write_bytes(FinishedPart.of(number, before[2 * number : 2 * number + 2]).data)
    assert holds_run(run.folder)
    assert list(read_run(run.folder).rows()) == before


def test_a_last_row_that_is_not_whole_is_left_out(run: StoredRun) -> None:
    path = run.folder / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert len(list(run.rows())) == 3


def test_pictures_lie_in_the_folder_of_the_run(run: StoredRun, tmp_path: Path) -> None:
    row = next(run.rows())
    assert run.picture(row, "heatmap") == run.folder / "heatmaps" / "000000-1.png"
    assert run.picture(row, "map") is None
    (run.folder / "masks" / "link.png").symlink_to(tmp_path / "photos" / "a" / "1.png")
    for outside in ("../photos/a/1.png", str(tmp_path / "photos" / "a" / "1.png"), "masks/link.png", "a\0b"):
        assert run.picture({"mask": outside}, "mask") is None


@pytest.mark.parametrize(
    "change",
    [
        {"score": "high"},
        {"score": None},
        {"label": "fine"},
        {"width": 0},
        {"regions": [{"box": [1, 2, 3], "area": 1, "peak": 1.0, "peak_at": [0, 0]}]},
        {"regions": 3},
        {"path": 3},
        {"error": 3},
    ],
)
def test_damaged_rows_are_failures_with_a_reason(
    run: StoredRun, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    rows = lines(run)
    rows[0] |= change
    (run.folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = list(run.rows())
    assert read[1:] == rows[1:]
    assert read[0]["path"] == "row 1"
    assert read[0]["error"].startswith("this row is damaged (")
    # However often they are read, it is said once.
    list(run.rows())
    assert len(caplog.messages) == 1
    assert "1 of 4 rows are damaged (row 1: " in caplog.messages[0]


def test_a_line_that_is_no_json_and_one_without_end_are_damaged_rows(
    run: StoredRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run.folder / "predictions.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    monkeypatch.setattr(stored_run, "_LONGEST_ROW", 2000)
    path.write_bytes(b"{broken\n" + whole[0] + b"x" * 4500 + b"\n" + whole[1])
    assert [row["path"].rsplit("/")[-1] for row in run.rows()] == ["row 1", "1.png", "row 3", "2.png"]


def test_a_run_without_a_whole_row_is_damaged(run: StoredRun) -> None:
    (run.folder / "predictions.jsonl").write_text("{}\n[]\n")
    with pytest.raises(InputError, match=r"damaged \(row 1: .*run detect again"):
        list(run.rows())


def test_a_damaged_part_of_a_cluster_leaves_the_others(run: StoredRun) -> None:
    rows = lines(run)
    (run.folder / "predictions.jsonl").unlink()
    for number in range(2):
        target = run.folder / "rows" / f"part={number:05d}" / "x.parquet"
        target.parent.mkdir(parents=True)
        target.write_bytes(FinishedPart.of(number, rows[2 * number : 2 * number + 2]).data)
    damaged = run.folder / "rows" / "part=00000" / "x.parquet"
    damaged.write_bytes(damaged.read_bytes()[:100])
    read = list(run.rows())
    assert [row["path"] for row in read] == ["rows/part=00000/x.parquet", rows[2]["path"], rows[3]["path"]]
    assert "this row is damaged" in read[0]["error"]


def test_whatever_a_row_holds_it_is_read_or_refused(run: StoredRun) -> None:
    line = json.dumps(lines(run)[0])
    for content in texts(line, 300, seed=0):
        (run.folder / "predictions.jsonl").write_bytes(content.replace(b"\n", b" ") + b"\n")
        with suppress(InputError):
            for row in run.rows():
                json.dumps(row, allow_nan=False).encode("utf-8")


def test_folders_without_a_run(tmp_path: Path, run: StoredRun) -> None:
    assert not holds_run(tmp_path)
    with pytest.raises(InputError, match="run detect first"):
        read_run(tmp_path)
    (run.folder / "run.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        read_run(run.folder)
