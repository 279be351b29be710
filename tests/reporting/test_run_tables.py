"""Tables of a run: read back they are equal to the rows, whatever the names, and nothing in them is a formula."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomalens.csv_tables import plain
from anomalens.errors import ConfigError, MissingExtraError
from anomalens.reporting import run_tables
from anomalens.reporting.formats import FORMATS, chosen_formats, write_formats
from anomalens.reporting.run_tables import IMAGE_COLUMNS, REGION_COLUMNS
from anomalens.runs.stored_run import StoredRun, read_run
from hostile import NAMES
from stored_runs import Shot, write_run

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """Return a run whose images, objects and reasons have hostile names; paths are relative, so that they begin so."""
    folder = write_run(
        tmp_path_factory.mktemp("run"),
        [
            Shot("1.png", 0.9),
            Shot("2.png", 0.1 + 0.2, unusable="the image is black"),
            Shot("3.png", error="=cmd|' /C calc'!A0"),
            *(Shot(f"{number}n.png", 0.6 + number / 1e9) for number in range(len(NAMES))),
        ],
    )
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    names = ["\x07bell", "a\rb", "_x0007_", "'=quoted", "x" * 300, *NAMES]
    for row, name in zip(rows, names, strict=False):
        row["path"] = name
        if "object" in row:
            row["object"] = f"@{name}"
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
    return read_run(folder)


@pytest.fixture(scope="module")
def written(run: StoredRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_formats(run, ["csv", "xlsx", "parquet"], folder)
    return folder


def cells(run: StoredRun) -> list[dict[str, Any]]:
    """Return the table of images as it should be."""
    rows = [dict(row) for row in run.rows()]
    for row in rows:
        if "regions" in row:
            row["regions"] = len(row["regions"])
    return [{name: row.get(name) for name in IMAGE_COLUMNS} for row in rows]


def regions(run: StoredRun) -> list[dict[str, Any]]:
    """Return the table of regions as it should be."""
    table = []
    for row in run.rows():
        for number, region in enumerate(row.get("regions", []), start=1):
            left, top, right, bottom = region["box"]
            peak_x, peak_y = region["peak_at"]
            table.append(
                dict.fromkeys(REGION_COLUMNS)
                | {"path": row["path"], "region": number, "left": left, "top": top, "right": right, "bottom": bottom}
                | {"area": region["area"], "peak": region["peak"], "peak_x": peak_x, "peak_y": peak_y}
            )
    return table


def typed(cell: str, like: Any) -> Any:
    """Return a cell of CSV in the type that it was."""
    if like is None:
        assert cell == ""
        return None
    return type(like)(plain(cell))


def test_csv(run: StoredRun, written: Path) -> None:
    for name, table in (("predictions.csv", cells(run)), ("regions.csv", regions(run))):
        with (written / name).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [
            {key: typed(cell, like[key]) for key, cell in row.items()} for row, like in zip(rows, table, strict=True)
        ] == table
        assert not [cell for row in rows for cell in row.values() if cell.startswith(_FORMULA) and not is_number(cell)]


def is_number(cell: str) -> bool:
    return re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell) is not None


def unspelled(cell: Any) -> Any:
    """Return a cell of a workbook as it was written: signs that XML cannot hold are spelled out."""
    if not isinstance(cell, str):
        return cell
    return plain(re.sub("_x([0-9A-F]{4})_", lambda match: chr(int(match[1], 16)), cell))


def test_xlsx(run: StoredRun, written: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.load_workbook(written / "predictions.xlsx")
    assert book.sheetnames == ["images", "regions", "settings"]
    for name, table in (("images", cells(run)), ("regions", regions(run))):
        columns, *rows = book[name].iter_rows()
        assert {cell.data_type for row in rows for cell in row} <= {"n", "s"}, "text is text and no formula"
        assert not [cell for row in rows for cell in row if cell.data_type == "s" and cell.value.startswith(_FORMULA)]
        names = [cell.value for cell in columns]
        assert [dict(zip(names, (unspelled(cell.value) for cell in row), strict=True)) for row in rows] == table
    assert ("method", "by hand") in list(book["settings"].iter_rows(values_only=True))


def test_parquet(run: StoredRun, written: Path) -> None:
    table = pytest.importorskip("pyarrow.parquet").read_table(written / "predictions.parquet").to_pylist()
    for row in table:
        for region in row["regions"] or []:
            for name in ("width_mm", "height_mm", "area_mm2"):
                assert region.pop(name) is None
    assert [{name: value for name, value in row.items() if value is not None} for row in table] == [
        {name: value for name, value in row.items() if value is not None} for row in run.rows()
    ]


def test_pandas_reads_all_three_alike(written: Path) -> None:
    pandas = pytest.importorskip("pandas")
    kinds = {"keep_default_na": False, "na_values": [""]}
    # The engine that does not take a carriage return within quotes for the end of a line.
    tables = [
        pandas.read_csv(written / "predictions.csv", engine="python", **kinds),
        pandas.read_excel(written / "predictions.xlsx", **kinds),
        pandas.read_parquet(written / "predictions.parquet"),
    ]
    for column in ("score", "threshold", "width"):
        values = [table[column].to_numpy(float) for table in tables]
        assert np.array_equal(values[0], values[1], equal_nan=True)
        assert np.array_equal(values[0], values[2], equal_nan=True)
    names = [tables[0]["path"].tolist(), [unspelled(name) for name in tables[1]["path"]]]
    assert [plain(name) for name in names[0]] == names[1] == tables[2]["path"].tolist()


def test_a_cell_holds_so_many_signs(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    folder = write_run(tmp_path, [Shot("a.png"), Shot("b.png")])
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    names = ["x" * 1_000_000, "a" + "\U0001f43f" * 20_000]
    lines = [json.dumps(row | {"path": name}) + "\n" for row, name in zip(rows, names, strict=True)]
    (folder / "predictions.jsonl").write_text("".join(lines))
    write_formats(read_run(folder), ["xlsx"], tmp_path)
    cells = [row[0] for row in openpyxl.load_workbook(tmp_path / "predictions.xlsx")["images"].values][1:]
    # A squirrel counts as two.
    assert cells == ["x" * 32_767, "a" + "\U0001f43f" * 16_383]


def test_a_sheet_holds_so_many_rows(run: StoredRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_tables, "MOST_ROWS", 5)
    with pytest.raises(ConfigError, match="holds 4 rows and the run has more; use csv"):
        write_formats(run, ["xlsx"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_formats_are_checked_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_formats(["csv, png", "jsonl", "csv"]) == ["csv", "png"]
    with pytest.raises(
        ConfigError, match=r"unknown format 'XLS' \(did you mean xlsx\?\); there are jsonl, html, csv, xlsx"
    ):
        chosen_formats(["csv,XLS"])
    with pytest.raises(ConfigError, match="unknown format ''; there are jsonl"):
        chosen_formats(["csv,"])
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'anomalens\[xlsx\]'"):
        chosen_formats(["xlsx"])


def test_every_format_writes_what_it_says_and_says_how_far_it_is(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [Shot("a.png", 0.9), Shot("b.png", error="is empty"), Shot("c.png", 0.1)])
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    # Frames of a video, of which every format can be made.
    rows = [json.loads(line) | {"frame": number, "time": number / 25} for number, line in enumerate(lines)]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(folder)
    (tmp_path / "out").mkdir()
    for name, format in FORMATS.items():
        steps: list[tuple[int, ...]] = []

        def step(done: int, total: int, steps: list[tuple[int, ...]] = steps) -> None:
            steps.append((done, total))

        paths = write_formats(run, [name], tmp_path / "out", step)
        assert paths
        for path in paths:
            assert path.name in format.words
            assert path.stat().st_size > 0
        assert all(0 < done <= total for done, total in steps)
