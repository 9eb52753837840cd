"""The configured upstreams and the models that each serves."""

import re
from typing import Annotated, Literal, NewType

from pydantic import AfterValidator, Field, HttpUrl, SecretStr, StringConstraints

from pixyproxy.core.models.base import REFUSE_COERCION, UNIQUE, FrozenModel

ANY_ENDING = "*"
"""The wildcard at the end of a model pattern."""

UpstreamName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ModelPattern = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._:/@-]{0,127})?\*?$", min_length=1)]
"""A model's name, or a prefix of names followed by ``*``."""

ResponseFormat = Literal["b64_json", "url", "none"]


def _without_query(url: HttpUrl) -> HttpUrl:
    """Reject a query or a fragment, which would end up in the middle of derived URLs."""
    if url.query or url.fragment:
        problem = "must not have a query or fragment; set parameters in `query` of an upstream in PIXYPROXY_UPSTREAMS"
        raise ValueError(problem)
    return url


def _sendable(value: SecretStr) -> SecretStr:
    """Reject characters that an HTTP header cannot carry."""
    if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", value.get_secret_value()):
        problem = "must consist of visible ASCII characters"
        raise ValueError(problem)
    return value


BaseUrl = Annotated[HttpUrl, AfterValidator(_without_query)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
HeaderValue = Annotated[SecretStr, AfterValidator(_sendable)]
ParameterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~-]{1,64}$")]


UpstreamId = NewType("UpstreamId", int)


class UpstreamNumbers(FrozenModel):
    """The capacity limits of an upstream, explained in ``UpstreamSettings``."""

    weight: int
    concurrency: int
    requests_per_minute: int | None


class UpstreamState(UpstreamNumbers):
    """The state of an upstream, shared by all processes. Times are seconds since 1970.

    ``share`` grows by 1/weight with each assigned order. ``unusable`` and ``failures`` count consecutive
    unusable pictures and failures.
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
    """An upstream: a server that speaks the OpenAI Images API, and its share of the work.

    ``name`` appears in the log and must be unique. ``api_key`` None: no ``Authorization`` is sent except one in
    ``headers``. ``headers`` and ``query`` are sent with every request. ``response_format`` is the value sent for that
    parameter, "none" for upstreams that do not support it. ``models`` None: any model. ``weight`` is its share relative
    to other upstreams of the same model, ``concurrency`` its maximum of simultaneous orders. ``requests_per_minute``
    None: unlimited.
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
    """Return whether a model equals one of these names or matches one that ends with ``*``. None: any model."""
    if models is None:
        return True
    return any(model.startswith(name[:-1]) if name.endswith(ANY_ENDING) else model == name for name in models)
