"""Serve a page that describes every route, made of the OpenAPI document; nothing is loaded from elsewhere."""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

router = APIRouter(include_in_schema=False)

_METHODS = ("get", "post", "put", "patch", "delete")


@router.get("/docs")
def reference(request: Request) -> HTMLResponse:
    """Describe every route."""
    document = request.app.openapi()
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, routes in document["paths"].items():
        for method in (name for name in _METHODS if name in routes):
            entry = _described(path, method, routes[method], document)
            groups.setdefault(entry["group"], []).append(entry)
    return HTMLResponse(_templates().get_template("reference.html").render(document=document, groups=groups))


@router.get("/docs/reference.css")
def style() -> Response:
    """Return the style sheet of the page."""
    content = (files("anomalens.serving") / "templates" / "reference.css").read_bytes()
    return Response(content, media_type="text/css", headers={"cache-control": "max-age=3600"})


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("anomalens.serving"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _described(path: str, method: str, route: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page says of a route."""
    return {
        "path": path,
        "method": method.upper(),
        "anchor": route["operationId"],
        "group": (route.get("tags") or ["others"])[0],
        "paragraphs": [" ".join(part.split()) for part in route.get("description", "").split("\n\n")],
        "fields": [*_parameters(route), *_body(route, document)],
        "answers": [(status, answer["description"]) for status, answer in sorted(route["responses"].items())],
    }


def _parameters(route: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for field in route.get("parameters", ()):
        yield {
            "name": field["name"],
            "place": {"query": "address", "path": "address", "header": "header"}[field["in"]],
            "kind": _kind(field["schema"]),
            "meaning": field.get("description", ""),
            "required": field.get("required", False),
        }


def _body(route: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    content = route.get("requestBody", {}).get("content", {})
    for media, place in (("multipart/form-data", "form"), ("application/json", "JSON")):
        schema = content.get(media, {}).get("schema", {})
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
        for name, field in schema.get("properties", {}).items():
            yield {
                "name": name,
                "place": place,
                "kind": _kind(field),
                "meaning": field.get("description", ""),
                "required": name in schema.get("required", ()),
            }


def _kind(schema: Mapping[str, Any]) -> str:
    """Say what type of value a schema describes: "string", "number or null", "'a' or 'b'"."""
    if "enum" in schema or "const" in schema:
        return " or ".join(repr(value) for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(part) for part in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if schema.get("format") == "binary":
        return "file"
    return str(schema.get("type", "object"))
