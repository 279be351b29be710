"""Values by their types: what fits, what is refused, and how the message names it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from anomalens.errors import ConfigError
from anomalens.typed_values import build, checked_value


@dataclass(frozen=True)
class _Inner:
    size: int
    mode: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class _Outer:
    name: str
    inner: _Inner
    range: tuple[float, float] = (0.0, 1.0)
    keys: frozenset[int] = frozenset()
    more: dict[str, float | None] = field(default_factory=dict)
    limit: int | None = None
    any: Any = None


WHOLE = {"name": "x", "inner": {"size": 3}}


def test_a_table_becomes_a_dataclass() -> None:
    table = WHOLE | {"range": [1, 2.5], "keys": [3, 3], "more": {"a": None, "b": 1}, "limit": None, "any": [1]}
    assert build(_Outer, table) == _Outer("x", _Inner(3), (1, 2.5), frozenset({3}), {"a": None, "b": 1}, None, [1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ["x"]}, "card.name must be text, not a list"),
        ({"name": None}, "card.name must be text, not None"),
        ({"inner": [1]}, "card.inner must be a table, not a list"),
        ({"inner": {}}, "card.inner.size is missing"),
        ({"inner": {"size": True}}, "card.inner.size must be a whole number, not True"),
        ({"inner": {"size": 1.5}}, "card.inner.size must be a whole number, not 1.5"),
        ({"inner": {"size": 10**400}}, "card.inner.size must be a number of at most 64 bits"),
        ({"inner": {"size": 1, "mode": {}}}, "card.inner.mode must be 'a' or 'b', not a table"),
        ({"inner": {"size": 1, "other": 2}}, "card.inner.other is not known here"),
        ({"range": [1]}, "card.range must be 2 values, not 1"),
        ({"range": [1, float("nan")]}, "card.range must be a finite number, not nan"),
        ({"range": [1, "x" * 1000]}, "card.range must be a number, not str"),
        ({"keys": 3}, "card.keys must be a list, not 3"),
        ({"keys": ["3"]}, "card.keys must be a whole number, not '3'"),
        ({"more": []}, "card.more must be a table, not a list"),
        ({"more": {"a": "x"}}, "card.more.a must be a number, not 'x'"),
    ],
)
def test_the_message_names_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(_Outer, WHOLE | change, "card")
    assert str(caught.value) == message


def test_no_table_at_all() -> None:
    with pytest.raises(ConfigError, match=r"^card must be a table, not a list$"):
        build(_Outer, [1], "card")


def test_a_table_of_anything_is_taken_as_it_is() -> None:
    assert checked_value("x", {"a": [1]}, Mapping[str, Any]) == {"a": [1]}
    with pytest.raises(ConfigError, match="x must be a table"):
        checked_value("x", [1], Mapping[str, Any])
