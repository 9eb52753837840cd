"""Upstreams that only list their models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from pixyproxy.core.exceptions import ImageGenerationException
from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer
from pixyproxy.service.private.upstream.pool import PooledUpstream
from pixyproxy.service.private.upstream.upstream import PictureSink


@dataclass
class FakeListing:
    """An upstream that only lists its models."""

    name: str = "fake"
    models: tuple[str, ...] = ()
    error: ImageGenerationException | None = None
    closing_error: OSError | None = None
    hangs: bool = False
    closed: bool = False

    async def draw(self, order: PictureOrder, *, inputs: Sequence[Path], sink: PictureSink) -> UpstreamAnswer:
        """Raise an error: it is never called."""
        raise NotImplementedError

    async def list_models(self) -> list[str]:
        """Return the given models."""
        if self.hangs:
            await anyio.sleep_forever()
        if self.error is not None:
            raise self.error
        return list(self.models)

    async def close(self) -> None:
        """Record the call."""
        self.closed = True
        if self.closing_error is not None:
            raise self.closing_error

    def pooled(self, models: tuple[str, ...] | None = None) -> PooledUpstream:
        """Return it as an upstream with these models enabled."""
        return PooledUpstream(self.name, self, models, 1, 1, None)
