"""Serve signs of life for supervisors, and counters for Prometheus."""

from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from anomalens.serving.answers import ErrorAnswer
from anomalens.serving.api.common import ServiceOf, errors
from anomalens.serving.measures import MEDIA_TYPE
from anomalens.serving.request_log import request_id

router = APIRouter(tags=["operation"])


class Alive(BaseModel):
    """Say that the process answers."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", response_model=Alive)
def healthz() -> Any:
    """Say that the process answers."""
    return Alive()


@router.get(
    "/readyz",
    response_model=Alive,
    responses={503: {"model": ErrorAnswer, "description": "The store does not answer, or the service is stopping."}},
)
def readyz(request: Request, service: ServiceOf) -> Any:
    """Say whether images can be accepted."""
    try:
        service.database.check()
    except SQLAlchemyError:
        reason = "the store does not answer"
    else:
        if not service.closing:
            return Alive()
        reason = "the service is stopping"
    return JSONResponse({"detail": reason, "request": request_id(request.scope)}, 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Counters."},
        **errors(),
    },
)
def metrics(service: ServiceOf) -> Response:
    """Return counters for Prometheus."""
    return Response(service.measures.text(), media_type=MEDIA_TYPE)
