"""Webhooks: where a tenant is told what became of its generations, and the deliveries that tell it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, NewType

from pydantic import ConfigDict, Field, SecretStr, StringConstraints, field_serializer

from pixyproxy.core.models.base import UNIQUE, FrozenModel
from pixyproxy.core.models.generation import GenerationGuid, GenerationStatus
from pixyproxy.core.models.image import ImageGuid
from pixyproxy.core.models.tenant import TenantId

WebhookGuid = NewType("WebhookGuid", str)
DeliveryGuid = NewType("DeliveryGuid", str)

MOST_WEBHOOKS = 10
"""Of one tenant."""


class WebhookEvent(StrEnum):
    """What a webhook may be told; both are final."""

    GENERATION_STORED = "generation.stored"
    GENERATION_FAILED = "generation.failed"


class GenerationOutcome(FrozenModel):
    """What webhooks are told of a generation that is over; ``error`` is the code of why it gave no picture."""

    tenant_id: TenantId
    guid: GenerationGuid
    status: GenerationStatus
    prompt: str
    images: tuple[ImageGuid, ...] = ()
    error: str | None = None
    at: datetime


class DeliveryStatus(StrEnum):
    """Where a delivery stands; the last two are final."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class NewWebhook(FrozenModel):
    """What is asked for in a new webhook."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "https://example.com/pixyproxy", "events": ["generation.stored"]}]}
    )

    url: Annotated[str, StringConstraints(min_length=1, max_length=2000)] = Field(
        description="Where events are posted: https, on a host whose addresses are public.",
        examples=["https://example.com/pixyproxy"],
        json_schema_extra={"format": "uri"},
    )
    events: Annotated[frozenset[WebhookEvent], Field(min_length=1, fail_fast=True), UNIQUE] = Field(
        default=frozenset(WebhookEvent), description="What to tell; everything when left out."
    )


class WebhookDetail(FrozenModel):
    """A webhook as it is listed. ``disabled_at`` is when its receiver said that it is gone (410)."""

    guid: WebhookGuid
    url: str
    events: frozenset[WebhookEvent]
    created_at: datetime
    former_secret_until: datetime | None
    disabled_at: datetime | None

    @field_serializer("events")
    def _in_order(self, events: frozenset[WebhookEvent]) -> list[str]:
        return sorted(events)


class StoredWebhook(WebhookDetail):
    """A webhook as the database knows it.

    Its secret is not kept: it is derived from ``version``, which counts from 1. The one before signs as well until
    ``former_secret_until``.
    """

    tenant_id: TenantId
    version: int


class IssuedWebhook(FrozenModel):
    """A new webhook, or a rotated one; the only time that its secret is seen."""

    detail: WebhookDetail
    secret: SecretStr


class WebhookWithSecret(WebhookDetail):
    """The answer that shows a secret, once."""

    secret: str = Field(description="`whsec_` and base64, as Standard Webhooks writes it.")


class DeliveryDetail(FrozenModel):
    """One event on its way to one webhook; ``guid`` is the ``webhook-id`` of every attempt.

    ``attempts`` counts those that have begun. ``next_attempt_at`` is None when it is over; while an attempt is under
    way, it is when the next begins if this one's process dies. ``response_status`` and ``problem`` are the last
    attempt's: a status of HTTP, or why there was none.
    """

    guid: DeliveryGuid
    event: WebhookEvent
    status: DeliveryStatus
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    response_status: int | None
    problem: str | None
    finished_at: datetime | None


class StoredDelivery(DeliveryDetail):
    """A delivery as the database knows it; ``payload`` is the body of every attempt, erased when it is over."""

    tenant_id: TenantId
    webhook_guid: WebhookGuid
    payload: str
