"""The offline generator serves the same API without an upstream key."""

from collections.abc import Iterator

import openai
import pytest

from tests.support import pictures
from tests.support.server import UNLIMITED, RunningServer, TenantClient, make_settings, serving
from tests.web.openai.sdk import FORMS, Sdk, connected, picture_of


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, TenantClient]]:
    """Yield a server without an upstream key, and a tenant."""
    with serving(make_settings(tmp_path_factory.mktemp("offline"), **UNLIMITED)) as server:
        tenant = server.new_tenant("offline")
        with tenant.http:
            yield server, tenant


@pytest.fixture(params=FORMS)
def sdk(request: pytest.FixtureRequest, offline: tuple[RunningServer, TenantClient]) -> Iterator[Sdk]:
    """Yield the SDK for that server."""
    server, tenant = offline
    with connected(server.url, tenant.api_key, form=request.param) as sdk:
        yield sdk


def test_pictures_are_drawn(sdk: Sdk) -> None:
    answer = sdk.generate(n=2, size="256x256", output_format="webp", quality="low")
    assert [picture_of(item)[8:12] for item in answer.data] == [b"WEBP"] * 2
    assert (answer.size, answer.output_format, answer.quality) == ("256x256", "webp", "low")
    assert answer.usage is None


def test_previews_are_drawn(sdk: Sdk) -> None:
    events = sdk.follow(
        lambda client: client.images.generate(prompt="a fox", stream=True, partial_images=2, size="256x256")
    )
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image", "partial_image", "completed"]
    assert len({picture_of(event) for event in events}) == 3


def test_pictures_are_edited(sdk: Sdk) -> None:
    guid = sdk.generate(size="128x128").data[0].guid
    given = pictures.png(128, 128)
    edited = sdk.edit(given, mask=pictures.transparent_png(128, 128), extra_body={"image_guid": guid})
    assert picture_of(edited.data[0]) != given


def test_urls_are_permanent(sdk: Sdk, offline: tuple[RunningServer, TenantClient]) -> None:
    url = sdk.generate(response_format="url", size="64x64").data[0].url
    assert offline[1].http.get(url).headers["content-type"] == "image/png"


def test_offline_model_is_listed(sdk: Sdk) -> None:
    assert [model.id for model in sdk.ask(lambda client: client.models.list()).data] == ["offline-sketch"]


def test_unsupported_parameter_is_bad_request(sdk: Sdk) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.generate(size="huge")
    assert (raised.value.code, raised.value.param) == ("invalid_value", "size")
