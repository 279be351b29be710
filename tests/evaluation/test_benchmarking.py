"""The benchmark's cells: run, kept, resumed, failed; and the tables they end in."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalens.backbones.tower import Clip
from anomalens.detection.detector import Detector
from anomalens.errors import ConfigError
from anomalens.evaluation import benchmarking as benchmark
from anomalens.evaluation.benchmark_plan import BenchmarkData, BenchmarkMethod, BenchmarkPlan
from anomalens.evaluation.benchmarking import BenchmarkCell, collect, run
from anomalens.evaluation.evaluator import EvaluationConfig
from anomalens.metrics.summary import SUMMARY_KEYS
from anomalens.options import LoadOptions
from anomalens.reporting.benchmark_tables import to_markdown, write_tables
from toys import grey, make, speckled


def part(root: Path, classes: tuple[str, ...] = ("nut",), holes: int = 2) -> Path:
    for name in classes:
        for folder in ("test/good", "test/hole", "ground_truth/hole"):
            (root / name / folder).mkdir(parents=True, exist_ok=True)
        for i in range(holes):
            Image.fromarray(speckled(10 + i)).save(root / name / "test" / "good" / f"{i}.png")
            spot = speckled(10)
            spot[:32, :32, 0] = 220
            Image.fromarray(spot).save(root / name / "test" / "hole" / f"{i}.png")
            Image.fromarray((spot[..., 0] > 100).astype(np.uint8) * 255).save(
                root / name / "ground_truth" / "hole" / f"{i}_mask.png"
            )
    return root


@pytest.fixture
def loaded(tiny_clip: Clip, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every method be the toy; return the names in the order in which detectors were loaded."""
    names: list[str] = []

    def load(options: LoadOptions) -> Detector:
        names.append(options.method)
        if options.method == "broken":
            raise RuntimeError("no\nsuch weights")
        return make(tiny_clip)

    monkeypatch.setattr(benchmark, "load_detector", load)
    return names


SMALL = EvaluationConfig(size=32, gallery=1)


def plan(
    *data: Path,
    methods: tuple[str, ...] = ("anoclip", "winclip"),
    evaluation: EvaluationConfig = SMALL,
    **options: Any,
) -> BenchmarkPlan:
    lines = tuple(
        BenchmarkMethod(name, LoadOptions(**{"method": name, "backbone": "tiny", **options})) for name in methods
    )
    return BenchmarkPlan(lines, tuple(BenchmarkData(str(path)) for path in data), evaluation)


class Counter:
    """Count what is evaluated; interrupt after so many images."""

    def __init__(self, stop: int | None = None) -> None:
        self.images, self.stop = 0, stop
        self.ended: list[tuple[str, str, str, bool]] = []
        self.begun: list[str] = []

    def begin(self, cell: BenchmarkCell, images: int) -> None:
        self.begun.append(f"{cell.label} on {cell.data}")

    def image(self) -> None:
        self.images += 1
        if self.images == self.stop:
            raise KeyboardInterrupt

    def end(self, cell: BenchmarkCell, kept: bool) -> None:
        self.ended.append((cell.label, cell.data, cell.state, kept))


def test_every_cell_has_its_folder(loaded: list[str], tmp_path: Path) -> None:
    cells = run(plan(part(tmp_path / "a"), part(tmp_path / "b")), tmp_path / "out")
    assert [(c.label, c.data, c.state) for c in cells] == [
        ("anoclip", "a", "done"),
        ("anoclip", "b", "done"),
        ("winclip", "a", "done"),
        ("winclip", "b", "done"),
    ]
    assert loaded == ["anoclip", "winclip"]  # one detector a method, not one a cell
    for cell in cells:
        assert cell.metrics is not None
        assert cell.metrics["mean"] == dict.fromkeys(SUMMARY_KEYS, 100.0)
        assert {"cell.json", "metrics.json", "scores.parquet"} <= {path.name for path in cell.folder.iterdir()}
    assert len({cell.folder for cell in cells}) == 4


def test_interrupted_and_resumed(loaded: list[str], tmp_path: Path) -> None:
    whole = run(plan(part(tmp_path / "a"), part(tmp_path / "b")), tmp_path / "whole")
    wanted = plan(tmp_path / "a", tmp_path / "b")
    first = Counter(stop=10)  # in the middle of the third cell, of four images each
    with pytest.raises(KeyboardInterrupt):
        run(wanted, tmp_path / "out", first)
    assert [state for *_, state, _ in first.ended] == ["done", "done"]
    states = [cell.state for cell in collect(wanted, tmp_path / "out")]
    assert states == ["done", "done", "not run", "not run"]
    write_tables(collect(wanted, tmp_path / "out"), tmp_path / "out")
    assert (tmp_path / "out" / "results.md").read_text().count("not run yet") == 2
    loaded.clear()
    second = Counter()
    cells = run(wanted, tmp_path / "out", second)
    assert second.images == 8
    assert [kept for *_, kept in second.ended] == [True, True, False, False]
    assert loaded == ["winclip"]
    assert [cell.metrics for cell in cells] == [cell.metrics for cell in whole]
    assert not list((tmp_path / "out").rglob(".writing-*"))
    third = Counter()
    run(wanted, tmp_path / "out", third)
    assert (third.images, loaded) == (0, ["winclip"])


