"""Which models there are to ask for."""

import asyncio
import time
from dataclasses import dataclass, field

from pixyproxy.core.models.principal import Principal
from pixyproxy.service.private.upstream.pool import UpstreamPool

KEPT_SECONDS = 60


@dataclass
class ModelCatalog:
    """The models that the upstreams offer, asked for once a minute at the most."""

    pool: UpstreamPool
    _listed: list[str] = field(default_factory=list)
    _until: float = 0.0
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def list_models(self, principal: Principal) -> list[str]:
        """Those that the principal may ask for, sorted. Raises ``ImageGenerationException``."""
        async with self._asking:
            if time.monotonic() >= self._until:
                self._listed = await self.pool.list_models()
                self._until = time.monotonic() + KEPT_SECONDS
        allowed = principal.allowed_models
        return self._listed if allowed is None else [name for name in self._listed if name in allowed]
