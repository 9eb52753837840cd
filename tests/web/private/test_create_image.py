"""POST /image: generate and store a picture."""

import hashlib

import httpx2
import pytest

from tests.support.pictures import noise_png
from tests.support.problems import assert_problem
from tests.support.server import TenantClient
from tests.support.upstream import FakeUpstream


def test_generated_picture_is_served_byte_for_byte(
    tenant: TenantClient, anonymous: httpx2.Client, upstream: FakeUpstream
) -> None:
    upstream.picture = noise_png(300_000)
    made = tenant.http.post("/image", json={"prompt": "a red fox"})
    assert made.status_code == 201
    detail = made.json()
    assert made.headers["location"] == f"/image/{detail['guid']}"
    assert set(detail) == {
        "guid", "prompt", "prompt_truncated", "filename", "created_at", "updated_at", "visibility", "media_type",
        "width", "height", "byte_size", "sha256", "model", "content_url",
    }  # fmt: skip
    content = anonymous.get(f"/image/{detail['guid']}/content")
    assert content.content == upstream.picture
    assert content.headers["content-type"] == "image/png"
    assert detail["sha256"] == hashlib.sha256(upstream.picture).hexdigest()
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("option", [{"n": 2}, {"stream": True}, {"partial_images": 1}], ids=str)
def test_order_of_several_pictures_gets_helpful_error(
    option: dict[str, object], tenant: TenantClient, upstream: FakeUpstream
) -> None:
    problem = assert_problem(tenant.http.post("/image", json={"prompt": "a fox", **option}), 422, "invalid_request")
    assert [error["loc"] for error in problem["errors"]] == [["body", *option]]
    assert "POST /generation " in problem["detail"]
    assert "/v1/images/generations" in problem["detail"]
    mistyped = assert_problem(tenant.http.post("/image", json={"promt": "a fox"}), 422, "invalid_request")
    assert "/generation" not in mistyped["detail"]
    assert not upstream.requests
