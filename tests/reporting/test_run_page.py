"""The page about a run of detect: what is on it, its size, hostile names, and its use in a real browser."""

import base64
import hashlib
import io
import json
import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalens.errors import InputError
from anomalens.reporting import run_page
from anomalens.reporting.pages import write_page
from anomalens.reporting.thumbnails import encoded_within
from anomalens.runs.ray_parts import FinishedPart
from commands import runner
from hostile import NAMES
from real_browser import SCHEMES, WIDTHS, opened
from stored_runs import Shot, write_run

SHOTS = [
    Shot("left/1.png", 0.2),
    Shot("left/2.png", 0.95),
    Shot("left/black.png", 0.1, unusable="the image is black"),
    Shot("right/3.png", 0.7, object_name="<b>bolt</b>"),
    Shot("right/4.png", 0.45, size=(400, 20)),
    Shot("right/broken.png", error="is empty"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), SHOTS)


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    return write_page(run)


def names(text: str) -> list[str]:
    return [unescape(name) for name in re.findall(r'data-name="([^"]*)"', text)]


def test_the_worst_come_first_and_what_cannot_be_judged_before_the_normal(page: Path) -> None:
    assert names(page.read_text(encoding="utf-8")) == ["2.png", "3.png", "black.png", "4.png", "1.png"]


def test_everything_a_person_asks_for_is_on_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for number, name in ((2, "anomalous"), (2, "normal"), (1, "unusable"), (1, "failed")):
        assert f"<dt>{name}</dt><dd>{number}</dd>" in text
    assert "1 image: the image is black." in text
    assert "is empty" in text
    assert "above 0.5. This threshold comes from: by hand." in text
    assert "64 and 32 pixels a side" in text
    assert text.count("data:image/webp") == 3 * 5
    assert "1 region stands out" in text
    assert '<option value="left">' in text
    assert '<option value="&lt;b&gt;bolt&lt;/b&gt;">' in text
    assert "<b>bolt" not in text


def test_what_is_longer_than_any_name_is_shortened_and_odd_settings_are_passed_over(tmp_path: Path) -> None:
    folder = write_run(tmp_path, SHOTS[:2])
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    rows[0]["path"] = rows[0]["object"] = "x" * 1_000_000
    rows[1]["p_value"] = 0.05
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = json.loads((folder / "run.json").read_text())
    record["settings"] |= {"extra_sizes": 3, "size": "large", "tile": 9}
    record["counts"] = {"inputs": "many"}
    (folder / "run.json").write_text(json.dumps(record))
    text = write_page(folder).read_text(encoding="utf-8")
    assert len(text) < 100_000
    assert "one of twenty" in text
    assert "pixels a side" not in text


def test_it_is_one_file_that_runs_its_own_script_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
    assert {link.split(",")[0] for link in re.findall(r'(?:src|href)="([^"]*)"', text)} == {
        "data:",
        "data:image/webp;base64",
    }


def test_the_same_run_gives_the_same_page(run: Path, page: Path, tmp_path: Path) -> None:
    assert write_page(run, tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_hostile_names_are_text(tmp_path: Path) -> None:
    shots = []
    for name in NAMES:
        try:
            (tmp_path / "photos").mkdir(exist_ok=True)
            (tmp_path / "photos" / f"{name}.png").touch()
        except (OSError, ValueError):
            continue
        shots.append(Shot(f"{name}.png", 0.9))
    text = write_page(write_run(tmp_path, shots)).read_text(encoding="utf-8")
    assert len(names(text)) == len(shots)
    assert text.count("<script") == 2
    assert text.count('class="pictures"') == len(shots)
    assert "image not found" not in text


def test_a_page_of_many_images_keeps_its_size_and_others_lie_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_page, "PAGE", 4)
    monkeypatch.setattr(run_page, "_MOST_PAGES", 2)
    monkeypatch.setattr(run_page, "_PICTURE_BYTES", 4 * 1500)
    run = write_run(tmp_path, [Shot(f"{i}.png", i / 20, size=(300, 200)) for i in range(12)])
    drawn: list[tuple[int, int]] = []
    first = write_page(run, tmp_path / "p.html", lambda done, total: drawn.append((done, total)))
    assert sorted(drawn) == [(done, 8) for done in range(1, 9)]
    text, second = first.read_text(encoding="utf-8"), (tmp_path / "p-2.html").read_text(encoding="utf-8")
    assert names(text) + names(second) == [f"{i}.png" for i in range(11, 3, -1)]
    assert not (tmp_path / "p-3.html").exists()
    assert 'href="p-2.html"' in text
    assert 'href="p.html"' in second
    assert "which show the 8 that stand out most" in text
    pictures = re.findall(r"base64,([^\"]+)", text)
    assert sum(map(len, pictures)) * 3 / 4 <= 4 * 1500
    # All images count, also those that are not shown.
    assert "<dt>normal</dt><dd>11</dd>" in second
    assert len(json.loads(re.findall(r'id="scores">(.*?)<', text)[0])["scores"]) == 12


def test_scores_of_a_large_run_are_counted_by_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_page, "_LEVELS", 5)
    text = write_page(write_run(tmp_path, [Shot(f"{i}.png", i / 20) for i in range(9)])).read_text(encoding="utf-8")
    recount = json.loads(re.findall(r'id="scores">(.*?)<', text)[0])
    assert recount["scores"] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert recount["judged"] == 9


