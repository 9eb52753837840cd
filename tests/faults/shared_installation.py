"""The installation shared by tests that stop no process: each has its own tenant, prompts and model."""

from collections.abc import Sequence
from typing import Any

import httpx2

from tests.support.installation import Upstreams
from tests.support.scale import scaled
from tests.support.upstream import Post

REQUESTS_PER_MINUTE = scaled(6, 60)
PREVIEW_SECONDS = 12
"""The time for a preview to arrive on a slow machine; shorter than the interval between a stream's heartbeats."""
UPSTREAMS: Upstreams = {
    "wide": {},
    "three": {"concurrency": 3},
    "minute": {"concurrency": 3, "requests_per_minute": REQUESTS_PER_MINUTE},
    "fair": {"concurrency": 1},
    "still": {"concurrency": 1},
    "streamed": {"concurrency": 1},
}
"""The upstreams by name; each serves the model of its name. The first one's is the default model."""


def place_order(client: httpx2.Client, prompt: str, **options: object) -> str:
    """Order a picture without waiting for it; return the generation's GUID."""
    taken = client.post("/generation", json={"prompt": prompt, **options})
    assert taken.status_code == httpx2.codes.ACCEPTED, taken.text
    guid: str = taken.json()["guid"]
    return guid


def generation(client: httpx2.Client, guid: str) -> dict[str, Any]:
    """Return the current state of a generation."""
    found = client.get(f"/generation/{guid}")
    assert found.status_code == httpx2.codes.OK, found.text
    detail: dict[str, Any] = found.json()
    return detail


def statuses(client: httpx2.Client, guids: Sequence[str]) -> set[str]:
    """Return the statuses of some generations."""
    return {str(generation(client, guid)["status"]) for guid in guids}


def posts_of(posts: Sequence[Post], tag: str) -> list[Post]:
    """Return the POSTs whose prompt has a tag, in order of arrival."""
    return [post for post in posts if tag in post.prompt]
