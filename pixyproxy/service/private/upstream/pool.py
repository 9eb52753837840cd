"""The upstreams that this process has configured."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pixyproxy.core.exceptions import ImageGenerationException, UpstreamTimeoutException
from pixyproxy.core.models.upstream import UpstreamNumbers, serves
from pixyproxy.service.private.upstream.upstream import Upstream

logger = logging.getLogger(__name__)

TIMED_OUT = "The image service took too long to list its models. Try again later."


@dataclass(frozen=True)
class PooledUpstream:
    """An upstream with its capacity limits; see ``UpstreamSettings``."""

    name: str
    upstream: Upstream
    models: tuple[str, ...] | None
    weight: int
    concurrency: int
    requests_per_minute: int | None

    @property
    def numbers(self) -> UpstreamNumbers:
        """The capacity limits of the upstream."""
        return UpstreamNumbers(
            weight=self.weight, concurrency=self.concurrency, requests_per_minute=self.requests_per_minute
        )


@dataclass(frozen=True)
class UpstreamPool:
    """All configured upstreams: at least one, with unique names."""

    upstreams: Sequence[PooledUpstream]

    @cached_property
    def by_name(self) -> dict[str, PooledUpstream]:
        """The upstreams by name."""
        return {each.name: each for each in self.upstreams}

    @property
    def name(self) -> str:
        """The names of all upstreams, for the log."""
        return ", ".join(each.upstream.name for each in self.upstreams)

    async def list_models(self, *, seconds: float | None = None) -> list[str]:
        """Return the enabled models that the upstreams offer, sorted.

        If an upstream fails or does not respond within ``seconds``, use the models that its settings name in full.
        Raise ``ImageGenerationException`` if all upstreams fail.
        """
        models: set[str] = set()
        errors: list[ImageGenerationException] = []

        def fail(each: PooledUpstream, error: ImageGenerationException) -> None:
            logger.warning("upstream %s did not list its models: %s", each.name, error.code)
            errors.append(error)
            models.update(model for model in each.models or () if not model.endswith("*"))

        async def ask(each: PooledUpstream) -> None:
            try:
                async with asyncio.timeout(seconds):
                    models.update(model for model in await each.upstream.list_models() if serves(each.models, model))
            except TimeoutError:
                fail(each, UpstreamTimeoutException(TIMED_OUT))
            except ImageGenerationException as error:
                fail(each, error)

        await asyncio.gather(*map(ask, self.upstreams))
        if len(errors) == len(self.upstreams):
            raise errors[0]
        return sorted(models)

    async def close(self) -> None:
        """Close all upstreams, then raise the first exception."""
        outcomes = await asyncio.gather(*(each.upstream.close() for each in self.upstreams), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
