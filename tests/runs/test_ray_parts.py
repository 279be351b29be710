"""The engine "ray" without a cluster: inputs, sizes of actors, parts on disk, the rows of a single worker."""

import json
import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from PIL import Image

from anomalens.errors import ConfigError, InputError
from anomalens.options import LoadOptions
from anomalens.prediction import Prediction, Region
from anomalens.runs import ray_addresses
from anomalens.runs.folder import JsonLines
from anomalens.runs.ray_cluster import ActorPool, Node, size_pool
from anomalens.runs.ray_inputs import RunInputs, list_inputs
from anomalens.runs.ray_parts import FinishedPart, ParquetParts, RunPart, read_counts, schema
from anomalens.runs.ray_worker import CrashLedger, Worker
from anomalens.runs.store import RunCounts, RunSummary
from workers import BROKEN, load


def picture(path: Path, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30, 3), value, np.uint8)).save(path)
    return path


def manifest(file: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


def keys(inputs: RunInputs) -> list[str]:
    return list(inputs.table.column("path").to_pylist())


def of(paths: list[str]) -> RunInputs:
    objects = pa.nulls(len(paths), pa.large_string())
    return RunInputs(pa.table({"path": pa.array(paths, pa.large_string()), "object": objects}), 0)


def row(path: str, score: float = 0.5) -> dict[str, Any]:
    return {"path": path, "score": score, "label": "anomalous" if score > 0.5 else "normal"}


# Inputs


def test_every_key_once_and_in_order(tmp_path: Path) -> None:
    paths = [str(picture(tmp_path / "in" / f"{i}.png")) for i in (10, 2, 1)]
    table = manifest(tmp_path / "list.parquet", path=[paths[0], "s3://bucket/a.png", "s3://bucket/a.png"])
    listed = list_inputs([paths[0], tmp_path / "in", table, str(tmp_path / "in" / "*.png")])
    assert keys(listed) == [paths[0], paths[2], paths[1], "s3://bucket/a.png"]
    assert listed.duplicates == 6


def test_objects_of_a_manifest(tmp_path: Path) -> None:
    for i in range(2):
        manifest(tmp_path / f"{i}.parquet", path=[f"{i}a", f"{i}b"], object=["nut", None], more=[1, 2])
    listed = list_inputs([str(tmp_path / "*.parquet")])
    assert listed.table.to_pydict() == {"path": ["0a", "0b", "1a", "1b"], "object": ["nut", None, "nut", None]}
    folder = tmp_path / "many.parquet"
    folder.mkdir()
    manifest(folder / "0.parquet", path=["x"])
    assert keys(list_inputs([folder])) == ["x"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"name": ["a"]}, "column 'path'"),
        ({"path": ["a", None, ""]}, "2 rows have no path"),
        ({"path": pa.array([], pa.string())}, "no rows"),
        ({"path": [[1], [2]]}, "cannot be read"),
        ({"path": ["a", "a"], "object": ["nut", "bolt"]}, "several objects"),
    ],
)
def test_bad_manifests(tmp_path: Path, columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        list_inputs([manifest(tmp_path / "list.parquet", **columns)])


def test_manifests_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(ConfigError, match="cannot be read as a Parquet manifest"):
        list_inputs([tmp_path / "text.parquet"])
    for name in ("nowhere.parquet", "nothing*.parquet"):
        with pytest.raises(InputError, match="no "):
            list_inputs([tmp_path / name])
    with pytest.raises(InputError, match="no inputs"):
        list_inputs([])


def test_a_store_is_listed_like_a_folder(tmp_path: Path) -> None:
    for name in ("b/10.png", "b/2.jpg", "a.png", ".hidden/a.png", "b/.hidden.png", "b/text.txt"):
        picture(tmp_path / "in" / Path(name).with_suffix(".png")).rename(tmp_path / "in" / name)
    root = f"file://{tmp_path}/in"
    assert keys(list_inputs([root])) == [f"{root}/a.png", f"{root}/b/2.jpg", f"{root}/b/10.png"]
    assert keys(list_inputs([f"{root}/b/*.png", f"{root}/b/text.txt"])) == [f"{root}/b/10.png", f"{root}/b/text.txt"]
    manifest(tmp_path / "list.parquet", path=["x"])
    assert keys(list_inputs([f"file://{tmp_path}/*.parquet"])) == ["x"]
    assert keys(list_inputs([f"file://{tmp_path}/list.parquet"])) == ["x"]
    for missing in ("nowhere", "b/*.gif"):
        with pytest.raises(InputError, match="no image is there"):
            list_inputs([f"{root}/{missing}"])
    with pytest.raises(InputError, match="no such manifest"):
        list_inputs([f"file://{tmp_path}/none.parquet"])


def test_results_and_what_is_excluded_are_no_inputs_in_a_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["1.png", "1_mask.png", "day/2.png", "@eaDir/1.png"]
    results = ["out/heatmaps/0.png", "day/ray/heatmaps/0.png", "measured/gallery/0.png"]
    signs = ["out/run.json", "out/predictions.jsonl", "day/ray/run.json", "day/ray/rows/part=0/a.parquet"]
    for name in (*names, *results, *signs, "measured/metrics.json", "measured/report.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    root = f"file://{tmp_path}"
    assert keys(list_inputs([root], exclude=["*_mask.png"])) == [f"{root}/1.png", f"{root}/day/2.png"]
    assert "left out: 3 x image in a folder of results" in caplog.text
    assert "left out: 1 x image by --exclude" in caplog.text
    assert keys(list_inputs([f"{root}/*.png"], exclude=["*_mask*"])) == [f"{root}/1.png"]
    # A run whose results lie among its inputs.
    for name in ("run.json", "predictions.jsonl", "heatmaps/0.png"):
        (tmp_path / "day" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "day" / name).touch()
    assert keys(list_inputs([f"{root}/day"])) == [f"{root}/day/2.png"]
    with pytest.raises(InputError, match="left out: 1 x image by --exclude"):
        list_inputs([f"{root}/day"], exclude=["2*"])
    manifest(tmp_path / "list.parquet", path=["a/x.png", "b/y.png"])
    assert keys(list_inputs([tmp_path / "list.parquet"], exclude=["x.*"])) == ["b/y.png"]


def test_a_name_that_is_no_text_is_a_key_still(tmp_path: Path) -> None:
    try:
        os.rename(picture(tmp_path / "a.png"), os.fsencode(tmp_path) + b"/\xff.png")
    except OSError:
        return  # a file system that refuses such names has none
    assert keys(list_inputs([tmp_path])) == [f"{tmp_path}/\\udcff.png"]


# Stores


def test_reading_an_object(tmp_path: Path) -> None:
    with fsspec.filesystem("memory").open("/scale/a b.png", "wb") as stream:
        stream.write(b"bytes")
    assert ray_addresses.fetch("memory://scale/a b.png", "/elsewhere") == b"bytes"
    assert ray_addresses.fetch("a.png", str(tmp_path)) == tmp_path / "a.png"
    assert ray_addresses.fetch("/a.png", str(tmp_path)) == Path("/a.png")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("memory://scale/none.png", "no such object"),
        ("memory://scale/empty.png", "is empty"),
        ("nosuch://bucket/a.png", "cannot be opened here"),
        ("s3://", "names no bucket"),
    ],
)
def test_objects_that_cannot_be_read(address: str, reason: str) -> None:
    fsspec.filesystem("memory").pipe("/scale/empty.png", b"")
    with pytest.raises(InputError, match=reason):
        ray_addresses.read(address)


