"""The report: what is on the page, bad folders, and the page in a real browser."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalens.backbones.tower import Clip
from anomalens.datasets.layouts import open_dataset
from anomalens.errors import InputError
from anomalens.evaluation.evaluator import EvaluationConfig, evaluate
from anomalens.reporting.evaluation_page import write_report
from browser import Scheme, look
from commands import runner
from toys import make, speckled


@pytest.fixture(scope="module")
def evaluated(tiny_clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an evaluation of two classes, one of them without masks, with a broken image and names full of markup."""
    root = tmp_path_factory.mktemp("report")
    for name, masks in (("nut", True), ("<i>bolt & co", False)):
        folder = root / "data" / name
        for part in ("test/good", "test/hole", "ground_truth/hole"):
            (folder / part).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(speckled(10 + i)).save(folder / "test" / "good" / f"{i} <b>.png")
            spot = speckled(10)
            spot[: 32 + i, :32, 0] = 220
            Image.fromarray(spot).save(folder / "test" / "hole" / f"{i}.png")
            if masks:
                truth = (spot[..., 0] > 100).astype(np.uint8) * 255
                Image.fromarray(truth).save(folder / "ground_truth" / "hole" / f"{i}_mask.png")
    whole = (root / "data" / "nut" / "test" / "good" / "3 <b>.png").read_bytes()
    (root / "data" / "nut" / "test" / "good" / "3 <b>.png").write_bytes(whole[: len(whole) // 2])
    evaluation = evaluate(make(tiny_clip), open_dataset(root / "data"), EvaluationConfig(size=32, gallery=2))
    evaluation.write(root / "out")
    return root / "out"


@pytest.fixture(scope="module")
def page(evaluated: Path) -> Path:
    return write_report(evaluated)


def test_the_page_is_one_file_that_fetches_nothing(page: Path, evaluated: Path) -> None:
    assert page == evaluated / "report.html"
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "<script" not in text
    links = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert {link.split(",")[0].split(";")[0] for link in links if not link.startswith("#")} == {
        "data:",
        "data:image/jpeg",
        "data:image/png",
    }
    assert "url(" not in text
    assert "@import" not in text


def test_everything_a_person_asks_for_is_on_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for words in ("ROC", "Precision and recall", "Per-region overlap", "Image scores", "Worst", "Borderline", "Best"):
        assert text.count(f">{words}<") == 2, words  # one of each class
    for words in ("image AUROC", "AUPRO-200", "evaluation size", "calibration: threshold", "95 % intervals", "mean"):
        assert words in text
    assert "found 0 of 4 anomalous images and called 0 of 3 normal images anomalous" in text
    assert "1 image or mask could not be used." in text
    assert "16 images in 2 classes" in text
    assert "Per-region overlap: not defined, because" in text  # the class without masks has no overlap curve
    assert "no mask<br>given" in text


def test_names_are_text_not_markup(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "&lt;i&gt;bolt &amp; co" in text
    assert "<i>" not in text
    assert "<b>" not in text


def test_the_same_evaluation_gives_the_same_page(page: Path, evaluated: Path, tmp_path: Path) -> None:
    again = write_report(evaluated, tmp_path / "other.html")
    assert again.read_bytes() == page.read_bytes()


@pytest.fixture(scope="module")
def seen(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    schemes: tuple[Scheme, ...] = ("light", "dark")
    return {scheme: look(page, scheme, tmp_path_factory.mktemp(scheme)) for scheme in schemes}


@pytest.mark.browser
def test_a_browser_shows_it_without_complaint(seen: dict[str, dict[str, Any]]) -> None:
    for page in seen.values():
        assert page["console"] == []
        assert (page["violations"], page["fetched"]) == ([], [])
        assert page["images"] > 20
        assert (page["broken"], page["nameless"]) == (0, 0)
        assert page["charts"] == 7  # four a class, less the overlap of the class without masks
        assert not page["wide"]  # nothing sticks out sideways
        assert page["headings"][0] == "data"


@pytest.mark.browser
def test_light_and_dark_differ_and_both_can_be_read(seen: dict[str, dict[str, Any]]) -> None:
    def light(colour: str) -> float:
        channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    ground = {scheme: light(page["background"]) for scheme, page in seen.items()}
    assert ground["light"] > 0.8
    assert ground["dark"] < 0.05
    for page in seen.values():
        dim, bright = sorted((light(page["background"]), light(page["ink"])))
        assert (bright + 0.05) / (dim + 0.05) > 7  # the stricter contrast of the accessibility guidelines


# ---------------------------------------------------------------- bad folders


def test_folders_without_an_evaluation(evaluated: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no evaluation in this folder.*run evaluate first"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="no evaluation"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"there is one in: .*out"):
        write_report(evaluated.parent)


def test_an_evaluation_of_version_0_1_still_gives_its_page(evaluated: Path, page: Path, tmp_path: Path) -> None:
    """Its rows are Parquet alone, and metrics.json has no intervals."""
    shutil.copytree(evaluated, tmp_path / "old")
    (tmp_path / "old" / "scores.csv").unlink()
    content = json.loads((tmp_path / "old" / "metrics.json").read_text())
    del content["intervals"]
    (tmp_path / "old" / "metrics.json").write_text(json.dumps(content))
    text = write_report(tmp_path / "old").read_text(encoding="utf-8")
    assert re.sub(r"<small>.*?</small>", "", page.read_text(encoding="utf-8")).split() == text.split()


def test_a_detailed_evaluation_shows_aupimo_and_intervals_of_pixel_metrics(
    evaluated: Path, page: Path, tiny_clip: Clip
) -> None:
    data = open_dataset(evaluated.parent / "data")
    evaluate(make(tiny_clip), data, EvaluationConfig(size=32, detailed=True)).write(evaluated.parent / "detailed")
    plain = page.read_text(encoding="utf-8")
    detailed = write_report(evaluated.parent / "detailed").read_text(encoding="utf-8")
    assert '<th scope="col">AUPIMO</th>' in detailed
    assert '<th scope="col">AUPIMO</th>' not in plain
    assert "--detailed" in plain
    # Three image metrics in both classes; four pixel metrics in the class with masks.
    assert (plain.count("<small>"), detailed.count("<small>")) == (6, 10)


def test_damaged_evaluations(evaluated: Path, tmp_path: Path) -> None:
    for name in ("metrics.json", "report.json", "scores.csv"):
        (tmp_path / name).write_bytes((evaluated / name).read_bytes())
    text = write_report(tmp_path).read_text(encoding="utf-8")  # the gallery is not there: a page all the same
    assert "picture<br>missing" in text
    for name in ("scores.csv", "report.json", "metrics.json"):
        (tmp_path / name).write_text("{")
        with pytest.raises(InputError, match="damaged"):
            write_report(tmp_path)


def test_from_the_command_line(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runner(capsys, monkeypatch)
    ran = run("report", evaluated, "--out", tmp_path / "r.html")
    assert (ran.code, ran.out.strip()) == (0, str(tmp_path / "r.html")), ran.err
    assert run("report", tmp_path).code == 2
    ran = run("report", evaluated, "--out", tmp_path / "no" / "r.html")
    assert ran.code == 2
    assert "choose another --out" in ran.err


def test_what_is_kept_for_the_page_stays_small(evaluated: Path) -> None:
    kept = json.loads((evaluated / "report.json").read_text())
    curves = [points for curve in kept["curves"].values() for points in curve.values() if isinstance(points, list)]
    assert max(map(len, curves)) <= 200
