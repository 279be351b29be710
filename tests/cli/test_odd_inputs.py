"""Odd files, names and folders through the command line, `evaluate` and the Ray engine's worker."""

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import odd_files as odd
from anomalens.cli import application
from anomalens.datasets.layouts import open_dataset
from anomalens.evaluation.evaluator import EvaluationConfig, evaluate
from anomalens.prediction import Failure
from anomalens.runs.ray_parts import FinishedPart, RunPart
from anomalens.runs.ray_worker import CrashLedger, Worker
from commands import Command, runner
from workers import load


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> Command:
    command = runner(capsys, monkeypatch)
    options = ("--backbone", tiny_weights, "--method", "anoclip", "--size", 64)
    return lambda *arguments: command(*arguments, *(options if arguments[0] in ("detect", "evaluate") else ()))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[odd.OddFile]]:
    """All odd files in a folder, those that cannot be read last."""
    folder = tmp_path_factory.mktemp("odd")
    files = sorted(odd.odd_files(), key=lambda file: file.pixels is None)
    for file in files:
        (folder / file.name).write_bytes(file.content)
    return folder, files


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text("utf-8").split("\n") if line]


def photo(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    path.write_bytes(odd.saved(Image.fromarray(pixels), "PNG"))
    return path


def no_text(folder: Path) -> Path:
    """Return an image whose name is not UTF-8; skip where there are none."""
    path = Path(os.fsdecode(os.fsencode(folder) + b"/pi\xe8ce.png"))
    try:
        return photo(path)
    except OSError:
        pytest.skip("this file system has no such names")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_python_and_ray_answer_alike(corpus: tuple[Path, list[odd.OddFile]], tmp_path: Path) -> None:
    folder, files = corpus
    paths = [str(folder / file.name) for file in files]
    detector = load(tmp_path / "log")
    results = detector.predict_many(paths)
    for file, result in zip(files, results, strict=True):
        assert isinstance(result, Failure) == (file.pixels is None), file.name
        if isinstance(result, Failure):
            assert file.error in result.error
            assert repr(result.path) in result.error
        elif file.pixels is not None:
            assert (result.height, result.width) == file.pixels.shape[:2]
            assert (file.note in (result.note or "")) if file.note else result.note is None
    part = Worker(lambda: detector, 1, CrashLedger(), str(tmp_path)).rows(RunPart(0, paths, [None] * len(paths)))
    assert [{**row, "object": None} for row in part] == [{**result.to_dict(), "object": None} for result in results]


def test_command_line(corpus: tuple[Path, list[odd.OddFile]], run: Command, tmp_path: Path) -> None:
    folder, files = corpus
    # A choice that is quick: each of the ways a file can fail, and one of each kind that can be read.
    chosen = [file for number, file in enumerate(files) if number % 9 == 0 or file.name in ("clear.png", "scans.jpg")]
    ran = run("detect", *(folder / file.name for file in chosen), "--out", tmp_path / "out")
    assert ran.code == 1, ran.err
    for file, row in zip(chosen, rows(tmp_path / "out"), strict=True):
        assert row["path"] == str(folder / file.name)
        assert ("error" in row) == (file.pixels is None)
        assert file.error in row.get("error", "")
        assert file.note in row.get("note", "")
    assert "Traceback" not in ran.err


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_evaluate(corpus: tuple[Path, list[odd.OddFile]], tmp_path: Path) -> None:
    folder, files = corpus
    # Every second image is its own mask, so that both must be turned and read alike.
    paths = [str(folder / file.name) for file in files]
    lines = [[path, number % 2, path if number % 2 else ""] for number, path in enumerate(paths)]
    text = io.StringIO()
    csv.writer(text).writerows([["image", "label", "mask"], *lines])
    (tmp_path / "manifest.csv").write_text(text.getvalue())
    dataset = open_dataset(tmp_path)
    readable = {str(folder / file.name) for file in files if file.pixels is not None}
    assert readable <= {str(sample.image) for sample in dataset.samples()}
    assert not any(fault.kind == "mask_size" for fault in dataset.faults)
    result = evaluate(load(tmp_path / "log"), dataset, EvaluationConfig(size=32, gallery=1))
    assert {row.path for row in result.rows if row.score is not None} == readable
    assert all(row.error for row in result.failed)
    assert result.to_dict()["mean"]["pixel_auroc"] is not None


def test_a_mask_that_would_vanish_is_counted(run: Command, tmp_path: Path) -> None:
    for name in ("good", "crack"):
        photo(tmp_path / "nut" / "test" / name / "0.png", len(name))
    scratch = np.zeros((30, 40), np.uint8)
    scratch[7, 9] = 255
    (tmp_path / "nut" / "ground_truth" / "crack").mkdir(parents=True)
    Image.fromarray(scratch).save(tmp_path / "nut" / "ground_truth" / "crack" / "0.png")
    ran = run("evaluate", "--data", tmp_path, "--out", tmp_path / "out", "--eval-size", 16)
    assert ran.code == 0, ran.err
    assert "1 masks mark less than one pixel at 16 x 16" in ran.err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))
    assert metrics["protocol"]["tiny_masks_kept"] == 1
    assert metrics["mean"]["pixel_auroc"] is not None


