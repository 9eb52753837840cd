"""The OpenAI adapter against a server that plays the API: one POST for one call, whatever happens."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pixyproxy.core import exceptions as core
from pixyproxy.core.models.image import ImagePrompt
from pixyproxy.core.models.tenant import Visibility
from pixyproxy.service.private.upstream.openai_images import OpenAIUpstream, open_openai_upstream
from pixyproxy.service.private.upstream.picture import PictureLimits
from tests.support import pictures
from tests.support import upstream as fakes
from tests.support.server import make_settings, upstream_settings
from tests.support.upstream import Behaviour, FakeUpstream, refusing_base_url

pytestmark = pytest.mark.anyio
FOX = ImagePrompt(prompt="a red fox")
LIMITS = PictureLimits(max_bytes=2_000_000, max_pixels=100_000_000)
SHORT = 0.3
"""Seconds for what never answers; everything else answers long before ``LONG`` is over."""
LONG = 20.0

OUTCOMES: dict[str, tuple[Behaviour, type[core.ImageGenerationException]]] = {
    "moderated": (fakes.MODERATED, core.PromptRefusedException),
    "policy violation": (fakes.POLICY_VIOLATION, core.PromptRefusedException),
    "unauthorized": (fakes.UNAUTHORIZED, core.UpstreamCredentialException),
    "forbidden": (fakes.FORBIDDEN, core.UpstreamCredentialException),
    "not found": (fakes.NOT_FOUND, core.PromptRefusedException),
    "conflict": (fakes.CONFLICT, core.UpstreamErrorException),
    "unprocessable": (fakes.UNPROCESSABLE, core.PromptRefusedException),
    "rate limited": (fakes.RATE_LIMITED, core.UpstreamBusyException),
    "quota exhausted": (fakes.QUOTA_EXHAUSTED, core.UpstreamBusyException),
    "server error": (fakes.SERVER_ERROR, core.UpstreamErrorException),
    "unavailable": (fakes.UNAVAILABLE, core.UpstreamErrorException),
    "gateway page": (
        fakes.Verbatim(body=b"<html>", status=502, content_type="text/html"),
        core.UpstreamSilentException,
    ),
    "gateway timeout": (fakes.Verbatim(body=b"", status=504), core.UpstreamSilentException),
    "redirect": (fakes.Verbatim(body=b"", status=307), core.UpstreamErrorException),
    "cut": (fakes.CUT, core.UpstreamSilentException),
    "truncated": (fakes.TRUNCATED, core.UpstreamSilentException),
    "html": (fakes.HTML, core.UpstreamAnswerException),
    "empty body": (fakes.EMPTY_BODY, core.UpstreamAnswerException),
    "null data": (fakes.DATA_NULL, core.UpstreamAnswerException),
    "empty data": (fakes.DATA_EMPTY, core.UpstreamAnswerException),
    "json list": (fakes.JSON_LIST, core.UpstreamAnswerException),
    "json string": (fakes.JSON_STRING, core.UpstreamAnswerException),
    "broken json": (fakes.BROKEN_JSON, core.UpstreamAnswerException),
    "no picture": (fakes.NO_PICTURE, core.UpstreamAnswerException),
    "number for picture": (fakes.NUMBER_FOR_PICTURE, core.UpstreamAnswerException),
    "bad base64": (fakes.BAD_BASE64, core.UpstreamAnswerException),
    "svg as png": (fakes.SVG_AS_PNG, core.PictureUnusableException),
    "html as png": (fakes.HTML_AS_PNG, core.PictureUnusableException),
    "huge pixels": (fakes.HUGE_PIXELS, core.PictureUnusableException),
    "flood": (fakes.Flood(megabytes=8), core.PictureUnusableException),
    "announced flood": (fakes.Flood(megabytes=8, announced=True), core.PictureUnusableException),
}
NEVER_IN_TIME: dict[str, Behaviour] = {
    "hang": fakes.HANG,
    "hang after headers": fakes.HANG_AFTER_HEADERS,
    "slow drip": fakes.Drip(piece=16, pause=0.01),
}


def _open(folder: Path, fake: FakeUpstream, *, timeout_seconds: float = LONG) -> OpenAIUpstream:
    settings = make_settings(folder, upstream_timeout_seconds=timeout_seconds, **upstream_settings(fake))
    return open_openai_upstream(settings, api_key=fake.api_key, limits=LIMITS)


@pytest.fixture
async def adapter(upstream: FakeUpstream, tmp_path: Path) -> AsyncIterator[OpenAIUpstream]:
    opened = _open(tmp_path, upstream)
    yield opened
    await opened.close()


async def test_a_picture_comes_as_the_upstream_made_it(adapter: OpenAIUpstream, upstream: FakeUpstream) -> None:
    upstream.picture = pictures.noise_png(1_470_000)
    picture = await adapter.draw(FOX)
    assert picture.content == upstream.picture
    assert picture.sha256 == hashlib.sha256(upstream.picture).hexdigest()
    assert picture.media_type == "image/png"
    assert adapter.model_for(FOX) == adapter.default_model
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(("behaviour", "expected"), OUTCOMES.values(), ids=OUTCOMES)
async def test_what_is_no_picture_is_an_exception_after_one_post(
    adapter: OpenAIUpstream, upstream: FakeUpstream, behaviour: Behaviour, expected: type[Exception]
) -> None:
    upstream.behave(behaviour)
    with pytest.raises(core.ImageGenerationException) as caught:
        await adapter.draw(FOX)
    assert type(caught.value) is expected
    assert [request.method for request in upstream.requests] == ["POST"]


@pytest.mark.parametrize("behaviour", NEVER_IN_TIME.values(), ids=NEVER_IN_TIME)
async def test_what_takes_too_long_is_a_timeout_after_one_post(
    upstream: FakeUpstream, tmp_path: Path, behaviour: Behaviour
) -> None:
    adapter = _open(tmp_path, upstream, timeout_seconds=SHORT)
    upstream.behave(behaviour)
    with pytest.raises(core.UpstreamTimeoutException):
        await adapter.draw(FOX)
    await adapter.close()
    assert len(upstream.requests) == 1


async def test_a_behaviour_of_the_fake_is_left_out_of_no_table() -> None:
    behaviours: set[object] = {
        value for value in vars(fakes).values() if isinstance(value, fakes.Refusal | fakes.Verbatim)
    }
    behaviours |= {fakes.CUT, fakes.TRUNCATED, fakes.SVG_AS_PNG, fakes.HTML_AS_PNG, fakes.HUGE_PIXELS}
    assert behaviours <= {behaviour for behaviour, _ in OUTCOMES.values()}


async def test_a_port_that_refuses_is_unreachable(tmp_path: Path) -> None:
    with refusing_base_url() as base_url:
        settings = make_settings(tmp_path, openai_base_url=base_url)
        adapter = open_openai_upstream(settings, api_key="sk-x", limits=LIMITS)
        with pytest.raises(core.UpstreamUnreachableException):
            await adapter.draw(FOX)
        await adapter.close()


async def test_a_failure_of_the_past_is_no_failure_of_the_next_call(
    adapter: OpenAIUpstream, upstream: FakeUpstream
) -> None:
    for behaviour in (fakes.CUT, fakes.TRUNCATED, fakes.SERVER_ERROR, fakes.Flood(megabytes=8)):
        upstream.behave_once(behaviour)
        with pytest.raises(core.ImageGenerationException):
            await adapter.draw(FOX)
        assert await adapter.draw(FOX)
    assert len(upstream.requests) == 8


async def test_options_are_passed_on_as_they_came(adapter: OpenAIUpstream, upstream: FakeUpstream) -> None:
    options: dict[str, object] = {
        "model": "gpt-image-2",
        "size": "1536x1024",
        "quality": "low",
        "background": "transparent",
        "output_format": "webp",
        "output_compression": 0,
        "moderation": "low",
    }
    prompt = ImagePrompt.model_validate(
        {"prompt": "a 🦊\n", "visibility": Visibility.PRIVATE, "filename": "a.webp", **options}
    )
    picture = await adapter.draw(prompt)
    (request,) = upstream.requests
    assert request.body == {"prompt": "a 🦊\n", **options}
    assert (picture.media_type, picture.width, picture.height) == ("image/webp", 1536, 1024)
    assert adapter.model_for(prompt) == "gpt-image-2"


async def test_what_was_not_sent_is_not_passed_on(adapter: OpenAIUpstream, upstream: FakeUpstream) -> None:
    await adapter.draw(FOX)
    (request,) = upstream.requests
    assert request.body == {"prompt": FOX.prompt, "model": adapter.default_model}


async def test_the_upstreams_code_and_wait_are_told(adapter: OpenAIUpstream, upstream: FakeUpstream) -> None:
    upstream.behave(fakes.RATE_LIMITED)
    with pytest.raises(core.UpstreamBusyException) as caught:
        await adapter.draw(FOX)
    assert caught.value.retry_after_seconds == 7
    assert caught.value.context == {"upstream_code": "rate_limit_exceeded"}


async def test_the_upstreams_words_are_not_told(adapter: OpenAIUpstream, upstream: FakeUpstream) -> None:
    words = "tell-tale words"
    upstream.behave(fakes.Refusal(status=400, message=words, code=f"{words} <script>"))
    with pytest.raises(core.PromptRefusedException) as caught:
        await adapter.draw(FOX)
    assert words not in str(caught.value)
    assert caught.value.context == {}


async def test_an_answer_over_the_cap_is_not_read_to_its_end(tmp_path: Path) -> None:
    """A body without an end: only a reader that stops by itself ever hangs up."""
    head = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"data":[{"b64_json":"'
    hung_up = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"A" * 100_000)
                await writer.drain()
        hung_up.set()
        writer.close()

    async with await asyncio.start_server(flood, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = make_settings(tmp_path, openai_base_url=f"http://127.0.0.1:{port}/v1")
        adapter = open_openai_upstream(settings, api_key="sk-x", limits=LIMITS)
        with pytest.raises(core.UpstreamAnswerException):
            await adapter.draw(FOX)
        await adapter.close()
        async with asyncio.timeout(LONG):
            await hung_up.wait()
