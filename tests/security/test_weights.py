"""Weights and checkpoints of strangers: nothing is run, nothing is inflated, nothing that is no number is accepted."""

import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

import small_clip
from anomalens.backbones.dino import load_dino
from anomalens.backbones.weight_files import load_torch, read_tensors
from anomalens.backbones.weights import load_weights
from anomalens.engines.onnx_files import external_files
from anomalens.errors import ConfigError, WeightsError
from anomalens.methods import base
from anomalens.methods.parts.checkpoints import SHIPPED, CheckpointInfo, _digest, read_checkpoint
from anomalens.methods.published.importing import import_published


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


def _saved(content: Any, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **settings)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "pack",
    [
        lambda evil: pickle.dumps(evil),
        lambda evil: pickle.dumps({"state_dict": {"a": evil}}),
        lambda evil: _saved({"a": torch.zeros(2), "b": evil}),
        lambda evil: _saved({"prompt_learner": {"a": evil}}, _use_new_zipfile_serialization=False),
    ],
)
def test_no_pickle_runs_code_or_repeats_advice_to_run_it(
    pack: Callable[[Any], bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "weights.pt"
    path.write_bytes(pack(_Evil(marker)))
    for read in (read_tensors, load_torch, load_weights, load_dino, lambda file: import_published(file, "crane")):
        with pytest.raises(WeightsError) as caught:
            read(path)
        assert "weights_only" not in str(caught.value)
        assert caught.value.__suppress_context__ or "weights_only" not in str(caught.value.__cause__)
    assert "weights_only" not in "".join(capfd.readouterr())
    assert not marker.exists()


def _bomb(folder: Path) -> Path:
    """An archive of 100 kB that claims 100 MB, as torch.load would inflate it."""
    path = folder / "bomb.pt"
    whole = _saved({"a": torch.zeros(25_000_000)})
    with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert path.stat().st_size < 10**6
    return path


def test_archives_are_not_inflated(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="compressed archive"):
        load_torch(_bomb(tmp_path))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**6, 10**6),
        torch.zeros(1).as_strided((10**5, 10**5), (0, 0)),
        torch.zeros(3, 3).to_sparse(),
        torch.empty(10**6, 10**6, device="meta"),
    ],
)
def test_tensors_of_more_numbers_than_are_stored(tensor: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "hollow.pt"
    for content in ({"a": tensor}, {"state_dict": {"a": tensor}}, [[{"a": (tensor,)}]]):
        path.write_bytes(_saved(content))
        with pytest.raises(WeightsError):
            load_torch(path)


def test_a_list_that_names_itself_many_times_ends(tmp_path: Path) -> None:
    content: Any = [torch.zeros(1)]
    for _ in range(60):
        content = [content, content]
    (tmp_path / "a.pt").write_bytes(_saved(content))
    with pytest.raises(WeightsError):
        read_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"vision_config": {"num_hidden_layers": 10**9}},
        {"vision_config": {"num_attention_heads": 0}},
        {"vision_config": {"hidden_size": 10**9}},
        {"vision_config": {"patch_size": 0}},
        {"vision_config": {"image_size": -16}},
        {"vision_config": {"intermediate_size": 10**12}},
        {"vision_config": []},
        {"text_config": {"num_hidden_layers": -1}},
        {"text_config": {"vocab_size": 10**15}},
        {"text_config": {"max_position_embeddings": 10**12}},
        {"projection_dim": 10**10},
        {"projection_dim": "x" * 10_000},
    ],
)
def test_absurd_sizes_are_refused_at_once(change: dict[str, Any], tmp_path: Path) -> None:
    folder = small_clip.write_hugging_face(tmp_path / "hf", small_clip.hugging_face())
    config = json.loads((folder / "config.json").read_text())
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError) as caught:
        load_weights(folder)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("resblocks.0", "resblocks.99999999999"),
        lambda name: name.replace("resblocks.0", "resblocks." + "9" * 5000),
        lambda name: name + "\0",
        lambda name: "x" * 10_000 + name,
    ],
)
def test_absurd_names_of_tensors(rename: Callable[[str], str], tmp_path: Path) -> None:
    state = {rename(name): value for name, value in small_clip.state().items()}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError):
        load_weights(tmp_path / "a.safetensors")


def test_tensors_of_odd_shapes_are_one_line(tmp_path: Path) -> None:
    shapes: tuple[tuple[int, ...], ...] = ((), (0,), (3, 5), (1, 1, 1, 1, 1), (10**6,))
    for shape in shapes:
        state = {name: torch.zeros(shape) for name in small_clip.state()}
        save_file(state, tmp_path / "a.safetensors")
        with pytest.raises(WeightsError):
            load_weights(tmp_path / "a.safetensors")
    model = small_clip.hugging_face()
    for shape in shapes[:3]:
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        state |= {name: torch.zeros(shape) for name in state if "q_proj" in name or "projection" in name}
        save_file(state, tmp_path / "a.safetensors")
        with pytest.raises(WeightsError):
            load_weights(tmp_path / "a.safetensors")


