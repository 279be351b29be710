"""Build a detector in one line."""

from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from anomalens.decision.calibration import SavedCalibration
from anomalens.detection.detector import Detector
from anomalens.detection.recipe import is_recipe, read_recipe
from anomalens.detection.teaching import named_reference, taught_engine
from anomalens.detection.tiling import Inside
from anomalens.engines import exported
from anomalens.engines.choice import load_engine, load_rehearsal, words_method
from anomalens.errors import ConfigError, WeightsError
from anomalens.images.decoding import decode_mask
from anomalens.images.image_files import MAX_PIXELS
from anomalens.methods.references.reference_method import create_reference, reference_entry
from anomalens.methods.sets.set_method import is_set_method
from anomalens.options import BUNDLED, DEFAULT_OBJECT, LoadOptions, refuse_unknown


@overload
def load_detector(method: LoadOptions, /) -> Detector: ...
@overload
def load_detector(method: str = "auto", backbone: str = BUNDLED, **options: Any) -> Detector: ...
def load_detector(method: str | LoadOptions = "auto", backbone: str = BUNDLED, **options: Any) -> Detector:
    """Build a detector.

    Args:
        method: a name from `anomalens methods`, "auto" for the best one shipped with the bundled backbone, a file
            made by `anomalens export` (.onnx, .xml), which settles backbone, checkpoint, size, seed and options, or a
            part taught by `anomalens fit` (.anomalens). Or everything in one `LoadOptions`.
        backbone: a name from `anomalens backbones`, a hub id, a folder or a file of weights.
        options: the other fields of `LoadOptions` (size=448), and fields of the method's Config (views=22).

    Raises:
        ConfigError: an option or name does not exist; the message names those that do.
        WeightsError: weights are missing, damaged or unfit.
        MissingExtraError: a package is needed that is not installed.
    """
    chosen = method if isinstance(method, LoadOptions) else _collected(method, backbone, options)
    if is_recipe(chosen.method):
        chosen = chosen.replace(method="auto", recipe=chosen.method)
    if chosen.recipe is not None:
        detector = _from_recipe(chosen.recipe, chosen)
    elif exported.is_exported(chosen.method):
        detector = _from_file(chosen)
    else:
        detector = _from_weights(chosen)
    if chosen.roi is not None:
        detector = detector.replace(roi=read_roi(chosen.roi, chosen.max_pixels))
    calibration = detector.calibration
    if chosen.calibration is not None:
        saved = SavedCalibration.read(chosen.calibration)
        saved.check(detector.settings)
        calibration = saved.calibration
    return detector.replace(calibration=calibration.override(chosen.threshold, chosen.pixel_threshold))


def rehearsal_detector(options: LoadOptions) -> Detector:
    """Build a detector with random weights and nothing learned in place of the real ones, without fetching any.

    Of a backbone with a name nothing need be on this machine. It takes as long as the real one, and its scores mean
    nothing. Raises ConfigError for another backbone that is not here.
    """
    loaded = load_rehearsal(options)
    return Detector(loaded.engine, loaded.preprocess, loaded.calibration, options, loaded.pooling)


def _collected(method: str, backbone: str, options: dict[str, Any]) -> LoadOptions:
    """Sort keywords into options of loading and options of the method."""
    own = {name: value for name, value in options.items() if name in LoadOptions.names()}
    further = {name: value for name, value in options.items() if name not in own}
    own["method_options"] = dict(own.get("method_options", {})) | further
    return LoadOptions(method=method, backbone=backbone, **own)


def _from_weights(options: LoadOptions) -> Detector:
    if is_set_method(options.method):
        # The words are the best there are, with options of their own; those given are the set method's.
        words = _from_weights(options.replace(method="auto", method_options={}))
        return words.replace(options=options).together(**options.method_options)
    loaded = load_engine(options)
    calibration = loaded.calibration
    if loaded.deviations is not None:
        tiled = calibration.used_with(*loaded.deviations, f"tile={options.tile}").source
        calibration = calibration.used_with(*loaded.deviations)
        # A tile that an image fits into changes nothing.
        calibration = replace(calibration, tiled_source=tiled if options.tile else None)
    return Detector(
        loaded.engine, loaded.preprocess, calibration, options, loaded.pooling, extra_sizes=loaded.extra_sizes
    )


