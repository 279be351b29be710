"""The notebooks run from top to bottom, and what is stored of their last run is small.

To renew what they show: jupyter execute --inplace examples/notebooks/*.ipynb
"""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples/notebooks").glob("*.ipynb"))
# Bytes of a file. The pictures in it are thumbnails.
LARGEST = 200_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_shows_is_stored_and_small(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert path.stat().st_size < LARGEST
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run it anew from top to bottom"
    assert any(cell.outputs for cell in cells)
    assert all(output.output_type != "error" for cell in cells for output in cell.outputs)


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"zero-shot", "few-shot", "evaluate"}
