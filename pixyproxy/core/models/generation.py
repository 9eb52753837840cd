"""Generations: the truth about one logical request for a picture."""

from datetime import datetime
from enum import StrEnum
from typing import NewType

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.image import GenerationId, ImageGuid
from pixyproxy.core.models.tenant import TenantId, Visibility

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
    The rest is what the image will be: with the picture's file, it is all that a record needs.
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
    created_at: datetime
    updated_at: datetime


class Generation(NewGeneration):
    """A generation as the database knows it."""

    id: GenerationId
