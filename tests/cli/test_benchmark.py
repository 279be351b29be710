"""`anomalens benchmark` from the outside."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from anomalens.detection.loading import load_detector
from anomalens.evaluation import benchmarking
from anomalens.evaluation.evaluator import evaluate
from anomalens.evaluation.result import Evaluation
from commands import Command, runner
from parts import good_part


@pytest.fixture
def benchmark(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    command = runner(capsys, monkeypatch)
    return lambda *arguments: command("benchmark", *arguments)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)
    for label in ("normal", "anomalous"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(2):
            picture = Image.fromarray(noise.integers(0, 256, (40, 40, 3), dtype=np.uint8))
            picture.save(tmp_path / "set" / label / f"{label}{i}.png")
    return tmp_path / "set"


def test_flags(benchmark: Command, data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ("--data", data, "--backbone", tiny_weights, "--size", 64, "--eval-size", 32, "--out", out)
    ran = benchmark("--method", "anoclip", "--method", "winclip", *flags)
    assert ran.code == 0, ran.err
    assert "winclip" in ran.out
    assert {"results.md", "results.csv", "results.html", "cells"} <= {path.name for path in out.iterdir()}


def test_images_are_chosen_by_name(benchmark: Command, data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    (data / "normal").rename(data / "gut")
    flags = ("--data", data, "--backbone", tiny_weights, "--size", 64, "--eval-size", 32, "--method", "anoclip")
    chosen = ("--normal-name", "gut", "--exclude", "normal1*", "--max-pixels", 1600)
    ran = benchmark(*flags, *chosen, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    (metrics,) = (tmp_path / "out").glob("cells/*/metrics.json")
    counts = json.loads(metrics.read_text())["classes"]["set"]
    assert (counts["n_normal"], counts["n_anomalous"]) == (1, 2)
    limited = benchmark(*flags, *chosen[:-1], 1599, "--out", tmp_path / "limited")
    assert limited.code == 1
    assert "no usable image found" in limited.out


def plan_file(folder: Path, weights: Path, *methods: str) -> Path:
    """Write a benchmark file for the data set in a folder, with these lines each for a method; return its path."""
    plan = folder / "b.toml"
    plan.write_text(
        f"""
        [settings]
        backbone = "{weights}"
        size = 64
        [evaluation]
        size = 32
        [[data]]
        path = "set"
        """
        + "".join(f"[[method]]\n{method}\n" for method in methods)
    )
    return plan


def test_a_file_and_a_failing_cell(benchmark: Command, data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    plan = plan_file(tmp_path, tiny_weights, 'method = "anoclip"', 'method = "no such method"')
    ran = benchmark("--config", plan, "--out", tmp_path / "out")
    assert ran.code == 1
    assert "failed: unknown method 'no such method'" in (tmp_path / "out" / "results.md").read_text()
    assert "unknown method" in ran.out


def test_its_page_links_to_the_page_of_each_cell(
    benchmark: Command,
    data: Path,
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_file(tmp_path, tiny_weights, 'method = "anoclip"', 'method = "no such method"')
    benchmark("--config", plan, "--out", tmp_path / "out")
    ran = runner(capsys, monkeypatch)("report", tmp_path / "out")
    assert ran.code == 0, ran.err
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    [link] = re.findall(r'<a href="([^"]*)">anoclip</a>', text)
    assert "Image scores" in (tmp_path / "out" / unquote(link)).read_text(encoding="utf-8")
    assert "unknown method" in text
    next((tmp_path / "out").glob("cells/*/cell.json")).write_text("[]")
    ran = runner(capsys, monkeypatch)("report", tmp_path / "out")
    assert ran.code == 2
    assert "this cell is damaged" in ran.err


def test_a_taught_part_beside_words(benchmark: Command, data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    taught = load_detector("anoclip", str(tiny_weights), size=64).fit([good_part(number) for number in range(3)])
    taught.save(tmp_path / "nut.anomalens")
    plan = plan_file(tmp_path, tiny_weights, 'recipe = "nut.anomalens"', 'method = "anoclip"')
    ran = benchmark("--config", plan, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    table = (tmp_path / "out" / "results.md").read_text()
    assert "| nut " in table
    assert "| anoclip " in table


def test_stopped_and_resumed(
    benchmark: Command, data: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    settings = ("--data", data, "--backbone", tiny_weights, "--size", 64, "--eval-size", 32, "--out", out)
    flags = (*settings, "--method", "anoclip", "--method", "winclip")
    real, calls = evaluate, 0

    def stopping(*arguments: Any, progress: Callable[[], object], **more: Any) -> Evaluation:
        def image_done() -> None:
            nonlocal calls
            calls += 1
            if calls == 6:
                raise KeyboardInterrupt
            progress()

        return real(*arguments, progress=image_done, **more)

    monkeypatch.setattr(benchmarking, "evaluate", stopping)
    ran = benchmark(*flags)
    assert ran.code == 130
    assert "the same command goes on" in ran.err
    assert "not run yet" in (out / "results.md").read_text()
    calls = 100
    assert benchmark(*flags).code == 0
    assert calls == 104
    assert "not run yet" not in (out / "results.md").read_text()


def test_wrong_usage(benchmark: Command, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert benchmark("--out", out).code == 2
    assert "not both" in benchmark("--config", "x.toml", "--method", "anoclip", "--out", out).err
    assert "x.toml" in benchmark("--config", "x.toml", "--out", out).err
    (tmp_path / "file").write_text("")
    ran = benchmark("--method", "anoclip", "--data", data, "--out", tmp_path / "file")
    assert ran.code == 2
    assert "cannot write" in ran.err
