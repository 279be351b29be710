"""Detectors from files: without torch, on the command line, and what is said of files that cannot be used."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from anomalens.detection.loading import load_detector
from anomalens.errors import ConfigError, MissingExtraError, WeightsError
from anomalens.export import graph
from anomalens.export.exporter import export
from commands import Command, runner

run = pytest.fixture(runner)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundled backbone at a small size for both runtimes, and a picture."""
    folder = tmp_path_factory.mktemp("models")
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "picture.png")
    detector = load_detector("anoclip", object_name="bottle", size=64, views=1, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "export_program", one_export(graph.export_program))
        for name in ("m.onnx", "m.xml"):
            report = export(detector, folder / name, [folder / "picture.png"])
            assert report.passed, report
    return folder


def one_export(real: Callable[[graph.Graph], Any]) -> Callable[[graph.Graph], Any]:
    """Export once for both formats, because the exporter takes seconds."""
    kept: list[Any] = []

    def remembered(source: graph.Graph) -> Any:
        kept[:] = kept or [real(source)]
        return kept[0]

    return remembered


def test_the_bundled_backbone_from_a_file(models: Path) -> None:
    picture = models / "picture.png"
    want = load_detector("anoclip", object_name="bottle", size=64, views=1, device="cpu").predict(picture)
    for name in ("m.onnx", "m.xml"):
        detector = load_detector(str(models / name))
        got = detector.predict(picture)
        assert got.score == pytest.approx(want.score, abs=1e-3)
        assert np.abs(got.anomaly_map - want.anomaly_map).max() <= 1e-3 * np.ptp(want.anomaly_map)
        assert got.to_dict()["object"] == "bottle"
        assert (got.threshold, got.threshold_source) == (want.threshold, want.threshold_source)
        assert detector.for_object("bottle").predict(picture).score == got.score


