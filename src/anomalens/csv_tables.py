"""Write tables of comma-separated values that a spreadsheet shows as they are, and read their cells back.

Spreadsheets take a cell that begins with one of a few signs for a formula. Such a text gets an apostrophe in front,
which they do not show; `plain` takes it away again.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table; None and what a row lacks are empty cells, lists and tables are no values."""
    cells = [{name: _cell(row.get(name)) for name in columns} for row in rows]
    # Else a carriage return would not be quoted, and end the row for a reader.
    returns = any("\r" in text for row in cells for text in row.values() if isinstance(text, str))
    text = io.StringIO()
    writer = csv.DictWriter(
        text, columns, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    )
    writer.writeheader()
    writer.writerows(cells)
    return text.getvalue()


def plain(cell: str) -> str:
    """Return the text that `to_csv` wrote as `cell`."""
    return cell[1:] if _guarded(cell) else cell


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    # A text that looks guarded gets one more, so that reading gives it back.
    return f"'{value}" if isinstance(value, str) and (value.startswith(_FORMULA) or _guarded(value)) else value


def _guarded(text: str) -> bool:
    return text.startswith("'") and text.lstrip("'").startswith(_FORMULA)
