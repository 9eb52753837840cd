"""The adapter to the OpenAI Images API, or any compatible server.

The SDK's own retries are off: after a timeout, a disconnect or a 500 it sent the same POST three times (openai 3.52),
and each may buy a picture.
"""

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, aclosing, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import httpx2
import openai
from anyio import fail_after
from openai import AsyncAPIResponse, AsyncOpenAI, Omit, omit

from pixyproxy.core.exceptions import (
    ImageGenerationException,
    ImageStorageException,
    PictureUnusableException,
    UpstreamAddressException,
    UpstreamAnswerException,
    UpstreamCredentialException,
    UpstreamFundsException,
)
from pixyproxy.core.models.order import InputField, InputPicture, Operation, PictureOrder, UpstreamAnswer
from pixyproxy.core.models.upstream import ResponseFormat, UpstreamSettings
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.guarded_http import GuardedHttpClient
from pixyproxy.service.private.upstream.openai.answer import AnswerReader
from pixyproxy.service.private.upstream.openai.errors import RAISED, as_core_exception
from pixyproxy.service.private.upstream.openai.events import EventReader
from pixyproxy.service.private.upstream.openai.picture_links import PAUSES, PICTURE, PictureLinks
from pixyproxy.service.private.upstream.upstream import DEFAULT_NAME, PictureSink

logger = logging.getLogger(__name__)

OWN_PARAMETERS = frozenset(
    {"prompt", "model", "n", "stream", "partial_images", "image", "image[]", "mask", "markup", "response_format"}
)
"""Parameters that only the order sets, even if its options contain them."""

MOST_OTHER_BYTES = 4 * 1024 * 1024
"""The limit of a response that is not a picture (an error or a list of models), which the SDK reads into memory."""

MOST_PACKED_BYTES = 64 * 1024
"""The limit of such a response if compressed, at most to a thousandth of its size."""

EVENT_STREAM = "text/event-stream"

OPERATORS_AFFAIRS = (UpstreamCredentialException, UpstreamFundsException, UpstreamAddressException)

InputFile = tuple[str, BinaryIO, str]
"""A file's name as sent to the upstream, its content and its media type."""


@dataclass(frozen=True)
class OpenAIUpstream:
    """Makes pictures through ``POST /images/generations`` and ``/images/edits``; one call sends exactly one POST.

    ``response_format``: the value of this parameter; "none": it is not sent.
    """

    name: str
    client: AsyncOpenAI
    links: PictureLinks
    timeout_seconds: float
    response_format: ResponseFormat = "none"
    call_headers: Mapping[str, str | Omit] = field(default_factory=dict)

    async def draw(self, order: PictureOrder, *, inputs: Sequence[Path], sink: PictureSink) -> UpstreamAnswer:
        """Write the pictures of an order to the sink as they arrive, exactly as the upstream made them.

        ``inputs`` are the files of ``order.inputs``. Raise ``ImageGenerationException``, ``ImageStorageException`` if
        an input cannot be read, and the exceptions of the sink.
        """
        with closing(EventReader(order, sink)) as events:
            answer: AnswerReader | EventReader
            try:
                with fail_after(self.timeout_seconds):
                    answer = await self._post(order, inputs, sink, events)
            except RAISED as error:
                if not events.pictures:
                    raise self._as_core_exception(error) from error
                # A stream that breaks off after a finished picture has delivered it, and it is paid for.
                answer = events
            except OSError as error:
                raise ImageStorageException from error
            said = await answer.finish()
            await self._fetch_links(answer, sink)
            return said

    def _as_core_exception(self, error: Exception) -> ImageGenerationException:
        """Map an error; log it if only the operator can fix the cause."""
        meant = as_core_exception(error)
        if isinstance(meant, OPERATORS_AFFAIRS):
            status = error.status_code if isinstance(error, openai.APIStatusError) else None
            logger.warning("%s responded %s: %s %s", self.name, status, meant.message, meant.context or "")
        return meant

    async def list_models(self) -> list[str]:
        """Return the ids of its models in its order, at no cost. Raise ``ImageGenerationException``."""
        try:
            with fail_after(self.timeout_seconds):
                page = await self.client.models.list(extra_headers=self.call_headers)
            return [model.id for model in page.data if isinstance(model.id, str)]
        except RAISED as error:
            raise self._as_core_exception(error) from error
        except (ValueError, AttributeError, TypeError) as error:
            # The SDK raises this for an invalid list of models.
            raise UpstreamAnswerException from error

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()
        await self.links.close()

    async def _post(
        self, order: PictureOrder, inputs: Sequence[Path], sink: PictureSink, events: EventReader
    ) -> AnswerReader | EventReader:
        """Send the order; read the response in the format it has, whichever was requested, and return its reader."""
        with ExitStack() as opened:
            files = await run_in_thread(_open_inputs, opened, order.inputs, inputs) if order.inputs else {}
            async with self._request(order, files) as response:
                is_stream = _media_type(response) == EVENT_STREAM
                answer = events if is_stream else AnswerReader(count=order.count, sink=sink)
                await _read(response, answer.take)
                return answer

    async def _fetch_links(self, answer: AnswerReader | EventReader, sink: PictureSink) -> None:
        """Write the pictures that the response only links to; if one cannot be fetched, retain the answer."""
        try:
            for url in answer.urls:
                await self.links.fetch(url, sink.begin_picture())
        except (PictureUnusableException, ImageStorageException):
            with suppress(PictureUnusableException, ImageStorageException):
                await answer.keep()
            raise

    def _request(
        self, order: PictureOrder, files: dict[InputField, list[InputFile]]
    ) -> AbstractAsyncContextManager[AsyncAPIResponse[Any]]:
        images = self.client.images.with_streaming_response
        parameters = _parameters(order, self.response_format)
        if order.operation is Operation.GENERATE:
            return images.generate(
                prompt=order.prompt, model=order.model, extra_body=parameters, extra_headers=self.call_headers
            )
        pictures = files.get("image", [])
        return images.edit(
            # One picture is sent as ``image``, several are sent as ``image[]``.
            image=pictures[0] if len(pictures) == 1 else pictures,
            mask=files.get("mask", [omit])[0],
            markup=files.get("markup", [omit])[0],
            prompt=order.prompt,
            model=order.model,
            extra_body=parameters,
            extra_headers=self.call_headers,
        )


