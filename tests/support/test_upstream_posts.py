"""The fake upstream records when it worked on which order, and takes a configured time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.support.process import wait_until
from tests.support.upstream import (
    TRUNCATED,
    Delayed,
    FakeUpstream,
    Gate,
    Post,
    most_at_once,
    most_started_within,
)


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    with FakeUpstream() as started:
        yield started


def ask(fake: FakeUpstream, prompt: str, **options: object) -> int:
    headers = {"Authorization": f"Bearer {fake.api_key}", "Idempotency-Key": f"key of {prompt}"}
    body = {"prompt": prompt, "size": "64x64", "model": "gpt-image-2", **options}
    return httpx2.post(f"{fake.base_url}/images/generations", json=body, headers=headers, timeout=30).status_code


def test_posts_record_prompt_times_and_delivery(fake: FakeUpstream) -> None:
    fake.behave_for("slow", Delayed(seconds=0.2))
    fake.behave_for("cut", TRUNCATED)
    assert ask(fake, "slow") == 200
    with pytest.raises(httpx2.RemoteProtocolError):
        ask(fake, "cut")
    assert ask(fake, "refused", size="1x1") == 400
    # The client may see the end a moment before the upstream records it.
    wait_until(lambda: None not in {post.ended for post in fake.posts})
    assert [(post.prompt, post.delivered) for post in fake.posts] == [
        ("slow", True),
        ("cut", False),
        ("refused", False),
    ]
    assert {(post.model, post.key) for post in fake.posts if post.prompt == "slow"} == {("gpt-image-2", "key of slow")}
    assert fake.posts[0].ended is not None
    assert fake.posts[0].ended - fake.posts[0].started >= 0.2
    fake.reset()
    assert fake.posts == []


def test_a_gate_holds_only_its_own_requests(fake: FakeUpstream) -> None:
    gate = Gate()
    fake.behave_for("held", gate)
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(ask, fake, f"held {number}") for number in range(2)]
        fake.wait_for_requests(2)
        assert ask(fake, "free") == 200
        fake.release()
        # The client has the response before it is recorded.
        wait_until(lambda: [post.ended is None for post in fake.posts] == [True, True, False], what="the record")
        assert [line.prompt for line in fake.ledger] == ["free"]
        gate.open()
        assert [each.result(timeout=30) for each in held] == [200, 200]
    assert ask(fake, "held later") == 200


def test_a_gate_lets_the_previews_of_a_stream_through(fake: FakeUpstream) -> None:
    gate = Gate()
    fake.behave_for("held", gate)
    body = {"prompt": "held", "size": "256x256", "stream": True, "partial_images": 2}
    headers = {"Authorization": f"Bearer {fake.api_key}"}
    with httpx2.stream("POST", f"{fake.base_url}/images/generations", json=body, headers=headers, timeout=30) as answer:
        names = (line for line in answer.iter_lines() if line.startswith("event: "))
        assert [next(names) for _ in range(2)] == ["event: image_generation.partial_image"] * 2
        gate.open()
        assert list(names) == ["event: image_generation.completed"]


def post(started: float, ended: float | None) -> Post:
    return Post(prompt="a fox", model=None, key=None, started=started, ended=ended)


def test_most_at_once_counts_started_and_unfinished_posts() -> None:
    assert most_at_once([]) == 0
    assert most_at_once([post(0, 1), post(1, 2), post(2, 3)]) == 1
    assert most_at_once([post(0, 2), post(1, 3), post(1.5, None), post(2, 4)]) == 3


def test_a_period_excludes_its_own_end() -> None:
    posts = [post(start, None) for start in (0, 10, 58, 59, 61)]
    assert most_started_within(posts, 59) == 4
    assert most_started_within(posts[:4], 59) == 3
    assert most_started_within([], 59) == 0
