"""``images.edit`` of the SDK: pictures, masks, and existing images by GUID."""

import base64
import io
import tempfile

import openai
import pytest

from pixyproxy.web.openai.requests import MOST_FIELD_BYTES, MOST_FIELDS
from tests.support import pictures
from tests.support.server import RunningServer, TenantClient
from tests.support.upstream import EDITS_PATH, FakeUpstream, Verbatim
from tests.web.builders import ABSENT_GUID, make_image
from tests.web.envelope import assert_openai_error
from tests.web.openai.sdk import Sdk, picture_of

FOX, DOG, MASK = pictures.png(64, 48, seed=1), pictures.jpeg(64, 48, seed=2), pictures.transparent_png(64, 48)


def files_of(upstream: FakeUpstream) -> list[tuple[str, str, bytes]]:
    return [(file.parameter, file.content_type, file.content) for file in upstream.requests[-1].files]


def by_guid(sdk: Sdk, *guids: str, **parameters: object) -> object:
    """Edit only existing images; the SDK requires ``image``, which may be an empty list."""
    return sdk.edit([], extra_body={"image_guid": list(guids), **parameters})


def test_input_picture_reaches_upstream_unchanged(sdk: Sdk, upstream: FakeUpstream) -> None:
    answer = sdk.edit(FOX, "with a hat", size="1024x1536", quality="low", input_fidelity="high", model="gpt-image-1.5")
    assert upstream.requests[0].path == EDITS_PATH
    assert files_of(upstream) == [("image", "image/png", FOX)]
    assert upstream.requests[0].body == {
        "prompt": "with a hat",
        "model": "gpt-image-1.5",
        "size": "1024x1536",
        "quality": "low",
        "input_fidelity": "high",
    }
    assert picture_of(answer.data[0]).startswith(b"\x89PNG")
    assert answer.usage.input_tokens_details.image_tokens > 0


def test_input_pictures_keep_their_order(sdk: Sdk, upstream: FakeUpstream) -> None:
    sdk.edit([("one.png", FOX, "image/png"), io.BytesIO(DOG), FOX], n=2)
    assert [content for _, _, content in files_of(upstream)] == [FOX, DOG, FOX]
    assert upstream.requests[0].body["n"] == 2


