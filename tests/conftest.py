"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference material beside the project; tests that need it skip where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"reference material is not at {SHARED.name}/ beside the project")
    return SHARED
