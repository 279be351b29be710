"""`anomalens detect` on videos and `anomalens watch`, from the outside."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalens.cli.console import progress_bar
from anomalens.cli.detect import _show
from anomalens.runs.store import RunCounts, RunSummary
from clips import write_clip
from commands import Command, runner


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    return runner(capsys, monkeypatch)


@pytest.fixture
def weights(tiny_weights: Path) -> tuple[Any, ...]:
    return ("--backbone", tiny_weights, "--method", "anoclip", "--size", 64)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    return path


def test_a_video_to_rows_a_page_and_a_video(run: Command, weights: tuple[Any, ...], tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", 25)
    ran = run("detect", "clip.mp4", "--every", "400ms", "--out", "out", *weights, "--format", "html,mp4")
    assert ran.code == 0, ran.err
    assert [(row["path"], row["frame"]) for row in rows(tmp_path / "out")] == [("clip.mp4", n) for n in (0, 10, 20)]
    assert "written: out/overlay.mp4" in ran.err
    assert "clip.mp4 at" in ran.out or "anomalous\t0" in ran.out
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    assert (settings["every"], settings["videos"][0][0]) == ("400ms", "clip.mp4")
    ran = run("detect", "clip.mp4", "--for", "500ms", "--every", "frame", "--out", "short", *weights)
    assert ran.code == 0, ran.err
    assert len(rows(tmp_path / "short")) == 13


def test_the_bar_of_a_live_source_names_no_end() -> None:
    bar = progress_bar()
    task = bar.add_task("starting", total=None)
    for rows in (0, 3):
        _show(bar, task, RunSummary(0, RunCounts(rows)))
    assert (bar.tasks[0].completed, bar.tasks[0].total, bar.tasks[0].finished) == (3, None, False)


def test_what_does_not_go_together_is_a_line(run: Command, weights: tuple[Any, ...], tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", 2)
    picture(tmp_path / "a.png")
    for arguments, reason in (
        (("clip.mp4", "a.png"), "videos have a run of their own"),
        (("clip.mp4", "--every", "fast"), "'fast' is no duration"),
        (("clip.mp4", "--engine", "ray"), "one by one in this process"),
        (("clip.mp4", "--together", "yes"), "one by one in this process"),
        (("clip.mp4", "--method", "musc"), "no set to be compared"),
        (("clp.mp4", "--every", "1s"), "clp.mp4: no such file"),
        (("a.png", "--every", "1s"), "--every, --for and --format mp4 are for videos"),
        (("a.png", "--format", "mp4"), "--every, --for and --format mp4 are for videos"),
    ):
        chosen = weights if "--method" not in arguments else weights[:2] + weights[4:]
        ran = run("detect", *arguments, "--out", "out", *chosen)
        assert ran.code == 2, arguments
        assert reason in ran.err
        assert not (tmp_path / "out").exists()


def test_answers_for_images_that_arrive(
    run: Command, weights: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            picture(tmp_path / "in" / "b.png", 1)
            (tmp_path / "in" / "broken.png").write_bytes(b"")
        if looks == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr("anomalens.runs.arriving.sleep", sleep)
    picture(tmp_path / "in" / "a.png")
    ran = run("watch", "in", "--out", "out", *weights)
    assert ran.code == 1, ran.err
    lines = [line.split("\t") for line in ran.out.splitlines()]
    assert [line[2] for line in lines] == ["in/a.png", "in/b.png", "in/broken.png"]
    assert [line[0] for line in lines][2] == "failed"
    assert float(lines[0][1]) == pytest.approx(rows(tmp_path / "out")[0]["score"], abs=1e-4)
    assert "3 images: " in ran.err
    looks = 2
    picture(tmp_path / "in" / "c.png", 2)
    ran = run("watch", "in", "--out", "out", "--resume", "--json", *weights)
    assert [json.loads(line)["path"] for line in ran.out.splitlines()] == ["in/c.png"]
    assert len(rows(tmp_path / "out")) == 4
    assert run("report", "out").code == 0


def test_watching_nothing(run: Command, weights: tuple[Any, ...], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    ran = run("watch", "in", "--out", "out", "--for", "1ms", *weights)
    assert ran.code == 0, ran.err
    assert "0 images" in ran.err
    assert run("report", "out", "--format", "html,csv").code == 0
    ran = run("watch", "nowhere", "--out", "out2", *weights)
    assert ran.code == 2
    assert "no such folder" in ran.err
    assert run("watch", "in", "--out", "out2", "--interval", "0s", *weights).code == 2


def test_anomalous_arrivals_are_told_of_and_remembered(run: Command, weights: tuple[Any, ...], tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy", reason="the extra [serve] is not installed")
    picture(tmp_path / "in" / "it's; touch stray.png")
    told = tmp_path / "told"
    script = "import sys; open(sys.argv[1], 'a').write(sys.argv[2] + chr(10) + sys.stdin.read() + chr(10))"
    command = shlex.join([sys.executable, "-c", script, str(told), "{path}"])
    watched = ("watch", "in", "--for", "1ms", "--interval", "10ms", *weights)
    everything = ("--store", "sqlite:///history.db", "--on-anomaly", command, "--threshold", "-1000")
    ran = run(*watched, "--out", "out", *everything)
    assert ran.code == 0, ran.err
    name, row = told.read_text(encoding="utf-8").splitlines()
    assert name == "in/it's; touch stray.png"
    assert json.loads(row) == rows(tmp_path / "out")[0]
    assert not (tmp_path / "stray.png").exists()
    assert "in/it's; touch stray.png" in run("history", "list", "--quiet").out
    told.unlink()
    assert run(*watched, "--out", "sound", *everything[2:4], "--threshold", "1000").code == 0
    assert not told.exists()


def test_an_alarm_that_fails_is_said_and_stops_nothing(run: Command, weights: tuple[Any, ...], tmp_path: Path) -> None:
    for number in range(2):
        picture(tmp_path / "in" / f"{number}.png", number)
    watched = ("watch", "in", "--for", "1ms", "--interval", "10ms", "--threshold", "-1000", *weights)
    for number, (target, reason) in enumerate((("false", "status 1"), ("no-such-program", "No such file"))):
        ran = run(*watched, "--out", f"out{number}", "--on-anomaly", target)
        assert ran.code == 0, ran.err
        assert ran.err.count(reason) == 2
    for target in ("", "'", "ftp://host/x", "https://name:password@host/x"):
        assert run(*watched, "--out", "none", "--on-anomaly", target).code == 2
    assert not (tmp_path / "none").exists()
