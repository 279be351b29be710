"""The benchmark's cells: run, kept, resumed, failed; and the tables they end in."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalens.backbones.tower import Clip
from anomalens.detection.detector import Detector
from anomalens.errors import ConfigError
from anomalens.evaluation import benchmarking as benchmark
from anomalens.evaluation.benchmarking import Cell, collect, run
from anomalens.evaluation.evaluator import EvaluationConfig
from anomalens.evaluation.plan import DataPlan, MethodPlan, Plan, flags_plan, read_plan
from anomalens.metrics.summary import SUMMARY_KEYS
from anomalens.reporting.benchmark_tables import to_csv, to_html, to_markdown, write_tables
from toys import grey, make


def part(root: Path, classes: tuple[str, ...] = ("nut",), holes: int = 2) -> Path:
    for name in classes:
        for folder in ("test/good", "test/hole", "ground_truth/hole"):
            (root / name / folder).mkdir(parents=True, exist_ok=True)
        for i in range(holes):
            Image.fromarray(grey(10 + i)).save(root / name / "test" / "good" / f"{i}.png")
            spot = grey(10)
            spot[:32, :32] = 220
            Image.fromarray(spot).save(root / name / "test" / "hole" / f"{i}.png")
            Image.fromarray((spot[..., 0] > 100).astype(np.uint8) * 255).save(
                root / name / "ground_truth" / "hole" / f"{i}_mask.png"
            )
    return root


@pytest.fixture
def loaded(tiny_clip: Clip, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every method is the toy; the names in the order in which detectors were loaded."""
    names: list[str] = []

    def load(name: str, **arguments: Any) -> Detector:
        names.append(name)
        if name == "broken":
            raise RuntimeError("no\nsuch weights")
        detector = make(tiny_clip)
        detector.method_name = name
        return detector

    monkeypatch.setattr(benchmark, "load_detector", load)
    return names


def plan(*data: Path, methods: tuple[str, ...] = ("anoclip", "winclip"), **settings: Any) -> Plan:
    lines = tuple(MethodPlan(name, name, {"backbone": "tiny", **settings}) for name in methods)
    return Plan(lines, tuple(DataPlan(str(path)) for path in data), EvaluationConfig(size=32, gallery=1))


class Counter:
    """Counts what is evaluated; interrupts after so many images."""

    def __init__(self, stop: int | None = None) -> None:
        self.images, self.ended, self.stop = 0, [], stop
        self.begun: list[str] = []

    def begin(self, cell: Cell, images: int) -> None:
        self.begun.append(f"{cell.label} on {cell.data}")

    def image(self) -> None:
        self.images += 1
        if self.images == self.stop:
            raise KeyboardInterrupt

    def end(self, cell: Cell, kept: bool) -> None:
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

    def images(wanted: Plan) -> int:
        counter = Counter()
        run(wanted, out, counter)
        return counter.images

    one = ("anoclip",)
    assert images(plan(data, methods=one)) == 4
    assert images(plan(data, methods=one, batch_size=2, device="cpu", workers=1)) == 0
    assert images(plan(data, methods=one, size=32)) == 4
    lines = (MethodPlan("anoclip", "anoclip", {"backbone": "tiny", "size": 32}, {"views": 1}),)
    assert images(Plan(lines, (DataPlan(str(data)),), EvaluationConfig(size=32, gallery=1))) == 4
    assert images(Plan(lines, (DataPlan(str(data)),), EvaluationConfig(size=16))) == 4
    Image.fromarray(grey(77)).save(data / "nut" / "test" / "good" / "0.png")
    assert images(Plan(lines, (DataPlan(str(data)),), EvaluationConfig(size=16))) == 4
    (tmp_path / "w.safetensors").write_bytes(b"1")
    assert images(plan(data, methods=one, checkpoint=str(tmp_path / "w.safetensors"))) == 4
    (tmp_path / "w.safetensors").write_bytes(b"22")
    assert images(plan(data, methods=one, checkpoint=str(tmp_path / "w.safetensors"))) == 4
    (cell,) = (tmp_path / "out" / "cells").iterdir()
    (cell / "metrics.json").write_text("{")
    assert images(plan(data, methods=one, checkpoint=str(tmp_path / "w.safetensors"))) == 4


