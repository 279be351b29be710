"""Write a detector as files that run without PyTorch: make them in a folder of their own, compare, then put in place.

Nothing reaches its target that was not compared: a graph further than LIMIT from PyTorch, and an int8 graph that
loses more than its gate allows, are thrown away.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.engines import exported, torch_engine
from anomalens.engines.contract import NO_WORDS
from anomalens.engines.exported import Card
from anomalens.engines.light import LightEngine
from anomalens.engines.taught import TaughtEngine
from anomalens.engines.torch_engine import TorchEngine
from anomalens.errors import ConfigError
from anomalens.export import gate
from anomalens.export.graph import Graph, write_onnx, write_openvino
from anomalens.extras import optional, versions
from anomalens.files import digest, file_digest, flush, write_json
from anomalens.locks import locked
from anomalens.options import LoadOptions
from anomalens.prediction import predictions_of

LIMIT = 1e-3  # largest difference allowed: of the map in units of its range, of the score as it is
SWITCHED = 0.01  # share of a map's pixels that may differ by more, where a tie decides (`ExportTraits.switches`)


@dataclass(frozen=True)
class Difference:
    """State how far an exported detector is from PyTorch's on some images."""

    images: int
    # Largest difference of a map's pixel, over the range of all maps.
    map: float
    # Largest difference of an image score.
    score: float
    # Share of all pixels that differ by more than LIMIT.
    beyond: float
    # Largest such share that is accepted: 0, but for methods where a tie decides.
    allowed: float = 0.0

    def or_larger(self, other: "Difference") -> "Difference":
        """Return the larger of each number, for images compared in two ways."""
        beyond = max(self.beyond, other.beyond)
        return replace(self, map=max(self.map, other.map), score=max(self.score, other.score), beyond=beyond)

    @property
    def passed(self) -> bool:
        """Tell whether score and map are within LIMIT, the map but for the share of pixels that is allowed."""
        # Written so that NaN does not pass.
        return (self.map <= LIMIT or 0 < self.beyond <= self.allowed) and self.score <= LIMIT


@dataclass(frozen=True)
class Report:
    """Hold the outcome of an export."""

    # Of the float32 graph.
    difference: Difference
    # Of the int8 graph, if one was asked for.
    verdict: gate.Verdict | None
    # Size of the model's files.
    megabytes: float
    # The choice in this method's maps that a tie decides; None: there is none.
    switches: str | None = None

    @property
    def passed(self) -> bool:
        """Tell whether the files were put in place."""
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
    """Write `detector` to `out` (.onnx or .xml) with its card, if the graph predicts what PyTorch does.

    Args:
        detector: from `load_detector(..., device="cpu")`, float32, whichever engine computes it.
        out: the file; what stood there is replaced, or kept where the export fails.
        images: what both are compared on, at least one.
        any_size: leave the size open, for `load_detector(..., size=)`; compared at two sizes.
        labelled: images with masks; with these, weights are rounded to int8 and judged on them.
        limits: of that judgement.

    Raises:
        ConfigError: the detector cannot be exported, and why; int8 for OpenVINO; no images; another run writes `out`.
        MissingExtraError: a package for exporting is missing.
        OSError: the files cannot be written.
    """
    kind = exported.format_of(out)
    detector = _in_torch(detector)
    # Several sizes need an open one.
    any_size = any_size or (bool(detector.extra_sizes) and not isinstance(detector.engine, TaughtEngine))
    engine = _exportable(detector, any_size)
    if not images:
        raise ConfigError("no image to compare on; leave --check out to use the bundled scenes")
    if labelled is not None and kind != "onnx":
        raise ConfigError("int8 is made for ONNX Runtime; use --format onnx, or leave --int8 out")
    with _workplace(out) as folder:
        model = folder / out.name
        taught = detector.engine if isinstance(detector.engine, TaughtEngine) else engine
        graph = Graph(taught, detector.preprocess, any_size)
        write = write_onnx if kind == "onnx" else write_openvino
        write(graph, model)
        card = _card(detector, kind, graph)
        _write_card(model, card)
        difference = _difference(detector, model, graph, images)
        verdict = None
        if labelled is not None and difference.passed:
            quantise(model, {tuple(p.shape) for p in engine.clip.visual.transformer.parameters()})
            card = replace(card, identity=replace(card.identity, precision="int8"))
            _write_card(model, card)
            verdict = gate.judge(detector, _open(model, detector), labelled, limits or gate.Gate())
        megabytes = sum(file.stat().st_size for file in exported.files_of(model).values()) / 1e6
        report = Report(difference, verdict, megabytes, graph.traits.switches)
        if report.passed:
            figures = {"difference": asdict(difference), "int8": asdict(verdict) if verdict else None}
            _write_card(model, replace(card, made={**card.made, **figures}))
            _put_in_place(model, out)
    return report


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """Give a folder of its own beside `out`, with a lock on `out`, while the block runs."""
    parent, prefix = out.absolute().parent, f".exporting-{digest(os.fsencode(out.name))[:8]}-"
    with locked(out, "export"):
        # What a killed export left can be large.
        for leftover in parent.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        # Beside `out`, because renaming is atomic only within one file system.
        with tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as folder:
            yield Path(folder)