def test_results_are_no_inputs(run: Command, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    for number in range(2):
        photo(folder / f"{number}.png", number)
    assert run("detect", folder, "--out", folder / "results").code == 0
    again = run("detect", folder, "--out", folder / "results", "--resume")
    assert again.code == 0, again.err
    assert "left out: 4 x image in a folder of results" in again.err
    assert len(rows(folder / "results")) == 2
    assert run("detect", folder, "--out", folder / "more").code == 0
    assert run("detect", folder, "--out", folder).code == 0
    assert run("detect", folder, "--out", folder, "--resume").code == 0
    assert len(rows(folder / "more")) == len(rows(folder)) == 2
    calibrated = run("calibrate", "--normals", folder, "--fpr", "0.5", "--out", tmp_path / "c.json", "--quiet")
    assert calibrated.code == 0, calibrated.err
    assert json.loads((tmp_path / "c.json").read_text())["made_from"]["n_normal"] == 2
    refused = run("detect", folder / "results", "-o", tmp_path / "x")
    assert refused.code == 2
    assert "rows" in refused.err
    assert run("report", folder / "results").code == 0
    only_results = run("detect", folder / "more", "-o", tmp_path / "y")
    assert "its rows name the images they were made from" in only_results.err


def test_a_name_that_is_no_text(run: Command, tmp_path: Path) -> None:
    path = no_text(tmp_path / "in")
    text = f"{tmp_path}/in/pi\\udce8ce.png"
    photo(tmp_path / "in" / "z.png")
    for _ in range(2):
        ran = run("detect", tmp_path / "in", "--out", tmp_path / "out", "--resume")
        assert ran.code == 0, ran.err
    assert [row["path"] for row in rows(tmp_path / "out")] == [text, f"{tmp_path}/in/z.png"]
    raw = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    raw.decode("utf-8")
    worker = Worker(lambda: load(tmp_path / "log"), 1, CrashLedger(), str(tmp_path))
    (row,) = worker.rows(RunPart(0, [text], [None]))
    assert (row["path"], row["width"]) == (text, 40)
    FinishedPart.of(0, [row])
    path.write_bytes(b"damaged")
    (row,) = worker.rows(RunPart(0, [text], [None]))
    assert row["path"] == text
    assert "not an image" in row["error"]


def test_a_name_that_is_no_text_in_an_evaluation(run: Command, tmp_path: Path) -> None:
    no_text(tmp_path / "set" / "anomalous")
    photo(tmp_path / "set" / "normal" / "a.png", 2)
    ran = run("evaluate", "--data", f"folders:{tmp_path / 'set'}", "--out", tmp_path / "out", "--eval-size", 32)
    assert ran.code == 0, ran.err
    assert run("report", tmp_path / "out").code == 0
    assert "pi\\udce8ce.png" in (tmp_path / "out" / "scores.csv").read_text("utf-8")


def test_an_object_that_is_no_text(run: Command, tmp_path: Path) -> None:
    ran = run("detect", photo(tmp_path / "a.png"), "--out", tmp_path / "out", "--object", "\udcff")
    assert ran.code == 2
    assert "is not valid text" in ran.err


def test_exclude_and_the_switches(run: Command, tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "a_mask.png")
    whole = odd.saved(Image.open(tmp_path / "in" / "a.png"), "JPEG", quality=95)
    (tmp_path / "in" / "cut.jpg").write_bytes(whole[:-200])
    ran = run("detect", tmp_path / "in", "--out", tmp_path / "1", "--exclude", "*_mask.png")
    assert "left out: 1 x image by --exclude" in ran.err
    assert [("error" in row) for row in rows(tmp_path / "1")] == [False, True]
    ran = run("detect", tmp_path / "in", "--out", tmp_path / "2", "--truncated-jpeg", "--exclude", "a*")
    assert ran.code == 0, ran.err
    assert "its end is missing" in rows(tmp_path / "2")[0]["note"]
    ran = run("detect", tmp_path / "in" / "a.png", "--out", tmp_path / "3", "--max-pixels", 1199)
    assert "above the limit of 1,199" in rows(tmp_path / "3")[0]["error"]


def test_fit_reads_photos_as_detect_reads_images(run: Command, tmp_path: Path, tiny_weights: Path) -> None:
    for seed in (1, 2, 3):
        photo(tmp_path / "in" / f"{seed}.png", seed)
    no_text(tmp_path / "in")
    photo(tmp_path / "in" / "[/b]\x1b[31m\n.png", 4)
    photo(tmp_path / "in" / "mask_0.png", 5)
    assert run("detect", tmp_path / "in", "--out", tmp_path / "in" / "out").code == 0
    part = tmp_path / "a.anomalens"
    fit = ("fit", "--backbone", tiny_weights, "--method", "anoclip", "--size", 64, "--out", part)
    ran = run(*fit, tmp_path / "in", "--exclude", "mask*")
    assert ran.code == 0, ran.err
    assert "left out: 12 x image in a folder of results" in ran.err
    assert "left out: 1 x image by --exclude" in ran.err
    shown = run("recipe", "show", part)
    assert shown.code == 0
    assert "[/b]\\x1b[31m\\n.png'" in shown.out
    assert "pi\\\\udce8ce.png'" in shown.out
    assert "\x1b" not in shown.out + ran.err
    for resume in ((), ("--resume",)):
        assert run("detect", tmp_path / "in" / "1.png", "--recipe", part, "--out", tmp_path / "r", *resume).code == 0
    limited = run(*fit, tmp_path / "in", "--max-pixels", 1199)
    assert limited.code == 2
    assert "above the limit of 1,199" in limited.err


def test_resuming_with_other_settings_is_told_by_flags(run: Command, tmp_path: Path) -> None:
    image, out = photo(tmp_path / "a.png"), tmp_path / "out"
    assert run("detect", image, "--out", out, "--extra-size", 32, "--extra-size", 48).code == 0
    ran = run("detect", image, "--out", out, "--resume", "--extra-size", 32)
    assert "with other settings: --extra-size was 32, 48 then, 32 now. Use" in ran.err
    ran = run("detect", image, "--out", out, "--resume", "--min-area", 5, "--tile", 32)
    assert "--extra-size was 32, 48 then, not given now; --min-area was 0 then, 5 now;" in ran.err
    assert "--tile was not given then, 32 now" in ran.err


class Cp1252(io.TextIOWrapper):
    """A console that knows few characters."""

    def __init__(self) -> None:
        self.content = io.BytesIO()
        super().__init__(self.content, encoding="cp1252")


def few_characters(monkeypatch: pytest.MonkeyPatch) -> Cp1252:
    """Put such a console in the place of standard output and standard error; return the first."""
    monkeypatch.setattr(sys, "stderr", Cp1252())
    console = Cp1252()
    monkeypatch.setattr(sys, "stdout", console)
    return console


def test_a_console_without_the_characters(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = photo(tmp_path / "部品" / "a.png")
    console = few_characters(monkeypatch)
    assert run("detect", path, "--out", tmp_path / "部品" / "out").code == 0
    console.flush()
    assert b"\\u90e8\\u54c1" in console.content.getvalue()
    console = few_characters(monkeypatch)
    assert run("detect", path, "--out", tmp_path / "部品" / "json", "--json").code == 0
    console.flush()
    assert json.loads(console.content.getvalue())["results"].endswith(f"部品{os.sep}json")


def test_home_where_shells_leave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/user")
    for argument, expected in {
        "--out=~/x": "--out=/home/user/x",
        "-o~/x": "-o/home/user/x",
        "~/x": "/home/user/x",
        "~": "/home/user",
        "flat:~/set": "flat:/home/user/set",
        "--data=mvtec3d:~/set": "--data=mvtec3d:/home/user/set",
        "a~/b": "a~/b",
        "photo~1.png": "photo~1.png",
        "~x": "~x",
        "note=~/x": "note=~/x",
    }.items():
        assert application.at_home(argument) == expected


def test_markup_in_names(run: Command, tmp_path: Path) -> None:
    photo(tmp_path / "[/b]" / "normal" / "a.png")
    photo(tmp_path / "[/b]" / "anomalous" / "a.png", 1)
    ran = run("evaluate", "--data", tmp_path / "[/b]", "--out", tmp_path / "[/b] out", "--eval-size", 32)
    assert ran.code == 0, ran.err
