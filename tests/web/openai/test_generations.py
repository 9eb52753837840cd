"""``images.generate`` of the SDK, without a stream."""

import base64
import json

import pytest

from tests.support import pictures
from tests.support.server import RunningServer, TenantClient
from tests.support.upstream import GENERATIONS_PATH, FakeUpstream, Verbatim
from tests.web.openai.sdk import Sdk, picture_of

pytestmark = pytest.mark.usefixtures("upstream")


def test_picture_is_identical_to_upstreams(sdk: Sdk, upstream: FakeUpstream) -> None:
    upstream.picture = pictures.png(64, 48, seed=7)
    assert picture_of(sdk.generate().data[0]) == upstream.picture


def test_upstream_response_members_are_passed_on(sdk: Sdk) -> None:
    answer = sdk.generate(size="1536x1024", quality="low", output_format="webp", background="transparent")
    assert (answer.size, answer.quality, answer.output_format) == ("1536x1024", "low", "webp")
    assert answer.background == "transparent"
    assert answer.created > 0
    assert answer.usage.output_tokens_details.image_tokens == answer.usage.output_tokens
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def test_response_has_generation_and_image_guids(sdk: Sdk, tenant: TenantClient) -> None:
    answer = sdk.generate(n=3)
    generation = tenant.http.get(f"/generation/{answer.generation}").json()
    assert [image["guid"] for image in generation["images"]] == [item.guid for item in answer.data]
    assert len({item.guid for item in answer.data}) == 3


def test_urls_are_permanent(sdk: Sdk, upstream: FakeUpstream, server: RunningServer, tenant: TenantClient) -> None:
    upstream.picture = pictures.png(64, 48, seed=8)
    answer = sdk.generate(response_format="url", n=2)
    assert [item.url for item in answer.data] == [f"{server.url}/image/{item.guid}/content" for item in answer.data]
    assert [item.b64_json for item in answer.data] == [None, None]
    assert [tenant.http.get(item.url).content for item in answer.data] == [upstream.picture] * 2


def test_response_format_is_not_sent_upstream(sdk: Sdk, upstream: FakeUpstream) -> None:
    sdk.generate(response_format="url")
    assert "response_format" not in upstream.requests[0].body


def test_revised_prompt_is_passed_on(sdk: Sdk, upstream: FakeUpstream) -> None:
    item = json.dumps({"revised_prompt": "a very red fox 🦊", "b64_json": "iVBORw0KGgo="}).encode()
    upstream.behave(Verbatim(body=b'{"created":1,"data":[%b]}' % item.replace(b"iVBORw0KGgo=", _encoded_png())))
    answer = sdk.generate()
    assert answer.data[0].revised_prompt == "a very red fox 🦊"
    assert answer.created == 1


@pytest.mark.parametrize("response_format", ["url", "b64_json"])
def test_revised_prompt_stays_with_its_picture_after_deletion_of_another(
    response_format: str, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    items = [{"revised_prompt": each, "b64_json": _encoded_png().decode()} for each in ("first", "second")]
    upstream.behave(Verbatim(body=json.dumps({"created": 1, "data": items}).encode()))

    def ask() -> list[dict[str, str]]:
        order = {"prompt": "a red fox", "n": 2, "response_format": response_format}
        answer = tenant.http.post("/v1/images/generations", json=order, headers={"Idempotency-Key": "order-1"})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])

    first, second = ask()
    assert (first["revised_prompt"], second["revised_prompt"]) == ("first", "second")
    assert tenant.http.delete(f"/image/{first['guid']}").status_code == 204
    assert ask() == [second]


def test_order_reaches_upstream_with_defaults(sdk: Sdk, upstream: FakeUpstream) -> None:
    sdk.generate(moderation="low", safety_identifier="user-1", user="user-2", output_compression=80,
                 output_format="jpeg", quality="max", n=2)  # fmt: skip
    sent = upstream.requests[0]
    assert sent.path == GENERATIONS_PATH
    assert sent.body == {
        "prompt": "a red fox",
        "model": "gpt-image-2.5-flare",
        "moderation": "low",
        "safety_identifier": "user-1",
        "user": "user-2",
        "output_compression": 80,
        "output_format": "jpeg",
        "quality": "max",
        "n": 2,
        "size": "1024x1024",
    }


def test_unknown_parameters_reach_upstream(sdk: Sdk, upstream: FakeUpstream) -> None:
    upstream.behave(Verbatim(body=b'{"created":1,"data":[{"b64_json":"%b"}]}' % _encoded_png()))
    new = {"svg": {"model": "gpt-9", "reasoning": [{"effort": 0.5}, None]}, "von Müller": "ü🦊", "flag": False}
    sdk.generate(extra_body=new)
    assert {name: value for name, value in upstream.requests[0].body.items() if name in new} == new


def test_visibility_and_filename_are_not_sent_upstream(sdk: Sdk, upstream: FakeUpstream, tenant: TenantClient) -> None:
    answer = sdk.generate(extra_body={"visibility": "private", "filename": "fox.png"})
    detail = tenant.http.get(f"/image/{answer.data[0].guid}").json()
    assert (detail["visibility"], detail["filename"]) == ("private", "fox.png")
    assert upstream.requests[0].body.keys() == {"prompt", "model", "quality", "size"}


def test_same_idempotency_key_returns_same_pictures(sdk: Sdk, upstream: FakeUpstream) -> None:
    first, second = (sdk.generate(n=2, extra_headers={"Idempotency-Key": "order-1"}) for _ in range(2))
    assert [item.guid for item in first.data] == [item.guid for item in second.data]
    assert [item.b64_json for item in first.data] == [item.b64_json for item in second.data]
    assert len(upstream.ledger) == 1


def test_response_has_content_length(tenant: TenantClient) -> None:
    answer = tenant.http.post("/v1/images/generations", json={"prompt": "a red fox", "n": 2})
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["content-type"] == "application/json"


def _encoded_png() -> bytes:
    return base64.b64encode(pictures.png(32, 32))