def test_a_lost_connection_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shaky:
        def __init__(self, failures: int) -> None:
            self.failures = failures

        def open(self, path: str, mode: str) -> Any:
            self.failures -= 1
            if self.failures >= 0:
                raise ConnectionResetError("lost")
            return fsspec.filesystem("memory").open("/scale/ok.png", mode)

    fsspec.filesystem("memory").pipe("/scale/ok.png", b"bytes")
    monkeypatch.setattr(ray_addresses, "_PAUSE", 0)
    for failures, read in ((2, True), (3, False)):
        shaky = Shaky(failures)
        monkeypatch.setattr(ray_addresses, "locate", lambda address, shaky=shaky: (shaky, address, ""))
        if read:
            assert ray_addresses.read("any://x") == b"bytes"
        else:
            with pytest.raises(InputError, match="after 3 tries"):
                ray_addresses.read("any://x")
    monkeypatch.setattr(ray_addresses, "MAX_BYTES", 4)
    monkeypatch.setattr(ray_addresses, "locate", lambda address: (Shaky(0), address, ""))
    with pytest.raises(InputError, match="more than 4 bytes"):
        ray_addresses.read("any://x")


# Sizes


@pytest.mark.parametrize(
    ("nodes", "device", "actors", "pool"),
    [
        ([Node(2)], "auto", 2, ActorPool(2, 1)),
        ([Node(2)], "auto", None, ActorPool(2, 1)),
        ([Node(1)], "cpu", None, ActorPool(1, 1)),
        ([Node(16)], "auto", None, ActorPool(4, 4)),
        ([Node(16)], "auto", 5, ActorPool(5, 3)),
        ([Node(8), Node(4), Node(0)], "auto", 3, ActorPool(3, 4)),
        ([Node(4), Node(4), Node(4)], "auto", 2, ActorPool(2, 4)),  # six cores each, but no machine has them
        ([Node(6), Node(6)], "auto", 3, ActorPool(3, 3)),  # four each would leave the third without a place
        ([Node(16, 4), Node(8, 1), Node(32)], "auto", None, ActorPool(5, 4, 1)),
        ([Node(16, 4)], "cuda", 2, ActorPool(2, 4, 1)),
        ([Node(16, 4)], "cpu", 16, ActorPool(16, 1)),
    ],
)
def test_sizes(nodes: list[Node], device: str, actors: int | None, pool: ActorPool) -> None:
    assert size_pool(nodes, device, actors) == pool