@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
def test_torch_is_never_imported(models: Path, tmp_path: Path, name: str) -> None:
    code = (
        "import sys; from anomalens import load_detector\n"
        f"found = load_detector({str(models / name)!r}).predict({str(models / 'picture.png')!r})\n"
        "assert 0 <= found.score <= 1 and 'torch' not in sys.modules\n"
        f"sys.argv = ['anomalens', 'detect', {str(models / 'picture.png')!r}, '--method', {str(models / name)!r},"
        f" '--out', {str(tmp_path / 'out')!r}]\n"
        "from anomalens.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    versions = json.loads((tmp_path / "out" / "run.json").read_text())["versions"]
    assert "torch" not in versions
    assert {"onnxruntime", "openvino"} & set(versions)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"object_name": "nut"}, "exported for objects called 'bottle'"),
        ({"size": 96}, "size cannot be changed"),
        ({"also": 96}, "also cannot be changed"),
        ({"seed": 3}, "seed cannot be changed"),
        ({"backbone": "ViT-B-16"}, "backbone cannot be changed"),
        ({"checkpoint": "c.safetensors", "views": 1}, "checkpoint, views cannot be changed"),
        ({"dtype": "bfloat16"}, "not in bfloat16"),
        ({"device": "nonsense"}, "ONNX Runtime has cpu"),
    ],
)
def test_what_the_file_has_settled(models: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_detector(str(models / "m.onnx"), **options)


def test_openvino_has_devices_and_a_second_precision(models: Path) -> None:
    with pytest.raises(ConfigError, match="OpenVINO has"):
        load_detector(str(models / "m.xml"), device="nonsense")
    half = load_detector(str(models / "m.xml"), device="cpu", dtype="bfloat16")
    assert half.settings["dtype"] == "bfloat16"
    whole = load_detector(str(models / "m.xml"), device="cpu")
    # Of noise the map is nearly flat, so there would be little but rounding to compare.
    sheet = np.full((90, 120, 3), 170, np.uint8)
    sheet[30:60, 40:80] = 20
    maps = [detector.predict(sheet).anomaly_map.ravel() for detector in (whole, half)]
    assert stats.pearsonr(*maps).statistic > 0.8


def test_thresholds_are_data_beside_the_graph(models: Path) -> None:
    prediction = load_detector(str(models / "m.onnx"), threshold=0.99, pixel_threshold=0.98).predict(
        models / "picture.png"
    )
    assert (prediction.threshold, prediction.pixel_threshold, prediction.threshold_source) == (
        0.99,
        0.98,
        "given by the user",
    )


def test_without_the_extra_the_remedy_is_named(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'anomalens\[openvino\]'"):
        load_detector(str(models / "m.xml"))


def copied(models: Path, folder: Path, name: str) -> Path:
    for path in models.glob(f"{Path(name).stem}.*"):
        shutil.copy(path, folder)
    return folder / name


@pytest.mark.parametrize(
    ("name", "part", "damage", "reason"),
    [
        ("m.onnx", "m.onnx", None, "no such file"),
        ("m.xml", "m.bin", None, "no such file"),
        ("m.onnx", "m.onnx.json", None, "not beside it"),
        ("m.onnx", "m.onnx", "cut", "do not belong together"),
        ("m.xml", "m.bin", "cut", "do not belong together"),
        ("m.onnx", "m.onnx.json", "cut", "export it again"),
        ("m.onnx", "m.onnx.json", '{"schema": 99}', "schema 99"),
        ("m.onnx", "m.onnx.json", '{"schema": 1}', "export it again"),
        ("m.onnx", "m.onnx.json", "[]", "export it again"),
    ],
)
def test_files_that_cannot_be_used(
    models: Path, tmp_path: Path, name: str, part: str, damage: str | None, reason: str
) -> None:
    path, broken = copied(models, tmp_path, name), tmp_path / part
    if damage is None:
        broken.unlink()
    elif damage == "cut":
        broken.write_bytes(broken.read_bytes()[:-100])
    else:
        broken.write_text(damage)
    with pytest.raises(WeightsError, match=reason):
        load_detector(str(path))


@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
def test_a_graph_the_runtime_cannot_read(models: Path, tmp_path: Path, name: str) -> None:
    path = copied(models, tmp_path, name)
    path.write_text("no graph")
    card = json.loads((tmp_path / f"{name}.json").read_text())
    card["sha256"][path.suffix] = hashlib.sha256(b"no graph").hexdigest()
    (tmp_path / f"{name}.json").write_text(json.dumps(card))
    with pytest.raises(WeightsError, match="cannot read it"):
        load_detector(str(path))


# ------------------------------------------------------------------------------------------------- command line


def test_the_command_writes_compares_and_says_so(
    run: Command, tiny_weights: Path, models: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.onnx"
    tiny = ("--backbone", tiny_weights, "--method", "anoclip", "--size", 64, "--set", "views=1")
    ran = run("export", *tiny, "--check", models / "picture.png", "--out", out)
    assert ran.code == 0, ran.err
    assert "map differs by at most" in ran.out
    assert f"written to {out}" in ran.out
    ran = run("detect", models / "picture.png", "--method", out, "--out", tmp_path / "results")
    assert ran.code == 0, ran.err
    again = run("export", "--method", out, "--check", models / "picture.png", "--out", tmp_path / "b.onnx")
    assert again.code == 2
    assert "exported one already" in again.err


def test_a_graph_that_differs_is_status_1(
    run: Command, tiny_weights: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomalens.export.exporter.LIMIT", -1.0)
    monkeypatch.setattr("anomalens.export.exporter.write_onnx", lambda _, path: shutil.copy(models / "m.onnx", path))
    tiny = ("--backbone", tiny_weights, "--method", "anoclip", "--size", 64, "--set", "views=1")
    ran = run("export", *tiny, "--check", models / "picture.png", "--out", tmp_path / "a.onnx")
    assert ran.code == 1
    assert "nothing was written" in ran.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--out", "a.xml"], "do not fit"),
        (["--format", "openvino", "--out", "a.onnx"], "do not fit"),
        (["--format", "tflite", "--out", "a.tflite"], "tflite"),
        (["--out", "a.pt"], "is called"),
        (["--out", "nowhere/a.onnx"], "is no folder"),
        (["--out", "a.onnx", "--check", "nowhere"], "nowhere"),
        (["--out", "a.onnx", "--set", "geometry=wide"], "keeps the aspect"),
        ([], "--out"),
    ],
)
def test_wrong_usage_is_status_2(
    run: Command, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture)
    ran = run("export", "--backbone", tiny_weights, "--method", "anoclip", "--check", picture, *arguments)
    assert ran.code == 2
    assert reason in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]
