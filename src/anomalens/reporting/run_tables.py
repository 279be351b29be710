"""Write the rows of a run as tables: CSV and a workbook for spreadsheets, Parquet for programs.

Images and their regions are two tables (`predictions`, `regions`), so that every cell holds one value. No text can
become a formula: one that begins like one gets an apostrophe in front, see `csv_tables`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

from anomalens.csv_tables import csv_lines, guarded
from anomalens.errors import ConfigError
from anomalens.extras import optional
from anomalens.files import atomic_stream
from anomalens.reporting.rendering import setting_lines
from anomalens.runs.ray_parts import schema
from anomalens.runs.store import Row
from anomalens.runs.stored_run import Run

IMAGE_COLUMNS = (
    "path", "frame", "time", "label", "score", "threshold", "confidence", "p_value", "reason", "regions", "width",
    "height", "object", "note", "error", "kind", "method", "backbone", "threshold_source", "pixel_threshold", "image",
    "heatmap", "mask", "map",
)  # fmt: skip
"""Columns of the table of images; `regions` is their number."""

REGION_COLUMNS = (
    "path", "frame", "region", "left", "top", "right", "bottom", "area", "peak", "peak_x", "peak_y", "width_mm",
    "height_mm", "area_mm2",
)  # fmt: skip
"""Columns of the table of regions; `region` counts those of an image from 1, the most anomalous first."""

# What a sheet of a workbook holds: rows with the one of names, and signs in a cell.
MOST_ROWS, _MOST_SIGNS = 2**20, 32_767
_BATCH = 1024  # rows of a table that are in memory at once
# Signs that XML cannot hold, and texts that would be read as such a sign in a workbook's own spelling.
_NO_XML = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")


def write_csv(run: Run, folder: Path) -> list[Path]:
    """Write predictions.csv and regions.csv into `folder`, each atomically. Raises OSError."""
    tables = (("predictions.csv", IMAGE_COLUMNS, _image_cells), ("regions.csv", REGION_COLUMNS, _region_cells))
    for name, columns, cells in tables:
        with atomic_stream(folder / name) as stream:
            text = TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
            text.writelines(csv_lines(columns, cells(run.rows())))
            text.detach()
    return [folder / name for name, _, _ in tables]


def write_workbook(run: Run, folder: Path) -> list[Path]:
    """Write predictions.xlsx into `folder`, atomically: sheets of images, of regions and of settings.

    Raises ConfigError where a sheet cannot hold that many rows, OSError.
    """
    images = regions = 0
    # All rows are read before the workbook is begun, which could not be given up half-way.
    for row in run.rows():
        images, regions = images + 1, regions + len(row.get("regions", ()))
    if max(images, regions) >= MOST_ROWS:
        raise ConfigError(f"a sheet of a workbook holds {MOST_ROWS - 1:,} rows and the run has more; use csv")
    book = optional("openpyxl", "xlsx").Workbook(write_only=True)
    settings = ({"setting": name, "value": value} for name, value in setting_lines(run.settings))
    fill_sheet(book.create_sheet("images"), IMAGE_COLUMNS, _image_cells(run.rows()))
    fill_sheet(book.create_sheet("regions"), REGION_COLUMNS, _region_cells(run.rows()))
    fill_sheet(book.create_sheet("settings"), ("setting", "value"), settings)
    path = folder / "predictions.xlsx"
    with atomic_stream(path) as stream:
        book.save(stream)
    return [path]


def write_parquet(run: Run, folder: Path) -> list[Path]:
    """Write predictions.parquet into `folder`, atomically: a row for each image, regions as lists. Raises OSError."""
    pa, pq = optional("pyarrow", "data"), optional("pyarrow.parquet", "data")
    columns = schema()
    for name, kind in (("frame", pa.int64()), ("time", pa.float64())):
        columns = columns.append(pa.field(name, kind))
    for name in ("image", "heatmap", "mask", "map"):
        columns = columns.append(pa.field(name, pa.string()))
    path = folder / "predictions.parquet"
    with atomic_stream(path) as stream, pq.ParquetWriter(stream, columns, compression="zstd") as writer:
        rows = run.rows()
        while batch := list(islice(rows, _BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, columns))
    return [path]


def _image_cells(rows: Iterable[Row]) -> Iterator[Mapping[str, Any]]:
    for row in rows:
        yield row | ({} if "error" in row else {"regions": len(row["regions"])})


def _region_cells(rows: Iterable[Row]) -> Iterator[Mapping[str, Any]]:
    for row in rows:
        for number, region in enumerate(row.get("regions", ()), start=1):
            box = dict(zip(("left", "top", "right", "bottom"), region["box"], strict=True))
            peak = dict(zip(("peak_x", "peak_y"), region["peak_at"], strict=True))
            yield region | box | peak | {"path": row["path"], "frame": row.get("frame"), "region": number}


def fill_sheet(sheet: Any, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table to a sheet: names of the columns, which stay in view, then the rows."""
    sheet.freeze_panes = "B2"
    sheet.append(list(columns))
    for row in rows:
        sheet.append([_sheet_cell(sheet, row.get(name)) for name in columns])


def _sheet_cell(sheet: Any, value: Any) -> Any:
    """Return a value as a cell of a workbook: text as text whatever it looks like, numbers with all their digits."""
    cell = optional("openpyxl.cell", "xlsx").WriteOnlyCell(sheet)
    if value is None:
        return cell
    number = isinstance(value, (int, float))
    # As text even a number, because the package would round it.
    cell.value = repr(value) if number else _shortened(_NO_XML.sub(_spelled, guarded(str(value))))
    cell.data_type = "n" if number else "s"
    return cell


def _shortened(text: str) -> str:
    """Return what fits into a cell, whose signs are counted in UTF-16."""
    return text.encode("utf-16-le")[: 2 * _MOST_SIGNS].decode("utf-16-le", "ignore")


def _spelled(sign: re.Match[str]) -> str:
    return f"_x{ord(sign[0]):04X}_"