def test_a_cell_is_run_again_when_what_decides_its_numbers_changed(loaded: list[str], tmp_path: Path) -> None:
    data, out = part(tmp_path / "a"), tmp_path / "out"

    def images(wanted: BenchmarkPlan) -> int:
        counter = Counter()
        run(wanted, out, counter)
        return counter.images

    methods = ("anoclip",)
    assert images(plan(data, methods=methods)) == 4
    assert images(plan(data, methods=methods, batch_size=2, device="cpu", workers=1)) == 0
    assert images(plan(data, methods=methods, size=32)) == 4
    assert images(plan(data, methods=methods, size=32, fast_jpeg=True)) == 4
    assert images(plan(data, methods=methods, size=32, threshold=0.5)) == 4
    assert images(plan(data, methods=methods, method_options={"views": 1})) == 4
    assert images(plan(data, methods=methods, evaluation=EvaluationConfig(size=16))) == 4
    Image.fromarray(grey(77)).save(data / "nut" / "test" / "good" / "0.png")
    assert images(plan(data, methods=methods, evaluation=EvaluationConfig(size=16))) == 4
    (tmp_path / "w.safetensors").write_bytes(b"1")
    assert images(plan(data, methods=methods, checkpoint=str(tmp_path / "w.safetensors"))) == 4
    (tmp_path / "w.safetensors").write_bytes(b"22")
    assert images(plan(data, methods=methods, checkpoint=str(tmp_path / "w.safetensors"))) == 4
    (cell,) = (tmp_path / "out" / "cells").iterdir()
    (cell / "metrics.json").write_text("{")
    assert images(plan(data, methods=methods, checkpoint=str(tmp_path / "w.safetensors"))) == 4


def test_new_shipped_weights_are_other_weights(
    loaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "BUNDLED_FILES", tmp_path)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "calibration.json").write_text("{}")
    wanted = plan(part(tmp_path / "a"), methods=("crane",), backbone="bundled")

    def images_measured() -> int:
        counter = Counter()
        run(wanted, tmp_path / "out", counter)
        return counter.images

    for content, images in ((b"first", 4), (b"first", 0), (b"second", 4)):
        (tmp_path / "prompts" / "crane.safetensors").write_bytes(content)
        assert images_measured() == images
    (tmp_path / "calibration.json").write_text('{"weights": "others"}')
    assert images_measured() == 4
    (tmp_path / "prompts" / "winclip.safetensors").write_bytes(b"prompts of another method")
    assert images_measured() == 0


