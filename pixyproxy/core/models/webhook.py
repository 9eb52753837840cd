"""Webhooks: where a tenant is notified of the outcome of its generations, and the deliveries."""

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
"""The most webhooks of a tenant."""


class WebhookEvent(StrEnum):
    """The events of a webhook; both are final outcomes."""

    GENERATION_STORED = "generation.stored"
    GENERATION_FAILED = "generation.failed"


class GenerationOutcome(FrozenModel):
    """The outcome of a finished generation for webhooks; ``error`` is the error code if it yielded no picture."""

    tenant_id: TenantId
    guid: GenerationGuid
    status: GenerationStatus
    prompt: str
    images: tuple[ImageGuid, ...] = ()
    error: str | None = None
    at: datetime


class DeliveryStatus(StrEnum):
    """The status of a delivery; the last two are final."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class NewWebhook(FrozenModel):
    """The request to create a webhook."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "https://example.com/pixyproxy", "events": ["generation.stored"]}]}
    )

    url: Annotated[str, StringConstraints(min_length=1, max_length=2000)] = Field(
        description="The URL that events are posted to: https, on a host with public addresses.",
        examples=["https://example.com/pixyproxy"],
        json_schema_extra={"format": "uri"},
    )
    events: Annotated[frozenset[WebhookEvent], Field(min_length=1, fail_fast=True), UNIQUE] = Field(
        default=frozenset(WebhookEvent), description="The events to deliver; default: all."
    )


class WebhookDetail(FrozenModel):
    """A webhook in a list. ``disabled_at`` is when its receiver returned 410 Gone."""

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
    """A webhook row.

    The secret is not stored: it is derived from ``version``, which counts from 1. The previous version's secret also
    signs until ``former_secret_until``.
    """

    tenant_id: TenantId
    version: int


class IssuedWebhook(FrozenModel):
    """A new or rotated webhook. Its secret is available only here."""

    detail: WebhookDetail
    secret: SecretStr


class WebhookWithSecret(WebhookDetail):
    """The response that shows a webhook's secret, once."""

    secret: str = Field(description="`whsec_` and base64, as in Standard Webhooks.")


class DeliveryDetail(FrozenModel):
    """One event for one webhook; ``guid`` is the ``webhook-id`` of every attempt.

    ``attempts`` counts the attempts started. ``next_attempt_at`` is None when the delivery is finished; while an
    attempt runs, it is when the next starts if the process dies. ``response_status`` and ``problem`` belong to the last
    attempt: an HTTP status, or why there was none.
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
    """A delivery row; ``payload`` is the body of every attempt, erased when the delivery is finished."""

    tenant_id: TenantId
    webhook_guid: WebhookGuid
    payload: str
