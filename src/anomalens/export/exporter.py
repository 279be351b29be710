"""A detector as files that run without PyTorch: made in a folder aside, compared with the original, then put in place.

Nothing stands at the target that was not compared: a graph further than LIMIT from PyTorch, and an int8 graph that
loses more than its gate allows, are thrown away.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.engines import exported
from anomalens.engines.exported import Card
from anomalens.engines.torch_engine import TorchEngine
from anomalens.errors import ConfigError
from anomalens.export import gate
from anomalens.export.graph import Graph, refuse, write_onnx, write_openvino
from anomalens.extras import optional, versions
from anomalens.files import file_digest, write_json
from anomalens.prediction import predictions_of

LIMIT = 1e-3  # largest difference allowed: of the map in units of its range, of the score as it is
SWITCHED = 0.01  # share of a map's pixels that may differ by more, where a tie decides (`ExportTraits.switches`)


@dataclass(frozen=True)
class Difference:
    """How far an exported detector is from PyTorch's on some images."""

    images: int
    map: float  # largest difference of a map's pixel, over the range of all maps
    score: float  # largest difference of an image score
    beyond: float  # share of all pixels that differ by more than LIMIT
    allowed: float = 0.0  # largest such share: 0, but for methods where a tie decides

    def or_larger(self, other: "Difference") -> "Difference":
        """The larger of each, for images compared in two ways."""
        beyond = max(self.beyond, other.beyond)
        return replace(self, map=max(self.map, other.map), score=max(self.score, other.score), beyond=beyond)

    @property
    def passed(self) -> bool:
        """Whether score and map, the latter but for what may switch, are within LIMIT."""
        return (self.map <= LIMIT or 0 < self.beyond <= self.allowed) and self.score <= LIMIT  # NaN is not within


@dataclass(frozen=True)
class Report:
    """What came of an export."""

    difference: Difference  # of the float32 graph
    verdict: gate.Verdict | None  # of the int8 graph
    megabytes: float  # of the model's files
    switches: str | None = None  # what a tie decides in this method's maps

    @property
    def passed(self) -> bool:
        """Whether the files were put in place."""
        return self.difference.passed and (self.verdict is None or self.verdict.passed)


