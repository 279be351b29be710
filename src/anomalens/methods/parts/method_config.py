"""Check the options of a method when they are set."""

from dataclasses import dataclass, fields
from typing import get_type_hints

from anomalens.typed_values import checked_value


@dataclass(frozen=True)
class MethodConfig:
    """Check a method's options when they are set: the base of every Config. Defaults are the paper's.

    Raises ConfigError naming the option whose value is not of its type.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            object.__setattr__(
                self, field.name, checked_value(field.name, getattr(self, field.name), hints[field.name])
            )