def test_new_shipped_weights_are_other_weights(
    loaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "BUNDLED_FILES", tmp_path)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "calibration.json").write_text("{}")
    wanted = Plan((MethodPlan("crane", "crane"),), (DataPlan(str(part(tmp_path / "a"))),), EvaluationConfig(size=32))

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
    assert "| broken | a | - | - | - | - | - | - | - | - | failed: RuntimeError: no such weights |" in text
    part(flat.parent / "nowhere")
    counter = Counter()
    run(wanted, tmp_path / "out", counter)  # failures are tried again, successes are not
    assert counter.begun == ["anoclip on nowhere"]


def test_an_error_in_the_middle_leaves_its_trace(
    loaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst(*_: Any, **__: Any) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr(benchmark, "evaluate", burst)
    (cell,) = run(plan(part(tmp_path / "a"), methods=("anoclip",)), tmp_path / "out")
    assert (cell.state, cell.reason) == ("failed", "MemoryError: too large")
    assert "burst" in (cell.folder / "error.txt").read_text()
    assert json.loads((cell.folder / "cell.json").read_text())["reason"] == "MemoryError: too large"


def test_names_must_tell_things_apart(loaded: list[str], tmp_path: Path) -> None:
    one, two = part(tmp_path / "x" / "a"), part(tmp_path / "y" / "a")
    with pytest.raises(ConfigError, match="several data sets are called 'a'"):
        run(plan(one, two), tmp_path / "out")
    with pytest.raises(ConfigError, match="several methods are called 'anoclip'"):
        plan(one, methods=("anoclip", "anoclip"))
    with pytest.raises(ConfigError, match="at least one"):
        plan(methods=("anoclip",))
    named = Plan(plan(one).methods, (DataPlan(str(one), "left / right"), DataPlan(str(two), "left \\ right")))
    cells = run(named, tmp_path / "out")
    assert len({cell.folder for cell in cells}) == 4


# ---------------------------------------------------------------- the plan


def test_a_file_says_everything(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"")
    (tmp_path / "b.toml").write_text(
        """
        [settings]
        backbone = "weights.safetensors"
        size = 224
        batch_size = 4
        [evaluation]
        size = 256
        class_names = true
        [[method]]
        name = "anoclip"
        [[method]]
        name = "anoclip"
        label = "one view"
        size = 448
        object = "part"
        options = { views = 1 }
        [[data]]
        path = "mvtec:sets/mine"
        name = "Mine"
        published = "mvtec"
        [[data]]
        path = "/absolute"
        """
    )
    found = read_plan(tmp_path / "b.toml")
    plain, one = found.methods
    assert plain.settings == {"backbone": str(tmp_path / "weights.safetensors"), "size": 224, "batch_size": 4}
    assert (one.label, one.settings["size"]) == ("one view", 448)
    assert one.arguments["object_name"] == "part"
    assert one.arguments["views"] == 1
    assert "batch_size" not in one.identity["settings"]
    assert found.data == (DataPlan(f"mvtec:{tmp_path / 'sets/mine'}", "Mine", "mvtec"), DataPlan("/absolute"))
    assert found.evaluation == EvaluationConfig(size=256, class_names=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "no TOML"),
        ("colour = 1", "colour is unknown; there is settings"),
        ("[settings]\nsiez = 1", r"\[settings\]: siez is unknown"),
        ("[[method]]\nlabel = 'x'", "needs a name"),
        ("[[method]]\nname = 'x'\noptions = 3", "options are a table"),
        ("[[method]]\nname = 'x'\n[[data]]\nname = 'y'", "needs a path"),
        ("[[method]]\nname = 'x'\n[[data]]\npath = 'imagenet:y'", "is not a layout"),
        ("[method]\nname = 'x'", r"as \[\[method\]\]"),
        ("settings = 3", r"write \[settings\] as a table"),
        ("[[method]]\nname = 'x'\n[[data]]\npath = 'y'\n[evaluation]\nsize = 'x'", "wrong type"),
        ("", "at least one method"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "b.toml").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_plan(tmp_path / "b.toml")
    with pytest.raises(ConfigError, match=r"c\.toml: No such file"):
        read_plan(tmp_path / "c.toml")


def test_flags_are_a_plan_too() -> None:
    found = flags_plan(["anoclip", "winclip", "anoclip"], ["a"], {"size": 64}, EvaluationConfig())
    assert [(m.name, m.settings) for m in found.methods] == [("anoclip", {"size": 64}), ("winclip", {"size": 64})]


# ---------------------------------------------------------------- the tables


def metrics(values: dict[str, float | None], **protocol: Any) -> dict[str, Any]:
    known = {"auxiliary_data": None, "image_size": 240, "evaluation_size": 240, "failed_images": 0}
    everything = {key: values.get(key) for key in SUMMARY_KEYS}
    return {
        "backbone": "ViT-B-16-plus-240",
        "protocol": known | protocol,
        "classes": {"bottle": {"n_normal": 20, "n_anomalous": 63} | everything},
        "mean": everything,
    }


def cell(values: dict[str, float | None], incomplete: tuple[str, ...] = (), **protocol: Any) -> Cell:
    found = metrics(values, **protocol)
    return Cell("anoclip", "AnoCLIP | mine", "MVTec AD", "mvtec", Path(), "done", "", found, incomplete)


def test_the_published_number_stands_beside_ours() -> None:
    text = to_markdown([cell({"image_auroc": 91.25})])
    assert "| AnoCLIP \\| mine | MVTec AD | 91.2 | - |" in text
    assert "| image AUROC | 91.2 | 92.5 | -1.2 | matches | verified | AnoVL" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_size": 448}, "image size: 240, ours 448"),
        ({"evaluation_size": 518}, "evaluation size: 240, ours 518"),
        ({"auxiliary_data": "visa"}, "auxiliary data: none, ours visa"),
        ({"incomplete": ("classes missing: cable",)}, "data: not the whole set"),
    ],
)
def test_another_protocol_is_said(change: dict[str, Any], words: str) -> None:
    one = cell({"image_auroc": 91.25}, **change)
    assert f"differs: {words}" in to_markdown([one])
    row = next(row for row in csv.DictReader(to_csv([one]).splitlines()) if row["published"])
    assert (row["protocol_matches"], row["protocol_differences"]) == ("False", words)