def test_what_fails_is_a_row_and_the_others_run(loaded: list[str], tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.fromarray(grey(1)).save(flat / "1.png")
    wanted = plan(part(tmp_path / "a"), flat, tmp_path / "nowhere", methods=("broken", "anoclip"))
    cells = run(wanted, tmp_path / "out")
    reasons = {(cell.label, cell.data): cell.reason for cell in cells}
    assert reasons["broken", "a"] == "RuntimeError: no such weights"
    assert reasons["anoclip", "a"] == ""
    assert "no labelled test image" in reasons["anoclip", "flat"]
    assert "no such file or folder" in reasons["anoclip", "nowhere"]
    assert [cell.state for cell in cells].count("done") == 1
    assert loaded == ["broken", "anoclip"]
    text = to_markdown(cells)
    assert "| broken | a | - | - | - | - | - | - | - | - | - | - | - | failed: RuntimeError: no such weights |" in text
    part(flat.parent / "nowhere")
    counter = Counter()
    run(wanted, tmp_path / "out", counter)  # failures are tried again, successes are not
    assert counter.begun == ["anoclip on nowhere"]


def test_an_error_in_the_middle_leaves_its_trace(
    loaded: list[str], tiny_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst(*_: Any, **__: Any) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr(benchmark, "evaluate", burst)
    (cell,) = run(plan(part(tmp_path / "a"), methods=("anoclip",)), tmp_path / "out")
    assert (cell.state, cell.reason) == ("failed", "MemoryError: too large")
    assert "burst" in (cell.folder / "error.txt").read_text()
    assert json.loads((cell.folder / "cell.json").read_text())["reason"] == "MemoryError: too large"
    monkeypatch.undo()
    monkeypatch.setattr(benchmark, "load_detector", lambda options: make(tiny_clip))
    (cell,) = run(plan(tmp_path / "a", methods=("anoclip",)), tmp_path / "out")
    assert cell.state == "done"
    assert not (cell.folder / "error.txt").exists()  # that of the run before is gone


def test_names_must_tell_things_apart(loaded: list[str], tmp_path: Path) -> None:
    first, second = part(tmp_path / "x" / "a"), part(tmp_path / "y" / "a")
    with pytest.raises(ConfigError, match="several data sets are called 'a'"):
        run(plan(first, second), tmp_path / "out")
    with pytest.raises(ConfigError, match="several methods are called 'anoclip'"):
        plan(first, methods=("anoclip", "anoclip"))
    with pytest.raises(ConfigError, match="at least one"):
        plan(methods=("anoclip",))
    data = (BenchmarkData(str(first), "left / right"), BenchmarkData(str(second), "left \\ right"))
    named = BenchmarkPlan(plan(first).methods, data)
    cells = run(named, tmp_path / "out")
    assert len({cell.folder for cell in cells}) == 4


def seen_by(tiny_clip: Clip, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every method be the toy; return the names of the images that it is asked about."""
    names: list[str] = []

    def load(options: LoadOptions) -> Detector:
        detector = make(tiny_clip)
        prepare = detector.prepare

        def noted(image: Any, *arguments: Any, **keywords: Any) -> Any:
            names.append(str(image))
            return prepare(image, *arguments, **keywords)

        object.__setattr__(detector, "prepare", noted)
        return detector

    monkeypatch.setattr(benchmark, "load_detector", load)
    return names


def test_a_stopped_cell_goes_on_at_the_next_image(
    tiny_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = seen_by(tiny_clip, monkeypatch)
    data, small = part(tmp_path / "a", classes=("bolt", "nut"), holes=3), EvaluationConfig(size=32, gallery=0)
    wanted = plan(data, methods=("anoclip",), evaluation=small, batch_size=1, workers=1)
    (whole,) = run(wanted, tmp_path / "whole")
    everything = len(seen)
    for stop in (2, 8):  # in the first class, and in the second
        with pytest.raises(KeyboardInterrupt):
            run(wanted, tmp_path / "out", Counter(stop=stop))
    seen.clear()
    counter = Counter()
    (cell,) = run(wanted, tmp_path / "out", counter)
    assert counter.images == everything == 12  # what was kept counts as done
    assert len(seen) == 4
    assert cell.metrics == whole.metrics
    assert (cell.folder / "scores.csv").read_text() == (whole.folder / "scores.csv").read_text()
    assert not (cell.folder / "unfinished").exists()


def test_what_was_measured_with_other_settings_or_is_damaged_is_measured_again(
    tiny_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = seen_by(tiny_clip, monkeypatch)
    data, out, small = part(tmp_path / "a", holes=3), tmp_path / "out", EvaluationConfig(size=32, gallery=0)
    wanted = plan(data, methods=("anoclip",), evaluation=small, batch_size=1, workers=1)
    with pytest.raises(KeyboardInterrupt):
        run(wanted, out, Counter(stop=4))
    (kept,) = out.rglob("*.safetensors")
    content = kept.read_bytes()
    for damaged in (content[:-20], b"", b"no archive", content[:40] + b"\0" * 40 + content[80:]):
        kept.write_bytes(damaged)
        seen.clear()
        with pytest.raises(KeyboardInterrupt):
            run(wanted, out, Counter(stop=4))
        assert len(seen) >= 4
    seen.clear()
    run(plan(data, methods=("anoclip",), evaluation=small, batch_size=1, size=32), out)
    assert len(seen) == 6


def test_a_trial_takes_a_few_images_of_each_label_and_class(loaded: list[str], tmp_path: Path) -> None:
    data = part(tmp_path / "kvasir", classes=("bolt", "nut"), holes=3)
    limited = replace(plan(data, methods=("anoclip",)), data=(BenchmarkData(str(data), limit=2),))
    counter = Counter()
    (cell,) = run(limited, tmp_path / "out", counter)
    assert counter.images == 8
    assert cell.metrics is not None
    assert {name: (row["n_normal"], row["n_anomalous"]) for name, row in cell.metrics["classes"].items()} == {
        "bolt": (2, 2),
        "nut": (2, 2),
    }
    # No source states how many images this set has, and a part of it is a part all the same.
    assert cell.incomplete[0] == "at most 2 images of each label and class"
    (whole,) = run(plan(data, methods=("anoclip",)), tmp_path / "out")
    assert whole.metrics != cell.metrics
    with pytest.raises(ConfigError, match="limit 0 must be at least 1 image"):
        BenchmarkData("x", limit=0)


def test_of_what_authors_published_each_data_set_gets_what_did_not_learn_from_it(
    tiny_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def load(options: LoadOptions) -> Detector:
        asked.append(options.checkpoint)
        return make(tiny_clip)

    monkeypatch.setattr(benchmark, "load_detector", load)
    options = LoadOptions(method="crane", backbone="ViT-L-14-336")
    data = tuple(BenchmarkData(str(part(tmp_path / name))) for name in ("mvtec", "mpdd", "VisA_20220922"))
    chosen = BenchmarkPlan((BenchmarkMethod("crane", options),), data, SMALL)
    assert {cell.state for cell in run(chosen, tmp_path / "out")} == {"done"}
    # One detector serves both data sets that nothing was learned from.
    assert asked == ["crane:visa", "crane:mvtec"]
    assert {cell.state for cell in collect(chosen, tmp_path / "out")} == {"done"}
    # With a checkpoint of one's own, these are other cells.
    own = BenchmarkPlan((BenchmarkMethod("crane", options.replace(checkpoint="crane:mvtec")),), data[:1], SMALL)
    assert {cell.state for cell in collect(own, tmp_path / "out")} == {"not run"}
