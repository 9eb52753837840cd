"""The fake upstream hangs, ends and serves as its own program as it is told to."""

import base64
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai.types.images_response import ImagesResponse

from tests.support import upstream
from tests.support.upstream import FakeUpstream, refusing_base_url

_ROOT = Path(__file__).parents[2]


def _client(base_url: str, *, api_key: str = upstream.API_KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=0.5)


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    with FakeUpstream() as started:
        yield started


def test_hung_request_is_answered_once_released(fake: FakeUpstream) -> None:
    fake.behave_once(upstream.HANG)
    answers: list[ImagesResponse] = []
    with _client(fake.base_url).with_options(timeout=5) as client:
        hung = threading.Thread(target=lambda: answers.append(client.images.generate(prompt="a red fox")))
        hung.start()
        fake.wait_for_requests(1)
        assert not answers
        fake.release()
        hung.join()

    assert answers[0].data


def test_close_waits_for_no_hung_request() -> None:
    fake = FakeUpstream()
    fake.start()
    fake.behave(upstream.HANG)
    with _client(fake.base_url) as client, pytest.raises(openai.APITimeoutError):
        client.images.generate(prompt="a red fox")

    started = time.monotonic()
    fake.close()

    assert time.monotonic() - started < 0.5


def test_refusing_port_refuses() -> None:
    with (
        refusing_base_url() as base_url,
        _client(base_url) as client,
        pytest.raises(openai.APIConnectionError) as caught,
    ):
        client.images.generate(prompt="a red fox")

    assert not isinstance(caught.value, openai.APITimeoutError)


def test_command_line_serves_until_terminated() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.upstream", "--picture-bytes", "300000"],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        base_url = process.stdout.readline().strip()
        with _client(base_url).with_options(timeout=5) as client:
            response = client.images.generate(prompt="a red fox")
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0

    assert len(_pictures_of(response)[0]) == pytest.approx(300_000, rel=0.02)


def _pictures_of(response: ImagesResponse) -> list[bytes]:
    assert response.data
    return [base64.b64decode(item.b64_json or "") for item in response.data]
