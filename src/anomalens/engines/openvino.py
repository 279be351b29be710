"""Running a graph with OpenVINO (extra `[openvino]`)."""

from pathlib import Path

from anomalens.engines.contract import Dtype, Floats
from anomalens.engines.exported import Run, threads
from anomalens.errors import ConfigError, WeightsError
from anomalens.extras import optional

_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


def open_model(path: Path, device: str = "auto", dtype: Dtype = "float32") -> Run:
    """`device`: one of OpenVINO's ("cpu", "gpu", "npu", in any case); "auto" is the CPU.

    `dtype` is held to: left to itself OpenVINO would compute in bfloat16 wherever the processor can.

    Raises MissingExtraError, ConfigError for a device it has not, WeightsError for a file it cannot read.
    """
    openvino = optional("openvino", "openvino")
    core = openvino.Core()
    chosen = "CPU" if device == "auto" else device.upper()
    there = core.available_devices
    if chosen.split(".")[0] not in {name.split(".")[0] for name in there}:
        raise ConfigError(f"device {device!r}: OpenVINO has {', '.join(there).lower()} here; try 'auto'")
    settings = {"INFERENCE_PRECISION_HINT": _PRECISIONS[dtype]}
    if chosen == "CPU" and threads():
        settings["INFERENCE_NUM_THREADS"] = str(threads())
    try:
        model = core.read_model(str(path))
        names = [one.get_any_name() for one in model.inputs]
        request = core.compile_model(model, chosen, settings).create_infer_request()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise WeightsError(f"{path}: OpenVINO cannot read it ({reason}); export it again") from error

    def run(values: list[Floats]) -> tuple[Floats, Floats]:
        found = request.infer(dict(zip(names, values, strict=True)))
        return found["score"].copy(), found["map"].copy()  # the request writes into the same memory next time

    return run
