"""Start the browser that looks at the pages."""

from collections.abc import Iterator
from typing import Any

import pytest

from real_browser import started


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Start the browser that is installed, once for all tests; skips where there is none."""
    with started() as browser:
        yield browser