def test_large_input_does_not_use_system_temp_folder(
    sdk: Sdk, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    picture = pictures.noise_png(1_500_000)
    sdk.edit([picture, picture])
    assert [content for _, _, content in files_of(upstream)] == [picture] * 2


def test_mask_is_passed_on(sdk: Sdk, upstream: FakeUpstream) -> None:
    sdk.edit(FOX, mask=MASK)
    assert sorted(files_of(upstream)) == [("image", "image/png", FOX), ("mask", "image/png", MASK)]


def test_existing_image_is_edited_by_guid(sdk: Sdk, upstream: FakeUpstream) -> None:
    upstream.picture = FOX
    first = sdk.generate(extra_body={"visibility": "private"}).data[0].guid
    upstream.picture = None
    second = by_guid(sdk, first)
    assert files_of(upstream) == [("image", "image/png", FOX)]
    assert second.data[0].guid != first  # type: ignore[attr-defined]


def test_files_and_guids_can_be_mixed(sdk: Sdk, upstream: FakeUpstream) -> None:
    upstream.picture = FOX
    guid = sdk.generate().data[0].guid
    sdk.edit(DOG, extra_body={"image_guid": guid})
    assert sorted(content for _, _, content in files_of(upstream)) == sorted([DOG, FOX])


def test_image_of_another_tenant_looks_absent(
    sdk: Sdk, server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    other = server.new_tenant(f"another than {tenant.guid}")
    with other.http:
        guid = make_image(other)["guid"]
    upstream.reset()
    told = []
    for each in (guid, ABSENT_GUID):
        with pytest.raises(openai.APIStatusError) as raised:
            by_guid(sdk, each)
        told.append((raised.value.status_code, {**raised.value.body, "request_id": None}))  # type: ignore[dict-item]
    assert told[0] == told[1]
    assert told[0][0] == 400
    assert upstream.requests == []


def test_edit_can_be_streamed(sdk: Sdk) -> None:
    events = sdk.follow(
        lambda client: client.images.edit(image=FOX, prompt="a hat", stream=True, partial_images=2, output_format="png")
    )
    assert [event.type for event in events] == ["image_edit.partial_image"] * 2 + ["image_edit.completed"]
    assert picture_of(events[-1]).startswith(b"\x89PNG")


def test_edit_returns_urls(sdk: Sdk, tenant: TenantClient) -> None:
    url = sdk.edit(FOX, response_format="url").data[0].url
    assert tenant.http.get(url).headers["content-type"] == "image/png"


@pytest.mark.parametrize("image", [b"Example data", b"", pictures.svg()], ids=["text", "nothing", "svg"])
def test_invalid_picture_is_rejected_before_upstream_call(image: bytes, sdk: Sdk, upstream: FakeUpstream) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.edit(image)
    assert raised.value.code == "invalid_input_picture"
    assert upstream.requests == []


def test_edit_without_picture_is_rejected(sdk: Sdk, upstream: FakeUpstream) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.edit([])
    assert raised.value.param == "image"
    assert upstream.requests == []


def test_unknown_fields_and_lists_reach_upstream(sdk: Sdk, upstream: FakeUpstream) -> None:
    upstream.behave(Verbatim(body=b'{"created":1,"data":[{"b64_json":"%b"}]}' % base64.b64encode(FOX)))
    sdk.edit(FOX, extra_body={"tags": ["ü", "b"], "svg": {"model": "gpt-9"}, "new": "1"})
    sent = upstream.requests[0].raw.decode("utf-8", "replace")
    assert [sent.count(f'name="{name}"') for name in ("tags[]", "svg[model]", "new")] == [2, 1, 1]


@pytest.mark.parametrize(("field", "most"), [("image_guid", 16), ("image_guid[]", 16), ("mask", 1), ("markup", 1)])
def test_too_many_pictures_or_guids_are_rejected(
    field: str, most: int, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    fields = {"prompt": "a fox", field: [ABSENT_GUID] * most}
    files = [("image" if field.startswith("image") else field, FOX), ("image", DOG)]
    answer = tenant.http.post("/v1/images/edits", data=fields, files=files)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    assert answer.json()["error"]["param"] == field.partition("_")[0]
    assert str(most) in answer.json()["error"]["message"]
    assert upstream.requests == []


def test_unknown_guid_is_reported_with_its_field(tenant: TenantClient) -> None:
    fields = {"prompt": "a fox", "mask": ABSENT_GUID}
    answer = tenant.http.post("/v1/images/edits", data=fields, files={"image": FOX})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_input_picture", "mask")


@pytest.mark.parametrize(
    "fields",
    [{"new": "x" * (MOST_FIELD_BYTES + 1)}, {"tags[]": ["x"] * MOST_FIELDS}],
    ids=["too long", "too many"],
)
def test_oversized_form_fields_are_rejected(
    fields: dict[str, str | list[str]], tenant: TenantClient, upstream: FakeUpstream
) -> None:
    data = {"prompt": "a fox", **fields}
    for files in ({"image": FOX}, None):
        assert tenant.http.post("/v1/images/edits", data=data, files=files).status_code == 400
    assert upstream.requests == []


def test_longest_prompt_fits_in_a_field(tenant: TenantClient, upstream: FakeUpstream) -> None:
    prompt = "🦊" * 32_000
    answer = tenant.http.post("/v1/images/edits", data={"prompt": prompt}, files={"image": FOX})
    assert answer.status_code == 200
    assert upstream.requests[0].body["prompt"] == prompt


@pytest.mark.parametrize(
    "content", [b'{"prompt": "a fox", "images": [{"file_id": "x"}]}', b""], ids=["JSON", "nothing"]
)
def test_body_other_than_form_is_rejected(content: bytes, tenant: TenantClient) -> None:
    headers = {"Content-Type": "application/json"} if content else {}
    answer = tenant.http.post("/v1/images/edits", content=content, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Content-Type"
    assert "multipart/form-data" in answer.json()["error"]["message"]


def test_malformed_form_gets_form_specific_message(tenant: TenantClient, upstream: FakeUpstream) -> None:
    fields = {f"field {number}": "x" for number in range(MOST_FIELDS + 1)}
    crowded = tenant.http.post("/v1/images/edits", data=fields, files={"image": FOX})
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    malformed = tenant.http.post("/v1/images/edits", content=b"nonsense", headers=headers)
    for answer in (crowded, malformed):
        message = assert_openai_error(answer, 400, "malformed_body")["message"]
        assert f"{MOST_FIELDS} other fields" in message
        assert "JSON" not in message
    assert not upstream.requests


def test_unknown_file_field_is_rejected(tenant: TenantClient, upstream: FakeUpstream) -> None:
    answer = tenant.http.post("/v1/images/edits", data={"prompt": "a fox"}, files={"image": FOX, "reference": FOX})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "reference"
    assert upstream.requests == []


def edit_of(*parts: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the body of a form with exactly these parts, and its headers."""
    body = b"".join(b"--limit\r\nContent-Disposition: form-data; %b\r\n" % part for part in parts)
    return body + b"--limit--\r\n", {"Content-Type": "multipart/form-data; boundary=limit"}


PROMPT = b'name="prompt"\r\n\r\na fox'


@pytest.mark.parametrize(
    "head",
    [
        b"name=\"image\"; filename*=utf-8''f%C3%BCchse.png",
        b"name=image; filename=fox.png; filename*=utf-8''fox.png",
        b"name=\"image[]\"; FileName* = UTF-8''fox.png",
        b'name="image[0]"; filename="fox.png"',
    ],
    ids=["aiohttp and urllib3 1", ".NET", "spaces and capitals", "PHP"],
)
def test_file_is_accepted_with_any_client_part_header(
    head: bytes, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    content, headers = edit_of(PROMPT, head + b"\r\nContent-Type: image/png\r\n\r\n" + FOX)
    answer = tenant.http.post("/v1/images/edits", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    assert files_of(upstream) == [("image", "image/png", FOX)]


@pytest.mark.parametrize("name", ["mask", "mask[]", "mask[0]"])
def test_mask_is_accepted_as_list(name: str, tenant: TenantClient, upstream: FakeUpstream) -> None:
    files = [("image[]", FOX), (name, MASK)]
    assert tenant.http.post("/v1/images/edits", data={"prompt": "a fox"}, files=files).status_code == 200
    assert sorted(files_of(upstream)) == [("image", "image/png", FOX), ("mask", "image/png", MASK)]


@pytest.mark.parametrize(
    ("flag", "is_stream"),
    [("True", True), ("true", True), ("1", True), ("False", False), ("false", False), ("0", False), ("", False)],
)
def test_stream_flag_accepts_common_spellings(flag: str, is_stream: bool, tenant: TenantClient) -> None:  # noqa: FBT001  (the expected value)
    form = {"prompt": "a fox", "stream": flag}
    answer = tenant.http.post("/v1/images/edits", data=form, files={"image": FOX})
    assert answer.status_code == 200
    assert (answer.headers["content-type"].partition(";")[0] == "text/event-stream") is is_stream


def test_empty_form_fields_are_ignored(tenant: TenantClient, upstream: FakeUpstream) -> None:
    optional = ("model", "n", "size", "quality", "response_format", "partial_images", "visibility", "filename", "mask")
    empty = [b'name="%b"\r\n\r\n' % name.encode() for name in (*optional, "image_guid[]", "user", "tags[]")]
    unselected = b'name="mask"; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n'
    picture = b'name="image"; filename="fox.png"\r\n\r\n' + FOX
    for parts in ((PROMPT, picture), (PROMPT, *empty, unselected, picture)):
        content, headers = edit_of(*parts)
        answer = tenant.http.post("/v1/images/edits", content=content, headers=headers)
        assert answer.status_code == 200, answer.text
        assert files_of(upstream) == [("image", "image/png", FOX)]
    assert upstream.requests[0].body == upstream.requests[1].body
    without_prompt, headers = edit_of(b'name="prompt"\r\n\r\n', picture)
    refused = tenant.http.post("/v1/images/edits", content=without_prompt, headers=headers)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")
