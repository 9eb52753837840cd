"""Wake-ups over Redis: processes react to each other's commits at once instead of at their next poll.

Nothing depends on them: they may be lost, duplicated or late, and without Redis there are none.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import SecretStr

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

CHANNEL = "pixyproxy:wake"
QUEUE = "queue"
"""The message when an order waits that this process does not execute; other messages are GUIDs of generations."""
MOST_UNSENT = 1000
RETRY_SECONDS = 1.0
SECONDS = 1.0
"""The time limit for publishing a message."""


class WakeUps:
    """Sends and receives wake-ups."""

    def __init__(self, redis_url: SecretStr | None) -> None:
        """Store the URL, which was already validated for the rate limits; connections are opened when needed."""
        self._url = redis_url
        self._unsent: asyncio.Queue[str] = asyncio.Queue(MOST_UNSENT)

    def notify(self, message: str) -> None:
        """Enqueue a message without blocking; drop it if too many are unsent."""
        if self._url is not None and not self._unsent.full():
            self._unsent.put_nowait(message)

    async def run_forever(self, woken: Callable[[str], None]) -> None:
        """Send messages, and call ``woken`` with those of all processes, until cancelled."""
        if self._url is None:
            return
        client = _open(self._url)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_forever(client))
                group.create_task(_hear_forever(client, woken))
        finally:
            await client.aclose()

    async def _send_forever(self, client: "Redis") -> None:
        from redis.exceptions import RedisError  # noqa: PLC0415  (as in ``_open``)

        while True:
            message = await self._unsent.get()
            try:
                async with asyncio.timeout(SECONDS):
                    await client.publish(CHANNEL, message)
            except (RedisError, OSError):
                await asyncio.sleep(RETRY_SECONDS)


async def _hear_forever(client: "Redis", woken: Callable[[str], None]) -> None:
    from redis.exceptions import RedisError  # noqa: PLC0415  (as in ``_open``)

    while True:
        try:
            async with client.pubsub(ignore_subscribe_messages=True) as heard:
                await heard.subscribe(CHANNEL)
                async for message in heard.listen():
                    woken(message["data"])
        except (RedisError, OSError, ValueError) as error:
            logger.debug("cannot receive wake-ups from Redis: %s", type(error).__name__)
        await asyncio.sleep(RETRY_SECONDS)


def _open(url: SecretStr) -> "Redis":
    # Only a server with Redis loads its client, which takes 60 ms and 6 MB.
    from redis.asyncio import Redis  # noqa: PLC0415

    return Redis.from_url(url.get_secret_value(), decode_responses=True, socket_connect_timeout=SECONDS)
