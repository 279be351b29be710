"""Build a detector in one line."""

from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from anomalens.decision.calibration import SavedCalibration
from anomalens.detection.detector import Detector
from anomalens.engines import exported
from anomalens.errors import ConfigError
from anomalens.options import BUNDLED, DEFAULT_OBJECT, LoadOptions


@overload
def load_detector(method: LoadOptions, /) -> Detector: ...
@overload
def load_detector(method: str = "auto", backbone: str = BUNDLED, **options: Any) -> Detector: ...
def load_detector(method: str | LoadOptions = "auto", backbone: str = BUNDLED, **options: Any) -> Detector:
    """Build a detector.

    Args:
        method: a name from `anomalens methods`, "auto" for the best one shipped with the bundled backbone, or a file
            made by `anomalens export` (.onnx, .xml), which settles backbone, checkpoint, size, seed and options. Or
            everything in one `LoadOptions`.
        backbone: a name from `anomalens backbones`, a hub id, a folder or a file of weights.
        options: the other fields of `LoadOptions` (size=448), and fields of the method's Config (views=22).

    Raises:
        ConfigError: an option or name does not exist; the message names those that do.
        WeightsError: weights are missing, damaged or unfit.
        MissingExtraError: a package is needed that is not installed.
    """
    chosen = method if isinstance(method, LoadOptions) else _collected(method, backbone, options)
    detector = _from_file(chosen) if exported.is_exported(chosen.method) else _from_weights(chosen)
    calibration = detector.calibration
    if chosen.calibration is not None:
        saved = SavedCalibration.read(chosen.calibration)
        saved.check(detector.settings)
        calibration = saved.calibration
    return detector.replace(calibration=calibration.override(chosen.threshold, chosen.pixel_threshold))


def _collected(method: str, backbone: str, options: dict[str, Any]) -> LoadOptions:
    """Sort keywords into options of loading and options of the method."""
    own = {name: value for name, value in options.items() if name in LoadOptions.names()}
    further = {name: value for name, value in options.items() if name not in own}
    own["method_options"] = dict(own.get("method_options", {})) | further
    return LoadOptions(method=method, backbone=backbone, **own)


def _from_weights(options: LoadOptions) -> Detector:
    from anomalens.engines.torch_engine import load

    loaded = load(options)
    calibration = loaded.calibration
    if loaded.deviations is not None:
        extra = [f"tile={options.tile}"] if options.tile else []
        extra += [f"extra_sizes={side}" for side in options.extra_sizes]
        calibration = calibration.used_with(*loaded.deviations, *extra)
    return Detector(loaded.engine, loaded.preprocess, calibration, options, loaded.pooling)


def _from_file(options: LoadOptions) -> Detector:
    """Open an exported detector. Raises ConfigError naming options that its file has settled."""
    engine = exported.load(Path(options.method), device=options.device, dtype=options.dtype)
    card = engine.card
    preprocess = card.preprocess
    if card.any_size and options.size is not None:
        preprocess = replace(preprocess, size=options.size)
    asked = options.chosen()
    settled: list[str] = [name for name in ("backbone", "checkpoint", "strict_backbone") if name in asked]
    settled += sorted(options.method_options)
    if options.extra_sizes and not card.any_size:
        settled.append("extra_sizes")
    if options.size not in (None, preprocess.size):
        settled.append("size")
    if options.seed not in (0, card.identity.seed):
        settled.append("seed")
    if settled:
        raise ConfigError(
            f"{options.method}: {', '.join(settled)} cannot be changed in an exported detector; leave out, or export "
            "again"
        )
    if options.object_name == DEFAULT_OBJECT:
        # Whoever does not name the object takes the one in the file.
        options = options.replace(object_name=card.identity.object_name)
    return Detector(engine, preprocess, card.calibration, options, card.pooling)
