"""Hold what was read from a file as its authors published it, under this project's names."""

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from anomalens.errors import WeightsError


@dataclass(frozen=True)
class LearnedNumbers:
    """Hold the learned tensors of a published file, and the settings of the method that they were learned with."""

    # Parameter name of the method -> value, float32.
    learned: dict[str, Tensor]
    # Fields of the method's Config that differ from its defaults, or follow from the tensors.
    config: dict[str, Any]
    # Width of the text tower that they were learned with.
    text_width: int
    # Tokens whose embeddings the file holds, in ascending order, and these: [n, text_width].
    token_ids: tuple[int, ...] = ()
    token_rows: Tensor | None = None


def tensors_in(value: Any, expected: str) -> dict[str, Tensor]:
    """Return a copy of a table of named tensors. Raises WeightsError, which says what was expected, for all else."""
    named = isinstance(value, dict) and all(isinstance(name, str) for name in value)
    if not named or not value or not all(isinstance(part, Tensor) for part in value.values()):
        raise WeightsError(f"expected {expected}; found something else")
    return dict(value)


def take(state: dict[str, Tensor], name: str, *shape: int | None) -> Tensor:
    """Remove a tensor from a table and return it in float32.

    Args:
        state: name -> tensor.
        name: of the tensor.
        shape: its sizes; None: any.

    Raises WeightsError where it is missing, or has another shape or kind of numbers.
    """
    if name not in state:
        raise WeightsError(f"{name!r} is missing")
    value = state.pop(name)
    sizes = list(value.shape)
    if len(sizes) != len(shape) or any(wanted not in (None, size) for wanted, size in zip(shape, sizes, strict=True)):
        raise WeightsError(f"{name}: expected shape {['any' if n is None else n for n in shape]}, found {sizes}")
    if not value.is_floating_point():
        raise WeightsError(f"{name}: expected floating point, found {value.dtype}")
    return value.float()


def take_numbered(state: dict[str, Tensor], pattern: str, *shape: int | None) -> list[Tensor]:
    """Remove tensors of one shape from a table and return them in float32, in the order of their numbers.

    Args:
        state: name -> tensor.
        pattern: their names, with "#" in place of the numbers 0, 1, 2, …: "fc.#.weight".
        shape: sizes of each; None: any, but the same for all.

    Raises WeightsError where there is none, a number is left out, or one has another shape or kind of numbers.
    """
    head, tail = map(re.escape, pattern.split("#"))
    numbers = sorted(int(match[1]) for name in state if (match := re.fullmatch(rf"{head}(\d{{1,3}}){tail}", name)))
    if not numbers or numbers != list(range(len(numbers))):
        raise WeightsError(f"expected tensors {pattern!r} with the numbers 0, 1, … in place of #, found {numbers}")
    first = take(state, pattern.replace("#", "0"), *shape)
    return [first, *(take(state, pattern.replace("#", str(number)), *first.shape) for number in numbers[1:])]


def refuse_rest(state: dict[str, Tensor]) -> None:
    """Raise WeightsError where a tensor is left that nobody took."""
    if state:
        raise WeightsError(f"{min(state)!r} is extra")
