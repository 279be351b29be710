"""The list of licences that CI prints refuses what a product may not use."""

import runpy
from pathlib import Path

import pytest

LICENCES = runpy.run_path(str(Path(__file__).parents[1] / ".ci" / "licences.py"))


@pytest.mark.parametrize(
    "text", ["MIT", "Apache-2.0 AND BSD-3-Clause", "BSD License, Apache Software License", "PSF-2.0"]
)
def test_accepted(text: str) -> None:
    assert LICENCES["accepted"](text)


@pytest.mark.parametrize(
    "text", ["", "GPL-3.0-only", "MIT AND AGPL-3.0", "CC-BY-NC-SA-4.0 AND Apache-2.0", "Proprietary"]
)
def test_not_accepted(text: str) -> None:
    assert not LICENCES["accepted"](text)


def test_licences_of_this_environment_are_known() -> None:
    assert "BSD" in LICENCES["licence"]("numpy")
