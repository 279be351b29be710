"""Run a graph that is shipped with the bundled backbone: a method, words and photographs, without PyTorch.

In the folder of the weights are

    METHOD.onnx           the image tower and a method; its numbers are places in the next file
    weights.safetensors   the weights
    calibration.json      what each graph is, and the hashes of its files (`ShippedGraph`)

    pixels [B, 3, H, W] -> score [B], map [B, H, W], levels [B, h, w, C]      H and W: multiples of the patch
"""

import copy
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from safetensors.numpy import load_file

from anomalens.backbones.bundle import BUNDLED_FILE
from anomalens.backbones.registry import canonical_name
from anomalens.decision.calibration import CalibrationTable, ShippedGraph, bundled_calibration
from anomalens.engines import onnx, openvino
from anomalens.engines.contract import Floats, GraphRun, Identity, Scored, threads
from anomalens.engines.loaded import (
    MOST_PARALLEL,
    Loaded,
    changed_settings,
    loaded_as_shipped,
    shipped_for,
    whole_patches,
    words_of,
)
from anomalens.errors import WeightsError
from anomalens.files import file_digest
from anomalens.methods.references.reference_method import QUARTERS
from anomalens.options import BUNDLED, LoadOptions, refuse_unknown
from anomalens.untrusted import read_header

Runtime = Literal["onnx", "openvino"]

FOLDER = BUNDLED_FILE.parent
LEAST_PATCHES, MOST_PATCHES = 3, 256
"""How many patches long a side of the pixels may be."""
LEVELS = ("level_0", "level_1", "level_2")
"""Outputs of the graph that become `Scored.levels`."""


