"""Make the graphs that are shipped beside the bundled weights: `python -m anomalens_lab graph`.

A method as one ONNX graph of any size, with what photographs are compared by. It holds no large number of its own: each
tensor that the file of weights has too is a place in that file (external data), half precision, followed by
a Cast, which a runtime computes once when it opens the graph. Method, hashes and preprocessing go into the calibration
table, which the product reads them from.
"""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from safetensors.numpy import load_file

from anomalens.backbones.bundle import BUNDLED_FILE
from anomalens.decision.calibration import CalibrationTable, ShippedGraph
from anomalens.detection.loading import load_detector
from anomalens.engines import light
from anomalens.engines.torch_engine import TorchEngine
from anomalens.errors import WeightsError
from anomalens.export.graph import Graph, export_program
from anomalens.files import atomic_write, file_digest, json_ready, write_json

# Bytes below which a tensor stays in the graph: a place elsewhere is not worth the nodes that read it.
_SMALL = 8192
METHODS = ("anomalyclip", "crane", "crane+")
"""Methods that call every object alike, so that no text has to be read, and whose maps equal PyTorch's. TokenCLIP calls
objects alike too, but chooses subspaces for each patch: where two are nearly as good, runtimes choose differently."""
LIMIT = 1e-5
"""Largest difference from PyTorch: of scores and maps, whose range is 1, and of levels in units of their range."""


def make_graph(method: str, weights: Path = BUNDLED_FILE) -> dict[str, float]:
    """Write a method's graph beside the bundled weights and its description into the calibration table.

    Returns the largest difference from PyTorch of each output.

    Raises WeightsError where an output differs by more than LIMIT; the files are then as they were.
    """
    detector = load_detector(method, engine="torch", device="cpu")
    engine = detector.engine
    assert isinstance(engine, TorchEngine)
    graph = Graph(engine, detector.preprocess, any_size=True, shipped=True)
    model = export_program(graph).model
    refer_to(model, weights)
    forget_origin(model)
    path = weights.parent / light.graph_of(method)
    before = path.read_bytes() if path.exists() else None
    # The runtime reads the weights from the folder that the graph lies in.
    atomic_write(path, ir.to_proto(model).SerializeToString())
    differences = compare(engine)
    if max(differences.values()) > LIMIT:
        if before is not None:
            atomic_write(path, before)
        raise WeightsError(f"the graph differs from PyTorch by more than {LIMIT:g}: {differences}")
    table_path = weights.parent / "calibration.json"
    table = CalibrationTable.read(table_path)
    shipped = ShippedGraph(
        method,
        engine.identity.options,
        engine.identity.learned or "",
        detector.preprocess,
        {name: file_digest(weights.parent / name) for name in (path.name, weights.name, light.prompts_of(method))},
    )
    write_json(table_path, json_ready(replace(table, graphs={**table.graphs, method: shipped}).to_dict()))
    return differences


def refer_to(model: ir.Model, weights: Path) -> None:
    """Replace large tensors of a graph by the same ones in a safetensors file of half precision, in place."""
    graph, stored = model.graph, _places(weights)
    first = next(iter(graph))
    for name, value in list(graph.initializers.items()):
        numbers = value.const_value.numpy() if value.const_value is not None else np.zeros(0)
        place = stored.get(_key(numbers)) if numbers.nbytes >= _SMALL else None
        if place is None:
            continue
        half = ir.Value(name=place.name, shape=place.shape, type=ir.TensorType(ir.DataType.FLOAT16), const_value=place)
        if place.name not in graph.initializers:
            graph.register_initializer(half)
        nodes = [ir.node("Cast", [graph.initializers[place.name]], {"to": int(ir.DataType.FLOAT)})]
        if tuple(place.shape) != numbers.shape or not np.array_equal(place.numpy().astype(np.float32), numbers):
            nodes.append(ir.node("Transpose", [nodes[-1].outputs[0]], {"perm": [1, 0]}))
        nodes[-1].outputs[0].name = f"{name}_read"
        graph.insert_before(first, nodes)
        ir.convenience.replace_all_uses_with(value, nodes[-1].outputs[0])
        del graph.initializers[name]


def _places(weights: Path) -> dict[tuple[Any, ...], ir.ExternalTensor]:
    """Return where each tensor of a safetensors file lies, by its content, as it is and turned."""
    with weights.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    places = {}
    for name, numbers in load_file(weights).items():
        begin, end = header[name]["data_offsets"]
        place = ir.ExternalTensor(
            weights.name,
            8 + length + begin,
            end - begin,
            ir.DataType.FLOAT16,
            shape=ir.Shape(numbers.shape),
            name=name,
            base_dir=weights.parent,
        )
        full = numbers.astype(np.float32)
        places[_key(full)] = place
        if full.ndim == 2:
            places.setdefault(_key(full.T), place)
    return places


def _key(numbers: Any) -> tuple[Any, ...]:
    return numbers.shape, numbers.dtype.str, np.ascontiguousarray(numbers).tobytes()


def forget_origin(model: ir.Model) -> None:
    """Remove what an exporter notes of the program a graph was made from: half of its size, and names of folders."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in (*model.graph.initializers.values(), *model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
    for node in model.graph:
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()


def compare(engine: TorchEngine, sides: tuple[int, ...] = (448, 320, 336, 80)) -> dict[str, float]:
    """Return the largest difference of the graph's outputs from PyTorch's, on noise of several sizes."""
    shipped = light.LightEngine(engine.identity, "onnx").with_levels()
    reference, differences = engine.with_levels(), dict.fromkeys(("score", "map", *light.LEVELS), 0.0)
    for side in sides:
        pixels = np.random.default_rng(side).normal(size=(2, 3, side, side)).astype(np.float32)
        expected, answer = (each.score_batch(pixels, (0, 1)) for each in (reference, shipped))
        pairs = [(expected.score, answer.score), (expected.map, answer.map)]
        pairs += [(a / np.ptp(a), b / np.ptp(a)) for a, b in zip(expected.levels, answer.levels, strict=True)]
        for name, (a, b) in zip(differences, pairs, strict=True):
            differences[name] = max(differences[name], float(np.abs(a - b).max()))
    return differences
