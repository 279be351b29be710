"""Run a graph with ONNX Runtime."""

from pathlib import Path

from anomalens.engines.contract import Floats, GraphRun, threads
from anomalens.errors import ConfigError, WeightsError
from anomalens.extras import quiet_import
from anomalens.options import Dtype


def open_model(path: Path, device: str = "auto", dtype: Dtype = "float32", cores: int | None = None) -> GraphRun:
    """Open a graph on `device`: "cpu", "cuda", or "auto" for a GPU where ONNX Runtime was built for one.

    cores: threads that share a run, for this graph alone; None: as OMP_NUM_THREADS says.

    Raises ConfigError for a device or precision it has not, WeightsError for a file it cannot read.
    """
    runtime = quiet_import("onnxruntime")
    # Where another package imported it before, with its reports on.
    runtime.disable_telemetry_events()
    if dtype != "float32":
        raise ConfigError(f"ONNX Runtime computes a graph as it was exported, not in {dtype}; leave --dtype out")
    names = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
    available = [name for name, provider in names.items() if provider in runtime.get_available_providers()]
    chosen = ("cuda" if "cuda" in available else "cpu") if device == "auto" else device
    if chosen not in available:
        raise ConfigError(f"device {device!r}: ONNX Runtime has {', '.join(available)} here; try 'auto'")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads() if cores is None else cores
    # Errors only; they arrive as exceptions as well.
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(path), options, providers=[names[chosen]])
    except Exception as error:
        # ONNX Runtime's own exceptions share no base but this.
        raise WeightsError(f"{path}: ONNX Runtime cannot read it ({_first_line(error)}); export it again") from error
    inputs, outputs = ([node.name for node in nodes] for nodes in (session.get_inputs(), session.get_outputs()))

    def run(values: list[Floats]) -> dict[str, Floats]:
        answers = session.run(outputs, dict(zip(inputs, values, strict=True)))
        return dict(zip(outputs, answers, strict=True))

    return run


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
