"""The upstreams that an operator lists, and which models each of them serves."""

from typing import Annotated

from pydantic import Field, HttpUrl, SecretStr, StringConstraints

from pixyproxy.core.models.base import REFUSE_COERCION, UNIQUE, FrozenModel

ANY_ENDING = "*"
"""What a pattern for models may end with."""

UpstreamName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ModelPattern = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._:/@-]{0,127})?\*?$", min_length=1)]
"""A model's name, or the beginning of some names and a ``*``."""


class UpstreamSettings(FrozenModel):
    """An upstream: a server that speaks the OpenAI Images API, and how much of the work it gets.

    ``name`` stands in the log and must differ from the other upstreams'. ``models`` None: any model. ``weight`` is
    its share beside other upstreams of the same model; ``concurrency`` how many orders it has at one time;
    ``requests_per_minute`` None: as many as come.
    """

    name: UpstreamName
    base_url: HttpUrl
    api_key: Annotated[SecretStr, Field(min_length=1)]
    models: Annotated[tuple[ModelPattern, ...], Field(min_length=1, max_length=100), UNIQUE] | None = None
    weight: Annotated[int, Field(ge=1, le=1000), REFUSE_COERCION] = 1
    concurrency: Annotated[int, Field(ge=1, le=10_000), REFUSE_COERCION] = 1000
    requests_per_minute: Annotated[int, Field(ge=1, le=100_000), REFUSE_COERCION] | None = None


def serves(models: tuple[str, ...] | None, model: str) -> bool:
    """Whether a model is one of these names, or begins as one of them that ends with ``*``. None: any model."""
    if models is None:
        return True
    return any(model.startswith(name[:-1]) if name.endswith(ANY_ENDING) else model == name for name in models)
