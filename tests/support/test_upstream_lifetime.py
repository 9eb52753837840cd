"""The fake upstream hangs, stops and runs as a separate program on request."""

import base64
import json
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
from tests.support.upstream.named import read_script

_ROOT = Path(__file__).parents[2]


def _client(base_url: str, *, api_key: str = upstream.API_KEY, timeout: float = 30) -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=timeout)


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    with FakeUpstream() as started:
        yield started


def test_hung_request_is_answered_once_released(fake: FakeUpstream) -> None:
    fake.behave_once(upstream.HANG)
    answers: list[ImagesResponse] = []
    with _client(fake.base_url) as client:
        hung = threading.Thread(target=lambda: answers.append(client.images.generate(prompt="a red fox")))
        hung.start()
        fake.wait_for_requests(1)
        assert not answers
        fake.release()
        hung.join()

    assert answers[0].data


def test_close_does_not_wait_for_hung_requests() -> None:
    fake = FakeUpstream()
    fake.start()
    fake.behave(upstream.HANG)
    with _client(fake.base_url, timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
        client.images.generate(prompt="a red fox")

    started = time.monotonic()
    fake.close()

    assert time.monotonic() - started < 10


def test_an_unstarted_upstream_can_be_closed() -> None:
    fake = FakeUpstream()

    fake.close()
    fake.close()

    with _client(fake.base_url) as client, pytest.raises(openai.APIConnectionError):
        client.models.list()


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
        with _client(base_url) as client:
            response = client.images.generate(prompt="a red fox")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0

    assert len(_pictures_of(response)[0]) == pytest.approx(300_000, rel=0.02)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", openai.OpenAI]]:
    """Yield a separate process with a script and a ledger in `tmp_path`, and a client of it."""
    script = [
        {"match": "a cat", "behaviour": "SERVER_ERROR", "times": 1},
        {"match": "a dog", "behaviour": "STREAM_HANG"},
    ]
    (tmp_path / "script.json").write_text(json.dumps(script))
    arguments = ["--script", str(tmp_path / "script.json"), "--ledger", str(tmp_path / "ledger.jsonl")]
    arguments += ["--api-key", "sk-own"]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.upstream", *arguments], cwd=_ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        base_url = process.stdout.readline().strip()
        with _client(base_url, api_key="sk-own") as client:
            yield process, client
        process.terminate()
        assert process.wait(30) == 0


def test_process_follows_its_script_and_writes_a_ledger(
    started: tuple["subprocess.Popen[str]", openai.OpenAI], tmp_path: Path
) -> None:
    process, client = started
    with pytest.raises(openai.InternalServerError):
        client.images.generate(prompt="a cat")
    assert client.images.generate(prompt="a cat").data
    events = iter(client.images.generate(prompt="a dog", stream=True, partial_images=1))
    assert next(events).type == "image_generation.partial_image"
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [(line["prompt"], line["bought"]) for line in lines] == [
        ("a cat", False),
        ("a cat", True),
        ("a dog", True),
    ]
    process.send_signal(signal.SIGUSR1)
    assert [event.type for event in events] == ["image_generation.completed"]


def test_script_with_an_unknown_name_is_rejected(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text('[{"match": "", "behaviour": "NO_SUCH"}]')

    with pytest.raises(KeyError, match="NO_SUCH"):
        list(read_script(script))


def _pictures_of(response: ImagesResponse) -> list[bytes]:
    assert response.data
    return [base64.b64decode(item.b64_json or "") for item in response.data]
