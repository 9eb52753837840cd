"""Generations: the authoritative state of one logical request for pictures."""

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
"""Identifies a running process as the executor of a generation."""


class GenerationStatus(StrEnum):
    """The status of a generation. The last four are final, except that an unknown one may be resolved later."""

    ACCEPTED = "accepted"
    """Claimed, reserved and waiting for a slot; no upstream has done anything for it."""
    CALLING = "calling"
    """The upstream has been called or is about to be."""
    STORED = "stored"
    """The pictures and their records are durable."""
    FAILED = "failed"
    """No picture and no charge: refused, not reached, or answered without a picture."""
    UNKNOWN = "unknown"
    """It is unknown whether the upstream did the work; never repeated silently."""
    CANCELLED = "cancelled"
    """Cancelled by its client while it waited; nothing is charged."""

    @property
    def is_final(self) -> bool:
        """Whether the generation is finished."""
        return self not in {GenerationStatus.ACCEPTED, GenerationStatus.CALLING}


class GenerationError(FrozenModel):
    """Why a generation yielded no picture: the parts of an exception that are safe to show."""

    code: str
    detail: str
    context: dict[str, str] = Field(default_factory=dict)
    retry_after_seconds: int | None = None


class NewGeneration(FrozenModel):
    """A logical request, which claims its Idempotency-Key if it has one.

    ``fingerprint`` is the SHA-256 (64 hex digits) of the request, so that a key cannot be reused for another.
    ``subject`` is the caller. ``image_guids`` are the GUIDs of its future pictures. ``reserved_micro_usd`` is its
    highest possible cost, taken from the budget of ``budget_month`` (``2026-11``); None if no price is known.
    ``lease_owner`` is the executing process, presumed dead after ``lease_until``; None while the order waits. The
    generation holds a slot at ``upstream`` until it is finished, at the latest until ``place_until``. ``content`` is
    the digest (64 hex digits) that identifies a retry without an Idempotency-Key, and ``follower`` the request that
    waits for the generation. Times without a zone are seconds since 1970.
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
    """A generation row.

    ``cost_micro_usd`` is the final charge, ``image_count`` the number of pictures made or ordered, ``resolved_at`` when
    an operator resolved an unknown outcome. ``excluded`` are the upstreams that did nothing for it. ``version``
    increases with each change that followers are notified of. ``lost_at`` is when the loss of its follower was noticed,
    ``adopted_at`` when a retry adopted it, before or after it finished. While it waits, ``error`` is why the last
    upstream did nothing for it.
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
    """The state of a generation that a follower needs to decide whether to read it again."""

    guid: GenerationGuid
    id: GenerationId
    tenant_id: TenantId
    status: GenerationStatus
    version: int
    position: int | None = None


class Outcome(FrozenModel):
    """The outcome of a generation.

    ``frees_key``: its Idempotency-Key may be used again, since the upstream did nothing. ``keeps_place``: the upstream
    may still be working on it, so its slot stays in use until the call's deadline.
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
    """A generation and those of its images that still exist."""

    generation: Generation
    images: tuple[StoredImage, ...]


class GenerationFilter(FrozenModel):
    """The filter of a list of a tenant's generations."""

    status: GenerationStatus | None = None


class ShownError(FrozenModel):
    """Why a generation yielded no picture; `code` is stable, for programs."""

    code: str
    detail: str


class GenerationDetail(FrozenModel):
    """A generation as shown to its tenant. `position` and `estimate_seconds` are set while it waits, if known."""

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
    """A generation as shown to operators; `upstream` is the last one called, if known."""

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
    """An operator's decision on a generation with an unknown outcome."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"bought": False}]})

    bought: bool = Field(
        strict=True,
        description=(
            "Whether the upstream did the work. True charges the reserved amount; false releases it and frees the "
            "Idempotency-Key, so that the request may be repeated."
        ),
    )


class UsageRow(FrozenModel):
    """The pictures made on one day (UTC), by model and caller; the cost is null if no price is known."""

    day: date
    model: str
    key: str | None = Field(description="GUID of the API key, user or token of the caller.")
    images: int
    cost_usd: float | None = None
