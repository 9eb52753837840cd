"""GET and HEAD of /image/{guid}/content: bytes, headers, and JSON on request."""

import base64
from email.message import Message
from email.utils import collapse_rfc2231_value

import httpx2
import pytest

from tests.support.pictures import noise_png
from tests.support.problems import assert_problem
from tests.support.raw_http import connected, read_response, request_bytes
from tests.support.server import RunningServer, TenantClient
from tests.support.upstream import FakeUpstream
from tests.web.builders import make_image

# Independent of the database, so one is enough; test_image_detail tests filenames over both.

NASTY_FILENAMES = [
    'say "cheese".png',
    "it's; filename=evil.exe",
    "back%22slash%0d%0aX-Evil: 1",
    "füchse 🦊 im schnee.png",
    " leading and trailing ",
    "a" * 255,
    "🦊" * 255,
    "..",
    "%s%n{0}.png",
]
BIDI_CONTROLS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Unicode's property ``Bidi_Control`` (PropList.txt): characters that reorder surrounding text."""
REFUSED_FILENAMES = [
    "fox\r\nX-Evil: 1.png",
    "fox\n.png",
    "fox\r.png",
    "fox\0.png",
    "fox\x7f.png",
    "fox\x85.png",
    "fox\u2028.png",
    "../../etc/passwd",
    "C:\\fox.png",
    "",
    "a" * 256,
    *(f"gnp{chr(control)}.exe" for control in BIDI_CONTROLS),
]


def filename_of(disposition: str) -> str:
    """Return the filename in a Content-Disposition, as the standard library parses it."""
    message = Message()
    message["Content-Disposition"] = disposition
    found = message.get_param("filename", header="content-disposition")
    assert found is not None
    return collapse_rfc2231_value(found)


def test_bytes_are_identical_to_upstreams(
    tenant: TenantClient, anonymous: httpx2.Client, upstream: FakeUpstream
) -> None:
    upstream.picture = noise_png(1_000_000, seed=3)
    made = make_image(tenant)
    answer = anonymous.get(f"/image/{made['guid']}/content")
    assert answer.content == upstream.picture
    assert answer.headers["content-length"] == str(len(upstream.picture))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == f'"{made["sha256"]}"'


@pytest.mark.usefixtures("upstream")
def test_picture_cannot_run_scripts(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    headers = anonymous.get(f"/image/{make_image(tenant)['guid']}/content").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"


@pytest.mark.usefixtures("upstream")
def test_head_has_length_and_keeps_connection_usable(tenant: TenantClient, server: RunningServer) -> None:
    made = make_image(tenant)
    path = f"/image/{made['guid']}/content"
    answers = []
    with connected(server.url) as connection:
        for method in ("HEAD", "GET"):
            connection.sendall(request_bytes(method, path, headers={"Connection": "keep-alive"}))
            answers.append(read_response(connection, method=method))
    head, got = answers
    assert (head.status_code, head.headers["content-length"]) == (200, str(made["byte_size"]))
    assert (got.status_code, len(got.content)) == (200, made["byte_size"])


@pytest.mark.parametrize("filename", NASTY_FILENAMES, ids=lambda name: ascii(name)[:30])
@pytest.mark.usefixtures("upstream")
def test_malicious_filename_stays_one_valid_header(
    filename: str, tenant: TenantClient, anonymous: httpx2.Client
) -> None:
    made = make_image(tenant, filename=filename)
    assert made["filename"] == filename
    answer = anonymous.get(f"/image/{made['guid']}/content")
    dispositions = answer.headers.get_list("content-disposition")
    assert len(dispositions) == 1
    assert dispositions[0].isascii()
    assert dispositions[0].startswith("inline; filename")
    assert filename_of(dispositions[0]) == filename
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize("filename", REFUSED_FILENAMES, ids=lambda name: ascii(name)[:30])
def test_filename_with_path_or_control_characters_is_rejected(
    filename: str, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    answer = tenant.http.post("/image", json={"prompt": "a fox", "filename": filename})
    problem = assert_problem(answer, 422, "invalid_request")
    assert problem["errors"][0]["loc"] == ["body", "filename"]
    assert upstream.requests == []


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "image/*, application/json",
        "image/png, application/json;q=0.9",
        "application/json;q=0, */*;q=0.1",
        "application/json;q=abc",
        "text/html,application/xhtml+xml,image/avif,image/webp,*/*;q=0.8",
        "",
        ",;q=,;;",
    ],
)
def test_content_is_picture_unless_json_is_preferred(
    accept: str, tenant: TenantClient, anonymous: httpx2.Client, upstream: FakeUpstream
) -> None:
    upstream.picture = noise_png(2_000)
    guid = make_image(tenant, filename="fox.png")["guid"]
    answer = anonymous.get(f"/image/{guid}/content", headers={"Accept": accept})
    assert (answer.status_code, answer.content) == (200, upstream.picture)
    assert "Accept" in answer.headers["vary"]


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "application/json, text/plain;q=0.5",
        "application/json;q=0.9, image/*;q=0.8",
        "application/json, */*;q=0.1",
        "image/png;q=0.2, application/json;q=0.3",
        "APPLICATION/JSON",
        "application/json, image/png;q=0, */*",
    ],
)
def test_content_is_json_if_preferred(
    accept: str, tenant: TenantClient, anonymous: httpx2.Client, upstream: FakeUpstream
) -> None:
    upstream.picture = noise_png(2_000)
    guid = make_image(tenant, filename="fox.png")["guid"]
    answer = anonymous.get(f"/image/{guid}/content", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert "Accept" in answer.headers["vary"]
    body = answer.json()
    assert base64.b64decode(body.pop("content_base64"), validate=True) == upstream.picture
    assert body == {"guid": guid, "filename": "fox.png", "media_type": "image/png"}