def export(
    detector: Detector,
    out: Path,
    images: Sequence[Any],
    *,
    any_size: bool = False,
    labelled: gate.Labelled | None = None,
    limits: gate.Gate | None = None,
) -> Report:
    """Write `detector` to `out` (.onnx or .xml) with its card, if it stays what it is.

    Args:
        detector: from `load_detector(..., device="cpu")`, float32.
        out: the file; what stood there is replaced, or kept where the export fails.
        images: what both are compared on, at least one.
        any_size: leave the size open, for `load_detector(..., size=)`; compared at two sizes.
        labelled: images with masks; given, weights are rounded to int8 and judged on these.
        limits: of that judgement.

    Raises:
        ConfigError: the detector cannot be exported, and why; int8 for OpenVINO; no images.
        MissingExtraError: a package for exporting is missing. OSError: the files cannot be written.
    """
    kind, engine = exported.format_of(out), detector.engine
    if not isinstance(engine, TorchEngine):
        raise ConfigError("this detector is an exported one already; name the method it was made from")
    if not images:
        raise ConfigError("no image to compare on; leave --check out to use the bundled scenes")
    if detector.options.extra_sizes and not any_size:
        raise ConfigError("this detector looks at several sizes; export it with its size left open (--dynamic-size)")
    if labelled is not None and kind != "onnx":
        raise ConfigError("int8 is made for ONNX Runtime; use --format onnx, or leave --int8 out")
    refuse(engine, detector.preprocess.size, any_size)
    # The same folder, because renaming is atomic only within one file system.
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".exporting-") as folder:
        made = Path(folder) / out.name
        graph = Graph(engine, detector.preprocess, any_size)
        (write_onnx if kind == "onnx" else write_openvino)(graph, made)
        card = _card(detector, kind, graph)
        _describe(made, card)
        difference = compare(detector, _open(made, detector), images)
        if any_size:
            cells = detector.preprocess.size // graph.unit
            other = _sized(detector, graph.unit * (cells // 2 if cells >= 6 else cells + 2))
            difference = difference.or_larger(compare(other, _open(made, other), images))
        if graph.traits.switches:
            difference = replace(difference, allowed=SWITCHED)
        verdict = None
        if labelled is not None and difference.passed:
            quantise(made, {tuple(p.shape) for p in engine.clip.visual.transformer.parameters()})
            card = replace(card, identity=replace(card.identity, precision="int8"))
            _describe(made, card)
            verdict = gate.judge(detector, _open(made, detector), labelled, limits or gate.Gate())
        parts = exported.parts(made)
        report = Report(difference, verdict, sum(part.stat().st_size for part in parts) / 1e6, graph.traits.switches)
        if report.passed:
            figures = {"difference": asdict(difference), "int8": asdict(verdict) if verdict else None}
            _describe(made, replace(card, made={**card.made, **figures}))
            for part in [*parts[:-1], exported.card_path(made), parts[-1]]:
                os.replace(part, out.parent / part.name)
    return report


def compare(detector: Detector, other: Detector, images: Sequence[Any]) -> Difference:
    """The largest differences between two detectors' predictions of the same images."""
    pairs = list(zip(*(predictions_of(each.predict_iter(list(images))) for each in (detector, other)), strict=True))
    span = max(a.anomaly_map.max() for a, _ in pairs) - min(a.anomaly_map.min() for a, _ in pairs)
    apart = [np.abs(a.anomaly_map - b.anomaly_map) / (span or 1) for a, b in pairs]
    beyond = np.mean([np.mean(~(one <= LIMIT)) for one in apart])
    score = max(abs(a.score - b.score) for a, b in pairs)
    return Difference(len(pairs), max(float(one.max()) for one in apart), score, float(beyond))


def quantise(model: Path, shapes: set[tuple[int, ...]]) -> None:
    """Round the matrices of the tower's blocks to int8, in place; activations are rounded as they come (dynamic).

    Everything else keeps its precision: convolutions, which int8 does not speed up here, and the method's own
    comparison with the text and enlargement of maps.

    Args:
        shapes: of the parameters that may be rounded, as PyTorch has them (a graph may have them transposed).
    """
    onnx, runtime = optional("onnx", "export"), optional("onnxruntime", "export")
    quantization = optional("onnxruntime.quantization", "export")
    folded = model.with_name("folded.onnx")
    options = runtime.SessionOptions()
    # Folds what the exporter left of transposed weights, so that they are seen to be constants.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    content = onnx.load(str(folded))
    allowed = shapes | {shape[::-1] for shape in shapes}
    constants = {one.name for one in content.graph.initializer if tuple(one.dims) in allowed and len(one.dims) == 2}
    chosen = [n.name for n in content.graph.node if n.op_type in ("MatMul", "Gemm") and constants & set(n.input)]
    # Spares a warning that asks for the folding and the shapes, which this model has had.
    optional("onnxruntime.quantization.quant_utils", "export").add_pre_process_metadata(content)
    quantization.quantize_dynamic(
        content,
        str(model),
        op_types_to_quantize=["MatMul", "Gemm"],
        nodes_to_quantize=chosen,
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
    )


def _card(detector: Detector, kind: str, graph: Graph) -> Card:
    prepared, inside = detector.preprocess, {"mean": detector.preprocess.mean, "std": detector.preprocess.std}
    return Card(
        kind,
        detector.engine.identity,
        replace(
            prepared,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            multiple=graph.unit if graph.any_size else prepared.multiple,
        ),
        detector.calibration,
        detector.pooling,
        graph.traits.draws,
        graph.traits.batch_limit,
        graph.unit if graph.any_size else None,
        made={"versions": versions(), "settings": detector.settings, "inside the graph": inside},
    )


def _describe(model: Path, card: Card) -> None:
    sums = {part.suffix: file_digest(part) for part in exported.parts(model)}
    write_json(exported.card_path(model), replace(card, sha256=sums).to_dict())


def _open(model: Path, like: Detector) -> Detector:
    options = like.options
    return load_detector(
        str(model),
        size=like.preprocess.size,
        tile=options.tile,
        overlap=options.overlap,
        extra_sizes=options.extra_sizes,
        batch_size=options.batch_size,
    )


def _sized(detector: Detector, side: int) -> Detector:
    return detector.replace(preprocess=replace(detector.preprocess, size=side))
