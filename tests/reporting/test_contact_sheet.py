"""Contact sheets of a run: what stands out most comes first, pages have room for all."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalens.reporting import contact_sheet
from anomalens.reporting.contact_sheet import write_run_document, write_run_picture
from anomalens.runs.stored_run import read_run
from stored_runs import Shot, write_run


def test_a_picture_of_the_images_that_stand_out_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_run(write_run(tmp_path, [Shot(f"{i} ü\n.png", i / 10, size=(60, 60)) for i in range(10)]))
    steps: list[tuple[int, int]] = []
    [path] = write_run_picture(run, tmp_path, lambda done, total: steps.append((done, total)))
    assert steps[-1] == (10, 10)
    assert Image.open(path).size == (4 * 236 + 16, 3 * 276 + 16)
    monkeypatch.setattr(contact_sheet, "_ON_A_PICTURE", 1)
    [path] = write_run_picture(run, tmp_path)
    single = Image.open(path)
    assert single.size == (252, 292)
    worst = Image.open(next((run.folder / "heatmaps").glob("000009*")))
    assert np.array_equal(np.asarray(single.crop((16 + 80, 16 + 80, 16 + 140, 16 + 140))), np.asarray(worst))


def test_a_document_has_a_page_for_every_thirty(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, [Shot(f"{i}.png", 0.9) for i in range(31)]))
    [path] = write_run_document(run, tmp_path)
    content = path.read_bytes()
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page\n") == 2


def test_a_run_without_images_is_an_empty_sheet(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, [Shot("a.png", error="x")]))
    for path in (*write_run_picture(run, tmp_path), *write_run_document(run, tmp_path)):
        assert path.stat().st_size > 0


def test_names_are_told_apart_in_letters_that_the_font_has() -> None:
    assert contact_sheet._name("a\\b/day 1/001.png") == "day 1/001.png"
    assert contact_sheet._name("001.png") == "001.png"
    assert contact_sheet._in_plain_letters("Grün/Ærø 日.png\n") == "Grun/?r? ?.png\\n"
