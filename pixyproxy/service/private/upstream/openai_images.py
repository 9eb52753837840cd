"""The adapter to the OpenAI Images API, or any server that speaks it.

The SDK's own retries are off: a timeout, a disconnect or a 500 made it send the same POST three times
(openai 3.52), and each may be a picture to pay for.
"""

import asyncio
import re
from dataclasses import dataclass
from functools import partial

import httpx2
import openai
from anyio import to_thread
from openai import AsyncOpenAI

from pixyproxy.core.exceptions import (
    ImageGenerationException,
    PromptRefusedException,
    UpstreamAnswerException,
    UpstreamBusyException,
    UpstreamCredentialException,
    UpstreamErrorException,
    UpstreamSilentException,
    UpstreamTimeoutException,
    UpstreamUnreachableException,
)
from pixyproxy.core.models.image import ImagePrompt
from pixyproxy.core.settings import Settings
from pixyproxy.service.private.upstream.answer import AnswerReader
from pixyproxy.service.private.upstream.picture import PictureLimits, UpstreamPicture, inspect_picture

OPTIONS = {"size", "quality", "background", "output_format", "output_compression", "moderation"}
"""What is passed on as the client sent it."""

EXCEPTIONS: dict[type[openai.OpenAIError], type[ImageGenerationException]] = {
    openai.BadRequestError: PromptRefusedException,
    openai.UnprocessableEntityError: PromptRefusedException,
    openai.NotFoundError: PromptRefusedException,
    openai.ConflictError: UpstreamErrorException,
    openai.AuthenticationError: UpstreamCredentialException,
    openai.PermissionDeniedError: UpstreamCredentialException,
    openai.RateLimitError: UpstreamBusyException,
    openai.InternalServerError: UpstreamErrorException,
    openai.APIStatusError: UpstreamErrorException,
    openai.APITimeoutError: UpstreamTimeoutException,
    openai.APIConnectionError: UpstreamSilentException,
    openai.APIResponseValidationError: UpstreamAnswerException,
    openai.APIError: UpstreamSilentException,
    openai.OpenAIError: UpstreamSilentException,
}
"""What the SDK raises → what it means here. The nearest base class decides for a class that is not listed."""

NOTHING_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
"""Failures before a byte of the request left: certainly nothing was bought."""

GATEWAY_STATUSES = frozenset({408, 499, 502, 504, 520, 522, 524})
"""What proxies say of an upstream that they lost, in whatever words."""

SAFE_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
RETRY_AFTER = re.compile(r"[0-9]{1,4}")


@dataclass(frozen=True)
class OpenAIUpstream:
    """Draws pictures through ``POST /images/generations``; one POST for one call, whatever happens."""

    client: AsyncOpenAI
    default_model: str
    timeout_seconds: float
    limits: PictureLimits

    @property
    def name(self) -> str:
        """The host that is asked."""
        return f"OpenAI Images API at {self.client.base_url.host}"

    def model_for(self, prompt: ImagePrompt) -> str:
        """The model that the request names, or the default."""
        return prompt.model or self.default_model

    async def draw(self, prompt: ImagePrompt) -> UpstreamPicture:
        """One picture, exactly as the upstream made it. Raises ``ImageGenerationException``."""
        try:
            async with asyncio.timeout(self.timeout_seconds):
                content = await self._post(prompt)
        except TimeoutError as error:
            raise UpstreamTimeoutException from error
        except openai.OpenAIError as error:
            raise as_core_exception(error) from error
        except httpx2.HTTPError as error:
            raise UpstreamSilentException from error
        return await to_thread.run_sync(partial(inspect_picture, content, limits=self.limits))

    async def check(self) -> None:
        """Ask for the list of models, which costs nothing."""
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await self.client.models.list()
        except TimeoutError as error:
            raise UpstreamTimeoutException from error
        except openai.OpenAIError as error:
            raise as_core_exception(error) from error
        except (ValueError, AttributeError, TypeError) as error:
            # What the SDK makes of a list of models that is none.
            raise UpstreamAnswerException from error

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def _post(self, prompt: ImagePrompt) -> bytes:
        """The picture in the answer, decoded as it arrives."""
        options = prompt.model_dump(include=OPTIONS, exclude_none=True)
        request = self.client.images.with_streaming_response.generate(
            prompt=prompt.prompt, model=self.model_for(prompt), extra_body=options
        )
        answer = AnswerReader(max_bytes=self.limits.max_bytes)
        async with request as response:
            async for piece in response.iter_bytes():
                answer.feed(piece)
        return answer.finish()


def open_openai_upstream(settings: Settings, *, api_key: str, limits: PictureLimits) -> OpenAIUpstream:
    """The upstream that the settings name."""
    timeout = httpx2.Timeout(settings.upstream_timeout_seconds, connect=settings.upstream_connect_seconds)
    client = AsyncOpenAI(
        api_key=api_key,
        base_url=str(settings.openai_base_url),
        max_retries=0,
        timeout=timeout,
        # A redirect would carry the key and the order to a host that nobody configured.
        http_client=openai.DefaultAsyncHttpxClient(timeout=timeout, follow_redirects=False),
    )
    return OpenAIUpstream(
        client=client,
        default_model=settings.default_model,
        timeout_seconds=settings.upstream_timeout_seconds,
        limits=limits,
    )


def as_core_exception(error: openai.OpenAIError) -> ImageGenerationException:
    """What an error of the SDK means here, with the upstream's error code if that is a plain word."""
    if isinstance(error, openai.APIConnectionError) and isinstance(error.__cause__, NOTHING_SENT):
        return UpstreamUnreachableException()
    if isinstance(error, openai.APIStatusError) and _is_from_between(error):
        return UpstreamSilentException()
    kind = next(EXCEPTIONS[base] for base in type(error).__mro__ if base in EXCEPTIONS)
    return kind(retry_after_seconds=_retry_after(error), context=_upstream_code(error))


def _is_from_between(error: openai.APIStatusError) -> bool:
    """Whether something between us and the upstream answered, which leaves open what the upstream did."""
    own_words = isinstance(error.body, dict) and "message" in error.body
    return error.status_code in GATEWAY_STATUSES or (isinstance(error, openai.InternalServerError) and not own_words)


def _upstream_code(error: openai.OpenAIError) -> dict[str, str]:
    code = error.code if isinstance(error, openai.APIError) else None
    return {"upstream_code": code} if isinstance(code, str) and SAFE_CODE.fullmatch(code) else {}


def _retry_after(error: openai.OpenAIError) -> int | None:
    header = error.response.headers.get("retry-after", "") if isinstance(error, openai.RateLimitError) else ""
    return int(header) if RETRY_AFTER.fullmatch(header) else None
