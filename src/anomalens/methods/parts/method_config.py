"""Check the options of a method when they are set."""

from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from anomalens.errors import ConfigError
from anomalens.typed_values import checked_value

# The largest count that an option of a method may state: blocks, tokens, clusters, steps.
_MOST = 10_000


@dataclass(frozen=True)
class MethodConfig:
    """Check a method's options when they are set: the base of every Config. Defaults are the paper's.

    Raises ConfigError naming the option whose value is not of its type, or too large a count.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            value = checked_value(field.name, getattr(self, field.name), hints[field.name])
            _check_extent(field.name, value)
            object.__setattr__(self, field.name, value)


def _check_extent(name: str, value: Any) -> None:
    """Raise ConfigError where a count is so large that making the method would not end: files hold options too."""
    numbers = value if isinstance(value, tuple) else (value,)
    counts = [number for number in numbers if isinstance(number, int) and name != "seed"]
    if any(abs(count) > _MOST for count in counts) or len(numbers) > _MOST:
        raise ConfigError(f"{name} is too large: at most {_MOST:,}")