def _checkpoint(path: Path, **tensors: Any) -> Path:
    """The shipped prompts with some tensors exchanged, and a sum that fits."""
    source = SHIPPED / "anomalyclip.safetensors"
    raw = load_file(source) | tensors
    texts = read_checkpoint(source).info.to_metadata()
    path.write_bytes(save(raw, texts | {"sha256": _digest(raw)}))
    return path


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"learned.prompts.normal": torch.full((12, 64), torch.nan)}, "NaN or infinity"),
        ({"learned.prompts.deep": torch.full((8, 4, 64), torch.inf)}, "NaN or infinity"),
        ({"learned.prompts.normal": torch.zeros(12, 64, dtype=torch.int32)}, "expected floating point"),
        ({"auxiliary.images": torch.zeros(2, 2)}, "expected a list of whole numbers"),
        ({"backbone.token_ids": torch.zeros(2), "backbone.token_rows": torch.zeros(2)}, "token"),
        ({"backbone.token_rows": torch.full((2, 64), torch.nan)}, "NaN or infinity"),
    ],
)
def test_checkpoints_of_no_numbers(tensors: dict[str, Tensor], reason: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=reason):
        read_checkpoint(_checkpoint(tmp_path / "a.safetensors", **tensors))


@pytest.mark.parametrize("options", [{"n_ctx": 10**9}, {"depth": 10**9}, {"taps": tuple(range(20_000))}])
def test_absurd_options_of_methods(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="too large"):
        base.entry("anomalyclip").config(**options)


def test_headers_of_checkpoints_have_types() -> None:
    texts = read_checkpoint(SHIPPED / "anomalyclip.safetensors").info.to_metadata()
    for key, value in (
        ("config", "[]"),
        ("seed", '"x"'),
        ("metrics", "1"),
        ("training", "[" * 10_000),
        ("seed", "9" * 99),
    ):
        with pytest.raises(WeightsError):
            CheckpointInfo.from_metadata(texts | {key: value}, "a.safetensors")


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in the file system")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    os.mkfifo(tmp_path / "a.pth")
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(WeightsError, match="not a regular file"):
        read_checkpoint(tmp_path / "a.safetensors")
    for name in ("a.safetensors", "a.pth"):
        with pytest.raises(WeightsError):
            load_weights(tmp_path / name)
    with pytest.raises(WeightsError):
        import_published(tmp_path / "a.pth", "crane")


# --------------------------------------------------------------------------------------------------- numbers elsewhere
def _field(number: int, content: bytes) -> bytes:
    length, size = b"", len(content)
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return (
        bytes([number << 3 & 127 | 2 | (128 if number > 15 else 0)])
        + (bytes([number >> 4]) if number > 15 else b"")
        + length
        + bytes([size])
        + content
    )


def _model(location: bytes, inside: str = "graph") -> bytes:
    tensor = _field(8, b"weight") + _field(13, _field(1, b"location") + _field(2, location)) + b"\x70\x01"
    if inside == "attribute":
        node = _field(5, _field(5, tensor))
        return b"\x08\x0a" + _field(7, _field(1, node))
    return b"\x08\x0a" + _field(7, _field(5, tensor))


@pytest.mark.parametrize("inside", ["graph", "attribute"])
def test_files_that_a_graph_reads_are_found(inside: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(_model(b"m.onnx.data", inside))
    assert external_files(tmp_path / "m.onnx") == ["m.onnx.data"]


@pytest.mark.parametrize("location", [b"/etc/passwd", b"../x", b"a/b", b"a\\b", b"", b"\xff"])
def test_graphs_that_read_elsewhere_are_refused(location: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(_model(location))
    with pytest.raises(WeightsError):
        external_files(tmp_path / "m.onnx")


@pytest.mark.parametrize("content", [b"", b"\x3a", b"\x3a\xff\xff\xff\xff\x7f", b"\xff" * 40, struct.pack("<Q", 7) * 9])
def test_graphs_that_are_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(WeightsError):
        external_files(tmp_path / "m.onnx")


def test_the_package_onnx_agrees(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weight = onnx.numpy_helper.from_array(torch.zeros(300, 300).numpy(), "w")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["w"], ["y"])], "g", [], [], [weight])
    model = onnx.helper.make_model(graph)
    onnx.save_model(model, tmp_path / "plain.onnx")
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert external_files(tmp_path / "plain.onnx") == []
    assert external_files(tmp_path / "m.onnx") == ["w.bin"]
