"""Understand the address of the page History: which inspections it asks for, in which order, shown how."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from importlib.util import find_spec
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, FiniteFloat

from anomalens.serving.history import Filters
from anomalens.serving.page.page_templates import LABEL_WORDS, VERDICT_KEYS

Choices = list[tuple[str, str]]
"""Value and words of each entry of a menu."""

# Ending of the address, the name that people know it by, and the package that writes it where one is needed.
_EXPORTS = (("csv", "CSV", None), ("xlsx", "Excel", "openpyxl"), ("parquet", "Parquet", "pyarrow"))
_OWN_FIELDS = ("sort", "view", "cursor")


def _unless_empty(value: Any) -> Any:
    """Return None for a field that was left empty."""
    return None if value == "" else value


# A moment, or a day of UTC; the days before and after must be days too.
_FIRST, _LAST = datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 12, 29, tzinfo=UTC)
_Moment = Annotated[AwareDatetime, Field(gt=_FIRST, lt=_LAST)]
_Day = Annotated[date, Field(lt=date.max)]
When = Annotated[
    Annotated[_Moment | _Day | None, Field(union_mode="left_to_right")],
    BeforeValidator(_unless_empty),
]
Number = Annotated[FiniteFloat | None, BeforeValidator(_unless_empty)]


class ListView(BaseModel):
    """Hold the fields of the form that filters the history; what is left empty filters nothing."""

    recipe: str = ""
    label: Literal["", "normal", "anomalous", "unusable"] = ""
    review: Literal["", "none", "any", "right", "false alarm", "missed", "unusable"] = ""
    # The first and the last day that count; or the first moment that counts, and the first that does not any more.
    since: When = None
    until: When = None
    score_min: Number = None
    score_max: Number = None
    sort: Literal["worst", "newest", "oldest"] = "newest"
    view: Literal["table", "grid"] = "table"
    cursor: str = ""

    @property
    def filters(self) -> Filters:
        """Return which inspections are asked for."""
        return Filters(
            recipe=self.recipe or None,
            label=self.label or None,
            review=self.review or None,
            since=self._bounds["since"],
            until=self._bounds["until"],
            score_min=self.score_min,
            score_max=self.score_max,
        )

    @property
    def filtered(self) -> bool:
        """Return whether anything may be left out."""
        return bool(self._fields(exclude=_OWN_FIELDS)) or bool(self.cursor)

    @property
    def bounded(self) -> bool:
        """Return whether time or score is bounded."""
        return any(bound is not None for bound in (self.since, self.until, self.score_min, self.score_max))

    def day(self, name: Literal["since", "until"]) -> str:
        """Return the first or the last day of UTC, ISO 8601, on which something counts; empty where time has no end."""
        bound = self._bounds[name]
        if bound is None:
            return ""
        return (bound - timedelta(microseconds=name == "until")).date().isoformat()

    def bound(self, name: Literal["since", "until"]) -> str:
        """Return the moment, ISO 8601, at which what counts begins or ends; empty where time has no end."""
        bound = self._bounds[name]
        return "" if bound is None else bound.isoformat()

    def address(self, **changes: str) -> str:
        """Return the page's address with other values for some fields, which begins with the first inspections."""
        return f"/history?{urlencode(self._fields(exclude=('cursor',)) | changes)}"

    @property
    def exports(self) -> Choices:
        """Return name and address of each kind of file that the list can be downloaded as here."""
        moments = {name: moment for name in ("since", "until") if (moment := self.bound(name))}
        query = urlencode(self._fields(exclude=_OWN_FIELDS) | moments)
        return [
            (name, f"/api/v1/export.{kind}?{query}")
            for kind, name, package in _EXPORTS
            if package is None or find_spec(package)
        ]

    @property
    def _bounds(self) -> dict[str, datetime | None]:
        return {"since": _moment(self.since), "until": _moment(self.until, later=timedelta(days=1))}

    def _fields(self, exclude: Sequence[str]) -> dict[str, str]:
        """Return what is not empty."""
        values = self.model_dump(mode="json", exclude=set(exclude))
        return {name: str(value) for name, value in values.items() if value not in (None, "")}


def menus(recipes: Sequence[str]) -> dict[str, Choices]:
    """Return the entries of each menu of the form; `recipes` are the names of all."""
    verdicts = [(verdict, verdict) for verdict, _ in VERDICT_KEYS]
    return {
        "recipe": [("", "all"), *((name, name) for name in recipes)],
        "label": [("", "all"), *LABEL_WORDS.items()],
        "review": [("", "all"), ("none", "not reviewed"), ("any", "reviewed"), *verdicts],
        "sort": [("newest", "newest first"), ("worst", "worst first"), ("oldest", "oldest first")],
    }


def _moment(when: date | None, later: timedelta = timedelta()) -> datetime | None:
    """Return a moment as it is in UTC, and the midnight at which a day begins, or that `later`."""
    if when is None:
        return None
    return when.astimezone(UTC) if isinstance(when, datetime) else datetime.combine(when + later, time(), UTC)
