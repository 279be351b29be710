"""Start the browser that looks at the pages."""

from collections.abc import Iterator
from typing import Any

import pytest

from real_browser import started


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start the browser that is installed; skips where there is none.

    It ends with its file of tests: a process holds one such browser at a time, and other tests start their own.
    """
    with started() as browser:
        yield browser
