"""Describe what the service answers, as the OpenAPI document states it, and fill it from rows of the history."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from anomalens.prediction import Region as FoundRegion
from anomalens.serving.schema import Inspection

BASE = "/api/v1"

Label = Literal["normal", "anomalous", "unusable"]
State = Literal["waiting", "done", "failed"]
VerdictName = Literal["right", "false alarm", "missed", "unusable"]


class ErrorAnswer(BaseModel):
    """Say in a sentence why a request was refused."""

    detail: str
    request: str = Field(description="Number of the request, as in the log.")


class RegionAnswer(BaseModel):
    """Describe a region in pixels of the image."""

    box: list[int] = Field(description="Left, top, right, bottom; right and bottom lie just outside.")
    area: int
    peak: float
    peak_at: list[int]
    width_mm: float | None = None
    height_mm: float | None = None
    area_mm2: float | None = None


class RecipeName(BaseModel):
    """Name a version of a recipe."""

    name: str
    version: int


class ReviewAnswer(BaseModel):
    """Hold the latest review."""

    verdict: VerdictName
    comment: str
    at: datetime
    mask: bool = Field(description="Whether a corrected mask was given.")


class Links(BaseModel):
    """Name the addresses of an inspection's pictures; those of an image without an answer are missing."""

    self: str
    original: str
    heatmap: str | None = None
    overlay: str | None = None
    mask: str | None = None


class InspectionAnswer(BaseModel):
    """Describe an inspection: the answer for one image."""

    id: str
    name: str
    state: State
    created: datetime
    label: Label | None
    score: float | None
    confidence: int | None
    reason: str | None
    threshold: float | None
    threshold_source: str | None
    pixel_threshold: float | None
    p_value: float | None
    width: int | None
    height: int | None
    object: str
    method: str
    recipe: RecipeName | None
    review: ReviewAnswer | None
    regions: list[RegionAnswer]
    note: str | None
    error: str | None
    links: Links


class InspectionsAnswer(BaseModel):
    """Hold the inspections of a request, in the order of its images."""

    inspections: list[InspectionAnswer]


class PageAnswer(InspectionsAnswer):
    """Hold some inspections; `next` is the cursor of the page that follows."""

    next: str | None


def inspection_json(row: Inspection) -> dict[str, Any]:
    """Return what the service says of an inspection, ready for JSON."""
    return inspection_answer(row).model_dump(mode="json", exclude_unset=True)


def inspection_answer(row: Inspection) -> InspectionAnswer:
    """Return what the service says of an inspection."""
    facts, place = row.facts or {}, f"{BASE}/inspections/{row.id}"
    review = row.reviews[-1] if row.reviews else None
    regions = [
        FoundRegion(
            (part.left, part.top, part.right, part.bottom),
            part.area,
            part.peak,
            (part.peak_x, part.peak_y),
            part.mm_per_px,
        )
        for part in row.regions
    ]
    return InspectionAnswer.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "state": row.state,
            "created": row.created,
            "label": row.label,
            "score": row.score,
            "confidence": facts.get("confidence"),
            "reason": facts.get("reason"),
            "threshold": facts.get("threshold"),
            "threshold_source": facts.get("threshold_source"),
            "pixel_threshold": facts.get("pixel_threshold"),
            "p_value": row.p_value,
            "width": facts.get("width"),
            "height": facts.get("height"),
            "object": row.object,
            "method": facts.get("method", row.method),
            "recipe": None if row.recipe is None else {"name": row.recipe, "version": row.version},
            "review": None
            if review is None
            else {
                "verdict": review.verdict,
                "comment": review.comment,
                "at": review.created,
                "mask": review.mask is not None,
            },
            "regions": [region.to_dict() for region in regions],
            "note": facts.get("note"),
            "error": row.error,
            "links": {
                "self": place,
                "original": f"{place}/original",
                **({name: f"{place}/{name}.png" for name in ("heatmap", "overlay", "mask")} if row.map else {}),
            },
        }
    )