def split_options(options: LoadOptions) -> tuple[dict[str, Any], LoadOptions]:
    """Sort the options of methods into those of the reference method, for `Detector.fit`, and all others.

    An option that both methods have belongs to the reference method.

    Raises ConfigError for an option that neither method has, and for a value that does not fit the reference method.
    """
    reference = reference_entry(named_reference(options.method))
    words, words_options = words_method(options)
    both = tuple(dict.fromkeys((*reference.options, *words_options)))
    refuse_unknown(options.method_options, both, f"{reference.name} with {words}")
    own = {name: value for name, value in options.method_options.items() if name in reference.options}
    create_reference(reference.name, **own)
    others = {name: value for name, value in options.method_options.items() if name not in own}
    return own, options.replace(method_options=others)


def read_roi(path: str, max_pixels: int | None = None) -> Inside:
    """Read a region of interest: an image that is not black where defects count; bool [H, W].

    max_pixels: the largest that is read; None takes the usual limit of images.

    Raises InputError where it cannot be read, ConfigError where it is black everywhere.
    """
    inside: Inside = decode_mask(path, max_pixels=max_pixels or MAX_PIXELS)
    if not inside.any():
        raise ConfigError(f"{path}: the region of interest is black everywhere, so nothing would count")
    return inside


def _from_recipe(path: str, options: LoadOptions) -> Detector:
    """Open a taught part. Raises ConfigError naming options that the file has settled, WeightsError for other weights.

    Thresholds, regions and what changes only speed may be asked for anew.
    """
    recipe = read_recipe(path)
    asked = options.chosen()
    # Weights and learned prompts are known by their hashes, so they may lie somewhere else by now.
    free = ("recipe", "backbone", "checkpoint")
    settled = [name for name in LoadOptions.names("scores", "source") if name in asked and name not in free]
    settled = [name for name in settled if asked[name] != getattr(recipe.options, name)]
    if settled:
        raise ConfigError(
            f"{path} was taught with its own {', '.join(settled)}; leave it out here, or teach the part again with it"
        )
    kept = {name: getattr(recipe.options, name) for name in LoadOptions.names("scores")}
    kept["backbone"] = asked.get("backbone", recipe.options.backbone)
    own = {name: getattr(recipe.options, name) for name in ("min_area", "mm_per_px") if name not in asked}
    words = _from_weights(options.replace(recipe=None, **kept, **own))
    recipe.check(words.identity, path)
    if words.preprocess.size not in recipe.sizes:
        raise WeightsError(f"{path}: images are seen at {words.preprocess.size} pixels, which nothing was taught at")
    return words.replace(
        engine=taught_engine(words.engine, recipe.lesson, recipe.sizes),
        calibration=recipe.calibration,
        pooling=recipe.pooling,
        capture=recipe.capture,
        roi=recipe.roi,
        lesson=recipe.lesson,
        extra_sizes=tuple(side for side in recipe.sizes if side != words.preprocess.size),
        options=words.options.replace(recipe=path),
    )


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
    extra_sizes = options.extra_sizes
    if extra_sizes is None:
        # Another size than the file's is seen alone.
        extra_sizes = card.extra_sizes if preprocess.size == card.preprocess.size else ()
    if extra_sizes and not card.any_size:
        settled.append("extra_sizes")
    if options.size not in (None, preprocess.size):
        settled.append("size")
    if options.seed not in (0, card.identity.seed):
        settled.append("seed")
    if options.engine not in ("auto", engine.runtime):
        settled.append("engine")
    if settled:
        raise ConfigError(
            f"{options.method}: {', '.join(settled)} cannot be changed in an exported detector; leave out, or export "
            "again"
        )
    if options.object_name == DEFAULT_OBJECT:
        # Whoever does not name the object takes the one in the file.
        options = options.replace(object_name=card.identity.object_name)
    own = {name: getattr(card, name) for name in ("min_area", "mm_per_px") if name not in asked}
    return Detector(
        engine,
        preprocess,
        card.calibration,
        options.replace(**own),
        card.pooling,
        card.roi,
        card.capture,
        extra_sizes=extra_sizes,
    )
