"""What a package index shows leads somewhere, and a release says what is new."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def build() -> dict[str, Any]:
    pytest.importorskip("hatchling")
    return runpy.run_path(str(ROOT / "hatch_build.py"))


def test_the_readme_has_no_link_to_a_file_beside_it(build: dict[str, Any]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = build["readme_elsewhere"](readme, "https://git.example/a/b", "v1.0")
    assert "](https://git.example/a/b/raw/v1.0/docs/images/hazelnuts.png)" in text
    assert "[docs/inputs.md](https://git.example/a/b/blob/v1.0/docs/inputs.md)" in text
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    assert all(target.startswith("https://") for target in targets)
    # As long as nobody knows where the project will be, there is nothing that leads nowhere.
    text = build["readme_elsewhere"](readme, "", "v1.0")
    assert not re.search(r"\]\((?!https://)", text)
    assert "(docs/inputs.md)" in text


def test_addresses_of_the_project(build: dict[str, Any]) -> None:
    urls = build["project_urls"]("https://git.example/a/b", "v1.0")
    assert urls["Changes"] == "https://git.example/a/b/blob/v1.0/CHANGELOG.md"
    assert build["project_urls"]("", "v1.0") == {}


def test_the_notes_of_a_release_are_its_part_of_the_changelog() -> None:
    notes = runpy.run_path(str(ROOT / ".ci" / "release_notes.py"))["notes"]
    text = "# Changelog\n\n## Unreleased\n\n### Added\n- b\n\n## [1.0.0] - 2026-01-01\n\n- a\n"
    assert notes(text, "1.0.0") == "# anomalens 1.0.0\n\n- a\n"
    assert notes(text, "1.1.0") == "# anomalens 1.1.0\n\n### Added\n- b\n"
    with pytest.raises(ValueError, match="says nothing about 2"):
        notes("## 1.0.0\n- a\n", "2.0.0")
