"""Write tables of comma-separated values that a spreadsheet shows as they are, and read their cells back.

Spreadsheets take a cell that begins with one of a few signs for a formula. Such a text gets an apostrophe in front,
which they do not show; `plain` takes it away again.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table; None and what a row lacks are empty cells, lists and tables are no values."""
    return "".join(csv_lines(columns, rows))


def csv_lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the rows of a table as text, the names of the columns first; rows as for `to_csv`."""
    text = io.StringIO()
    plain_writer, quoting_writer = (
        csv.writer(text, lineterminator="\n", quoting=quoting) for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC)
    )
    plain_writer.writerow(columns)
    for row in rows:
        cells = [guarded(row.get(name)) for name in columns]
        # Else a carriage return would not be quoted, and end the row for a reader.
        returns = any("\r" in cell for cell in cells if isinstance(cell, str))
        (quoting_writer if returns else plain_writer).writerow(cells)
        yield _taken(text)
    yield _taken(text)


def plain(cell: str) -> str:
    """Return the text that a table holds as `cell`."""
    return cell[1:] if _is_guarded(cell) else cell


def guarded(value: Any) -> Any:
    """Return a value as a cell that no spreadsheet takes for a formula; None is an empty cell."""
    if value is None:
        return ""
    # A text that looks guarded gets one more, so that reading gives it back.
    return f"'{value}" if isinstance(value, str) and (value.startswith(_FORMULA) or _is_guarded(value)) else value


def _is_guarded(text: str) -> bool:
    return text.startswith("'") and text.lstrip("'").startswith(_FORMULA)


def _taken(text: io.StringIO) -> str:
    """Return what was written, and forget it."""
    lines = text.getvalue()
    text.seek(0)
    text.truncate()
    return lines
