"""Measuring a detector on folders made by hand: the toy's scores are the brightness, so every number is known."""

import copy
import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from anomalens.backbones.tower import Clip
from anomalens.datasets.layouts import Sample, open_dataset, read_truth
from anomalens.detection.detector import Detector
from anomalens.errors import ConfigError, InputError, MissingExtraError
from anomalens.evaluation.evaluator import EvaluationConfig, evaluate
from anomalens.evaluation.gallery import MASK_COLOURS
from anomalens.evaluation.result import Evaluation
from anomalens.evaluation.stored import read_evaluation
from anomalens.files import file_key
from anomalens.images.maps import resize_map
from anomalens.metrics.summary import SUMMARY_KEYS, aupimo, pixel_intervals
from anomalens.prediction import Prediction
from toys import grey, make, speckled

SMALL = EvaluationConfig(size=32)


@pytest.fixture
def detector(tiny_clip: Clip) -> Detector:
    return make(tiny_clip)


def with_identity(detector: Detector, **facts: Any) -> Detector:
    """Return the same detector, saying other things of what it has learned."""
    engine = copy.copy(detector.engine)
    engine.identity = replace(engine.identity, **facts)  # type: ignore[misc]
    return detector.replace(engine=engine)


def picture(path: Path, value: int, spot: int | None = None) -> Path:
    """Write a 64 x 64 image whose red is `value` everywhere; `spot` is that of its upper left quarter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = speckled(value)
    if spot is not None:
        pixels[:32, :32, 0] = spot
    Image.fromarray(pixels).save(path)
    return path


def mask(path: Path, right: bool = True) -> Path:
    """Return the upper left quarter; else the lower right one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((64, 64), np.uint8)
    pixels[(slice(0, 32),) * 2 if right else (slice(32, 64),) * 2] = 255
    Image.fromarray(pixels).save(path)
    return path


def part(root: Path, name: str, normal: int = 2, holes: int = 2, masks: bool = True) -> Path:
    """Return a class of MVTec's layout that the toy method solves perfectly."""
    for i in range(normal):
        picture(root / name / "test" / "good" / f"{i}.png", 10 + i)
    for i in range(holes):
        picture(root / name / "test" / "hole" / f"{i}.png", 10, spot=200 + i)
        if masks:
            mask(root / name / "ground_truth" / "hole" / f"{i}_mask.png")
    return root


def run(detector: Detector, root: Path, config: EvaluationConfig = SMALL, **more: Any) -> Evaluation:
    return evaluate(detector, open_dataset(root), config, **more)


