"""Say what a loaded engine asks of the pipeline around it; the rules that all engines share. No runtime here."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anomalens.decision.calibration import Calibration, CalibrationTable, ShippedMethod
from anomalens.decision.pooling import ScorePooling
from anomalens.engines.contract import Engine
from anomalens.images.preprocessing import Preprocess
from anomalens.methods.references.reference_method import is_reference_method, reference_entry
from anomalens.options import LoadOptions

MOST_PARALLEL = 16
"""Batches that an engine computes at once at most: each holds its activations."""

_log = logging.getLogger("anomalens")


@dataclass(frozen=True)
class Loaded:
    """Hold an engine, and what its backbone and method ask of the pipeline around it."""

    engine: Engine
    preprocess: Preprocess
    calibration: Calibration
    pooling: ScorePooling
    # What differs from the settings the calibration was made with ("size=64"); None where it is merely neutral.
    deviations: tuple[str, ...] | None
    # Sides in pixels at which images are seen too.
    extra_sizes: tuple[int, ...] = ()


def words_of(method: str) -> str:
    """Return the zero-shot method that goes with a method asked for; "auto" for the best one there is.

    A method that compares with photographs goes with the words it is part of.
    """
    return reference_entry(method).build.words or "auto" if is_reference_method(method) else method


def shipped_for(options: LoadOptions, table: CalibrationTable | None, name: str) -> ShippedMethod | None:
    """Return what is shipped for a method; None for weights or prompts that nothing is shipped for.

    Where neither a method nor a size is named, it is the best method as it is best used.
    """
    # What is calibrated is the shipped prompts.
    if table is None or options.checkpoint:
        return None
    named = options.method != "auto" and not is_reference_method(options.method)
    if table.auto and not named and options.size is None and options.extra_sizes in (None, table.auto.extra_sizes):
        return table.auto
    return table.methods.get(name)


def changed_settings(options: LoadOptions, size: int, usual: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the method, and the size, that differ from the usual ones, by name."""
    asked = {**options.method_options, "size": size}
    return {name: value for name, value in asked.items() if _as_list(value) != _as_list(usual.get(name))}


def _as_list(value: Any) -> Any:
    """Return a tuple as the list that JSON has in its place, every other value as it is."""
    return list(value) if isinstance(value, tuple) else value


def loaded_as_shipped(
    engine: Engine,
    preprocess: Preprocess,
    options: LoadOptions,
    shipped: ShippedMethod,
    changed: Mapping[str, Any],
) -> Loaded:
    """Join an engine with what is shipped for it; `changed` holds settings that differ from those it was made for."""
    deviations = tuple(f"{name}={value}" for name, value in changed.items())
    sizes = shipped.extra_sizes
    if options.extra_sizes is not None and options.extra_sizes != sizes:
        sizes = options.extra_sizes
        deviations += tuple(f"extra_sizes={side}" for side in sizes)
    return Loaded(engine, preprocess, shipped.calibration, shipped.pooling, deviations, sizes)


def whole_patches(side: int, patch: int, *, warn: bool) -> int:
    """Return the largest multiple of `patch` that is no larger than `side`; where they differ, perhaps warn."""
    if warn and side % patch:
        _log.warning("size %d is no multiple of the patch of %d pixels; %d is used", side, patch, side - side % patch)
    return side - side % patch
