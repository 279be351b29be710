"""Put a service behind HTTP: routes, errors, limits, who may ask, pages."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import as_file, files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from anomalens import __version__
from anomalens.errors import AnomalensError, one_line
from anomalens.serving.answers import BASE
from anomalens.serving.api import health, hooks, insight, inspections, recipes, reference
from anomalens.serving.body_limit import BodyLimit
from anomalens.serving.history import ConflictError, NotFoundError
from anomalens.serving.lanes import BusyError
from anomalens.serving.page import error_page, page_router
from anomalens.serving.request_log import RequestLog, request_id
from anomalens.serving.security import Door, Doorkeeper, answer_headers, form_key
from anomalens.serving.service import Service
from anomalens.serving.settings import ServeSettings
from anomalens.serving.uploads import TooLargeError

_log = logging.getLogger("anomalens.serving")


def create_app(settings: ServeSettings) -> FastAPI:
    """Return the service as an ASGI application; the store is opened, and closed when the application ends.

    Raises ConfigError where the store or the media folder cannot be used, WeightsError for a recipe that is none.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await run_in_threadpool(service.close)

    app = FastAPI(
        title="anomalens",
        version=__version__,
        description="Inspect images for defects, teach parts from good photos, look back at what was decided.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.state.door = Doorkeeper(settings.token, form_key(service.media.folder))
    # The last one added is the first to see a request.
    app.add_middleware(BodyLimit, most=settings.max_request)
    app.add_middleware(Door, door=app.state.door)
    app.add_middleware(RequestLog, measures=service.measures, headers=answer_headers)
    _answer_errors(app)
    for part in (inspections, recipes, insight, hooks):
        app.include_router(part.router, prefix=BASE)
    app.include_router(health.router)
    app.include_router(reference.router)
    app.include_router(page_router(service))
    with as_file(files("anomalens.serving.page") / "static") as static:
        if static.is_dir():
            app.mount("/static", StaticFiles(directory=static), name="static")
    return app


def _answer_errors(app: FastAPI) -> None:
    """Answer every error in one form: a sentence, and the number of the request; as a page where people read it."""

    def answer(request: Request, status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
        if "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/"):
            return error_page(request, status, reason, headers)
        return JSONResponse({"detail": reason, "request": request_id(request.scope)}, status, headers)

    @app.exception_handler(AnomalensError)
    def _refused(request: Request, error: AnomalensError) -> Response:
        status = 422
        if isinstance(error, NotFoundError):
            status = 404
        elif isinstance(error, TooLargeError):
            status = 413
        elif isinstance(error, ConflictError):
            status = 409
        return answer(request, status, one_line(error))

    @app.exception_handler(BusyError)
    def _busy(request: Request, error: BusyError) -> Response:
        return answer(request, 503, str(error), {"retry-after": str(error.seconds)})

    @app.exception_handler(SQLAlchemyError)
    def _no_store(request: Request, error: SQLAlchemyError) -> Response:
        _log.error("request %s: the store failed: %s", request_id(request.scope), one_line(error))
        return answer(request, 503, "the store does not answer; nothing was changed", {"retry-after": "5"})

    @app.exception_handler(OSError)
    def _no_disk(request: Request, error: OSError) -> Response:
        _log.error("request %s: %s", request_id(request.scope), one_line(error))
        return answer(request, 503, "the media folder cannot be written or read", {"retry-after": "30"})

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> Response:
        problem: dict[str, Any] = dict(error.errors()[0])
        place = ".".join(str(part) for part in problem.get("loc", ())[1:])
        return answer(request, 422, f"{place}: {problem.get('msg', 'invalid')}" if place else str(problem.get("msg")))

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> Response:
        return answer(request, error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> Response:
        _log.exception("request %s failed", request_id(request.scope), exc_info=error)
        return answer(request, 500, "something failed inside the service; its log says more")
