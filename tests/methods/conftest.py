"""Give every test of numerics both kinds of array."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

Make = Callable[[Any], Any]


@pytest.fixture(params=["numpy", "torch"])
def make(request: pytest.FixtureRequest) -> Make:
    """Return a function that turns a NumPy array into an array of the kind under test."""
    return torch.from_numpy if request.param == "torch" else np.asarray
