"""Trace networks for a graph once, because the exporter takes seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from anomalens.export import graph


@contextmanager
def one_export_each(key_of: Callable[[graph.Graph], object]) -> Iterator[None]:
    """Remember, in this context, what the exporter makes; networks with equal keys share it."""
    real = graph.export_program
    programs: dict[object, Any] = {}

    def remembered(network: graph.Graph) -> Any:
        key = key_of(network)
        if key not in programs:
            programs[key] = real(network)
        return programs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "export_program", remembered)
        yield
