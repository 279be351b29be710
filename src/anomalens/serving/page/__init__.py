"""Show the service to people: pages filled by Jinja, a script and a style sheet of their own."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from anomalens.serving.service import Service


def page_router(service: Service) -> APIRouter:
    """Return the routes of the pages of a service."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def home() -> HTMLResponse:
        """Name the service."""
        return HTMLResponse(f"<!doctype html><title>anomalens</title><p>{service.queued} images are waiting.</p>")

    return router
