"""The fake upstream's edits: how it parses a form and what it rejects, compared with the official SDK."""

import json
from collections.abc import Callable, Iterator
from typing import Any, cast

import openai
import pytest
from openai.types import ImageEditCompletedEvent, ImageEditPartialImageEvent
from openai.types.image_edit_params import ImageEditParamsNonStreaming
from openai.types.images_response import ImagesResponse

from tests.support import pictures, upstream
from tests.support.raw_http import exchange, request_bytes
from tests.support.upstream import FakeUpstream, UploadedFile

FOX = "a rød 🦊"
PICTURE = ("fox.png", pictures.png(64, 48), "image/png")
OTHER = ("hen.jpg", pictures.jpeg(32, 32), "image/jpeg")
OVERLAY = ("mask.png", pictures.transparent_png(64, 48), "image/png")

_RETIRED_PARAMETERS = {"response_format"}

Edit = Callable[..., ImagesResponse]


@pytest.fixture(scope="module")
def _served() -> Iterator[FakeUpstream]:
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture
def fake(_served: FakeUpstream) -> FakeUpstream:
    _served.reset()
    return _served


@pytest.fixture
def edit(fake: FakeUpstream) -> Iterator[Edit]:
    with openai.OpenAI(base_url=fake.base_url, api_key=fake.api_key, max_retries=0) as client:

        def edited(**parameters: object) -> ImagesResponse:
            wanted: dict[str, Any] = {"image": PICTURE, "prompt": FOX, **parameters}
            return cast("ImagesResponse", client.images.edit(**wanted))

        yield edited


def _post(fake: FakeUpstream, body: bytes, content_type: str) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {fake.api_key}", "Content-Type": content_type}
    answer = exchange(fake.base_url, request_bytes("POST", upstream.EDITS_PATH, headers=headers, body=body))
    return answer.status_code, answer.json()


def test_fields_and_files_are_recorded_unchanged(fake: FakeUpstream, edit: Edit) -> None:
    options = {"n": 2, "size": "1024x1536", "quality": "low", "background": "transparent", "output_format": "webp"}
    options |= {"output_compression": 50, "input_fidelity": "high", "partial_images": 0, "stream": False, "user": "u"}
    answer = edit(image=[PICTURE, OTHER], mask=OVERLAY, model="gpt-image-1.5", **options)

    (request,) = fake.requests
    assert request.path == upstream.EDITS_PATH
    assert request.body == {"prompt": FOX, "model": "gpt-image-1.5", **options}
    assert request.files == tuple(
        UploadedFile(name=name, filename=filename, content_type=content_type, content=content)
        for name, (filename, content, content_type) in (("image[]", PICTURE), ("image[]", OTHER), ("mask", OVERLAY))
    )
    assert [file.parameter for file in request.files] == ["image", "image", "mask"]
    assert (answer.size, answer.quality, answer.output_format, answer.background) == (
        ("1024x1536", "low", "webp", "transparent")
    )
    assert answer.data
    assert len(answer.data) == 2
    assert ImagesResponse.model_validate(answer.to_dict(), strict=True) == answer


def test_input_pictures_cost_tokens(edit: Edit) -> None:
    usage = edit(image=[PICTURE, OTHER], prompt="fox!").usage

    assert usage
    assert usage.input_tokens_details.image_tokens == 2 * 323
    assert usage.input_tokens_details.text_tokens == 1
    assert usage.input_tokens == 2 * 323 + 1
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_a_stream_of_an_edit_has_edit_events(edit: Edit) -> None:
    partial, completed = edit(stream=True, partial_images=1)

    assert isinstance(partial, ImageEditPartialImageEvent)
    assert isinstance(completed, ImageEditCompletedEvent)
    assert completed.usage.input_tokens_details.image_tokens == 323
    assert ImageEditCompletedEvent.model_validate(completed.to_dict(), strict=True) == completed


