"""Check values by the types that they should have, one field after the other, with messages that name the field.

The values come from a caller, a command line, or a file of JSON or TOML.
"""

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from anomalens.errors import ConfigError

Built = TypeVar("Built")

LARGEST = 2**64
"""Bound of whole numbers: the largest that are kept anywhere are hashes of 64 bits."""

_LONGEST_SHOWN = 100  # characters of a text that a message repeats


def build(kind: type[Built], value: Any, name: str = "") -> Built:
    """Return the dataclass `kind` made of a table, each field checked by its type (see `checked_value`).

    `name` is that of the table in messages. Raises ConfigError where it is no table, a key is unknown or missing, or a
    value does not fit; and what the dataclass itself raises.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name or kind.__name__} must be a table, not {_shown(value)}")
    hints, prefix = get_type_hints(kind), f"{name}." if name else ""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(map(str, value.keys() - fields.keys())):
        raise ConfigError(f"{prefix}{unknown[0]} is not known here")
    needed = [
        field.name
        for field in fields.values()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing := [field for field in needed if field not in value]:
        raise ConfigError(f"{prefix}{missing[0]} is missing")
    return kind(**{key: checked_value(f"{prefix}{key}", part, hints[key]) for key, part in value.items()})


def checked_value(name: str, value: Any, hint: Any) -> Any:
    """Return a value in the type that is wanted, as JSON, TOML or a caller has it.

    Args:
        name: what the value is called in messages.
        value: the value.
        hint: text, bool, int, float, a table, a Literal, a dataclass; or an optional, a tuple, a frozenset, a list or
            a table of these. Numbers must be finite. Where a tuple is wanted, a list or a single value becomes one;
            where text is wanted, a path does.

    Raises ConfigError naming the value that does not fit.
    """
    if hint is Any or (value is None and NoneType in (hint, *get_args(hint))):
        return value
    kind = inner_type(hint)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value not in inner:
            *others, last = map(repr, inner)
            raise ConfigError(f"{name} must be {', '.join(others)} or {last}, not {_shown(value)}")
        return value
    if origin in (tuple, frozenset, list):
        return _checked_parts(name, value, origin, inner)
    if origin is dict or (origin is not None and issubclass(origin, Mapping)):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a table, not {_shown(value)}")
        return {str(key): checked_value(f"{name}.{key}", part, inner[1]) for key, part in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return build(kind, value, name)
    return _checked_plain(name, value, kind)


def _checked_parts(name: str, value: Any, origin: Any, inner: tuple[Any, ...]) -> Any:
    if not isinstance(value, (list, tuple)):
        if origin is not tuple:
            raise ConfigError(f"{name} must be a list, not {_shown(value)}")
        value = (value,)
    if origin is tuple and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            raise ConfigError(f"{name} must be {len(inner)} values, not {len(value)}")
        return tuple(checked_value(name, part, kind) for part, kind in zip(value, inner, strict=True))
    return origin(checked_value(name, part, inner[0]) for part in value)


def _checked_plain(name: str, value: Any, kind: object) -> Any:
    if kind is str and hasattr(value, "__fspath__"):
        value = str(value)
    accepted, description = _PLAIN.get(kind, (Mapping, "a table"))
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{name} must be {description}, not {_shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, not {value}")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(f"{name} must be a number of at most 64 bits")
    return value


# What is accepted for each plain type, and the type in words.
_PLAIN: dict[Any, tuple[Any, str]] = {
    str: (str, "text"),
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
}


def inner_type(hint: Any) -> Any:
    """Return the type that an optional type is about: `int | None` -> `int`; any other type is returned as it is."""
    if get_origin(hint) in (Union, UnionType):
        return next(part for part in get_args(hint) if part is not NoneType)
    return hint


def _shown(value: Any) -> str:
    """Return a value for a message: whole where it is short."""
    text = repr(value) if isinstance(value, (int, float, str, bool, NoneType)) and not _is_long(value) else ""
    if text:
        return text
    return (
        "a table"
        if isinstance(value, Mapping)
        else "a list"
        if isinstance(value, (list, tuple))
        else type(value).__name__
    )


def _is_long(value: Any) -> bool:
    return (isinstance(value, int) and abs(value) > LARGEST) or (isinstance(value, str) and len(value) > _LONGEST_SHOWN)
