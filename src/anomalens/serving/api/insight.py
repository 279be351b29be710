"""Serve what is known of all inspections together: statistics, tables, limits."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from anomalens.serving.api.common import FiltersOf, ServiceOf, errors
from anomalens.serving.history_tables import csv_parts, parquet, workbook
from anomalens.serving.statistics import Bucket, StatisticsAnswer, statistics

router = APIRouter(tags=["statistics"])

_PARQUET = "application/vnd.apache.parquet"
_EXCEL = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


class LimitsAnswer(BaseModel):
    """State what a request may have."""

    bytes: int
    pixels: int
    images: int
    queue: int
    request_bytes: int


def _table(kind: str) -> dict[int | str, dict[str, Any]]:
    schema = {"schema": {"type": "string", "format": "binary"}}
    return {200: {"content": {kind: schema}, "description": "The table."}, **errors()}


@router.get("/statistics", response_model=StatisticsAnswer, responses=errors())
def counts(service: ServiceOf, filters: FiltersOf, bucket: Bucket = "day") -> Any:
    """Count answers, alarms and reviews, in all and over time, and test for drift."""
    return statistics(service.database, filters, bucket)


@router.get("/export.csv", response_class=Response, responses=_table("text/csv"))
def export_csv(service: ServiceOf, filters: FiltersOf) -> Response:
    """Return the inspections that are meant as comma-separated values, the oldest first."""
    parts = csv_parts(service.history.each(filters))
    return StreamingResponse(parts, media_type="text/csv; charset=utf-8", headers=_saved_as("inspections.csv"))


@router.get("/export.parquet", response_class=Response, responses=_table(_PARQUET))
def export_parquet(service: ServiceOf, filters: FiltersOf) -> Response:
    """Return the inspections that are meant as a Parquet file, the oldest first."""
    content = parquet(service.history.each(filters))
    return Response(content, media_type=_PARQUET, headers=_saved_as("inspections.parquet"))


@router.get("/export.xlsx", response_class=Response, responses=_table(_EXCEL))
def export_workbook(service: ServiceOf, filters: FiltersOf) -> Response:
    """Return the inspections that are meant as an Excel file, the oldest first."""
    content = workbook(service.history.each(filters))
    return Response(content, media_type=_EXCEL, headers=_saved_as("inspections.xlsx"))


@router.get("/limits", response_model=LimitsAnswer, responses=errors())
def limits(service: ServiceOf) -> Any:
    """State the limits of uploads."""
    settings = service.settings
    return LimitsAnswer(
        bytes=settings.max_bytes,
        pixels=settings.max_pixels,
        images=settings.max_images,
        queue=settings.max_queue,
        request_bytes=settings.max_request,
    )


def _saved_as(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}
