"""Write inspections as tables: CSV, Parquet, Excel."""

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from anomalens.csv_tables import csv_lines
from anomalens.errors import ConfigError
from anomalens.extras import optional
from anomalens.reporting.run_tables import MOST_ROWS, fill_sheet
from anomalens.serving.answers import inspection_answer
from anomalens.serving.schema import Inspection

_COLUMNS: dict[str, str] = {
    "id": "string", "created": "timestamp", "name": "string", "recipe": "string", "version": "int64",
    "object": "string", "method": "string", "state": "string", "label": "string", "score": "float64",
    "threshold": "float64", "confidence": "int64", "p_value": "float64", "reason": "string", "regions": "int64",
    "largest_area": "int64", "width": "int64", "height": "int64", "verdict": "string", "comment": "string",
    "note": "string", "error": "string",
}  # fmt: skip
# Rows of a part of a Parquet file.
_CHUNK = 500


def table_row(row: Inspection) -> dict[str, Any]:
    """Return an inspection as the cells of a row."""
    answer = inspection_answer(row)
    cells = {name: getattr(answer, name, None) for name in _COLUMNS}
    return cells | {
        "recipe": answer.recipe.name if answer.recipe else None,
        "version": answer.recipe.version if answer.recipe else None,
        "regions": len(answer.regions) if answer.state == "done" else None,
        "largest_area": max((region.area for region in answer.regions), default=None),
        "verdict": answer.review.verdict if answer.review else None,
        "comment": answer.review.comment if answer.review else None,
    }


def csv_parts(rows: Iterable[Inspection]) -> Iterator[str]:
    """Yield a table of comma-separated values, line by line."""
    return csv_lines(list(_COLUMNS), map(_timed, map(table_row, rows)))


def csv_table(rows: Iterable[Inspection]) -> bytes:
    """Return a table of comma-separated values as a file."""
    return "".join(csv_parts(rows)).encode()


def workbook(rows: Iterable[Inspection]) -> bytes:
    """Return an Excel file of one sheet.

    Raises MissingExtraError without openpyxl, ConfigError where a sheet cannot hold that many rows.
    """
    book = optional("openpyxl", "xlsx").Workbook(write_only=True)
    cells = [_timed(table_row(row)) for row in islice(rows, MOST_ROWS)]
    if len(cells) == MOST_ROWS:
        raise ConfigError(f"a sheet holds {MOST_ROWS - 1:,} rows and there are more; use csv, or a narrower time")
    fill_sheet(book.create_sheet("inspections"), list(_COLUMNS), cells)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def parquet(rows: Iterable[Inspection]) -> bytes:
    """Return a Parquet file. Raises MissingExtraError without pyarrow."""
    arrow, writing = optional("pyarrow", "data"), optional("pyarrow.parquet", "data")
    kinds = {"timestamp": arrow.timestamp("us", tz="UTC")}
    schema = arrow.schema([(name, kinds.get(kind, kind)) for name, kind in _COLUMNS.items()])
    buffer, cells = io.BytesIO(), map(table_row, rows)
    with writing.ParquetWriter(buffer, schema) as writer:
        while chunk := list(islice(cells, _CHUNK)):
            writer.write_table(arrow.Table.from_pylist(chunk, schema=schema))
    return buffer.getvalue()


def _timed(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose time is text."""
    return row | {"created": row["created"].isoformat()}