def compare(detector: Detector, other: Detector, images: Sequence[Any]) -> Difference:
    """Measure the largest differences between two detectors' predictions of the same images."""
    predictions = (predictions_of(each.predict_iter(list(images))) for each in (detector, other))
    pairs = list(zip(*predictions, strict=True))
    span = max(a.anomaly_map.max() for a, _ in pairs) - min(a.anomaly_map.min() for a, _ in pairs)
    apart = [np.abs(a.anomaly_map - b.anomaly_map) / (span or 1) for a, b in pairs]
    return Difference(
        images=len(pairs),
        map=max(float(pixels.max()) for pixels in apart),
        score=max(abs(a.score - b.score) for a, b in pairs),
        # Written so that NaN counts as beyond.
        beyond=float(np.mean([np.mean(~(pixels <= LIMIT)) for pixels in apart])),
    )


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
    matrices = {
        weight.name for weight in content.graph.initializer if len(weight.dims) == 2 and tuple(weight.dims) in allowed
    }
    chosen = [n.name for n in content.graph.node if n.op_type in ("MatMul", "Gemm") and matrices & set(n.input)]
    # Without this mark the quantiser warns that the model should be folded first, which it has been.
    optional("onnxruntime.quantization.quant_utils", "export").add_pre_process_metadata(content)
    quantization.quantize_dynamic(
        content,
        str(model),
        op_types_to_quantize=["MatMul", "Gemm"],
        nodes_to_quantize=chosen,
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
    )


def _in_torch(detector: Detector) -> Detector:
    """Return the same detector computed by PyTorch, where the shipped graph computes it."""
    taught = detector.engine if isinstance(detector.engine, TaughtEngine) else None
    words = taught.words if taught else detector.engine
    if not isinstance(words, LightEngine):
        return detector
    known = words.identity
    options = LoadOptions(method=known.method, object_name=known.object_name, seed=known.seed, device="cpu")
    engine = torch_engine.load(options).engine
    if taught:
        levels = engine.with_levels(taught.method.depths)
        return detector.replace(engine=TaughtEngine(levels, taught.method, taught.sizes, taught.identity))
    return detector.replace(engine=engine)


def _exportable(detector: Detector, any_size: bool) -> TorchEngine:
    """Return the engine of a detector that can be exported. Raises ConfigError, with the reason, for any other."""
    engine = detector.engine
    if isinstance(engine, TaughtEngine):
        if any_size or detector.extra_sizes:
            raise ConfigError("a taught part is exported at the one size it was taught at; leave other sizes out")
        if engine.method.unexportable:
            raise ConfigError(f"{detector.method_name} cannot be exported like this: {engine.method.unexportable}")
        engine = engine.words
    if detector.compares_sets:
        raise ConfigError(
            f"{detector.method_name} compares the images of a set with each other, which a graph for single images "
            "cannot do; export another method"
        )
    if engine.identity.method == NO_WORDS:
        raise ConfigError(f"{detector.backbone} knows images only, which is not exported; teach with CLIP weights")
    if not isinstance(engine, TorchEngine):
        raise ConfigError("this detector is an exported one already; name the method it was made from")
    traits = engine.method.export_traits(detector.preprocess.size)
    reason = traits.unexportable or (traits.one_size if any_size else None)
    if reason:
        raise ConfigError(f"{detector.method_name} cannot be exported like this: {reason}")
    if engine.identity.precision != "float32" or engine.device.type != "cpu":
        raise ConfigError("only detectors in float32 on the CPU are exported; load it with device='cpu'")
    return engine


def _difference(detector: Detector, model: Path, graph: Graph, images: Sequence[Any]) -> Difference:
    """Compare a model with the detector it was made from, at a second size too where its size is open."""
    difference = compare(detector, _open(model, detector), images)
    if graph.any_size:
        cells = detector.preprocess.size // graph.unit
        side = graph.unit * (cells // 2 if cells >= 6 else cells + 2)
        sized = detector.replace(preprocess=replace(detector.preprocess, size=side))
        difference = difference.or_larger(compare(sized, _open(model, sized), images))
    return replace(difference, allowed=SWITCHED) if graph.traits.switches else difference


def _open(model: Path, like: Detector) -> Detector:
    """Load an exported model, to be used as the detector `like` is."""
    kept = {name: getattr(like.options, name) for name in ("tile", "overlap", "batch_size")}
    options = LoadOptions(method=str(model), size=like.preprocess.size, extra_sizes=like.extra_sizes)
    return load_detector(options.replace(**kept))


def _card(detector: Detector, kind: str, graph: Graph) -> Card:
    preprocess, unit = detector.preprocess, graph.unit if graph.any_size else None
    return Card(
        format=kind,
        identity=detector.identity,
        # The graph itself normalises pixels.
        preprocess=replace(preprocess, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), multiple=unit or preprocess.multiple),
        calibration=detector.calibration,
        pooling=detector.pooling,
        draws=graph.traits.draws,
        batch_limit=graph.traits.batch_limit,
        any_size=unit,
        extra_sizes=detector.extra_sizes,
        capture=detector.capture,
        roi=detector.roi,
        min_area=detector.options.min_area,
        mm_per_px=detector.options.mm_per_px,
        made={
            "versions": versions(),
            "settings": detector.settings,
            "inside the graph": {"mean": preprocess.mean, "std": preprocess.std},
        },
    )


def _write_card(model: Path, card: Card) -> None:
    sums = {name: file_digest(file) for name, file in exported.files_of(model).items()}
    write_json(exported.card_path(model), replace(card, sha256=sums).to_dict())


def _put_in_place(model: Path, out: Path) -> None:
    """Move a model's files and its card next to `out`, the file that a user names last."""
    *others, named = exported.files_of(model).values()
    for file in [*others, exported.card_path(model), named]:
        flush(file)
        os.replace(file, out.parent / file.name)
