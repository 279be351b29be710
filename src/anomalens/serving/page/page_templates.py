"""Fill the page's templates; what they show is escaped, so that no name or comment can become markup."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from anomalens import __version__

TABS = (("/", "Inspect"), ("/teach", "Teach"), ("/history", "History"), ("/watch", "Watch"))

VERDICT_KEYS = (("right", "r"), ("false alarm", "f"), ("missed", "m"), ("unusable", "x"))
"""What can be said of a decision, and the key for it."""

LABEL_WORDS = {"normal": "normal", "anomalous": "anomalous", "unusable": "not judged"}

# Pixels of the longer side of a small picture.
_THUMBNAIL = 320


@cache
def environment() -> Environment:
    """Return the templates with the filters and names they share."""
    made = Environment(
        loader=PackageLoader("anomalens.serving.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"score": score, "share": share, "rate": rate, "moment": moment, "thumbnail": thumbnail}
    made.globals |= {"verdict_keys": VERDICT_KEYS, "label_words": LABEL_WORDS, "version": __version__}
    return made


def render(template: str, **values: Any) -> str:
    """Return the text of a page: `template` of templates/, filled with `values`."""
    return environment().get_template(template).render(values)


def score(value: float | None) -> str:
    """Return a score with three digits that count."""
    return "–" if value is None else f"{value:.3g}"


def share(value: float | None) -> str:
    """Return a share in [0, 1] in per cent."""
    return "–" if value is None else f"{100 * value:.3g} %"


def rate(value: float | None) -> str:
    """Return a promised rate of false alarms in words: "1 in 21"."""
    return "no promise" if not value else f"1 in {1 / value:.0f}"


def moment(text: str) -> str:
    """Return a time, ISO 8601, as people read it, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def thumbnail(inspection: Mapping[str, Any]) -> str:
    """Return the address of a small picture: with the defects marked, or of the photo while there is no answer."""
    kind = "photo" if inspection["label"] is None else "overlay"
    return f"/pictures/{quote(inspection['id'])}/{kind}.webp?side={_THUMBNAIL}"
