"""Run a graph with OpenVINO (extra `[openvino]`)."""

import queue
from pathlib import Path
from typing import Any

from anomalens.engines.contract import Floats, GraphRun, threads
from anomalens.errors import ConfigError, WeightsError
from anomalens.extras import optional
from anomalens.options import Dtype

_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


def open_model(path: Path, device: str = "auto", dtype: Dtype = "float32", cores: int | None = None) -> GraphRun:
    """Open a graph on `device`: one of OpenVINO's ("cpu", "gpu", "npu", in any case); "auto" is the CPU.

    Args:
        path: of the graph, .xml or .onnx.
        device: where it is computed.
        dtype: is held to: left to itself OpenVINO would compute in bfloat16 wherever the processor can.
        cores: threads that share a run, for this graph alone; None: as OMP_NUM_THREADS says.

    Raises MissingExtraError, ConfigError for a device it has not, WeightsError for a file it cannot read.
    """
    openvino = optional("openvino", "openvino")
    core = openvino.Core()
    chosen = "CPU" if device == "auto" else device.upper()
    available = core.available_devices
    if chosen.split(".")[0] not in {name.split(".")[0] for name in available}:
        raise ConfigError(f"device {device!r}: OpenVINO has {', '.join(available).lower()} here; try 'auto'")
    settings = {"INFERENCE_PRECISION_HINT": _PRECISIONS[dtype]}
    count = threads() if cores is None else cores
    if chosen == "CPU" and count:
        settings["INFERENCE_NUM_THREADS"] = str(count)
    try:
        model = core.read_model(str(path))
        names = [node.get_any_name() for node in model.inputs]
        output_names = [node.get_any_name() for node in model.outputs]
        compiled = core.compile_model(model, chosen, settings)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise WeightsError(f"{path}: OpenVINO cannot read it ({reason}); export it again") from error

    # A request serves one thread at a time; each is kept for the next that needs one.
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(values: list[Floats]) -> dict[str, Floats]:
        try:
            request = idle.get_nowait()
        except queue.Empty:
            request = compiled.create_infer_request()
        answers = request.infer(dict(zip(names, values, strict=True)))
        # The request writes into the same memory next time.
        outputs = {name: answers[name].copy() for name in output_names}
        idle.put(request)
        return outputs

    return run
