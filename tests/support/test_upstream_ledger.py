"""The fake upstream's ledger: which orders are bought, and when they are recorded."""

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support import upstream
from tests.support.raw_http import abandon, request_bytes
from tests.support.upstream import Behaviour, FakeUpstream

FOX = "a red fox"


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    with FakeUpstream() as started:
        yield started


@pytest.fixture
def client(fake: FakeUpstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=fake.base_url, api_key=fake.api_key, max_retries=0, timeout=5) as opened:
        yield opened


def _attempt(client: openai.OpenAI, prompt: str = FOX) -> None:
    """Request a picture and ignore the outcome."""
    try:
        client.images.with_raw_response.generate(prompt=prompt)
    except openai.APIError:
        return


def test_a_line_records_the_purchase(fake: FakeUpstream, client: openai.OpenAI) -> None:
    answer = client.images.with_raw_response.generate(prompt=FOX, model="gpt-image-2", n=2)

    (line,) = fake.ledger
    assert (line.prompt, line.model, line.n, line.pictures) == (FOX, "gpt-image-2", 2, 2)
    assert (line.bought, line.status, line.path) == (True, 200, upstream.GENERATIONS_PATH)
    assert line.request_id == answer.headers["x-request-id"]
    assert line.sha256 == hashlib.sha256(fake.requests[0].raw).hexdigest()
    usage = answer.parse().usage
    assert usage
    assert usage.to_dict() == line.usage


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (upstream.MODERATED, (False, 400, 0)),
        (upstream.RATE_LIMITED, (False, 429, 0)),
        (upstream.SERVER_ERROR, (False, 500, 0)),
        (upstream.Verbatim(body=b"", status=302), (False, 302, 0)),
        (upstream.CUT, (True, 200, 1)),
        (upstream.TRUNCATED, (True, 200, 1)),
        (upstream.HTML, (True, 200, 0)),
        (upstream.BAD_BASE64, (True, 200, 1)),
        (upstream.SVG_AS_PNG, (True, 200, 1)),
        (upstream.Flood(megabytes=1), (True, 200, 1)),
    ],
)
def test_refusals_are_free_and_broken_answers_are_bought(
    fake: FakeUpstream, client: openai.OpenAI, behaviour: Behaviour, outcome: tuple[bool, int, int]
) -> None:
    fake.behave(behaviour)

    _attempt(client)

    (line,) = fake.ledger
    assert (line.bought, line.status, line.pictures) == outcome
    assert (line.usage is not None) is line.bought


def test_a_wrong_key_buys_nothing_and_models_have_no_line(fake: FakeUpstream, client: openai.OpenAI) -> None:
    client.models.list()
    _attempt(client.with_options(api_key="sk-other"))

    assert [(line.bought, line.status) for line in fake.ledger] == [(False, 401)]


def test_a_client_that_hangs_up_pays(fake: FakeUpstream, client: openai.OpenAI) -> None:
    headers = {"Authorization": f"Bearer {fake.api_key}"}
    fake.behave_once(upstream.HANG)
    body = json.dumps({"prompt": "gone"}).encode()
    abandon(fake.base_url, request_bytes("POST", upstream.GENERATIONS_PATH, headers=headers, body=body))
    fake.wait_for_requests(1)
    assert fake.ledger == []

    fake.release()
    client.images.generate(prompt="stays")

    assert {(line.prompt, line.bought) for line in fake.ledger} == {("gone", True), ("stays", True)}


def test_headers_that_hang_are_paid_for(fake: FakeUpstream, client: openai.OpenAI) -> None:
    fake.behave(upstream.HANG_AFTER_HEADERS)

    with client.images.with_streaming_response.generate(prompt=FOX) as answer:
        assert answer.status_code == 200
        assert [line.bought for line in fake.ledger] == [True]


def test_an_unanswered_request_is_not_bought(client: openai.OpenAI, fake: FakeUpstream) -> None:
    fake.behave(upstream.HANG)
    asking = threading.Thread(target=_attempt, args=(client,))
    asking.start()
    fake.wait_for_requests(1)

    fake.close()
    asking.join()

    assert [(line.bought, line.status) for line in fake.ledger] == [(False, None)]


def test_a_late_line_from_before_a_reset_is_omitted(tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    with (
        FakeUpstream(ledger_file=file) as fake,
        openai.OpenAI(base_url=fake.base_url, api_key=fake.api_key, max_retries=0) as client,
    ):
        fake.behave(upstream.HANG)
        asking = threading.Thread(target=_attempt, args=(client, "before"))
        asking.start()
        fake.wait_for_requests(1)
        fake.reset()
        asking.join()
        client.images.generate(prompt="after")

        assert [line.prompt for line in fake.ledger] == ["after"]
        written = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert [(line["prompt"], line["bought"]) for line in written] == [("before", True), ("after", True)]


def test_posts_are_counted_by_prompt(fake: FakeUpstream, client: openai.OpenAI) -> None:
    fake.behave_once(upstream.SERVER_ERROR)
    for prompt in (FOX, FOX, "a hen"):
        _attempt(client, prompt)
    client.models.list()

    assert fake.posts_by_prompt == {FOX: 2, "a hen": 1}
    fake.reset()
    assert not fake.posts_by_prompt
    assert fake.ledger == []


def test_behaviour_for_a_prompt_takes_precedence(fake: FakeUpstream, client: openai.OpenAI) -> None:
    fake.behave_for("fox", upstream.MODERATED, times=1)
    fake.behave_for("red", upstream.SERVER_ERROR)
    fake.behave_once(upstream.RATE_LIMITED)

    for prompt in (FOX, FOX, "a hen", "a hen", FOX):
        _attempt(client, prompt)

    assert [line.status for line in fake.ledger] == [400, 500, 429, 200, 500]
    fake.reset()
    _attempt(client)
    assert [line.status for line in fake.ledger] == [200]


def test_an_upstream_that_remembers_nothing_still_counts(tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    with (
        FakeUpstream(ledger_file=file, remember=False) as fake,
        openai.OpenAI(base_url=fake.base_url, api_key=fake.api_key, max_retries=0) as client,
    ):
        client.images.generate(prompt=FOX)

        assert (fake.requests, fake.ledger, fake.posts_by_prompt) == ([], [], {FOX: 1})
    assert len(file.read_text(encoding="utf-8").splitlines()) == 1
