"""POST /image: a prompt becomes a picture that stays."""

import hashlib

import httpx2

from tests.support.pictures import noise_png
from tests.support.server import TenantClient
from tests.support.upstream import FakeUpstream


def test_a_prompt_becomes_a_picture_served_byte_for_byte(
    tenant: TenantClient, anonymous: httpx2.Client, upstream: FakeUpstream
) -> None:
    upstream.picture = noise_png(300_000)
    made = tenant.http.post("/image", json={"prompt": "a red fox"})
    assert made.status_code == 201
    detail = made.json()
    assert made.headers["location"] == f"/image/{detail['guid']}"
    assert set(detail) == {
        "guid", "prompt", "filename", "created_at", "updated_at", "visibility", "media_type", "width", "height",
        "byte_size", "sha256", "model", "content_url",
    }  # fmt: skip
    content = anonymous.get(f"/image/{detail['guid']}/content")
    assert content.content == upstream.picture
    assert content.headers["content-type"] == "image/png"
    assert detail["sha256"] == hashlib.sha256(upstream.picture).hexdigest()
    assert len(upstream.requests) == 1
