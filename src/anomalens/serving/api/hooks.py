"""Serve webhooks: addresses that are told of anomalous images, and the messages that did not arrive."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from anomalens.serving.api.common import ServiceOf, errors
from anomalens.serving.schema import Delivery, Webhook

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


class WebhookBody(BaseModel):
    """Name an address to be told of anomalous images, of one recipe or of all."""

    url: str = Field(max_length=2000)
    recipe: str | None = Field(None, max_length=100)


class WebhookAnswer(BaseModel):
    """Describe an address."""

    id: str
    url: str
    recipe: str | None
    created: datetime


class NewWebhook(WebhookAnswer):
    """Describe a new address, with the key of its signatures, which is never shown again."""

    secret: str


class WebhooksAnswer(BaseModel):
    """Hold all addresses."""

    webhooks: list[WebhookAnswer]


class DeliveryAnswer(BaseModel):
    """Describe a message: waiting, delivered, or dead after the last attempt."""

    id: int
    inspection: str
    created: datetime
    state: Literal["waiting", "delivered", "dead"]
    attempts: int
    due: datetime
    error: str | None


class DeliveriesAnswer(BaseModel):
    """Hold messages, the newest first."""

    deliveries: list[DeliveryAnswer]


@router.get("", response_model=WebhooksAnswer, responses=errors())
def webhooks(service: ServiceOf) -> Any:
    """List the addresses that are told of anomalous images."""
    return WebhooksAnswer(webhooks=[WebhookAnswer(**_facts(row)) for row in service.webhooks.all()])


@router.post("", status_code=201, response_model=NewWebhook, responses=errors())
def add(body: WebhookBody, service: ServiceOf) -> Any:
    """Have an address told of anomalous images; the secret of its signatures is shown once."""
    row = service.webhooks.add(body.url, body.recipe)
    return NewWebhook(**_facts(row), secret=row.secret)


@router.delete("/{id}", status_code=204, responses=errors(404))
def remove(id: str, service: ServiceOf) -> None:
    """Tell an address nothing more."""
    service.webhooks.remove(id)


@router.get("/{id}/deliveries", response_model=DeliveriesAnswer, responses=errors(404))
def deliveries(id: str, service: ServiceOf, state: Literal["waiting", "delivered", "dead"] | None = None) -> Any:
    """List the latest messages to an address."""
    return DeliveriesAnswer(deliveries=[_delivery(row) for row in service.webhooks.deliveries(id, state)])


@router.post("/{id}/deliveries/{number}/retry", response_model=DeliveryAnswer, responses=errors(404))
def retry(id: str, number: Number, service: ServiceOf) -> Any:
    """Send a message again."""
    return _delivery(service.webhooks.retry(id, number))


def _facts(row: Webhook) -> dict[str, Any]:
    return {"id": row.id, "url": row.url, "recipe": row.recipe, "created": row.created}


def _delivery(row: Delivery) -> DeliveryAnswer:
    own = {name: getattr(row, name) for name in ("id", "created", "state", "attempts", "due", "error")}
    return DeliveryAnswer.model_validate(own | {"inspection": row.inspection_id})
