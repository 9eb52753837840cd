"""The official SDK's synchronous and asynchronous clients behind one interface."""

import asyncio
import base64
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI, OpenAI

FORMS = ("sync", "async")

Call = Callable[[Any], Any]
"""A call on ``OpenAI`` or ``AsyncOpenAI``: ``lambda client: client.images.generate(…)``."""


@dataclass(frozen=True)
class Sdk:
    """Either client; ``ask`` and ``follow`` hide the difference. The asynchronous one uses the runner."""

    client: OpenAI | AsyncOpenAI
    runner: asyncio.Runner | None = None

    def ask(self, call: Call) -> Any:  # noqa: ANN401  (the SDK's result)
        """Return the result of a call."""
        given = call(self.client)
        return self._await(given) if inspect.isawaitable(given) else given

    def generate(self, prompt: str = "a red fox", **parameters: object) -> Any:  # noqa: ANN401  (likewise)
        """Return the result of ``images.generate``."""
        return self.ask(lambda client: client.images.generate(prompt=prompt, **parameters))

    def edit(self, image: object, prompt: str = "a red fox", **parameters: object) -> Any:  # noqa: ANN401  (likewise)
        """Return the result of ``images.edit``."""
        return self.ask(lambda client: client.images.edit(image=image, prompt=prompt, **parameters))

    def follow(self, call: Call) -> list[Any]:
        """Return every event of a stream."""
        if self.runner is None:
            return list(call(self.client))
        return self.runner.run(_events(call, self.client))

    def close(self) -> None:
        """Close the connections."""
        given = self.client.close()
        if inspect.isawaitable(given):
            self._await(given)

    def _await(self, given: Any) -> Any:  # noqa: ANN401  (likewise)
        assert self.runner is not None
        return self.runner.run(_result(given))


@contextmanager
def connected(url: str, api_key: str, *, form: str = "sync", **options: Any) -> Iterator[Sdk]:  # noqa: ANN401
    """Yield the SDK with its defaults, including its own retries, except for ``options``."""
    options = {"base_url": f"{url}/v1", "api_key": api_key, **options}
    if form == "sync":
        sdk = Sdk(OpenAI(**options))
        try:
            yield sdk
        finally:
            sdk.close()
        return
    with asyncio.Runner() as runner:
        sdk = Sdk(AsyncOpenAI(**options), runner)
        try:
            yield sdk
        finally:
            sdk.close()


def picture_of(item: Any) -> bytes:  # noqa: ANN401  (an image of a response, or an event)
    """Return the decoded picture."""
    return base64.b64decode(item.b64_json, validate=True)


async def _result(given: Any) -> Any:  # noqa: ANN401  (the SDK's result)
    return await given


async def _events(call: Call, client: OpenAI | AsyncOpenAI) -> list[Any]:
    return [event async for event in await call(client)]
