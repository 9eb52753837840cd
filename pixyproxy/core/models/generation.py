"""Generations: the truth about one logical request for pictures."""

from datetime import date, datetime
from enum import StrEnum
from typing import NewType

from pydantic import ConfigDict, Field

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.image import GenerationId, ImageDetail, ImageGuid, PromptTruncated, StoredImage
from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer
from pixyproxy.core.models.principal import Subject
from pixyproxy.core.models.tenant import TenantGuid, TenantId, Visibility
from pixyproxy.core.models.upstream import UpstreamId

GenerationGuid = NewType("GenerationGuid", str)
ProcessGuid = NewType("ProcessGuid", str)
"""Names a process for as long as it runs, as the one that works on a generation."""


class GenerationStatus(StrEnum):
    """Where a generation stands; the last four are final, but for what is found out about an unknown one later."""

    ACCEPTED = "accepted"
    """Claimed, reserved, and waiting for a place at an upstream; no upstream has done anything for it."""
    CALLING = "calling"
    """The upstream has been, or is about to be, asked."""
    STORED = "stored"
    """The pictures and their records are durable."""
    FAILED = "failed"
    """No picture came of it, and nothing is charged: refused, never reached, or answered with what is no picture."""
    UNKNOWN = "unknown"
    """Whether the upstream did the work cannot be known; never repeated silently."""
    CANCELLED = "cancelled"
    """Its client took it back while it waited; nothing is charged."""

    @property
    def is_final(self) -> bool:
        """Whether nobody works on it any more."""
        return self not in {GenerationStatus.ACCEPTED, GenerationStatus.CALLING}


class GenerationError(FrozenModel):
    """Why a generation gave no picture: an exception of ours, as far as it may be shown."""

    code: str
    detail: str
    context: dict[str, str] = Field(default_factory=dict)
    retry_after_seconds: int | None = None


class NewGeneration(FrozenModel):
    """A logical request that claims its Idempotency-Key, if it has one.

    ``fingerprint`` is the SHA-256 (64 hex digits) of the request, so that a key cannot be reused for another.
    ``subject`` is who asked. ``image_guids`` are those that its pictures will have. ``reserved_micro_usd`` is what it
    may cost at the most, taken from the budget of ``budget_month`` (``2026-11``); None where no price is known.
    ``lease_owner`` is the process that executes it, and must be dead once ``lease_until`` is over; one that waits has
    none. It holds a place at ``upstream`` until it is over, or ``place_until`` at the latest. ``content`` is the digest
    (64 hex digits) by which a repetition without an Idempotency-Key is recognized, and ``follower`` names the request
    that waits for it. Times without a zone are seconds since 1970.
    """

    guid: GenerationGuid
    tenant_id: TenantId
    idempotency_key: str | None
    fingerprint: str
    status: GenerationStatus
    image_guids: tuple[ImageGuid, ...]
    order: PictureOrder
    filename: str | None
    visibility: Visibility
    subject: Subject | None = None
    budget_month: str | None = None
    reserved_micro_usd: int | None = None
    lease_owner: ProcessGuid | None = None
    lease_until: datetime | None = None
    upstream_id: UpstreamId | None = None
    upstream: str | None = None
    started_at: float | None = None
    place_until: float | None = None
    content: str | None = None
    follower: str | None = None
    created_at: datetime
    updated_at: datetime


class Generation(NewGeneration):
    """A generation as the database knows it.

    ``cost_micro_usd`` is what it was charged in the end, ``image_count`` how many pictures it gave or is to give,
    ``resolved_at`` when an operator decided on an unknown one. ``excluded`` are the upstreams that did nothing for it,
    ``version`` grows with each change that whoever follows it is told of, ``lost_at`` is when its follower was noticed
    to be gone, ``adopted_at`` when a repetition took it, before its end or since. While it waits, ``error`` is what an
    upstream did nothing for.
    """

    id: GenerationId
    excluded: frozenset[UpstreamId] = frozenset()
    version: int = 0
    lost_at: float | None = None
    adopted_at: float | None = None
    cost_micro_usd: int | None = None
    image_count: int = 1
    answer: UpstreamAnswer | None = None
    error: GenerationError | None = None
    finished_at: datetime | None = None
    resolved_at: datetime | None = None


class GenerationChange(FrozenModel):
    """How a generation stands, as far as whoever follows it has to know in order to look again."""

    guid: GenerationGuid
    id: GenerationId
    tenant_id: TenantId
    status: GenerationStatus
    version: int
    position: int | None = None


class Ending(FrozenModel):
    """How a generation ends. ``frees_key``: its Idempotency-Key may be used again, since the upstream did nothing.

    ``keeps_place``: the upstream may be at work on it, so that its place is not free before the call's deadline.
    """

    status: GenerationStatus
    at: datetime
    cost_micro_usd: int | None = None
    image_count: int = 0
    upstream: str | None = None
    answer: UpstreamAnswer | None = None
    error: GenerationError | None = None
    frees_key: bool = False
    keeps_place: bool = False


class GenerationWithImages(FrozenModel):
    """A generation, and those of its images that were not deleted since."""

    generation: Generation
    images: tuple[StoredImage, ...]


class GenerationFilter(FrozenModel):
    """Which of a tenant's generations to list."""

    status: GenerationStatus | None = None


class ShownError(FrozenModel):
    """Why a generation gave no picture; `code` is stable, for programs."""

    code: str
    detail: str


class GenerationDetail(FrozenModel):
    """What a tenant sees of a generation. `position` and `estimate_seconds` while it waits, as far as is known."""

    guid: GenerationGuid
    status: GenerationStatus
    prompt: str
    prompt_truncated: PromptTruncated = False
    model: str
    n: int
    images: list[ImageDetail]
    error: ShownError | None
    cost_usd: float | None
    created_at: datetime
    finished_at: datetime | None
    position: int | None = None
    estimate_seconds: float | None = None


class UnresolvedGeneration(FrozenModel):
    """A generation as operators see it; `upstream` is the last one that was asked, as far as is known."""

    guid: GenerationGuid
    tenant: TenantGuid
    status: GenerationStatus
    model: str
    upstream: str | None = None
    subject: str | None
    reserved_usd: float | None
    cost_usd: float | None
    created_at: datetime
    updated_at: datetime
    resolved_at: datetime | None


class Resolution(FrozenModel):
    """What an operator found out about a generation whose outcome was unknown."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"bought": False}]})

    bought: bool = Field(
        strict=True,
        description=(
            "Whether the upstream did the work. True charges what was reserved; "
            "false releases it and frees the Idempotency-Key, so that it may be repeated."
        ),
    )


class UsageRow(FrozenModel):
    """What was made on one day (UTC), by model and by who asked; cost is null where no price is known."""

    day: date
    model: str
    key: str | None = Field(description="GUID of the API key, user or token that asked.")
    images: int
    cost_usd: float | None = None