def test_a_picture_fits_whatever_it_shows() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8))
    for most in (20_000, 5_000, 300):
        content = encoded_within(noise, most)
        assert len(content) <= most
        width, height = Image.open(io.BytesIO(content)).size
        assert abs(width / height - 1.5) < 0.1


def test_images_that_are_gone_or_changed_are_not_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path, SHOTS[:3])
    (tmp_path / "photos" / "left" / "1.png").unlink()
    Image.new("RGB", (61, 40)).save(tmp_path / "photos" / "left" / "2.png")
    text = write_page(run).read_text(encoding="utf-8")
    assert text.count("image not found") == 2


def test_rows_of_a_cluster_show_boxes(tmp_path: Path) -> None:
    run = write_run(tmp_path, SHOTS)
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        for name in ("heatmap", "mask", "map"):
            row.pop(name, None)
    (run / "predictions.jsonl").unlink()
    shutil.rmtree(run / "heatmaps")
    (run / "rows" / "part=00000").mkdir(parents=True)
    (run / "rows" / "part=00000" / "x.parquet").write_bytes(FinishedPart.of(0, rows).data)
    text = write_page(run).read_text(encoding="utf-8")
    assert names(text) == ["2.png", "3.png", "black.png", "4.png", "1.png"]
    # Two anomalous images have a picture with boxes besides the image itself.
    assert text.count("data:image/webp") == 5 + 2
    assert text.count("no mask") == 5


def test_a_run_without_any_judged_image(tmp_path: Path) -> None:
    text = write_page(write_run(tmp_path, [SHOTS[5]], total=3)).read_text(encoding="utf-8")
    assert "There is no image to show." in text
    assert "1 image of 3: the run was not at its end" in text


def test_folders_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run and no benchmark; run evaluate first, or detect"):
        write_page(tmp_path)


def test_from_the_command_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = runner(capsys, monkeypatch)
    ran = command("report", run, "--out", tmp_path / "r.html")
    assert (ran.code, ran.out.strip()) == (0, str(tmp_path / "r.html")), ran.err
    ran = command("report", run, "--out", tmp_path / "no" / "r.html")
    assert ran.code == 2
    assert "choose another --out" in ran.err
    ran = command("report", run, "--format", "csv,pdf", "--out", tmp_path / "files")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == [
        "contact-sheet.pdf",
        "predictions.csv",
        "regions.csv",
    ]
    (run / "predictions.jsonl").write_text("{}\n")
    assert command("report", run).code == 2


# ---------------------------------------------------------------- in a browser


@pytest.mark.browser
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_it_without_complaint(page: Path, width: int, scheme: str) -> None:
    with opened(page, width, scheme) as tab:
        assert not tab.sticks_out()
        assert tab.serious_findings() == []
        tab.page.locator(".pictures").first.click()
        assert tab.page.locator("#viewer").is_visible()
        assert tab.serious_findings() == []
        broken = "[...document.images].filter((image) => !image.complete || !image.naturalWidth).length"
        assert tab.page.evaluate(broken) == 0
        assert tab.complaints == []


@pytest.mark.browser
def test_filters_threshold_and_keys(page: Path) -> None:
    from playwright.sync_api import expect

    with opened(page) as tab:
        shown = tab.page.locator("#images > li:visible .name")
        expect(shown).to_have_count(5)
        tab.page.select_option("#label", "anomalous")
        expect(shown).to_have_text(["left/2.png", "right/3.png"])
        tab.page.fill("#text", "right/")
        expect(shown).to_have_text(["right/3.png"])
        tab.page.fill("#lowest", "0.8")
        expect(shown).to_have_count(0)
        tab.page.click("#show-all")
        expect(shown).to_have_count(5)
        tab.page.select_option("#folder", "right")
        tab.page.select_option("#order", "name")
        expect(shown).to_have_text(["right/3.png", "right/4.png"])
        tab.page.click("button[type=reset]")
        # Another threshold counts again; what cannot be judged stays so.
        assert tab.page.inner_text("#recount") == "2 anomalous, 2 normal"
        tab.page.fill("#threshold-number", "0.3")
        assert tab.page.inner_text("#recount") == "3 anomalous, 1 normal"
        tab.page.select_option("#label", "anomalous")
        assert sorted(shown.all_inner_texts()) == ["left/2.png", "right/3.png", "right/4.png"]
        tab.page.click("#threshold-reset")
        expect(shown).to_have_count(2)
        # By keys alone: open, next, close; the focus is back where it was.
        tab.page.locator(".pictures").first.focus()
        tab.page.keyboard.press("Enter")
        assert tab.page.inner_text("#viewer-title") == "left/2.png"
        tab.page.keyboard.press("ArrowRight")
        assert tab.page.inner_text("#viewer-title") == "right/3.png"
        tab.page.keyboard.press("Escape")
        assert not tab.page.locator("#viewer").is_visible()
        assert tab.page.evaluate("document.activeElement.className") == "pictures"
        assert tab.complaints == []


@pytest.mark.browser
def test_it_prints_pictures_and_no_controls(page: Path) -> None:
    with opened(page, scheme="dark") as tab:
        tab.page.emulate_media(media="print", color_scheme="dark")
        assert tab.page.locator(".filters").is_hidden()
        assert tab.page.locator("#images img").first.is_visible()
        assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        # Colours that a legend explains are printed too, and the head of a table stays with its rows.
        swatch = "getComputedStyle(document.querySelector('.key'), '::before').printColorAdjust"
        assert tab.page.evaluate(swatch) == "exact"
        assert tab.page.evaluate("getComputedStyle(document.querySelector('thead')).breakAfter") == "avoid"
