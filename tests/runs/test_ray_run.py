"""The engine "ray" on a local cluster of two workers: the same rows as the local engine, each once, whatever dies."""

import functools
import importlib
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
from PIL import Image

import workers
from anomalens.cli import main
from anomalens.detection.loading import load_detector
from anomalens.errors import AnomalensError, ConfigError, MissingExtraError
from anomalens.options import LoadOptions
from anomalens.runs.ray_run import detect_scaled
from anomalens.runs.store import RunSummary
from parts import SIDE, faulty_part, good_part
from toys import predictions
from workers import BROKEN, DEADLY, UNLUCKY, load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start two workers for all tests of this file; runs use it because it is connected already."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALENS_CACHE", str(tmp_path_factory.mktemp("cache")))  # workers inherit it
        patch.setenv("PYTHONPATH", str(Path(workers.__file__).parent), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        yield
        ray.shutdown()


def pictures(folder: Path, values: list[int]) -> list[str]:
    folder.mkdir()
    for index, value in enumerate(values):
        Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(folder / f"{index:02d}.png")
    return [str(folder / f"{index:02d}.png") for index in range(len(values))]


def rows(out: Path) -> list[dict[str, Any]]:
    table = ds.dataset(out / "rows", partitioning="hive").to_table()
    return [
        {key: value for key, value in row.items() if value is not None and key != "part"} for row in table.to_pylist()
    ]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["anomalens", "detect", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


@pytest.mark.usefixtures("cluster")
def test_the_same_rows_as_the_local_engine(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 40, 50, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / "in" / f"{index}.png")
    (tmp_path / "in" / "bad.jpg").write_text("no image")
    model = ("--backbone", tiny_weights, "--method", "anoclip", "--size", 64)
    arguments = [tmp_path / "in", tmp_path / "in" / "0.png", *model, "--out"]
    assert command(monkeypatch, *arguments, tmp_path / "ray", "--engine", "ray", "--part-size", 2) == 1
    assert "anomalous" in capsys.readouterr().out
    assert command(monkeypatch, *arguments, tmp_path / "local") == 1

    lines = (tmp_path / "local" / "predictions.jsonl").read_text().splitlines()
    expected = [json.loads(line) for line in lines][:-1]  # the local engine repeats what is named twice
    scaled = rows(tmp_path / "ray")
    assert len(scaled) == len(expected) == 6
    for row, local in zip(scaled, expected, strict=True):
        other = {name: value for name, value in local.items() if name not in ("heatmap", "mask", "map")}
        assert row.keys() == other.keys()
        if "score" in row:
            assert row.pop("score") == pytest.approx(other.pop("score"), abs=1e-5)
            peaks = [[region.pop("peak") for region in each.pop("regions")] for each in (row, other)]
            assert peaks[0] == pytest.approx(peaks[1], abs=1e-5)
        assert row == other
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("ray", "local")]
    assert records[0]["settings"] == records[1]["settings"]
    assert records[0]["counts"]["failed"] == records[0]["duplicates"] == 1
    assert records[0]["finished"]
    assert records[0]["images_per_second"] > 0


@pytest.mark.usefixtures("cluster")
def test_workers_read_a_taught_part(tiny_weights: Path, tmp_path: Path) -> None:
    taught = load_detector("anoclip", str(tiny_weights), size=64).fit([good_part(number) for number in range(4)])
    taught.save(tmp_path / "part.anomalens")
    (tmp_path / "in").mkdir()
    images = [good_part(9), faulty_part(9), np.zeros((SIDE, SIDE, 3), np.uint8)]
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
    options = LoadOptions(recipe=str(tmp_path / "part.anomalens"))
    detect_scaled([tmp_path / "in"], tmp_path / "out", options, {}, actors=1)
    for row, expected in zip(rows(tmp_path / "out"), predictions(taught.predict_many(images)), strict=True):
        assert (row["label"], row["method"], row["threshold"]) == (expected.label, expected.method, expected.threshold)
        assert row["score"] == pytest.approx(expected.score, abs=1e-4)


@pytest.mark.usefixtures("cluster")
def test_dead_workers_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """One image kills its worker once, as a lost machine would; another kills every worker that meets it."""
    values = [*range(1, 9), UNLUCKY, *range(9, 15), DEADLY, *range(15, 21)]
    paths = pictures(tmp_path / "in", values)
    log, out = tmp_path / "log", tmp_path / "out"
    summary = detect_scaled([tmp_path / "in"], out, LoadOptions(), {}, load=functools.partial(load, log), part_size=3)
    written = rows(out)
    assert [row["path"] for row in written] == paths
    for value, row in zip(values, written, strict=True):
        if value == DEADLY:
            assert "worker process died" in row["error"]
        else:
            assert row["score"] == pytest.approx(value / 255, abs=1e-6)
    seen = Counter(map(int, log.read_text().split()))
    assert seen[UNLUCKY] >= 2
    assert seen[DEADLY] >= 2
    assert (summary.total, summary.counts.rows, summary.counts.failed) == (22, 22, 1)
    assert len(list((out / "rows").rglob("*.parquet"))) == 8


@pytest.mark.usefixtures("cluster")
def test_a_stopped_driver_goes_on_with_the_rest(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "in", list(range(12)))
    out = tmp_path / "out"

    def stop(summary: RunSummary) -> None:
        if summary.counts.rows >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detect_scaled(
            paths,
            out,
            LoadOptions(),
            {},
            load=functools.partial(load, tmp_path / "first"),
            actors=1,
            part_size=2,
            progress=stop,
        )
    before = {file: file.stat().st_mtime_ns for file in (out / "rows").rglob("*.parquet")}
    done = [row["path"] for row in rows(out)]
    assert len(before) == 2
    assert not json.loads((out / "run.json").read_text())["finished"]

    once_more = functools.partial(
        detect_scaled, paths, out, LoadOptions(), {}, actors=1, load=functools.partial(load, tmp_path / "second")
    )
    with pytest.raises(ConfigError, match="--resume"):
        once_more()
    summary = once_more(resume=True)
    assert (summary.counts.rows, summary.resumed) == (12, 4)
    assert [row["path"] for row in rows(out)] == paths
    assert {file: file.stat().st_mtime_ns for file in before} == before
    seen = sorted(map(int, (tmp_path / "second").read_text().split()))
    assert seen == [index for index, path in enumerate(paths) if path not in done]
    assert once_more(resume=True).resumed == 12  # nothing left: no actor is started


@pytest.mark.usefixtures("cluster")
def test_a_detector_that_fails_stops_the_run_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "in", [1, 2, BROKEN])
    with pytest.raises(AnomalensError, match=r"out of memory.*--resume"):
        detect_scaled(
            [tmp_path / "in"],
            tmp_path / "out",
            LoadOptions(),
            {},
            load=functools.partial(load, tmp_path / "log"),
            actors=1,
            part_size=1,
        )
    assert not json.loads((tmp_path / "out" / "run.json").read_text())["finished"]
    (tmp_path / "only_here.py").write_text("def load(options):\n    raise AssertionError\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    unknown = importlib.import_module("only_here").load
    with pytest.raises(AnomalensError, match=r"No module named 'only_here'.*--resume"):
        detect_scaled([tmp_path / "in"], tmp_path / "out", LoadOptions(), {}, load=unknown, actors=1, resume=True)
    with pytest.raises(ConfigError, match="3 actors do not fit"):
        detect_scaled(
            [tmp_path / "in"],
            tmp_path / "new",
            LoadOptions(),
            {},
            load=functools.partial(load, tmp_path / "log"),
            actors=3,
        )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--engine", "ray", "--maps", "npy"], "leave out --maps"),
        (["--actors", "2"], "options of --engine ray"),
        (["--part-size", "2"], "options of --engine ray"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert command(monkeypatch, tmp_path, "--out", tmp_path / "out", *arguments) == 2
    assert reason in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"anomalens\[ray\]"):
        detect_scaled([tmp_path], tmp_path / "out", LoadOptions(), {}, load=functools.partial(load, tmp_path / "log"))
