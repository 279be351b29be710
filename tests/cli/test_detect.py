"""`anomalens detect` from the outside: exit status, files, messages, every kind of bad input."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from anomalens.cli import main


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    def call(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["anomalens", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        return Ran(code, *capsys.readouterr())

    return call


@pytest.fixture
def detect(run: Callable[..., Ran], tiny_weights: Path) -> Callable[..., Ran]:
    return lambda *arguments: run("detect", "--backbone", tiny_weights, "--method", "anoclip", "--size", 64, *arguments)


def picture(path: Path, value: int = 90, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path, **options)
    return path


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_folder(detect: Callable[..., Ran], tmp_path: Path) -> None:
    paths = [picture(tmp_path / "in" / name, i) for i, name in enumerate(["a/1.png", "a/2.jpg", "b/1.png"])]
    ran = detect(tmp_path / "in", "--out", tmp_path / "out", "--maps", "png", "--threshold", 0.2)
    assert ran.code == 0, ran.err
    written = rows(tmp_path / "out")
    assert [row["path"] for row in written] == [str(p) for p in paths]
    for row in written:
        assert (row["method"], row["threshold"], row["threshold_source"]) == ("anoclip", 0.2, "given by the user")
        assert (row["width"], row["height"]) == (40, 30)
        for key in ("heatmap", "mask", "map"):
            assert (tmp_path / "out" / row[key]).is_file()
    settings = json.loads((tmp_path / "out" / "run.json").read_text())
    assert settings["settings"]["weights"]
    assert settings["images_per_second"] > 0
    assert "anomalous" in ran.out


def test_the_page_at_the_end_of_a_run(detect: Callable[..., Ran], tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    ran = detect(tmp_path / "in", "--out", tmp_path / "out", "--report")
    assert ran.code == 0, ran.err
    assert f"written: {tmp_path / 'out' / 'report.html'}" in ran.err
    assert 'data-name="a.png"' in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_further_formats_at_the_end_of_a_run(detect: Callable[..., Ran], tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    ran = detect(tmp_path / "in", "--out", tmp_path / "out", "--format", "jsonl,csv,xlsx,parquet", "--format", "coco")
    assert ran.code == 0, ran.err
    for name in ("predictions.csv", "regions.csv", "predictions.xlsx", "predictions.parquet", "coco.json"):
        assert f"written: {tmp_path / 'out' / name}" in ran.err
        assert (tmp_path / "out" / name).is_file()
    ran = detect(tmp_path / "in", "--out", tmp_path / "other", "--format", "xls")
    assert ran.code == 2
    assert "unknown format 'xls'" in ran.err
    assert not (tmp_path / "other").exists()


def test_mixed_inputs_keep_their_order(detect: Callable[..., Ran], tmp_path: Path) -> None:
    z = picture(tmp_path / "z ü\n.png", 1)
    a = picture(tmp_path / "x" / "a.png", 2)
    ran = detect(z, tmp_path / "x", tmp_path / "x" / "*.png", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert [row["path"] for row in rows(tmp_path / "out")] == [str(z), str(a), str(a)]


def test_bad_images_have_rows_and_the_others_are_done(detect: Callable[..., Ran], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    picture(folder / "good.png")
    (folder / "empty.png").write_bytes(b"")
    whole = picture(tmp_path / "whole.jpg", 5, size=(400, 300)).read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 3])
    (folder / "text.jpg").write_text("not an image")
    picture(folder / "mislabelled.png", 3, format="JPEG")
    picture(folder / "one.png", 4, size=(1, 1))
    picture(folder / "palette.gif", 6, mode="P")
    picture(folder / "alpha.png", 7, mode="RGBA")
    picture(folder / "cmyk.jpg", 8, mode="CMYK")
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50).save(folder / "deep.png")
    Image.fromarray(np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40)).save(folder / "float.tif")
    ran = detect(folder, "--out", tmp_path / "out")
    assert ran.code == 1
    by_name = {Path(row["path"]).name: row for row in rows(tmp_path / "out")}
    assert len(by_name) == 11
    failed = {name for name, row in by_name.items() if "error" in row}
    assert failed == {"empty.png", "truncated.jpg", "text.jpg"}
    for name in failed:
        assert name in by_name[name]["error"]
        assert "\n" not in by_name[name]["error"]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["counts"]["failed"] == 3


def test_interrupted_then_resumed(detect: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        picture(tmp_path / "in" / f"{i}.png", i)
    from anomalens.runs.folder import JsonLines
    from anomalens.runs.store import RunCounts

    real, count = JsonLines.append, 0

    def interrupted(self: JsonLines, items: list[dict[str, Any]]) -> RunCounts:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return real(self, items)

    monkeypatch.setattr(JsonLines, "append", interrupted)
    ran = detect(tmp_path / "in", "--out", tmp_path / "out")
    assert ran.code == 130
    assert "--resume" in ran.err
    monkeypatch.setattr(JsonLines, "append", real)
    assert len(rows(tmp_path / "out")) == 2
    assert detect(tmp_path / "in", "--out", tmp_path / "out").code == 2
    assert detect(tmp_path / "in", "--out", tmp_path / "out", "--resume").code == 0
    assert [Path(row["path"]).name for row in rows(tmp_path / "out")] == [f"{i}.png" for i in range(5)]


def test_a_full_disk_stops_with_a_reason(
    detect: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "in" / "a.png")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("anomalens.runs.folder.JsonLines.append", full)
    ran = detect(tmp_path / "in", "--out", tmp_path / "out")
    assert ran.code == 1
    assert "No space left" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["in", "--out", "file/out"], "cannot write"),
        (["nowhere", "--out", "out"], "nowhere"),
        (["empty", "--out", "out"], "no images"),
        (["in", "--out", "out", "--method", "nonsense"], "unknown method"),
        (["in", "--out", "out", "--device", "cuda:77"], "cuda:77"),
        (["in", "--out", "out", "--tile", "3"], "tile"),
        (["in", "--out", "out", "--batch-size", "0"], "batch-size"),
        (["in", "--out", "out", "--object", " "], "object_name"),
        (["in", "--out", "out", "--set", "seed=3"], "seed is no option of a method"),
        (["in", "--out", "out", "--threshold", "nan"], "finite"),
        (["in"], "--out"),
    ],
)
def test_wrong_usage_is_status_2_in_one_line(
    detect: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    ran = detect(*arguments)
    assert ran.code == 2
    assert reason in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out" / "predictions.jsonl").exists()


@pytest.mark.parametrize("fault", ["truncated", "shape", "nan", "missing"])
def test_bad_weights_are_named(run: Callable[..., Ran], tiny_weights: Path, tmp_path: Path, fault: str) -> None:
    picture(tmp_path / "in" / "a.png")
    path = tmp_path / "weights.safetensors"
    if fault == "truncated":
        path.write_bytes(tiny_weights.read_bytes()[:5000])
    elif fault != "missing":
        state = load_file(tiny_weights)
        state["visual.proj"] = state["visual.proj"][:-1].clone() if fault == "shape" else state["visual.proj"] * np.nan
        from safetensors import safe_open

        with safe_open(tiny_weights, "pt") as opened:
            save_file(state, path, opened.metadata())
    ran = run("detect", tmp_path / "in", "--out", tmp_path / "out", "--backbone", path, "--method", "anoclip")
    assert ran.code == 2
    assert "weights.safetensors" in ran.err or "visual.proj" in ran.err
    assert "Traceback" not in ran.err


def test_offline_names_the_file_wanted(run: Callable[..., Ran], tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    ran = run(
        "detect",
        tmp_path / "in",
        "--out",
        tmp_path / "out",
        "--backbone",
        "ViT-B-16",
        "--method",
        "anoclip",
        "--offline",
    )
    assert ran.code == 2
    assert "MB" in ran.err


def test_seed_is_taken_by_methods_that_draw_nothing(detect: Callable[..., Ran], tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    assert detect(tmp_path / "in", "--out", tmp_path / "out", "--method", "winclip", "--seed", 5).code == 0


def test_method_options_by_name(detect: Callable[..., Ran], tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    common = (tmp_path / "in", "--out", tmp_path / "out", "--set")
    for wrong, reason in (("views", "NAME=VALUE"), ("nonsense=1", "nonsense"), ("views=3", "views")):
        ran = detect(*common, wrong)
        assert ran.code == 2
        assert reason in ran.err
    assert detect(*common, "views=1", "--set", "geometry=squash").code == 0
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    assert settings["method_options"]["views"] == 1


def test_the_summary_names_the_worst_images_and_what_could_not_be_judged(
    detect: Callable[..., Ran], tmp_path: Path
) -> None:
    for number in range(7):
        picture(tmp_path / "in" / f"{number}.png", number)
    for name in ("black0.png", "black1.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / "in" / name)
    Image.new("RGB", (40, 30), "white").save(tmp_path / "in" / "white.png")
    ran = detect(tmp_path / "in", "--out", tmp_path / "out", "--threshold", 0.01)
    assert ran.code == 0, ran.err
    facts = dict(line.split("\t") for line in ran.out.splitlines())
    assert (facts["anomalous"], facts["normal"]) == ("7", "0")
    assert facts["unusable"] == "2 (the image is black), 1 (the image is white)"
    assert facts["threshold"] == "0.0100: given by the user"
    by_score = sorted(rows(tmp_path / "out"), key=lambda row: (row["label"] != "anomalous", -row["score"]))
    assert facts["worst"] == ", ".join(f"{row['path']} ({row['score']:.4f})" for row in by_score[:5])
    again = json.loads(
        detect(tmp_path / "in", "--out", tmp_path / "out", "--threshold", 0.01, "--resume", "--json").out
    )
    assert again["unusable"] == 3
    assert [entry["path"] for entry in again["worst"]] == [row["path"] for row in by_score[:5]]


def test_options_that_do_not_do_what_one_expects_are_remarked(
    run: Callable[..., Ran], detect: Callable[..., Ran], tmp_path: Path
) -> None:
    picture(tmp_path / "in" / "a.png")
    ran = run("detect", tmp_path / "in", "--out", tmp_path / "1", "--size", 64, "--object", "nut", "--threshold", 40)
    assert ran.code == 0
    assert "--object 'nut' is written down and changes no score: crane calls every object alike" in ran.err
    assert "--threshold 40 lies outside what crane usually gives" in ran.err
    assert "may be called normal" in ran.err
    assert "judged by words alone; a few good photos make decisions much better" in ran.err
    ran = detect(tmp_path / "in", "--out", tmp_path / "2", "--object", "nut", "--threshold", 0.49)
    assert "--object" not in ran.err
    assert "--threshold" not in ran.err


def test_a_method_that_needs_good_photos_says_so(detect: Callable[..., Ran], tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    for name in ("memory", "anomalydino"):
        ran = detect(tmp_path / "in", "--out", tmp_path / "out", "--method", name)
        assert ran.code == 2
        assert f"{name} compares with good photos and has none" in ran.err
        assert not (tmp_path / "out").exists()


def test_a_tile_that_the_images_fit_into_is_no_other_setting(run: Callable[..., Ran], tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png", size=(100, 80))
    picture(tmp_path / "in" / "b.png", size=(300, 80))
    common = ("detect", tmp_path / "in", "--size", 64, "--tile", 128, "--out", tmp_path / "out")
    assert run(*common).code == 0
    whole, cut = (row["threshold_source"] for row in rows(tmp_path / "out"))
    assert "tile" not in whole
    assert cut.endswith("not made for size=64, tile=128")


def test_tiles(detect: Callable[..., Ran], tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png", size=(200, 130))
    assert detect(tmp_path / "in", "--out", tmp_path / "out", "--tile", 64).code == 0
    (row,) = rows(tmp_path / "out")
    assert Image.open(tmp_path / "out" / row["mask"]).size == (200, 130)


@pytest.mark.parametrize("engine", ["auto", "local", "onnx", "torch"])
def test_the_record_says_what_computed(run: Callable[..., Ran], tmp_path: Path, engine: str) -> None:
    image = picture(tmp_path / "a.png")
    assert run("detect", image, "--out", tmp_path / "out", "--size", 48, "--engine", engine).code == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["engine"] == ("torch" if engine == "torch" else "onnx")
    assert "engine" not in record["settings"], "a run may go on with another engine"


def test_an_engine_that_cannot_do_what_is_asked_for_says_so(run: Callable[..., Ran], tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    refused = run("detect", image, "--out", tmp_path / "out", "--engine", "openvino", "--method", "winclip")
    assert refused.code == 2
    assert "which does not serve the method 'winclip'; leave the engine out, or take 'torch'" in refused.err


def test_lists(run: Callable[..., Ran]) -> None:
    methods = run("methods")
    assert methods.code == 0
    for name in ("anoclip", "anoclip+", "winclip"):
        assert name in methods.out
    backbones = run("backbones")
    assert backbones.code == 0
    assert "ViT-L-14" in backbones.out
    info = run("info")
    assert info.code == 0
    assert "torch" in info.out
    assert run("--version").out.startswith("anomalens ")
    assert run("nonsense").code == 2
