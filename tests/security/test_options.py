"""Options that could only exhaust the memory are refused at once, also where a file asks for them."""

from typing import Any

import pytest

from anomalens.errors import ConfigError
from anomalens.options import LoadOptions


@pytest.mark.parametrize("options", [{"size": 64_000}, {"extra_sizes": (320, 10**9)}, {"object_name": "a" * 100_000}])
def test_absurd_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"largest is|more than") as caught:
        LoadOptions(**options)
    assert len(str(caught.value)) < 200
