"""Answer the addresses that a browser opens; whatever changes something goes through the service's own interface."""

from collections.abc import Mapping
from functools import cache, partial
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import ValidationError

from anomalens.errors import ConfigError
from anomalens.serving.history import Filters, Page
from anomalens.serving.page.layers import Kind, draw
from anomalens.serving.page.list_view import ListView, menus
from anomalens.serving.page.page_templates import TABS, render, score
from anomalens.serving.page.watching import DEFAULT_SPAN, SPANS, watched
from anomalens.serving.recipe_answers import recipe_answers
from anomalens.serving.security import check_form, csrf_token, sign_in, sign_out
from anomalens.serving.service import Service
from anomalens.serving.statistics import statistics

# Inspections shown at a time.
_SHOWN = 60
# Inspections shown on the page Inspect, alarms on the page Watch.
_RECENT = _ALARMS = 12
# Longest side of a picture that is drawn for the page, in pixels.
_LARGEST_SIDE = 4096
# Headings of pages that show nothing, by status.
_ERRORS = {404: "Not here", 500: "Something failed", 503: "Not now"}
# A picture of an inspection never changes.
_KEPT = {"Cache-Control": "private, max-age=86400, immutable"}


def page_router(service: Service) -> APIRouter:
    """Return the pages of a service: Inspect, Teach, History, Watch and the one to sign in."""
    router = APIRouter(include_in_schema=False)

    show = partial(_show, service)

    def inspections_of(view: ListView) -> Page:
        return service.inspections(view.filters, sort=view.sort, limit=_SHOWN, cursor=view.cursor or None)

    @router.get("/static/report.css")
    def style() -> Response:
        return Response(_report_style(), media_type="text/css")

    @router.get("/")
    def inspect(request: Request, recipe: str = "") -> HTMLResponse:
        recipes = [_in_use(entry) for entry in _recipes(service) if entry["active"]]
        recent = [service.inspection_json(row) for row in service.inspections(Filters(), limit=_RECENT).rows]
        return show(
            request,
            "inspect.html",
            "Inspect",
            script="inspect.js",
            recipes=recipes,
            chosen=recipe,
            recent=recent,
            most_bytes=service.settings.max_bytes,
        )

    @router.get("/teach")
    def teach(request: Request, saved: str = "") -> HTMLResponse:
        recipes = _recipes(service)
        for recipe in recipes:
            recipe["called_good"] = service.teaching.count_called_good(recipe["name"])
        known = any(recipe["name"] == saved for recipe in recipes)
        return show(
            request,
            "teach.html",
            "Teach",
            script="teach.js",
            recipes=recipes,
            saved=saved if known else "",
            most_bytes=service.settings.max_request,
        )

    @router.get("/history")
    def history(request: Request) -> HTMLResponse:
        refused = False
        try:
            view = ListView.model_validate(dict(request.query_params))
            page = inspections_of(view)
        except (ValidationError, ConfigError):
            view, refused = ListView(), True
            page = inspections_of(view)
        return show(
            request,
            "history.html",
            "History",
            422 if refused else 200,
            script="history.js",
            refused=refused,
            view=view,
            menus=menus([recipe["name"] for recipe in _recipes(service)]),
            count=_images(service.history.count(view.filters)),
            inspections=[service.inspection_json(row) for row in page.rows],
            next_page=view.address(cursor=page.next) if page.next else None,
        )

    @router.get("/history/{id}")
    def detail(request: Request, id: str) -> HTMLResponse:
        inspection: dict[str, Any] = service.inspection_json(service.inspection(id))
        downloads = [(name, address) for name, address in inspection["links"].items() if name != "self"]
        return show(
            request,
            "detail.html",
            "History",
            script="history.js",
            inspection=inspection,
            facts=_facts(inspection),
            downloads=downloads,
        )

    @router.get("/watch")
    def watch(request: Request, span: str = DEFAULT_SPAN) -> HTMLResponse:
        name = span if span in SPANS else DEFAULT_SPAN
        since = SPANS[name].begin
        counts = statistics(service.database, Filters(since=since), SPANS[name].bucket).model_dump(mode="json")
        alarms = service.inspections(Filters(label="anomalous", since=since), limit=_ALARMS)
        return show(
            request,
            "watch.html",
            "Watch",
            script="watch.js",
            spans=[(f"/watch?span={other}", choice.words, other == name) for other, choice in SPANS.items()],
            bucket=SPANS[name].bucket,
            total=counts,
            parts=[watched(part) for part in counts["recipes"]],
            alarms=[service.inspection_json(row) for row in alarms.rows],
        )

    @router.get("/pictures/{id}/{kind}.webp")
    def picture(id: str, kind: Kind, side: Annotated[int, Query(ge=16, le=_LARGEST_SIDE)] = 480) -> Response:
        return Response(draw(service, service.inspection(id), kind, side), media_type="image/webp", headers=_KEPT)

    @router.get("/login")
    def ask_for_token(request: Request) -> HTMLResponse:
        return show(request, "login.html", "Sign in", tabs=(), signed_in=False, refused=False)

    @router.post("/login")
    def enter(request: Request, token: Annotated[str, Form()] = "", csrf: Annotated[str, Form()] = "") -> Response:
        check_form(request, csrf)
        entered = RedirectResponse("/", 303)
        if sign_in(request, entered, token):
            return entered
        return show(request, "login.html", "Sign in", 401, tabs=(), signed_in=False, refused=True)

    @router.post("/logout")
    def leave(request: Request, csrf: Annotated[str, Form()] = "") -> Response:
        check_form(request, csrf)
        left = RedirectResponse("/login", 303)
        sign_out(left)
        return left

    return router


