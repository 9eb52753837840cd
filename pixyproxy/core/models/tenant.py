"""Tenants: the customers of this server, which own all other objects."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, NewType

from pydantic import ConfigDict, Field, PlainSerializer, StringConstraints, WithJsonSchema

from pixyproxy.core.models.base import REFUSE_COERCION, UNIQUE, FrozenModel

TenantId = NewType("TenantId", int)
TenantGuid = NewType("TenantGuid", str)


class Visibility(StrEnum):
    """Who may see a picture: anyone with its GUID, or only its tenant."""

    PUBLIC = "public"
    PRIVATE = "private"


class TenantStatus(StrEnum):
    """Whether a tenant may act.

    Objects of a suspended tenant are hidden; one being deleted no longer exists for clients.
    """

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETING = "deleting"


SettableStatus = Literal[TenantStatus.ACTIVE, TenantStatus.SUSPENDED]
"""The statuses that an operator may set; only DELETE sets ``deleting``."""

DisplayName = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$"
    ),
]
"""A name for display: one line, without control characters."""
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$")]
AllowedModels = Annotated[
    frozenset[ModelName],
    Field(min_length=1, max_length=100, fail_fast=True),
    UNIQUE,
    PlainSerializer(sorted, return_type=list[str], when_used="json-unless-none"),
]
ImagesPerMinute = Annotated[int, Field(ge=1, le=1_000_000), REFUSE_COERCION]
BudgetUsd = Annotated[
    Decimal,
    Field(ge=0, le=1_000_000_000, decimal_places=6),
    REFUSE_COERCION,
    PlainSerializer(float, when_used="json-unless-none"),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1_000_000_000, "multipleOf": 0.000001}),
]
"""US dollars; the database stores whole micro-dollars."""


class TenantSettings(FrozenModel):
    """An operator's settings of a tenant. None: any model, the server's limit, no budget."""

    default_visibility: Visibility
    images_per_minute: ImagesPerMinute | None = None
    monthly_budget_usd: BudgetUsd | None = None
    allowed_models: AllowedModels | None = None


class Tenant(TenantSettings):
    """A customer of this server; ``id`` never leaves it."""

    id: TenantId
    guid: TenantGuid
    name: str
    status: TenantStatus
    created_at: datetime


class NewTenant(FrozenModel):
    """The request to create a tenant."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "acme", "monthly_budget_usd": 50}]})

    name: DisplayName
    status: SettableStatus = TenantStatus.ACTIVE
    default_visibility: Visibility | None = Field(default=None, description="Default: the server's.")
    images_per_minute: ImagesPerMinute | None = Field(default=None, description="Default: the server's limit.")
    monthly_budget_usd: BudgetUsd | None = Field(default=None, description="Default: no budget.")
    allowed_models: AllowedModels | None = Field(default=None, description="Default: any model.")


def _leave_out_default(schema: dict[str, Any]) -> None:
    """Remove the default from the schema: omitted fields stay unchanged, so a client must not send defaults."""
    schema.pop("default", None)


class TenantChange(FrozenModel):
    """A change to a tenant: omitted fields stay unchanged, null ones are unset."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"monthly_budget_usd": 100}]})

    name: DisplayName = Field(default="", json_schema_extra=_leave_out_default)
    status: SettableStatus = Field(default=TenantStatus.ACTIVE, json_schema_extra=_leave_out_default)
    default_visibility: Visibility = Field(default=Visibility.PUBLIC, json_schema_extra=_leave_out_default)
    images_per_minute: ImagesPerMinute | None = Field(default=None, json_schema_extra=_leave_out_default)
    monthly_budget_usd: BudgetUsd | None = Field(default=None, json_schema_extra=_leave_out_default)
    allowed_models: AllowedModels | None = Field(default=None, json_schema_extra=_leave_out_default)


class TenantDetail(TenantSettings):
    """A tenant as shown to operators."""

    guid: TenantGuid
    name: str
    status: TenantStatus
    created_at: datetime