def test_what_a_part_of_a_set_lacks_is_noted_once() -> None:
    one = cell({"image_auroc": 91.25, "image_ap": 90.0}, incomplete=("classes missing: cable",))
    assert to_markdown([one, one]).count("- MVTec AD is not the whole set: classes missing: cable") == 1
    assert "is not the whole set" not in to_markdown([cell({"image_auroc": 91.25})])


def test_csv_has_every_number() -> None:
    failed = Cell("crane", "crane", "b", "b", Path(), "failed", "no weights, sorry")
    rows = list(csv.DictReader(to_csv([cell({"image_auroc": 91.25, "aupro": None}), failed]).splitlines()))
    assert len(rows) == 2 * len(SUMMARY_KEYS) + 1
    assert (rows[0]["class"], rows[0]["metric"], rows[0]["value"]) == ("(mean)", "image_auroc", "91.25")
    assert (rows[0]["published"], rows[0]["difference"], rows[0]["protocol_matches"]) == ("92.5", "-1.25", "True")
    assert (rows[8]["class"], rows[8]["n_anomalous"]) == ("bottle", "63")
    assert (rows[-1]["state"], rows[-1]["reason"], rows[-1]["value"]) == ("failed", "no weights, sorry", "")


class Reader(HTMLParser):
    """Collects rows of text and everything that would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_is_whole_escaped_and_fetches_nothing() -> None:
    failed = Cell("crane", "<b>crane</b>", "b", "b", Path(), "failed", "a < b & c")
    reader = Reader()
    reader.feed(to_html([cell({"image_auroc": 91.25}), failed]))
    assert reader.open == []
    assert reader.links == ["data:,"]
    assert {"<b>crane</b>", "failed: a < b & c", "matches", "92.5"} <= set(reader.text)


def test_failed_images_are_remarked() -> None:
    assert "| 3 images failed |" in to_markdown([cell({}, failed_images=3)])
