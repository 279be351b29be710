"""Serve inspections: accept images, list answers, show pictures, take reviews."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from anomalens.errors import InputError
from anomalens.images.encoding import encode_image
from anomalens.serving.answers import InspectionAnswer, InspectionsAnswer, PageAnswer, VerdictName, inspection_answer
from anomalens.serving.api.common import FiltersOf, ServiceOf, errors
from anomalens.serving.api.requests import Sent, body_of, read_request
from anomalens.serving.history import NotFoundError, Sort
from anomalens.serving.schema import Inspection
from anomalens.serving.service import Service
from anomalens.serving.stored_predictions import draw
from anomalens.serving.uploads import media_type

router = APIRouter(prefix="/inspections", tags=["inspections"])

_MOST_COMMENT = 10_000
_DAY = 24 * 3600
_FILE = {"type": "string", "format": "binary"}
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": _FILE}}, "description": "The picture."}
}
Side = Annotated[int | None, Query(ge=16, le=8192, description="Longest side in pixels, to shrink it.")]
Threshold = Annotated[float | None, Query(allow_inf_nan=False, description="Draw as another threshold would decide.")]


class ReviewBody(BaseModel):
    """Hold what a person says of an answer."""

    verdict: VerdictName
    comment: str = Field("", max_length=_MOST_COMMENT)


@router.post(
    "",
    response_model=InspectionsAnswer,
    response_model_exclude_unset=True,
    responses={
        202: {"model": InspectionsAnswer, "description": "Accepted; the answers are not there yet."},
        **errors(404, 413, 503),
    },
    openapi_extra=body_of(
        {
            "images": {"type": "array", "items": _FILE, "description": "One or many images."},
            "recipe": {"type": "string", "description": "Name of a recipe; its active version judges."},
            "method": {"type": "string", "description": "Without a recipe: a method."},
            "object": {"type": "string", "description": "Without a recipe: what the images show."},
            "wait": {"type": "boolean", "default": True, "description": "Wait for the answers."},
        },
        raw=True,
        required=["images"],
    ),
)
async def inspect(
    request: Request,
    response: Response,
    service: ServiceOf,
    idempotency_key: Annotated[str | None, Header(max_length=200, pattern="^[!-~]+$")] = None,
    recipe: Annotated[str | None, Query(description="As the field of the form.")] = None,
    method: Annotated[str | None, Query(description="As the field of the form.")] = None,
    object: Annotated[str | None, Query(description="As the field of the form.")] = None,
    wait: Annotated[str | None, Query(description="true or false, as the field of the form.")] = None,
    name: Annotated[str | None, Query(description="Name of an image that is sent as the body.")] = None,
) -> Any:
    """Inspect images: a form with files in the field `images`, or the bytes of one image as the body.

    With `wait=false`, or where it takes long, the answer is 202 and the inspections say `waiting`. An image that cannot
    be read is an inspection that says `failed` and why; where none can be read the answer is 422.
    The same request with the same `Idempotency-Key` is accepted once and answered alike.
    """
    sent = await read_request(request, service.settings)
    wanted = sent.yes("wait", True)
    ids, answers = await run_in_threadpool(_accept, service, sent, idempotency_key)
    if wanted:
        await _patiently(answers, service.settings.patience)
    rows = await run_in_threadpool(service.history.get_all, ids)
    if any(row.state == "waiting" for row in rows):
        response.status_code = 202
    return InspectionsAnswer(inspections=[inspection_answer(row) for row in rows])


def _accept(service: Service, sent: Sent, key: str | None) -> tuple[list[str], list["Future[None]"]]:
    judge = service.judge(sent.text("recipe"), sent.text("method"), sent.text("object"))
    return service.inspect(sent.images, judge, key)


async def _patiently(answers: Sequence["Future[None]"], seconds: float) -> None:
    """Wait until all answers are stored, or for so many seconds."""
    await asyncio.wait([asyncio.wrap_future(answer) for answer in answers], timeout=seconds)


@router.get("", response_model=PageAnswer, response_model_exclude_unset=True, responses=errors())
def inspections(
    service: ServiceOf,
    filters: FiltersOf,
    sort: Annotated[Sort, Query(description="worst: those with a score, the highest first.")] = "newest",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=500, description="`next` of the page before.")] = None,
) -> Any:
    """List inspections, page by page."""
    page = service.inspections(filters, sort=sort, limit=limit, cursor=cursor)
    return PageAnswer(inspections=[inspection_answer(row) for row in page.rows], next=page.next)


@router.get("/{id}", response_model=InspectionAnswer, response_model_exclude_unset=True, responses=errors(404))
def inspection(id: str, service: ServiceOf) -> Any:
    """Return an inspection."""
    return inspection_answer(service.inspection(id))


@router.delete("/{id}", status_code=204, responses=errors(404))
def delete(id: str, service: ServiceOf) -> None:
    """Delete an inspection, its reviews and the pictures that no other inspection needs."""
    service.delete([service.inspection(id).id])


def _picture(
    kind: Literal["heatmap", "overlay", "mask"],
    service: Service,
    id: str,
    side: int | None,
    threshold: float | None,
    pixel_threshold: float | None,
) -> Response:
    drawn = service.picture(service.inspection(id), kind, side, threshold=threshold, pixel_threshold=pixel_threshold)
    content = encode_image(drawn, compress_level=1)
    # A picture of an inspection never changes.
    return Response(content, media_type="image/png", headers={"cache-control": f"private, max-age={_DAY}"})


@router.get("/{id}/heatmap.png", response_class=Response, responses={**_PICTURE, **errors(404)})
def heatmap(id: str, service: ServiceOf, side: Side = None) -> Response:
    """Draw the anomaly map in fixed colours."""
    return _picture("heatmap", service, id, side, None, None)


@router.get("/{id}/overlay.png", response_class=Response, responses={**_PICTURE, **errors(404)})
def overlay(
    id: str, service: ServiceOf, side: Side = None, threshold: Threshold = None, pixel_threshold: Threshold = None
) -> Response:
    """Draw the map over the image, with the outline of the mask."""
    return _picture("overlay", service, id, side, threshold, pixel_threshold)


@router.get("/{id}/mask.png", response_class=Response, responses={**_PICTURE, **errors(404)})
def mask(
    id: str, service: ServiceOf, side: Side = None, threshold: Threshold = None, pixel_threshold: Threshold = None
) -> Response:
    """Draw the mask: white where the defects are."""
    return _picture("mask", service, id, side, threshold, pixel_threshold)


@router.get(
    "/{id}/original",
    response_class=Response,
    responses={200: {"content": {"*/*": {"schema": _FILE}}, "description": "The image as it was sent."}, **errors(404)},
)
def original(id: str, service: ServiceOf, side: Side = None) -> Response:
    """Return the image as it was sent; with `side` as a smaller PNG."""
    row = service.inspection(id)
    if side is not None:
        return Response(encode_image(service.picture(row, "original", side)), media_type="image/png")
    path = service.original(row)
    kind = media_type(path)
    shown = kind != "application/octet-stream"
    return FileResponse(
        path,
        media_type=kind,
        filename=os.path.basename(row.name),
        content_disposition_type="inline" if shown else "attachment",
        headers={"cache-control": f"private, max-age={_DAY}"},
    )


@router.post(
    "/{id}/review",
    response_model=InspectionAnswer,
    response_model_exclude_unset=True,
    responses=errors(404, 409, 413),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": ReviewBody.model_json_schema()},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {**ReviewBody.model_json_schema()["properties"], "mask": _FILE},
                        "required": ["verdict"],
                    }
                },
            },
        }
    },
)
async def review(id: str, request: Request, service: ServiceOf) -> Any:
    """Say whether an answer is right; in a form also with a corrected mask, an image that is white on defects."""
    corrected: bytes | None = None
    try:
        if request.headers.get("content-type", "").startswith("multipart/"):
            sent = await read_request(request, service.settings)
            corrected = sent.files.get("mask") or None
            body = ReviewBody.model_validate({"verdict": sent.text("verdict"), "comment": sent.text("comment") or ""})
        else:
            body = ReviewBody.model_validate_json(await request.body())
    except ValidationError as error:
        raise InputError(_first(error)) from None
    row = await run_in_threadpool(service.review, id, body.verdict, body.comment, corrected)
    return inspection_answer(row)


@router.delete(
    "/{id}/review", response_model=InspectionAnswer, response_model_exclude_unset=True, responses=errors(404)
)
def undo_review(id: str, service: ServiceOf) -> Any:
    """Take back the latest review; the one before it counts again."""
    return inspection_answer(service.history.undo_review(id))


@router.get("/{id}/review/mask.png", response_class=Response, responses={**_PICTURE, **errors(404)})
def corrected_mask(id: str, service: ServiceOf) -> Response:
    """Return the corrected mask of the latest review."""
    row: Inspection = service.inspection(id)
    name = row.reviews[-1].mask if row.reviews else None
    if name is None:
        raise NotFoundError("the latest review has no corrected mask")
    picture = draw(None, service.media.path(name).read_bytes(), "original")
    return Response(encode_image(picture), media_type="image/png")


def _first(error: ValidationError) -> str:
    """Return the first of what is wrong, as a sentence."""
    problem = error.errors()[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {problem['msg']}" if place else str(problem["msg"])
