"""Errors: each is one of Python's own kinds too, and gives one line; extras that are missing are named."""

import json

import pytest

from anomalens.errors import (
    AnomalensError,
    ConfigError,
    InputError,
    MissingExtraError,
    TrainingError,
    WeightsError,
    one_line,
)
from anomalens.extras import optional


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (InputError, ValueError),
        (ConfigError, ValueError),
        (WeightsError, RuntimeError),
        (TrainingError, RuntimeError),
        (MissingExtraError, ImportError),
    ],
)
def test_code_that_knows_nothing_of_anomalens_can_catch_errors(
    kind: type[AnomalensError], builtin: type[Exception]
) -> None:
    assert issubclass(kind, AnomalensError)
    with pytest.raises(builtin, match="why"):
        raise kind("why")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("a.png:\n  is  empty"), "a.png: is empty"),
        (ValueError("not\ta number"), "ValueError: not a number"),
        (AssertionError(), "AssertionError"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (FileNotFoundError(2, "No such file", "a.png"), "FileNotFoundError: [Errno 2] No such file: 'a.png'"),
    ],
)
def test_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


def test_optional_returns_the_module_or_names_the_extra() -> None:
    assert optional("json", "data") is json
    with pytest.raises(MissingExtraError, match=r"package 'no_such_package'.*pip install 'anomalens\[data\]'"):
        optional("no_such_package.part", "data")