def test_a_perfect_class_and_the_schema(detector: Detector, tmp_path: Path) -> None:
    evaluation = run(detector, part(tmp_path / "set", "nut"))
    evaluation.write(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    names = ["dataset", "method", "backbone", "protocol", "classes", "mean", "intervals", "decisions"]
    assert list(content) == names
    assert (content["dataset"], content["method"], content["backbone"]) == ("set", "brightness", "tiny")
    assert list(content["classes"]["nut"]) == ["n_normal", "n_anomalous", *SUMMARY_KEYS, "decisions"]
    decisions = {"found": 0, "missed": 2, "false_alarms": 0, "passed": 2, "unusable": 0}
    numbers = {"n_normal": 2, "n_anomalous": 2} | dict.fromkeys(SUMMARY_KEYS, 100.0)
    assert content["classes"]["nut"] == numbers | {"decisions": decisions}
    assert content["decisions"] == decisions
    assert content["mean"] == dict.fromkeys(SUMMARY_KEYS, 100.0)
    assert content["intervals"]["nut"] == {key: [100.0, 100.0] for key in SUMMARY_KEYS[:3]}


def test_the_protocol_keeps_the_names_it_always_had_and_takes_in_every_setting(
    detector: Detector, tmp_path: Path
) -> None:
    options = detector.options.replace(tile=48, overlap=0.5)
    detector = detector.replace(options=options, extra_sizes=(96,))
    protocol = run(detector, part(tmp_path, "nut")).protocol
    fixed = {
        "layout": "mvtec",
        "auxiliary_data": None,
        "same_data_allowed": False,
        "image_size": 64,
        "also": [96],
        "geometry": "squash",
        "interpolation": "bicubic",
        "tile": 48,
        "overlap": 0.5,
        "precision": "float32",
        "evaluation_size": 32,
        "mask_rule": "not black; antialiased bilinear to the evaluation size, above one half",
        "aupro_limit": 0.3,
        "pixel_mode": "histogram",
        "prompts": {"object": "object", "options": {}},
        "seed": 0,
        "faults": 0,
        "failed_images": 0,
    }
    assert {name: protocol[name] for name in fixed} == fixed
    assert {"weights", "versions"} <= protocol.keys()
    kept = protocol["calibration"]
    assert (kept["threshold"], kept["pixel_threshold"], kept["heat_range"], kept["pooling"]) == (
        0.5,
        0.6,
        [0.0, 1.0],
        0,
    )
    renamed = {"size", "extra_sizes", "dtype", "object_name", "method_options", "pooling", "top", "method", "backbone"}
    assert detector.settings.keys() - renamed <= protocol.keys()
    assert not renamed & protocol.keys()


def test_known_numbers(detector: Detector, tmp_path: Path) -> None:
    root = tmp_path / "set"
    picture(root / "normal" / "a.png", 50)
    picture(root / "normal" / "b.png", 150)
    picture(root / "anomalous" / "c.png", 100)
    picture(root / "anomalous" / "d.png", 200)
    (name,) = (evaluation := run(detector, root)).classes
    values = evaluation.classes[name]
    assert values["image_auroc"] == pytest.approx(75.0)  # 3 of 4 pairs in order
    assert values["image_ap"] == pytest.approx(100 * (1 / 2 + 1 / 2 * 2 / 3))
    assert values["image_f1max"] == pytest.approx(80.0)
    assert [values[k] for k in SUMMARY_KEYS[3:]] == [None] * 5  # no mask at all


def test_classes_are_averaged_where_defined(detector: Detector, tmp_path: Path) -> None:
    part(tmp_path, "both")
    part(tmp_path, "no normals", normal=0)
    part(tmp_path, "no masks", masks=False)
    part(tmp_path, "only normals", holes=0)
    evaluation = run(detector, tmp_path)
    assert list(evaluation.classes) == ["both", "no masks", "no normals", "only normals"]
    defined = {name: [k for k in SUMMARY_KEYS if v[k] is not None] for name, v in evaluation.classes.items()}
    assert defined["both"] == list(SUMMARY_KEYS)
    assert defined["no normals"] == list(SUMMARY_KEYS[3:])
    assert defined["no masks"] == list(SUMMARY_KEYS[:3])
    assert defined["only normals"] == []
    assert evaluation.mean == dict.fromkeys(SUMMARY_KEYS, 100.0)


def test_an_anomalous_image_without_mask_is_not_counted_as_clean(detector: Detector, tmp_path: Path) -> None:
    part(tmp_path, "nut")
    picture(tmp_path / "nut" / "test" / "hole" / "9.png", 255)
    evaluation = run(detector, tmp_path)
    assert evaluation.protocol["faults"] == 1
    assert evaluation.classes["nut"]["n_anomalous"] == 3
    assert evaluation.classes["nut"]["pixel_auroc"] == pytest.approx(100.0)


def test_failures_are_rows_and_count_nowhere(detector: Detector, tmp_path: Path) -> None:
    part(tmp_path, "nut")
    whole = picture(tmp_path / "nut" / "test" / "good" / "cut.png", 255).read_bytes()
    (tmp_path / "nut" / "test" / "good" / "cut.png").write_bytes(whole[: len(whole) // 2])
    seen: list[str] = []
    ticks: list[None] = []
    evaluation = run(
        detector, tmp_path, inspect=lambda s, p: seen.append(s.image.name), progress=lambda: ticks.append(None)
    )
    assert evaluation.classes["nut"] == {"n_normal": 2, "n_anomalous": 2} | dict.fromkeys(SUMMARY_KEYS, 100.0)
    (row,) = evaluation.failed
    assert "cut.png" in row.path
    assert row.error is not None
    assert (row.score, row.decision) == (None, None)
    assert evaluation.protocol["failed_images"] == 1
    assert (len(seen), len(ticks)) == (4, 5)


def test_a_class_of_failures_only(detector: Detector, tmp_path: Path) -> None:
    part(tmp_path, "nut", normal=1, holes=0)
    path = tmp_path / "nut" / "test" / "good" / "0.png"
    path.write_bytes(path.read_bytes()[:60])
    values = run(detector, tmp_path).classes["nut"]
    assert values == {"n_normal": 0, "n_anomalous": 0} | dict.fromkeys(SUMMARY_KEYS)


def test_an_unreadable_mask_leaves_its_image_at_image_level(detector: Detector, tmp_path: Path) -> None:
    path = mask(part(tmp_path, "nut") / "nut" / "ground_truth" / "hole" / "1_mask.png")
    path.write_bytes(path.read_bytes()[:-30])
    evaluation = run(detector, tmp_path)
    (row,) = [row for row in evaluation.rows if row.error]
    assert "cannot be read as a mask" in str(row.error)
    assert row.score is not None
    assert evaluation.failed == []
    assert (evaluation.classes["nut"]["n_anomalous"], evaluation.classes["nut"]["pixel_auroc"]) == (2, 100.0)


def test_nothing_labelled(detector: Detector, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    with pytest.raises(InputError, match=r"no labelled test image.*'flat'"):
        run(detector, tmp_path)


def test_training_images_are_not_measured(detector: Detector, tmp_path: Path) -> None:
    picture(part(tmp_path, "nut") / "nut" / "train" / "good" / "t.png", 255)
    assert len(run(detector, tmp_path).rows) == 4


def test_data_the_detector_was_trained_on_is_refused(detector: Detector, tmp_path: Path) -> None:
    root = part(tmp_path / "mvtec_anomaly_detection", "nut")
    with pytest.raises(ConfigError, match="would not be zero-shot"):
        run(with_identity(detector, auxiliary_data="visa+mvtec"), root)
    learned_elsewhere = with_identity(detector, auxiliary_data="visa")
    assert run(learned_elsewhere, root).protocol["auxiliary_data"] == "visa"


def test_images_the_detector_was_trained_on_are_refused_under_any_name(detector: Detector, tmp_path: Path) -> None:
    root = part(tmp_path / "renamed", "nut")
    trained = frozenset({file_key(root / "nut" / "test" / "hole" / "1.png")})
    detector = with_identity(detector, trained_images=trained)
    with pytest.raises(ConfigError, match="1 of 4 test images were trained on"):
        run(detector, root)
    evaluation = run(detector, root, EvaluationConfig(size=32, allow_same_data=True))
    assert evaluation.protocol["same_data_allowed"] is True


def test_class_names_go_into_the_prompts(detector: Detector, tmp_path: Path) -> None:
    part(part(tmp_path, "nut"), "bolt")
    evaluation = run(detector, tmp_path, EvaluationConfig(size=32, class_names=True))
    engine: Any = detector.engine
    assert engine.method.asked == ["object", "bolt", "nut"]
    assert evaluation.protocol["prompts"]["object"] == "class name"


def test_modes_agree(detector: Detector, tmp_path: Path) -> None:
    mask(part(tmp_path, "nut") / "nut" / "ground_truth" / "hole" / "0_mask.png", right=False)
    histogram, exact = (run(detector, tmp_path, EvaluationConfig(size=32, mode=m)) for m in ("histogram", "exact"))
    assert histogram.classes["nut"]["pixel_auroc"] != 100.0
    assert histogram.classes["nut"] == pytest.approx(exact.classes["nut"])


def test_the_table_and_the_rows(detector: Detector, tmp_path: Path) -> None:
    part(part(tmp_path / "in", "bolt", normal=0), "nut, large")
    run(detector, tmp_path / "in").write(tmp_path / "out")
    table = list(csv.DictReader((tmp_path / "out" / "metrics.csv").read_text().splitlines()))
    assert [row["class"] for row in table] == ["bolt", "nut, large", "mean"]
    assert table[0]["image_auroc"] == ""
    assert float(table[1]["aupro"]) == 100.0
    assert table[2]["n_normal"] == ""
    rows = parquet.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert len(rows) == 6
    assert list(rows[0]) == ["path", "class_name", "kind", "label", "score", "decision", "error", "unusable", "draw"]
    assert rows[-1]["kind"] == "hole"
    assert rows[-1]["decision"] == "normal"  # mean brightness below one half
    assert not list(tmp_path.rglob(".writing-*"))


def test_what_is_written_is_read_back(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part(tmp_path / "in", 'nut, "large"\nor small')
    cut = tmp_path / "in" / 'nut, "large"\nor small' / "test" / "good" / "0.png"
    cut.write_bytes(cut.read_bytes()[:60])
    written = run(detector, tmp_path / "in")
    out = tmp_path / "out"
    written.write(out)
    stored = read_evaluation(out)
    assert stored.rows == written.rows
    assert [row.score is None for row in stored.rows] == [True, False, False, False]
    assert stored.metrics == json.loads(json.dumps(written.to_dict()))
    assert json.loads(json.dumps(stored.curves)) == {
        name: {key: value for key, value in curves.items() if key != "pixel_f1max_threshold"}
        for name, curves in written.curves.items()
    }
    (out / "scores.csv").unlink()  # as version 0.1 left it
    assert read_evaluation(out).rows == written.rows
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"anomalens\[data\]"):
        read_evaluation(out)


def test_nothing_beyond_the_core_is_needed(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    written = run(detector, part(tmp_path / "in", "nut"))
    written.write(tmp_path / "out")
    assert not (tmp_path / "out" / "scores.parquet").exists()
    assert read_evaluation(tmp_path / "out").rows == written.rows


def test_a_detailed_evaluation_is_that_of_the_whole_maps(detector: Detector, tmp_path: Path) -> None:
    part(tmp_path, "nut", normal=4, holes=3)
    mask(tmp_path / "nut" / "ground_truth" / "hole" / "0_mask.png", right=False)
    picture(tmp_path / "nut" / "test" / "good" / "3.png", 10, spot=90)
    part(tmp_path, "no masks", masks=False)
    maps, masks = [], []

    def keep(sample: Sample, prediction: Prediction) -> None:
        if sample.class_name == "nut":
            maps.append(resize_map(prediction.anomaly_map, (32, 32)))
            masks.append(read_truth(sample, (32, 32)))

    plain = run(detector, tmp_path)
    detailed = run(detector, tmp_path, EvaluationConfig(size=32, detailed=True), inspect=keep)
    whole = aupimo(maps, masks).value
    assert whole is not None
    assert 0 < whole < 1
    assert detailed.classes["nut"] == plain.classes["nut"] | {"aupimo": 100 * whole}
    assert detailed.classes["no masks"]["aupimo"] is None
    assert detailed.mean["aupimo"] == 100 * whole
    expected = pixel_intervals(maps, masks)
    for name in ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro"):
        interval = expected[name]
        assert interval is not None
        assert detailed.intervals["nut"][name] == [100 * interval.low, 100 * interval.high]
        assert interval.low < interval.high
        assert detailed.intervals["no masks"][name] is None
    assert plain.intervals["nut"].items() <= detailed.intervals["nut"].items()
    detailed.write(tmp_path / "out")
    table = list(csv.DictReader((tmp_path / "out" / "metrics.csv").read_text().splitlines()))
    assert [row["aupimo"] for row in table] == ["", str(100 * whole), str(100 * whole)]


def test_the_report_has_what_it_draws(detector: Detector, tmp_path: Path) -> None:
    part(tmp_path / "in", "nut", normal=5, holes=5)
    detector = detector.replace(calibration=detector.calibration.override(0.2, None))
    run(detector, tmp_path / "in", EvaluationConfig(size=32, gallery=2)).write(tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "report.json").read_text())
    curves = kept["curves"]["nut"]
    assert curves["image_roc"][0] == [0, 0]
    assert curves["image_roc"][-1] == [1, 1]
    assert curves["pro"][-1] == [0.3, 1]
    assert curves["image_f1max_threshold"] == pytest.approx((10 * 3 + 200) / 4 / 255, abs=1e-4)
    assert all(len(curve) <= 200 for key, curve in curves.items() if not key.endswith("threshold"))
    cases = kept["gallery"]
    assert {case["sort"] for case in cases} == {
        "lowest anomalous",
        "highest anomalous",
        "lowest normal",
        "highest normal",
        "nearest threshold",
    }
    assert len(cases) == 10
    assert all(case["decision"] == ("anomalous" if case["label"] else "normal") for case in cases)
    assert curves["threshold"] == 0.2
    assert [Path(c["path"]).name for c in cases if c["sort"] == "lowest normal"] == ["0.png", "1.png"]
    for case in cases:
        for key in ("image", "heatmap", "masks"):
            with Image.open(tmp_path / "out" / "gallery" / case[key]) as opened:
                assert opened.size == (64, 64)
    (best, _) = (case for case in cases if case["sort"] == "highest anomalous")
    compared = np.asarray(Image.open(tmp_path / "out" / "gallery" / best["masks"]))
    assert list(MASK_COLOURS)[compared[5, 5]] == "both"
    assert list(MASK_COLOURS)[compared[60, 60]] == "neither"


def test_the_gallery_stays_small_and_is_replaced(detector: Detector, tmp_path: Path) -> None:
    part(tmp_path / "in", "nut", normal=30, holes=1)
    out = tmp_path / "out"
    run(detector, tmp_path / "in", EvaluationConfig(size=32, gallery=3)).write(out)
    assert 3 <= len(list((out / "gallery").glob("*-image.jpg"))) <= 15
    run(detector, tmp_path / "in", EvaluationConfig(size=32, gallery=0)).write(out)
    assert list((out / "gallery").iterdir()) == []
    assert json.loads((out / "report.json").read_text())["gallery"] == []


def test_large_images_are_drawn_small(detector: Detector, tmp_path: Path) -> None:
    for name, value in (("normal", 10), ("anomalous", 250)):
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.fromarray(speckled(value, 400, 900)).save(tmp_path / "in" / name / "wide.png")
    run(detector, tmp_path / "in").write(tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "report.json").read_text())["gallery"]
    assert {"masks" in case for case in kept if case["label"] == 1} == {False}  # no truth, so nothing to compare
    for path in (tmp_path / "out" / "gallery").iterdir():
        assert Image.open(path).size == (320, 142)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"limit": 0.0}, "limit"),
        ({"size": 0}, "size 0"),
        ({"size": "x"}, "size must be a whole number, not 'x'"),
        ({"mode": "fast"}, "mode must be 'exact' or 'histogram', not 'fast'"),
        ({"gallery": -1}, "gallery -1"),
        ({"detailed": 1}, "detailed must be true or false, not 1"),
    ],
)
def test_wrong_options_are_said_before_anything_runs(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        EvaluationConfig(**wrong)


def test_inspect_sees_image_and_prediction(detector: Detector, tmp_path: Path) -> None:
    seen: list[tuple[Sample, Prediction]] = []
    run(detector, part(tmp_path, "nut"), inspect=lambda s, p: seen.append((s, p)))
    assert [s.image for s, _ in seen] == [Path(str(p.path)) for _, p in seen]


def test_decisions_are_counted_and_say_what_cannot_be_judged(detector: Detector, tmp_path: Path) -> None:
    root = part(tmp_path / "in", "nut", normal=4, holes=3)
    picture(root / "nut" / "test" / "good" / "bright.png", 220)
    for name in ("good/black.png", "hole/black.png"):
        Image.fromarray(grey(0)).save(root / "nut" / "test" / name)
    picture(root / "nut" / "test" / "hole" / "all.png", 250)
    evaluation = run(detector.replace(calibration=detector.calibration.override(0.5, None)), root)
    decisions = {"found": 1, "missed": 3, "false_alarms": 1, "passed": 4, "unusable": 2}
    assert evaluation.to_dict()["classes"]["nut"]["decisions"] == decisions
    assert evaluation.to_dict()["decisions"] == decisions
    unusable = {row.path: row.unusable for row in evaluation.rows if row.unusable}
    assert {Path(path).name for path in unusable} == {"black.png"}
    assert set(unusable.values()) == {"the image is black"}
    evaluation.write(tmp_path / "out")
    assert read_evaluation(tmp_path / "out").rows == evaluation.rows
    table = list(csv.DictReader((tmp_path / "out" / "metrics.csv").read_text().splitlines()))
    assert {key: int(value) for key, value in table[0].items() if key in decisions} == decisions
    shown = json.loads((tmp_path / "out" / "report.json").read_text())["gallery"]
    assert shown
    assert "unusable" not in {case["decision"] for case in shown}, "no example of anything but what it is"


def test_rows_of_an_earlier_version_are_read(detector: Detector, tmp_path: Path) -> None:
    evaluation = run(detector, part(tmp_path / "in", "nut"))
    evaluation.write(tmp_path / "out")
    file = tmp_path / "out" / "scores.csv"
    lines = [line.split(",") for line in file.read_text().splitlines()]
    file.write_text("\n".join(",".join(line[:7]) for line in lines) + "\n")
    assert read_evaluation(tmp_path / "out").rows == evaluation.rows
