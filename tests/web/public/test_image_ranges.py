"""Ranges of a picture (RFC 9110 §14): single, multiple, malformed and unsatisfiable."""

import email

import httpx2
import pytest

from tests.support.pictures import noise_png
from tests.support.problems import assert_problem
from tests.support.server import TenantClient
from tests.support.upstream import FakeUpstream
from tests.web.builders import make_image

# Independent of the database, so one is enough.

PICTURE = noise_png(5_000, seed=7)
SIZE = len(PICTURE)


@pytest.fixture
def path(tenant: TenantClient, upstream: FakeUpstream) -> str:
    """Return the path of a picture whose bytes are ``PICTURE``."""
    upstream.picture = PICTURE
    return f"/image/{make_image(tenant)['guid']}/content"


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-99", 0, 100),
        ("bytes=0-0", 0, 1),
        ("bytes=100-", 100, SIZE),
        ("bytes=-10", SIZE - 10, SIZE),
        ("bytes=0-999999999", 0, SIZE),
        ("bytes=-999999999", 0, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("BYTES=5-9", 5, 10),
    ],
)
def test_single_range_returns_its_bytes(asked: str, start: int, end: int, path: str, anonymous: httpx2.Client) -> None:
    answer = anonymous.get(path, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == PICTURE[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["etag"]


def test_multiple_ranges_return_parts(path: str, anonymous: httpx2.Client) -> None:
    answer = anonymous.get(path, headers={"Range": "bytes=0-9,100-199,-5"})
    assert answer.status_code == 206
    assert answer.headers["content-length"] == str(len(answer.content))
    media_type, _, boundary = answer.headers["content-type"].partition("; boundary=")
    assert media_type == "multipart/byteranges"
    assert _parts(answer.content, boundary) == [
        (f"bytes 0-9/{SIZE}", PICTURE[:10]),
        (f"bytes 100-199/{SIZE}", PICTURE[100:200]),
        (f"bytes {SIZE - 5}-{SIZE - 1}/{SIZE}", PICTURE[-5:]),
    ]


@pytest.mark.parametrize(
    "asked", ["bytes", "bytes=", "bytes=abc", "bytes=1-x", "pixels=0-9", "=0-9", "bytes=9-5", "bytes=-"]
)
def test_malformed_range_is_ignored(asked: str, path: str, anonymous: httpx2.Client) -> None:
    answer = anonymous.get(path, headers={"Range": asked})
    assert answer.status_code == 200
    assert answer.content == PICTURE


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=999999999-", f"bytes={SIZE}-{SIZE + 9}", "bytes=-0"])
def test_range_outside_picture_is_416(asked: str, path: str, anonymous: httpx2.Client) -> None:
    answer = anonymous.get(path, headers={"Range": asked})
    assert_problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


def test_thousands_of_ranges_return_no_more_than_the_picture(path: str, anonymous: httpx2.Client) -> None:
    answer = anonymous.get(path, headers={"Range": "bytes=" + ",".join(["0-"] * 3_000)})
    assert (answer.status_code, answer.content) == (200, PICTURE)


def test_outdated_if_range_returns_whole_picture(path: str, anonymous: httpx2.Client) -> None:
    answer = anonymous.get(path, headers={"Range": "bytes=0-9", "If-Range": '"another"'})
    assert (answer.status_code, answer.content) == (200, PICTURE)


def test_matching_if_range_returns_range(path: str, anonymous: httpx2.Client) -> None:
    etag = anonymous.get(path).headers["etag"]
    answer = anonymous.get(path, headers={"Range": "bytes=0-9", "If-Range": etag})
    assert (answer.status_code, answer.content) == (206, PICTURE[:10])


def test_condition_takes_precedence_over_range(path: str, anonymous: httpx2.Client) -> None:
    etag = anonymous.get(path).headers["etag"]
    answer = anonymous.get(path, headers={"Range": "bytes=0-9", "If-None-Match": etag})
    assert answer.status_code == 304


def _parts(content: bytes, boundary: str) -> list[tuple[str, bytes]]:
    """Return the range and bytes of every part; assert that its type is the picture's."""
    *parts, rest = content.split(f"--{boundary}".encode())[1:]
    assert rest.strip() == b"--"
    split = [part.split(b"\r\n\r\n", 1) for part in parts]
    headers = [email.message_from_bytes(head.strip()) for head, _ in split]
    assert {each["Content-Type"] for each in headers} == {"image/png"}
    return [(each["Content-Range"], body.removesuffix(b"\r\n")) for each, (_, body) in zip(headers, split, strict=True)]