def test_nested_fields_become_objects(fake: FakeUpstream, edit: Edit) -> None:
    svg = {"model": "author", "reasoning": {"effort": "low"}}
    edit(output_format="svg", svg=svg)

    assert fake.requests[0].body["svg"] == svg


@pytest.mark.anyio
async def test_the_asynchronous_sdk_edits(fake: FakeUpstream) -> None:
    async with openai.AsyncOpenAI(base_url=fake.base_url, api_key=fake.api_key, max_retries=0) as client:
        answer = await client.images.edit(image=[PICTURE] * 16, prompt=FOX, markup=OVERLAY)

    assert answer.data
    assert len(fake.requests[0].files) == 17


def test_known_parameters_match_the_sdk() -> None:
    assert set(ImageEditParamsNonStreaming.__annotations__) - _RETIRED_PARAMETERS == upstream.EDIT_PARAMETERS


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"image": ("a.png", b"no picture at all", "image/png")}, "invalid_image_file"),
        ({"image": ("a.png", b"", "image/png")}, "invalid_image_file"),
        ({"image": ("a.png", pictures.svg(), "image/png")}, "invalid_image_file"),
        ({"image": ("a.gif", pictures.gif(16, 16), "image/gif")}, "unsupported_file_mimetype"),
        ({"image": PICTURE[1]}, "unsupported_file_mimetype"),
        ({"image": [PICTURE] * 17}, "invalid_value"),
        ({"image": []}, "missing_required_parameter"),
        ({"mask": OTHER}, "unsupported_file_mimetype"),
        ({"mask": ("m.png", OTHER[1], "image/png")}, "invalid_image_file"),
        ({"mask": ("m.png", pictures.transparent_png(16, 16), "image/png")}, "invalid_value"),
        ({"mask": OVERLAY, "markup": OVERLAY}, "invalid_value"),
        ({"markup": OVERLAY, "model": "gpt-image-2"}, "invalid_value"),
        ({"input_fidelity": "high", "model": "gpt-image-1-mini"}, "invalid_value"),
        ({"input_fidelity": "low", "model": "gpt-image-2"}, "invalid_value"),
        ({"input_fidelity": "medium"}, "invalid_value"),
        ({"prompt": ""}, "invalid_value"),
        ({"n": 0}, "invalid_value"),
        ({"n": "two"}, "invalid_value"),
        ({"stream": "perhaps"}, "invalid_value"),
        ({"response_format": "url"}, "unknown_parameter"),
        ({"extra_body": {"moderation": "low"}}, "unknown_parameter"),
        ({"extra_body": {"seeds": [1, 2]}}, "unknown_parameter"),
    ],
)
def test_requests_that_the_real_api_rejects_are_rejected(
    fake: FakeUpstream, edit: Edit, parameters: dict[str, Any], code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        edit(**parameters)

    assert caught.value.code == code
    assert [(line.bought, line.status) for line in fake.ledger] == [(False, 400)]


def test_a_body_that_is_not_a_form_is_rejected(fake: FakeUpstream) -> None:
    for body, content_type in (
        (b"", "multipart/form-data; boundary=x"),
        (b"--x--\r\n", "multipart/form-data"),
        (b"\x00", "application/octet-stream"),
    ):
        status, answer = _post(fake, body, content_type)
        assert (status, answer["error"]["code"]) == (400, "unsupported_content_type")
    status, _ = _post(fake, json.dumps({"prompt": FOX}).encode(), "application/json")
    assert status == 400


def test_a_form_may_quote_its_boundary_and_call_the_picture_image(fake: FakeUpstream) -> None:
    part = b'--a b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
    picture = part % (b"image", b'; filename="x"\r\ncontent-type: image/png', PICTURE[1])
    body = b"preamble\r\n" + picture + part % (b"prompt", b"", b"--a c\r\nfox") + b"--a b--\r\nepilogue"

    status, _ = _post(fake, body, 'multipart/form-data; boundary="a b"')

    assert status == 200
    (request,) = fake.requests
    assert request.prompt == "--a c\r\nfox"
    assert request.files[0].content == PICTURE[1]
