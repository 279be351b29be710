"""Share what all routes need: the service, the errors they may answer, the filters of lists."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request

from anomalens.serving.answers import ErrorAnswer, Label, State, VerdictName
from anomalens.serving.history import Filters
from anomalens.serving.service import Service

_REASONS = {
    400: "The request is no proper HTTP.",
    401: "No token, or a wrong one.",
    403: "Sent by a page from elsewhere.",
    404: "Nothing of this name.",
    409: "Not possible in this state.",
    413: "More bytes than the limit, which the answer states.",
    422: "Cannot be understood, or above a limit; the answer says what.",
    503: "No room just now; try again after the seconds in Retry-After.",
}


def errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route for the OpenAPI document; those that any route may answer are among them."""
    return {
        code: {"model": ErrorAnswer, "description": _REASONS[code]} for code in sorted({400, 401, 403, 422, *codes})
    }


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(_service)]
"""Gives a route the service."""


def _filters(
    recipe: Annotated[str | None, Query(max_length=100, description="Name of a recipe.")] = None,
    label: Label | None = None,
    state: State | None = None,
    review: Annotated[
        VerdictName | Literal["none", "any"] | None, Query(description="A verdict; none: not reviewed; any: reviewed.")
    ] = None,
    since: Annotated[datetime | None, Query(description="From this time on.")] = None,
    until: Annotated[datetime | None, Query(description="Before this time.")] = None,
    score_min: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    score_max: Annotated[float | None, Query(allow_inf_nan=False)] = None,
) -> Filters:
    return Filters(recipe, label, state, review, since, until, score_min, score_max)


FiltersOf = Annotated[Filters, Depends(_filters)]
"""Gives a route the filters in its address."""
