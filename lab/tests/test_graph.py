"""The graph that ships: equal to PyTorch, small, and without a trace of the machine it was made on."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from safetensors.numpy import save_file

from anomalens.decision.calibration import bundled_calibration
from anomalens.detection.loading import load_detector
from anomalens.engines import light
from anomalens.engines.onnx_files import external_files
from anomalens.engines.torch_engine import TorchEngine
from anomalens.files import file_digest
from anomalens_lab.graph import LIMIT, METHODS, compare, forget_origin, refer_to


@pytest.mark.parametrize("method", METHODS)
def test_the_shipped_graph_computes_what_pytorch_computes(method: str) -> None:
    engine = load_detector(method, engine="torch", device="cpu").engine
    assert isinstance(engine, TorchEngine)
    # Sides of an odd and of an even number of patches, of the largest stride too.
    differences = compare(engine, (48, 80, 112, 320))
    assert max(differences.values()) <= LIMIT, differences


@pytest.mark.parametrize("method", METHODS)
def test_the_shipped_graph_is_small_and_names_no_machine(method: str) -> None:
    path, shipped = light.FOLDER / light.graph_of(method), bundled_calibration().graphs[method]
    assert {name: file_digest(light.FOLDER / name) for name in shipped.sha256} == dict(shipped.sha256)
    assert set(shipped.sha256) == {f"{method}.onnx", "weights.safetensors", f"prompts/{method}.safetensors"}
    assert external_files(path) == ["weights.safetensors"]
    content = path.read_bytes()
    assert len(content) < 500_000
    assert b".py" not in content


@pytest.mark.parametrize("turned", [False, True])
def test_large_tensors_become_places_in_the_file_of_weights(turned: bool, tmp_path: Path) -> None:
    half = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float16)
    save_file({"small": half[:1, :3].copy(), "large": half}, tmp_path / "weights.safetensors")
    numbers = np.ascontiguousarray(half.astype(np.float32).T if turned else half.astype(np.float32))
    rows, columns = numbers.shape
    x, y = (
        ir.Value(name=name, shape=ir.Shape((1, n)), type=ir.TensorType(ir.DataType.FLOAT))
        for name, n in (("x", rows), ("y", columns))
    )
    weight = ir.Value(name="w", const_value=ir.tensor(numbers, name="w"))
    node = ir.node("MatMul", [x, weight], outputs=[y])
    node.metadata_props["pkg.torch.onnx.stack_trace"] = "File graph.py"
    graph = ir.Graph([x], [y], nodes=[node], initializers=[weight], opset_imports={"": 20}, name="one product")
    model = ir.Model(graph, ir_version=10)
    refer_to(model, tmp_path / "weights.safetensors")
    forget_origin(model)
    (tmp_path / "graph.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    assert external_files(tmp_path / "graph.onnx") == ["weights.safetensors"]
    assert b"graph.py" not in (tmp_path / "graph.onnx").read_bytes()
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx", providers=["CPUExecutionProvider"])
    values = np.random.default_rng(1).normal(size=(1, rows)).astype(np.float32)
    np.testing.assert_allclose(session.run(None, {"x": values})[0], values @ numbers, rtol=1e-5, atol=1e-4)