def open_openai_upstream(
    upstream: UpstreamSettings,
    *,
    timeout_seconds: float,
    connect_seconds: float,
    targets: GuardedHttpClient,
    link_pauses: tuple[float, ...] = PAUSES,
) -> OpenAIUpstream:
    """Open an upstream from its settings. Nothing is sent before the first call; times are in seconds.

    ``targets`` are closed with it.
    """
    headers = {name: value.get_secret_value() for name, value in upstream.headers.items()}
    # An order that gets no connection has bought nothing, and fails before its own timeout.
    timeout = httpx2.Timeout(timeout_seconds, connect=connect_seconds, pool=connect_seconds)
    http_client = openai.DefaultAsyncHttpxClient(
        timeout=timeout,
        limits=httpx2.Limits(max_connections=upstream.concurrency, max_keepalive_connections=upstream.concurrency),
        # A redirect would send the key and the order to a host that is not configured.
        follow_redirects=False,
        # Base64 compresses to three quarters, but decompressing 2 MB takes 10 ms, longer than it saves.
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [_bound_body]},
    )
    client = AsyncOpenAI(
        # The SDK requires a key.
        api_key="none" if upstream.api_key is None else upstream.api_key.get_secret_value(),
        base_url=str(upstream.base_url),
        max_retries=0,
        timeout=timeout,
        default_headers=headers,
        default_query={name: value.get_secret_value() for name, value in upstream.query.items()},
        http_client=http_client,
    )
    name = f"OpenAI Images API at {client.base_url.host}" if upstream.name == DEFAULT_NAME else upstream.name
    names = {name.lower() for name in headers}
    links = PictureLinks(
        upstream=name,
        base_url=client.base_url,
        client=http_client,
        headers=headers if upstream.api_key is None else {"Authorization": f"Bearer {client.api_key}", **headers},
        targets=targets,
        timeout_seconds=timeout_seconds,
        pauses=link_pauses,
    )
    return OpenAIUpstream(
        name=name,
        client=client,
        links=links,
        timeout_seconds=timeout_seconds,
        response_format=upstream.response_format,
        call_headers={"Authorization": omit} if upstream.api_key is None and "authorization" not in names else {},
    )


class _BoundedStream(httpx2.AsyncByteStream):
    """A body that is read only up to a number of bytes."""

    def __init__(self, stream: httpx2.AsyncByteStream, *, most_bytes: int) -> None:
        self._stream = stream
        self._left = most_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            yield piece[: self._left]
            self._left -= len(piece)
            if self._left <= 0:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound_body(response: httpx2.Response) -> None:
    """Limit what the SDK reads into memory; pictures are read here, as they arrive."""
    is_picture = response.is_success and (response.request.method == "POST" or PICTURE in response.request.extensions)
    if not is_picture and isinstance(response.stream, httpx2.AsyncByteStream):
        most_bytes = MOST_PACKED_BYTES if "content-encoding" in response.headers else MOST_OTHER_BYTES
        response.stream = _BoundedStream(response.stream, most_bytes=most_bytes)


def _media_type(response: AsyncAPIResponse[Any]) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read(response: AsyncAPIResponse[Any], take: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
    """Pass the body on as it arrives; decompress it only if the upstream compresses despite the request."""
    packed = "content-encoding" in response.headers
    body = response.http_response.aiter_bytes() if packed else response.http_response.aiter_raw()
    async with aclosing(body) as pieces:
        async for piece in pieces:
            await take(piece)


def _parameters(order: PictureOrder, response_format: ResponseFormat) -> dict[str, Any]:
    """Return all parameters except the prompt, the model and the files."""
    parameters = {name: value for name, value in order.options.items() if name not in OWN_PARAMETERS}
    if response_format != "none":
        parameters["response_format"] = order.response_format or response_format
    if order.count != 1:
        parameters["n"] = order.count
    if order.previews:
        parameters |= {"stream": True, "partial_images": order.previews}
    return parameters


def _open_inputs(
    stack: ExitStack, pictures: Sequence[InputPicture], paths: Sequence[Path]
) -> dict[InputField, list[InputFile]]:
    """Return the files of an order by field; the stack closes them. Blocks; raises ``OSError``."""
    files: dict[InputField, list[InputFile]] = {}
    for number, (picture, path) in enumerate(zip(pictures, paths, strict=True)):
        # Do not reveal the file's own name to the upstream.
        name = f"{picture.field}-{number}.{picture.media_type.removeprefix('image/')}"
        content = stack.enter_context(path.open("rb"))
        files.setdefault(picture.field, []).append((name, content, picture.media_type))
    return files
