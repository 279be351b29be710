"""Say what a taught part knows, for people and for JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from anomalens.detection.recipe import Recipe
from anomalens.methods.references.reference_method import create_reference


def recipe_facts(recipe: Recipe, file: Path) -> dict[str, Any]:
    """Return all that is told about a taught part, JSON-ready by name; `file` is where it lies."""
    lesson, options, calibration = recipe.lesson, recipe.options, recipe.calibration
    return {
        "file": str(file),
        "bytes": file.stat().st_size,
        "version": recipe.version,
        "method": lesson.method,
        "method_options": dict(lesson.options),
        "words": recipe.words.method,
        "uses_words": create_reference(lesson.method, **lesson.options).uses_words,
        "words_options": dict(options.method_options),
        "backbone": recipe.words.backbone,
        "weights": recipe.words.weights,
        "object": options.object_name,
        "photos": [
            {"name": photo.name, "score": score} for photo, score in zip(lesson.photos, lesson.scores, strict=True)
        ],
        "odd": list(lesson.odd),
        "turn_ratio": lesson.turn_ratio,
        "fpr": lesson.fpr,
        "threshold": calibration.threshold,
        "threshold_source": calibration.source,
        "pixel_threshold": calibration.pixel_threshold,
        "sizes": sorted(recipe.sizes),
        "unlike_limits": {str(side): taught.limit for side, taught in sorted(recipe.sizes.items())},
        "capture": asdict(recipe.capture) if recipe.capture else None,
        "tile": options.tile,
        "roi": None if recipe.roi is None else float(recipe.roi.mean()),
        "min_area": options.min_area,
        "mm_per_px": options.mm_per_px,
        "seed": lesson.seed,
    }
