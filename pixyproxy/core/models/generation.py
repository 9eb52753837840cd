"""Generations: the truth about one logical request for a picture."""

from datetime import date, datetime
from enum import StrEnum
from typing import NewType

from pydantic import Field

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.image import GenerationId, ImageGuid
from pixyproxy.core.models.principal import Subject
from pixyproxy.core.models.tenant import TenantGuid, TenantId, Visibility

GenerationGuid = NewType("GenerationGuid", str)


class GenerationStatus(StrEnum):
    """Where a generation stands; the last three are final."""

    CALLING = "calling"
    """The upstream has been, or is about to be, asked."""
    STORED = "stored"
    """The picture and its record are durable."""
    FAILED = "failed"
    """The upstream said no, or was never reached; nothing was bought."""
    UNKNOWN = "unknown"
    """Whether the upstream did the work cannot be known; never repeated silently."""


class NewGeneration(FrozenModel):
    """A logical request that claims its Idempotency-Key, if it has one.

    ``fingerprint`` is the SHA-256 (64 hex digits) of the request, so that a key cannot be reused for another.
    ``subject`` is who asked. The rest is what the image will be: with the picture's file, it is all that a record
    needs.
    """

    guid: GenerationGuid
    tenant_id: TenantId
    idempotency_key: str | None
    fingerprint: str
    status: GenerationStatus
    image_guid: ImageGuid
    prompt: str
    filename: str | None
    visibility: Visibility
    model: str
    subject: Subject | None = None
    created_at: datetime
    updated_at: datetime


class Generation(NewGeneration):
    """A generation as the database knows it; ``resolved_at`` is when an operator decided on an unknown one."""

    id: GenerationId
    resolved_at: datetime | None = None


class UnresolvedGeneration(FrozenModel):
    """A generation as operators see it."""

    guid: GenerationGuid
    tenant: TenantGuid
    status: GenerationStatus
    model: str
    subject: str | None
    created_at: datetime
    updated_at: datetime
    resolved_at: datetime | None


class Resolution(FrozenModel):
    """What an operator found out about a generation whose outcome was unknown."""

    bought: bool = Field(
        strict=True,
        description="Whether the upstream did the work. False frees the Idempotency-Key, so that it may be repeated.",
    )


class UsageRow(FrozenModel):
    """Pictures that were stored on one day (UTC), by model and by who asked; cost is null while no price is known."""

    day: date
    model: str
    key: str | None = Field(description="GUID of the API key, user or token that asked.")
    images: int
    cost_usd: float | None = None