def error_page(request: Request, status: int, reason: str, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    """Return a page that says why there is nothing to show: `reason`, a sentence without its full stop."""
    title = _ERRORS.get(status, "Not possible")
    reason = reason[:1].upper() + reason[1:]
    page = _show(request.app.state.service, request, "error.html", title, status, reason=reason)
    page.headers.update(headers or {})
    return page


def _show(
    service: Service, request: Request, template: str, title: str, status: int = 200, **values: Any
) -> HTMLResponse:
    """Return a page: a template filled with what all pages share, and `values`."""
    shared = {
        "title": title,
        "csrf": csrf_token(request),
        "tabs": TABS,
        "script": "",
        "limits": _limits(service),
        "signed_in": service.settings.token is not None,
    }
    return HTMLResponse(render(template, **(shared | values)), status)


@cache
def _report_style() -> str:
    """Return the look that the page shares with the reports: colours, text, tables and cards."""
    return resources.files("anomalens.reporting").joinpath("templates/style.css").read_text(encoding="utf-8")


def _recipes(service: Service) -> list[dict[str, Any]]:
    """Return recipes with their versions, the newest first, as the service answers them."""
    return [recipe.model_dump(mode="json") for recipe in recipe_answers(service.recipes.all())]


def _in_use(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's name and the scores of the photos that its version in use was taught with."""
    version = next(version for version in recipe["versions"] if version["active"])
    return {"name": recipe["name"], "normal_scores": list(version["normal_scores"])}


def _images(count: int) -> str:
    """Say how many images there are."""
    return f"{count:,} image" if count == 1 else f"{count:,} images"


def _limits(service: Service) -> str:
    """Say what a photo may have, in words."""
    limits = service.settings
    return f"{limits.max_bytes / 2**20:.0f} MB and {limits.max_pixels / 1e6:.0f} megapixels"


def _facts(inspection: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return name and value of what is told about an inspection, in the order of interest."""
    facts: list[tuple[str, object]] = []
    if inspection["score"] is not None:
        facts += [
            ("score", score(inspection["score"])),
            ("threshold", f"{score(inspection['threshold'])} ({inspection['threshold_source']})"),
            ("confidence", f"{inspection['confidence']} of 100"),
        ]
    if inspection["p_value"] is not None:
        facts.append(("p-value", score(inspection["p_value"])))
    if inspection["width"]:
        facts.append(("size", f"{inspection['width']} × {inspection['height']} pixels"))
    recipe = inspection["recipe"]
    if recipe:
        facts.append(("taught part", f"{recipe['name']}, version {recipe['version']}"))
    else:
        facts.append(("object", inspection["object"]))
    return [*facts, ("method", inspection["method"])]
