"""The upstreams that an operator lists, and which models each of them serves."""

import re
from typing import Annotated, Literal, NewType

from pydantic import AfterValidator, Field, HttpUrl, SecretStr, StringConstraints

from pixyproxy.core.models.base import REFUSE_COERCION, UNIQUE, FrozenModel

ANY_ENDING = "*"
"""What a pattern for models may end with."""

UpstreamName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ModelPattern = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._:/@-]{0,127})?\*?$", min_length=1)]
"""A model's name, or the beginning of some names and a ``*``."""

ResponseFormat = Literal["b64_json", "url", "none"]


def _without_query(url: HttpUrl) -> HttpUrl:
    """Refuse what would end up in the middle of the URLs that are made of it."""
    if url.query or url.fragment:
        problem = "must have no query and no fragment: parameters go into `query` of an upstream in PIXYPROXY_UPSTREAMS"
        raise ValueError(problem)
    return url


def _sendable(value: SecretStr) -> SecretStr:
    """Refuse what no HTTP header can carry."""
    if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", value.get_secret_value()):
        problem = "must be visible ASCII characters"
        raise ValueError(problem)
    return value


BaseUrl = Annotated[HttpUrl, AfterValidator(_without_query)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
HeaderValue = Annotated[SecretStr, AfterValidator(_sendable)]
ParameterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~-]{1,64}$")]


UpstreamId = NewType("UpstreamId", int)


class UpstreamNumbers(FrozenModel):
    """How much of the work an upstream gets; ``UpstreamSettings`` says what the figures mean."""

    weight: int
    concurrency: int
    requests_per_minute: int | None


class UpstreamState(UpstreamNumbers):
    """What all processes know of an upstream together. Times are seconds since 1970.

    ``share`` is how many orders it was drawn for, for its weight; ``unusable`` counts the pictures since the last
    usable one, ``failures`` those in a row.
    """

    id: UpstreamId
    name: str
    share: float = 0.0
    paused_until: float = 0.0
    failed_at: float = 0.0
    failures: int = 0
    unusable: int = 0
    mean_seconds: float | None = None


class UpstreamSettings(FrozenModel):
    """An upstream: a server that speaks the OpenAI Images API, and how much of the work it gets.

    ``name`` stands in the log and must differ from the other upstreams'. ``api_key`` None: no ``Authorization`` is
    sent but one in ``headers``, which go with every request as ``query`` does. ``response_format`` is what the
    parameter of this name is sent as, "none" for upstreams that do not know it. ``models`` None: any model. ``weight``
    is its share beside other upstreams of the same model; ``concurrency`` how many orders it has at one time;
    ``requests_per_minute`` None: as many as come.
    """

    name: UpstreamName
    base_url: BaseUrl
    api_key: HeaderValue | None = None
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=32)] = Field(default_factory=dict)
    query: Annotated[dict[ParameterName, SecretStr], Field(max_length=32)] = Field(default_factory=dict)
    response_format: ResponseFormat = "none"
    models: Annotated[tuple[ModelPattern, ...], Field(min_length=1, max_length=100), UNIQUE] | None = None
    weight: Annotated[int, Field(ge=1, le=1000), REFUSE_COERCION] = 1
    concurrency: Annotated[int, Field(ge=1, le=10_000), REFUSE_COERCION] = 1000
    requests_per_minute: Annotated[int, Field(ge=1, le=100_000), REFUSE_COERCION] | None = None


def serves(models: tuple[str, ...] | None, model: str) -> bool:
    """Whether a model is one of these names, or begins as one of them that ends with ``*``. None: any model."""
    if models is None:
        return True
    return any(model.startswith(name[:-1]) if name.endswith(ANY_ENDING) else model == name for name in models)
