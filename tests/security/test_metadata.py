"""Files of JSON, TOML and headers that anybody may have written: read, or refused in one line; never a traceback."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

import hostile
import small_clip
from anomalens.backbones.bundle import read_bundle_info
from anomalens.backbones.tower import Clip
from anomalens.backbones.weight_files import shards_of
from anomalens.backbones.weights import load_weights
from anomalens.datasets.layouts import open_dataset
from anomalens.decision.calibration import Calibration, SavedCalibration
from anomalens.decision.pooling import ScorePooling
from anomalens.detection.recipe import read_recipe
from anomalens.engines.contract import Identity
from anomalens.engines.exported import Card
from anomalens.errors import AnomalensError, ConfigError, WeightsError, one_line
from anomalens.evaluation.benchmark_plan import read_plan
from anomalens.files import digest
from anomalens.images.preprocessing import Preprocess
from anomalens.learning.features import CacheProgress
from anomalens.methods.parts.checkpoints import SHIPPED, read_checkpoint
from anomalens.methods.parts.draws import Draws
from anomalens.reporting.evaluation_page import write_report
from anomalens.runs.folder import JsonLines
from anomalens.untrusted import read_header
from security.recipes import taught_part

COUNT = 60  # damaged files of each kind; the torture has more

CALIBRATION = Calibration(0.5, 0.6, (0.0, 1.0), "by hand", (0.1, 0.2))


def _json_file(read: Callable[[Path], Any], whole: Any, name: str = "a.json") -> Callable[[Path, bytes], Any]:
    def attempt(folder: Path, content: bytes) -> Any:
        (folder / name).write_bytes(content)
        return read(folder / name)

    attempt.whole = json.dumps(whole)  # type: ignore[attr-defined]
    return attempt


def _header(source: Path, key: str | None, read: Callable[[Path], Any]) -> Callable[[Path, bytes], Any]:
    """Damage one text of a safetensors header (`key`), or the texts as a whole."""
    raw = source.read_bytes()
    texts = read_header(source)
    length = int.from_bytes(raw[:8], "little")
    table = json.loads(raw[8 : 8 + length])

    def attempt(folder: Path, content: bytes) -> Any:
        if key is None:
            head = content
        else:
            changed = texts | {key: content.decode("utf-8", "replace")}
            head = json.dumps(table | {"__metadata__": changed}).encode()
        (folder / source.name).write_bytes(len(head).to_bytes(8, "little") + head + raw[8 + length :])
        return read(folder / source.name)

    attempt.whole = texts[key] if key else json.dumps(table)  # type: ignore[attr-defined]
    return attempt


def _hugging_face(folder: Path) -> Any:
    small_clip.write_hugging_face(folder, small_clip.hugging_face())
    return json.loads((folder / "config.json").read_text())


def _card() -> dict[str, Any]:
    identity = Identity("anoclip+", "tiny", "w", "l", {"views": 1}, trained_images=frozenset({1, 2}))
    preprocess = Preprocess(64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    draws = Draws(2, 16, 32, 3, 0.1, 0)
    pooling, files = ScorePooling(0.5), {".onnx": "x"}
    return Card("onnx", identity, preprocess, CALIBRATION, pooling, draws, 4, 16, sha256=files).to_dict()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("hf", "oc")}
    _hugging_face(folders["hf"])
    small_clip.write_open_clip(folders["oc"], small_clip.state(), "quick_gelu")
    return folders


SAVED = {"schema": 1, "made_from": {"rule": "x"}, "settings": {"size": 64}, "calibration": CALIBRATION.to_dict()}
RUN: dict[str, Any] = {
    "settings": {"method": "x", "size": 64, "calibration": CALIBRATION.to_dict()},
    "counts": {"done": 1},
}
PROGRESS = {"grid": [4, 4], "side": 64, "taps": [1, 2], "done": 8, "sums": [[4, 1], [8, 2]]}
META = {"test": {"nut": [{"img_path": "a.png", "mask_path": "m.png", "cls_name": "nut", "anomaly": 1}]}}


def _resume(path: Path) -> Any:
    (path.parent / "predictions.jsonl").write_text('{"path": "a", "score": 0.5}\n')
    return JsonLines(path.parent, RUN["settings"], [Path("a")], resume=True)


def _resume_rows(path: Path) -> Any:
    (path.parent / "run.json").write_text(json.dumps(RUN))
    path.write_bytes(path.read_bytes().replace(b"\n", b" ") + b"\n")
    return JsonLines(path.parent, RUN["settings"], [Path("a")], resume=True)


def _recipe() -> Callable[[Path, bytes], Any]:
    """Damage what a recipe says of its tensors, which are whole."""
    raw = taught_part()
    tensors, said = load(raw), json.loads(read_header(raw)["recipe"])

    def attempt(folder: Path, content: bytes) -> Any:
        header = {"format": "anomalens-recipe", "recipe": content.decode("utf-8", "replace")}
        (folder / "a.anomalens").write_bytes(save(tensors, header))
        return read_recipe(folder / "a.anomalens")

    attempt.whole = json.dumps(said)  # type: ignore[attr-defined]
    return attempt


KINDS: dict[str, Callable[[], Callable[[Path, bytes], Any]]] = {
    "calibration": lambda: _json_file(SavedCalibration.read, SAVED),
    "card": lambda: _json_file(lambda path: Card.read(path.parent / "a.onnx"), _card(), "a.onnx.json"),
    "run.json": lambda: _json_file(_resume, RUN, "run.json"),
    "rows": lambda: _json_file(_resume_rows, {"path": "a", "score": 0.5, "label": "normal"}, "predictions.jsonl"),
    "progress": lambda: _json_file(lambda path: CacheProgress.read(path.parent), PROGRESS, "progress.json"),
    "index": lambda: _json_file(shards_of, {"weight_map": {"a": "b.safetensors"}}, "m.safetensors.index.json"),
    "meta": lambda: _json_file(lambda path: open_dataset(f"meta:{path.parent}"), META, "meta.json"),
    "recipe": _recipe,
    "checkpoint header": lambda: _header(SHIPPED / "anomalyclip.safetensors", None, read_checkpoint),
    "checkpoint config": lambda: _header(SHIPPED / "anomalyclip.safetensors", "config", read_checkpoint),
    "checkpoint training": lambda: _header(SHIPPED / "anomalyclip.safetensors", "training", read_checkpoint),
}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_metadata_is_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    attempt = KINDS[kind]()
    _attack(attempt, attempt.whole, tmp_path)  # type: ignore[attr-defined]


def _attack(attempt: Callable[[Path, bytes], Any], whole: str, folder: Path, count: int = COUNT) -> None:
    refused = []
    for number, content in enumerate(hostile.texts(whole, count, seed=7)):
        place = folder / str(number)
        place.mkdir()
        try:
            if attempt(place, content) is None:
                refused.append("damaged, so it is computed anew")
        except AnomalensError as error:
            refused.append(one_line(error))
    assert refused
    assert not [line for line in refused if len(line) > 1500 or "set_int_max_str_digits" in line]


def test_headers_of_weights(tiny_weights: Path, tmp_path: Path) -> None:
    for key in (None, "config", "mean", "metrics"):
        attempt = _header(tiny_weights, key, lambda path: (read_bundle_info(path), load_weights(path)))
        (tmp_path / str(key)).mkdir()
        _attack(attempt, attempt.whole, tmp_path / str(key), count=15)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("publisher", "file"), [("hf", "config.json"), ("hf", "preprocessor_config.json"), ("oc", "open_clip_config.json")]
)
def test_configs_beside_weights(publisher: str, file: str, places: dict[str, Path], tmp_path: Path) -> None:
    source = places[publisher]
    prepared = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 3}
    whole = (source / file).read_text() if (source / file).exists() else json.dumps(prepared)

    def attempt(folder: Path, content: bytes) -> Any:
        for path in source.iterdir():
            if path.name != file:
                (folder / path.name).symlink_to(path)
        (folder / file).write_bytes(content)
        return load_weights(folder)

    _attack(attempt, whole, tmp_path)


@pytest.mark.parametrize("file", ["metrics.json", "report.json", "scores.csv"])
def test_tampered_evaluations(file: str, evaluated: Path, tmp_path: Path) -> None:
    whole = (evaluated / file).read_text(encoding="utf-8")

    def attempt(folder: Path, content: bytes) -> Any:
        for name in ("metrics.json", "report.json", "scores.csv"):
            if name != file:
                (folder / name).symlink_to(evaluated / name)
        (folder / "gallery").symlink_to(evaluated / "gallery")
        (folder / file).write_bytes(content)
        return write_report(folder)

    if file.endswith(".json"):
        _attack(attempt, whole, tmp_path)
        return
    for number, content in enumerate(_tables(whole)):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(AnomalensError, match="damaged"):
            attempt(tmp_path / str(number), content.encode())


def _tables(whole: str) -> Iterator[str]:
    head, *lines = whole.splitlines(keepends=True)
    yield ""
    yield head[:10]
    yield head + lines[0].replace(",0,", ",x,").replace(",1,", ",x,")
    yield head + lines[0][:5] + "\n"
    yield head + lines[0].rstrip() + ",more\n"
    yield head + "a,b,c," + "9" * 5000 + ",0.5,normal,\n"
    yield head + "a,b,c,0,1e999,normal,\n"
    yield head + "a,b,c,0,nan,normal,\n"
    yield head + '"' + "x" * 200_000 + '",b,c,0,0.5,normal,\n'
    yield head + "a\0,b,c,zero,0.5,normal,\n"


def test_benchmark_files(tmp_path: Path) -> None:
    path = tmp_path / "b.toml"
    for content in (
        "a = " + "[" * 5000, "[" + ".".join("a" * 200) + "]", "size = " + "9" * 5000, "[[method]]\nmethod = 3",
        "method = 1", "[settings]\nsize = 1e999", "[evaluation]\nlimit = nan\n[[method]]\n[[data]]\npath='x'",
        "[[method]]\nmethod = 'x'\nmethod_options = [1]\n[[data]]\npath = 'a'", "[[data]]\npath = {}\n[[method]]",
        "[[method]]\nmethod = 'x'\nlabel = []\n[[data]]\npath = 'a\\u0000b'\nname = 3", "\ufeff[", "\x00",
    ):  # fmt: skip
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            read_plan(path)
        assert "\n" not in str(caught.value)


def test_a_cache_of_another_clip_is_no_weights(tiny_clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(save({"features": torch.zeros(3)}, {"sha256": digest(b"")}))
    with pytest.raises(WeightsError):
        load_weights(tmp_path / "a.safetensors")