class LightEngine:
    """Hold the shipped graph of a method. Threads may share it, and it can be pickled."""

    def __init__(self, identity: Identity, runtime: Runtime) -> None:
        """Open the graph with a runtime. Raises MissingExtraError, WeightsError where it cannot be opened."""
        self.identity, self.runtime = identity, runtime
        self._sessions = _Sessions(graph_of(identity.method), runtime)
        self._hands_out_levels = False
        # What cannot be opened is refused when the detector is loaded.
        self._run_for(sharing=self.parallel)

    @property
    def parallel(self) -> int:
        """Say how many batches are worth scoring at once: ONNX Runtime does more with a batch for each core.

        OpenVINO shares a batch among the cores itself.
        """
        return min(_cores(), MOST_PARALLEL) if self.runtime == "onnx" else 1

    def for_object(self, name: str) -> "LightEngine":
        """Return the same under another name of the object, which changes nothing else: words call all alike."""
        if name == self.identity.object_name:
            return self
        other = copy.copy(self)
        other.identity = replace(self.identity, object_name=name)
        return other

    def with_levels(self, depths: Sequence[float] = QUARTERS) -> "LightEngine":
        """Return the same, whose answers hold the levels of the convolutional stem, whatever the depths."""
        other = copy.copy(self)
        other._hands_out_levels = True
        return other

    def score_batch(self, pixels: Floats, keys: Sequence[int], sharing: int = 1) -> Scored:
        """Score normalised pixels [B, 3, H, W] -> scores [B] and maps [B, H, W]; see `Engine`."""
        run = self._run_for(sharing)
        # The early features of one image fit a processor's caches, those of a batch do not.
        answers = [run([np.ascontiguousarray(pixels[i : i + 1])]) for i in range(len(pixels))]
        joined = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
        levels = tuple(joined[name] for name in LEVELS) if self._hands_out_levels else ()
        return Scored(joined["score"], joined["map"], levels=levels)

    def _run_for(self, sharing: int) -> GraphRun:
        return self._sessions.with_cores(max(1, _cores() // sharing))


class _Sessions:
    """Open a graph once for each number of cores that share a run. A pickled copy opens it anew."""

    def __init__(self, name: str, runtime: Runtime) -> None:
        self._name, self._runtime = name, runtime
        self._open = onnx.open_model if runtime == "onnx" else openvino.open_model
        self._runs: dict[int, GraphRun] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Sessions, (self._name, self._runtime)

    def with_cores(self, cores: int) -> GraphRun:
        """Return what runs the graph on this many cores."""
        with self._lock:
            if cores not in self._runs:
                self._runs[cores] = self._open(FOLDER / self._name, "cpu", cores=cores)
            return self._runs[cores]


def _cores() -> int:
    """Return how many cores this process may use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(threads() or available, available)


def graph_for(options: LoadOptions) -> ShippedGraph | str:
    """Return the shipped graph that does all that `options` ask for; where none does, say what is in the way.

    Raises ConfigError for an option that the method does not have.
    """
    if canonical_name(options.backbone) != BUNDLED:
        return f"the backbone {options.backbone!r}"
    table = bundled_calibration()
    if not _made_from(table.weights):
        return "a bundled backbone that no graph was made from"
    if options.checkpoint is not None:
        return "a checkpoint"
    method = words_of(options.method)
    graph = table.graphs.get(table.best if method == "auto" else method)
    if graph is None:
        return f"the method {options.method!r}"
    if options.dtype != "float32":
        return options.dtype
    if options.device not in ("auto", "cpu"):
        return f"the device {options.device!r}"
    refuse_unknown(options.method_options, tuple(graph.options), graph.method)
    size = graph.preprocess.size
    if changed := changed_settings(options, size, {**graph.options, "size": size}):
        return ", ".join(f"{name}={value}" for name, value in changed.items())
    for side in (options.size or size, *(options.extra_sizes or ())):
        if not LEAST_PATCHES <= side // graph.preprocess.multiple <= MOST_PATCHES:
            return f"a size of {side} pixels"
    return graph


def _made_from(weights: str) -> bool:
    """Tell whether the weights in the package are those with this hash, by their header."""
    try:
        return read_header(BUNDLED_FILE, error=WeightsError).get("sha256") == weights
    except WeightsError:
        return False


def load(options: LoadOptions, graph: ShippedGraph, runtime: Runtime) -> Loaded:
    """Open the graph for `options` that ask for nothing beyond it.

    Raises WeightsError where a file is damaged or missing, MissingExtraError without the runtime.
    """
    _check_files(graph.sha256)
    table = bundled_calibration()
    engine = LightEngine(_identity(options, graph, table), runtime)
    patch, preferred = graph.preprocess.multiple, graph.preprocess.size
    size = whole_patches(options.size or preferred, patch, warn=options.size is not None)
    preprocess = replace(graph.preprocess, size=size)
    shipped = shipped_for(options, table, graph.method)
    assert shipped is not None, "the table has an entry for the method of its graph"
    # Options of the method are those of the graph (`graph_for`).
    changed = {} if size == preferred else {"size": size}
    return loaded_as_shipped(engine, preprocess, options, shipped, changed)


def _identity(options: LoadOptions, graph: ShippedGraph, table: CalibrationTable) -> Identity:
    """Describe the network as PyTorch's engine does, so that recipes and records of either fit the other."""
    prompts = FOLDER / prompts_of(graph.method)
    return Identity(
        graph.method,
        BUNDLED,
        table.weights,
        learned=graph.learned,
        options=dict(graph.options),
        object_name=options.object_name,
        ignores_object=True,
        seed=options.seed,
        auxiliary_data=read_header(prompts, error=WeightsError)["auxiliary_data"],
        trained_images=frozenset(load_file(prompts)["auxiliary.images"].tolist()),
    )


def graph_of(method: str) -> str:
    """Return the file of a method's graph, in the folder of the weights."""
    return f"{method}.onnx"


def prompts_of(method: str) -> str:
    """Return the file that says what a method has learned, in the folder of the weights."""
    return f"prompts/{method}.safetensors"


def _check_files(sums: Mapping[str, str]) -> None:
    """Raise WeightsError unless the files, named in the folder of the weights, are there and have these hashes."""
    for name, expected in sums.items():
        path = FOLDER / name
        try:
            whole = file_digest(path) == expected
        except OSError as error:
            raise WeightsError(f"{path}: {error.strerror or error}; reinstall anomalens") from error
        if not whole:
            raise WeightsError(f"{path}: damaged, or not the file shipped with this version; reinstall anomalens")
