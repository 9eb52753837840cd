"""Ranges of a picture (RFC 9110 §14): one, several, unreadable ones and impossible ones."""

import email

import httpx2
import pytest

from tests.support.pictures import noise_png
from tests.support.problems import assert_problem
from tests.support.server import TenantClient
from tests.support.upstream import FakeUpstream
from tests.web.builders import make_image

# What a database has no part in is tested over one.

PICTURE = noise_png(5_000, seed=7)
SIZE = len(PICTURE)


@pytest.fixture
def path(tenant: TenantClient, upstream: FakeUpstream) -> str:
    """The path of a picture whose bytes are ``PICTURE``."""
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
def test_one_range_is_answered_with_its_bytes(
    asked: str, start: int, end: int, path: str, anonymous: httpx2.Client
) -> None:
    answer = anonymous.get(path, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == PICTURE[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["etag"]


def test_several_ranges_come_in_parts(path: str, anonymous: httpx2.Client) -> None:
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
def test_a_range_that_cannot_be_read_is_ignored(asked: str, path: str, anonymous: httpx2.Client) -> None:
    answer = anonymous.get(path, headers={"Range": asked})
    assert answer.status_code == 200
    assert answer.content == PICTURE


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=999999999-", f"bytes={SIZE}-{SIZE + 9}", "bytes=-0"])
def test_a_range_outside_of_the_picture_is_a_416(asked: str, path: str, anonymous: httpx2.Client) -> None:
    answer = anonymous.get(path, headers={"Range": asked})
    assert_problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


def test_thousands_of_ranges_buy_no_more_than_the_picture(path: str, anonymous: httpx2.Client) -> None:
    answer = anonymous.get(path, headers={"Range": "bytes=" + ",".join(["0-"] * 3_000)})
    assert (answer.status_code, answer.content) == (200, PICTURE)


def test_a_range_of_what_the_client_has_no_longer_is_the_whole_picture(path: str, anonymous: httpx2.Client) -> None:
    answer = anonymous.get(path, headers={"Range": "bytes=0-9", "If-Range": '"another"'})
    assert (answer.status_code, answer.content) == (200, PICTURE)


def test_if_range_with_the_right_etag_gives_the_range(path: str, anonymous: httpx2.Client) -> None:
    etag = anonymous.get(path).headers["etag"]
    answer = anonymous.get(path, headers={"Range": "bytes=0-9", "If-Range": etag})
    assert (answer.status_code, answer.content) == (206, PICTURE[:10])


def test_a_condition_comes_before_a_range(path: str, anonymous: httpx2.Client) -> None:
    etag = anonymous.get(path).headers["etag"]
    answer = anonymous.get(path, headers={"Range": "bytes=0-9", "If-None-Match": etag})
    assert answer.status_code == 304


def _parts(content: bytes, boundary: str) -> list[tuple[str, bytes]]:
    """The range and the bytes of every part, whose type must be the picture's."""
    *parts, rest = content.split(f"--{boundary}".encode())[1:]
    assert rest.strip() == b"--"
    split = [part.split(b"\r\n\r\n", 1) for part in parts]
    headers = [email.message_from_bytes(head.strip()) for head, _ in split]
    assert {each["Content-Type"] for each in headers} == {"image/png"}
    return [(each["Content-Range"], body.removesuffix(b"\r\n")) for each, (_, body) in zip(headers, split, strict=True)]
