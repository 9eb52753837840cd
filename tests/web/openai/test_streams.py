"""Streams of the SDK: previews, pictures and errors."""

from typing import Any

import openai
import pytest

from tests.conftest import with_short_upstream_timeout
from tests.support import pictures
from tests.support.server import TenantClient
from tests.support.upstream import (
    MODERATED,
    STREAM_CUT,
    STREAM_ERROR,
    STREAM_HANG,
    FakeUpstream,
)
from tests.web.openai.sdk import Sdk, picture_of

PARTIAL, COMPLETED = "image_generation.partial_image", "image_generation.completed"
pytestmark = pytest.mark.usefixtures("upstream")


def streamed(sdk: Sdk, **parameters: object) -> list[Any]:
    return sdk.follow(lambda client: client.images.generate(prompt="a red fox", stream=True, **parameters))


def test_previews_arrive_in_order_before_the_picture(sdk: Sdk, upstream: FakeUpstream) -> None:
    upstream.picture = pictures.png(64, 48, seed=9)
    *partials, completed = streamed(sdk, partial_images=2)
    assert [(event.type, event.partial_image_index) for event in partials] == [(PARTIAL, 0), (PARTIAL, 1)]
    assert all(picture_of(event).startswith(b"\x89PNG") for event in partials)
    assert completed.type == COMPLETED
    assert picture_of(completed) == upstream.picture
    assert upstream.requests[0].body["stream"] is True


def test_events_have_all_members_of_their_types(sdk: Sdk) -> None:
    *partials, completed = streamed(sdk, partial_images=1, size="1024x1536", quality="low", output_format="webp")
    for event in (*partials, completed):
        assert (event.size, event.quality, event.output_format) == ("1024x1536", "low", "webp")
        assert event.created_at > 0
        assert type(event).model_validate(event.model_dump(), strict=True)
    assert [event.background for event in (*partials, completed)] == ["auto", "opaque"]
    assert completed.usage.total_tokens == completed.usage.input_tokens + completed.usage.output_tokens


def test_completed_event_has_image_and_generation_guids(sdk: Sdk, tenant: TenantClient) -> None:
    completed = streamed(sdk)[-1]
    found = tenant.http.get(f"/generation/{completed.generation}").json()
    assert [image["guid"] for image in found["images"]] == [completed.guid]


def test_upstream_is_not_streamed_without_previews(sdk: Sdk, upstream: FakeUpstream) -> None:
    assert [event.type for event in streamed(sdk)] == [COMPLETED]
    assert "stream" not in upstream.requests[0].body


def test_several_pictures_are_several_events(sdk: Sdk) -> None:
    events = streamed(sdk, n=2, partial_images=1)
    assert [event.type for event in events] == [PARTIAL, COMPLETED, COMPLETED]
    assert len({event.guid for event in events[1:]}) == 2


@pytest.mark.parametrize("n", [1, 3])
def test_usage_of_all_events_is_usage_of_order(n: int, sdk: Sdk) -> None:
    usages = [event.to_dict().get("usage") for event in streamed(sdk, n=n)]
    assert usages == [None] * (n - 1) + [sdk.generate(n=n).usage.to_dict()]


def test_stream_false_returns_json(sdk: Sdk, upstream: FakeUpstream) -> None:
    assert sdk.generate(stream=False, partial_images=2).data[0].b64_json
    assert "partial_images" not in upstream.requests[0].body


def test_error_before_first_event_has_its_status(sdk: Sdk, upstream: FakeUpstream) -> None:
    upstream.behave(MODERATED)
    with pytest.raises(openai.BadRequestError) as raised:
        streamed(sdk, partial_images=1)
    assert raised.value.code == "moderation_blocked"


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [(STREAM_ERROR, "upstream_failed"), (STREAM_CUT, "upstream_silent")],
    ids=["an error", "a cut"],
)
def test_error_after_preview_is_stream_error(behaviour: object, code: str, sdk: Sdk, upstream: FakeUpstream) -> None:
    upstream.behave(behaviour)  # type: ignore[arg-type]  # every behaviour of streams is one
    assert_stream_fails(sdk, upstream, code=code)


@with_short_upstream_timeout
def test_silence_after_preview_is_stream_error(sdk: Sdk, upstream: FakeUpstream) -> None:
    upstream.behave(STREAM_HANG)
    assert_stream_fails(sdk, upstream, code="upstream_timeout")


def assert_stream_fails(sdk: Sdk, upstream: FakeUpstream, *, code: str) -> None:
    """Assert that a started stream ends in this error after one upstream call."""
    with pytest.raises(openai.APIError) as raised:
        streamed(sdk, partial_images=1)
    assert not isinstance(raised.value, openai.APIStatusError | openai.APIConnectionError)
    assert raised.value.code == code
    assert len(upstream.ledger) == 1


def test_picture_of_abandoned_stream_is_stored(sdk: Sdk, upstream: FakeUpstream, tenant: TenantClient) -> None:
    stream = sdk.ask(lambda client: client.images.generate(prompt="a red fox", stream=True, partial_images=1))
    sdk.ask(lambda _: stream.close())
    upstream.wait_for_requests(1)
    newest = tenant.http.get("/generation").json()[0]
    assert tenant.http.get(f"/generation/{newest['guid']}/events").text.count("event: stored") == 1