@pytest.mark.parametrize(
    ("device", "actors", "reason"),
    [("cuda", None, "no machine of the cluster has a GPU"), ("cuda:1", None, "own device"), ("cpu", 5, "4 cores")],
)
def test_sizes_that_do_not_fit(device: str, actors: int | None, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        size_pool([Node(4)], device, actors)


# Parts on disk


def test_columns_hold_all_that_a_prediction_says() -> None:
    prediction = Prediction(
        "p", 2, 2, 0.7, 0.5, "given", 0.5, np.ones((2, 2), np.float32), (0.0, 2.0), "nut", "m", "b", "note", 0.25,
        mm_per_px=0.5,
    )  # fmt: skip
    assert set(prediction.to_dict()) | {"error", "kind"} == set(schema().names)
    region = set(Region((0, 0, 1, 1), 1, 1.0, (0, 0), mm_per_px=0.5).to_dict())
    assert region == {field.name for field in schema().field("regions").type.value_type}
    rows = [prediction.to_dict(), {"path": "q", "error": "why", "kind": "InputError"}]
    read = pq.read_table(pa.BufferReader(FinishedPart.of(0, rows).data)).to_pylist()
    assert {name: value for name, value in read[0].items() if name not in ("error", "kind")} == prediction.to_dict()
    assert {name: value for name, value in read[1].items() if value is not None} == rows[1]


def test_a_run_of_parts(tmp_path: Path) -> None:
    inputs = of([f"p{i}" for i in range(7)])
    store = ParquetParts(tmp_path, {"a": 1}, inputs, actors=1, part_size=3)
    assert store.done() == RunCounts()
    parts = list(store.pending())
    assert [part.paths for part in parts] == [["p0", "p1", "p2"], ["p3", "p4", "p5"], ["p6"]]
    for part in parts[:2]:
        rows = [row(path, 0.6) for path in part.paths[:2]] + [{"path": path, "error": "x"} for path in part.paths[2:]]
        finished = FinishedPart.of(part.number, rows)
        worst = tuple((0.6, path) for path in part.paths[:2])
        assert store.append([finished]) == RunCounts(3, 1, 2, 0.6, 0.6, worst=worst)
        assert store.append([finished]) == RunCounts()  # a retry brings the same part again
    (tmp_path / "rows" / ".writing-abc").write_bytes(b"left by a process that was killed")
    store.finish(RunSummary(7, store.done()))
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["counts"] == {"inputs": 7, "done": 6, "failed": 2, "anomalous": 4, "normal": 0, "unusable": 0}
    assert (record["finished"], record["engine"]) == (False, "ray")

    again = ParquetParts(tmp_path, {"a": 1}, inputs, actors=9, resume=True)
    assert not list(tmp_path.rglob(".writing-*"))
    assert [part.paths for part in again.pending()] == [["p6"]]
    assert again.done() == store.done()
    again.append([FinishedPart.of(2, [row("p6", 0.7)])])
    counts = again.done()
    assert (counts.rows, counts.failed, counts.anomalous, counts.lowest, counts.highest) == (7, 2, 5, 0.6, 0.7)
    assert counts.worst == ((0.7, "p6"), (0.6, "p0"), (0.6, "p1"), (0.6, "p3"), (0.6, "p4"))
    table = ds.dataset(tmp_path / "rows", partitioning="hive").to_table()
    assert table.column("path").to_pylist() == keys(inputs)
    assert set(table.column("part").to_pylist()) == {0, 1, 2}


def test_counts_of_an_earlier_version_are_understood(tmp_path: Path) -> None:
    counts = {"rows": 1, "failed": 0, "anomalous": 1, "lowest": 0.9, "highest": 0.9}
    table = pa.table({"path": ["a"]}).replace_schema_metadata({b"anomalens": json.dumps(counts)})
    pq.write_table(table, tmp_path / "part.parquet")
    assert read_counts(tmp_path / "part.parquet") == RunCounts(1, 0, 1, 0.9, 0.9)


def test_a_damaged_part_is_done_again(tmp_path: Path) -> None:
    inputs = of(["a", "b"])
    store = ParquetParts(tmp_path, {}, inputs, actors=1, part_size=1)
    first, second = store.pending()
    store.append([FinishedPart.of(part.number, [row(part.paths[0])]) for part in (first, second)])
    file = first.file(tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    assert read_counts(file) is None
    again = ParquetParts(tmp_path, {}, inputs, actors=1, resume=True)
    assert [part.paths for part in again.pending()] == [["a"]]
    again.append([FinishedPart.of(0, [row("a")])])
    assert read_counts(file) == RunCounts(1, 0, 0, 0.5, 0.5)


def test_runs_do_not_mix(tmp_path: Path) -> None:
    inputs = of(["a", "b"])
    ParquetParts(tmp_path, {"a": 1}, inputs, actors=1, part_size=1)
    store = ParquetParts(tmp_path, {"a": 1}, inputs, actors=1, part_size=1)  # begun, but nothing is there yet
    store.append([FinishedPart.of(0, [row("a")])])
    for settings, others, size, resume, reason in (
        ({"a": 1}, inputs, None, False, "already holds a run"),
        ({"a": 2}, inputs, None, True, r"a was 1 then, 2 now"),
        ({"a": 1}, of(["a", "c"]), None, True, "other inputs"),
        ({"a": 1}, of(["a"]), None, True, "other inputs"),
        ({"a": 1}, inputs, 2, True, "parts of 1 rows"),
        ({"a": 1}, inputs, 0, True, "at least 1"),
    ):
        with pytest.raises(ConfigError, match=reason):
            ParquetParts(tmp_path, settings, others, actors=1, part_size=size, resume=resume)
    with pytest.raises(ConfigError, match="engine 'ray'"):
        JsonLines(tmp_path, {"a": 1}, [Path("a")], resume=True)
    local = tmp_path / "local"
    local.mkdir()
    (local / "predictions.jsonl").write_text("")
    with pytest.raises(ConfigError, match="engine 'local'"):
        ParquetParts(local, {}, inputs, actors=1)
    with pytest.raises(ConfigError, match="cannot write"):
        ParquetParts(local / "predictions.jsonl" / "out", {}, inputs, actors=1)


def test_parts_are_small_enough_to_share_out(tmp_path: Path) -> None:
    for count, actors, size in ((1, 4, 1), (80, 2, 10), (100_000, 2, 1024)):
        folder = ParquetParts(tmp_path / str(count), {}, of([str(i) for i in range(count)]), actors=actors)
        assert folder.part_size == size


def test_the_name_of_a_part_follows_from_its_keys() -> None:
    same = {RunPart(3, ["a", "b"], [None, "x"]).file(Path("d")) for _ in range(2)}
    others = {RunPart(3, ["a", "b"], [None, None]).file(Path("d")), RunPart(3, ["ab"], [None]).file(Path("d"))}
    assert len(same | others) == 3
    assert same.pop().parent == Path("d/rows/part=00003")


# A worker


def worker(tmp_path: Path, ledger: CrashLedger | None = None, **options: Any) -> Worker:
    return Worker(lambda: load(tmp_path / "log", LoadOptions(**options)), 1, ledger or CrashLedger(), str(tmp_path))


def test_rows_of_a_part(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 51)
    picture(tmp_path / "c.png", 204)
    fsspec.filesystem("memory").pipe("/scale/c.png", (tmp_path / "c.png").read_bytes())
    fsspec.filesystem("memory").pipe("/scale/text.png", b"text")
    store = "memory://scale/"
    paths = ["a.png", store + "c.png", "none.png", store + "none.png", store + "text.png", "c.png"]
    rows = worker(tmp_path, batch_size=2).rows(RunPart(0, paths, ["nut", None, "nut", "nut", None, "nut"]))
    assert [row["path"] for row in rows] == paths
    assert [row.get("object") for row in rows] == ["nut", "object", "nut", "nut", None, "nut"]
    assert [row.get("score") for row in rows] == [
        pytest.approx(0.2),
        pytest.approx(0.8),
        *[None] * 3,
        rows[1]["score"],
    ]
    assert "no such file" in rows[2]["error"]
    assert "no such object" in rows[3]["error"]
    assert rows[4]["error"].startswith(f"'{store}text.png'")


def test_an_image_that_kills_is_found_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def dies(*_: Any) -> Any:
        raise Killed

    for name in ("a", "deadly", "c"):
        picture(tmp_path / f"{name}.png", 100)
    ledger, part = CrashLedger(), RunPart(5, ["a.png", "deadly.png", "c.png"], [None, None, None])
    attempts = 0
    while True:
        attempts += 1
        mortal = worker(tmp_path, ledger)
        predict = mortal._predict

        def die_of_the_deadly(detector: Any, paths: Any, predict: Any = predict) -> Any:
            return dies() if "deadly.png" in paths else predict(detector, paths)

        monkeypatch.setattr(mortal, "_predict", die_of_the_deadly)
        try:
            rows = mortal.rows(part)
            break
        except Killed:
            continue
    assert attempts == 5  # two of the part as a whole, two image by image, and the last without the deadly image
    assert [("error" in row, row["path"]) for row in rows] == [(False, "a.png"), (True, "deadly.png"), (False, "c.png")]
    assert "died of this image 2 times" in rows[1]["error"]
    assert ledger.start(5) == (6, [1])  # nobody else is blamed


def test_a_detector_that_fails_stops_the_run(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", BROKEN)
    batch = pa.table({"number": [7], "paths": [["a.png"]], "objects": pa.array([[None]], pa.list_(pa.string()))})
    answers = worker(tmp_path)(batch).to_pylist()
    assert answers == [{"number": 7, "data": None, "counts": None, "problem": "RuntimeError: out of memory"}]


def test_detectors_of_many_objects_are_not_all_kept(tmp_path: Path) -> None:
    mine = worker(tmp_path)
    for index in range(100):
        assert mine._detector_for(f"thing {index}").options.object_name == f"thing {index}"
    assert mine._detector_for.cache_info().currsize <= 40
    assert mine._detector_for("thing 99") is mine._detector_for("thing 99")
    assert mine._detector_for(None) is mine._detector_for("object")
