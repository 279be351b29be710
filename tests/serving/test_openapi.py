"""Tests of the OpenAPI document: every answer is one it describes, whatever is asked; the page made of it."""

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
import uvicorn
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from anomalens.serving.running import bind
from anomalens.serving.settings import ServeSettings
from anomalens.serving.web_app import create_app
from small_photos import photo

EXAMPLES = 4  # of each route, asked rightly and wrongly
_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture
def served(settings: ServeSettings, toy: None) -> Iterator[str]:
    """Return the address of a service that listens on the loopback interface."""
    with bind("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def test_no_request_fails_inside_or_is_answered_in_an_undocumented_way(served: str) -> None:
    schema = schemathesis.openapi.from_url(f"{served}/openapi.json")
    routes, answers = 0, set()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        routes += 1
        # Any text may be an id, so what has nothing else cannot be asked wrongly.
        for mode in GenerationMode if [*operation.query, *operation.body] else (GenerationMode.POSITIVE,):

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def check(case: Any) -> None:
                response = case.call()
                answers.add(response.status_code)
                case.validate_response(response, checks=_CHECKS)

            check()
    assert routes >= 30
    assert answers >= {200, 404, 422}


def test_the_page_describes_every_route(client: TestClient) -> None:
    page = client.get("/docs").text
    document = client.get("/openapi.json").json()
    for path in document["paths"]:
        assert path in page
    assert not re.search(r"https?://", page)
    assert "<script" not in page
    assert client.get("/docs/reference.css").headers["content-type"].startswith("text/css")


def test_every_error_is_a_sentence(client: TestClient) -> None:
    client.post("/api/v1/inspections", content=photo())
    for method, path in (
        ("GET", "/api/v1/inspections/none"),
        ("GET", "/api/v1/inspections?limit=0"),
        ("GET", "/nowhere"),
        ("PUT", "/api/v1/inspections"),
        ("POST", "/api/v1/webhooks"),
        ("GET", "/api/v1/recipes/none/1.anomalens"),
        ("POST", "/api/v1/recipes/none/activate"),
        ("DELETE", "/api/v1/recipes/none/0"),
    ):
        response = client.request(method, path)
        assert 400 <= response.status_code < 500
        assert set(response.json()) == {"detail", "request"}
        assert isinstance(response.json()["detail"], str)
