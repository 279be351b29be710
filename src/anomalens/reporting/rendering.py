"""Fill the templates of this room: pages of one file that fetch nothing, and Markdown tables.

What a template shows is escaped for its own format, so no name of a class, file or method can become markup.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from anomalens.metrics.summary import METRIC_NAMES

_LONGEST_LIST = 20  # values of a setting that are shown

Progress: TypeAlias = Callable[[int, int], object]
"""Is told how far something is: things done, and things to do in all."""

# A backslash would undo the one before the bar.
_MARKDOWN = str.maketrans({"\\": "&#92;", "|": "\\|", "<": "&lt;", "[": "&#91;"})


def render(template: str, **values: Any) -> str:
    """Return the text of `template`, a file of templates/, filled with `values`."""
    return environment().get_template(template).render(values)


def setting_lines(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and value of every setting; those of an inner table after its name ("calibration: threshold").

    Of a long list the number of its values is shown.
    """
    for key, value in values.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            yield from setting_lines(value, f"{name}: ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            if isinstance(value, list) and len(value) > _LONGEST_LIST:
                text = f"{len(value)} values"
            yield name, "none" if value is None or text == "" else text


@cache
def environment() -> Environment:
    """Return the templates with the filters and names they all share."""
    made = Environment(
        loader=PackageLoader("anomalens.reporting"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"percent": _percent, "count": _count, "cell": _cell, "number": _number}
    made.globals["metric_names"] = METRIC_NAMES
    return made


def _percent(value: float | None, undefined: str = "–") -> str:
    """Return a number in per cent with one decimal."""
    return undefined if value is None else f"{value:.1f}"


def _count(number: int, singular: str, plural: str = "") -> str:
    """Return a number of things in words: "1 image", "2 images", "2 classes"."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def _number(value: float) -> str:
    """Return a count, with one decimal where it is a mean and not whole."""
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def _cell(value: object) -> str:
    """Return `value` as the text of a cell of a Markdown table: one line, no markup, links or pictures."""
    line = "".join(sign if sign.isprintable() else " " for sign in " ".join(str(value).split()))
    return line.translate(_MARKDOWN)
