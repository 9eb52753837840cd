"""``pixyproxy doctor``: what works, and how to fix what does not."""

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from pixyproxy.core.settings import Settings
from pixyproxy.service.doctor import examine as examine_here
from pixyproxy.service.processes import list_serving
from tests.cli.conftest import Place
from tests.support.process import wait_until
from tests.support.redis import PASSWORD, RedisServer
from tests.support.server import make_settings, serving, upstream_settings
from tests.support.upstream import FakeUpstream, refusing_base_url

SUBJECTS = [
    "settings",
    "data folder",
    "database",
    "picture store",
    "pictures",
    "limits",
    "processes",
    "retained answers",
    "signing keys",
    "prices",
    "upstream",
]


def examine(place: Place, **environment: str) -> dict[str, Any]:
    """Return the findings by subject; the exit code must match them."""
    done = place.run("doctor", "--json", **environment)
    findings = json.loads(done.stdout)
    assert done.returncode == (0 if all(finding["ok"] for finding in findings) else 1)
    return {finding["subject"]: finding for finding in findings}


def failing(findings: dict[str, Any]) -> list[str]:
    """Return the subjects with a problem."""
    return [subject for subject, finding in findings.items() if not finding["ok"]]


def test_all_checks_pass_on_each_database(any_place: Place) -> None:
    findings = examine(any_place)
    assert list(findings) == SUBJECTS
    assert failing(findings) == []
    assert "offline" in findings["upstream"]["message"]


def test_each_subject_is_printed_on_one_line(place: Place) -> None:
    lines = place.succeed("doctor").splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"ok    {subject}" for subject in SUBJECTS]


def test_unreachable_database_is_reported(place: Place) -> None:
    with refusing_base_url() as url:
        port = url.split(":")[2].removesuffix("/v1")
        findings = examine(place, PIXYPROXY_DATABASE_URL=f"mysql://user:hunter2@127.0.0.1:{port}/pixyproxy")
    assert failing(findings) == ["database"]
    assert f"127.0.0.1:{port} cannot be reached" in findings["database"]["message"]
    assert "hunter2" not in str(findings)


@pytest.mark.parametrize("url", ["postgres://x/y", "mysql:/x"])
def test_unsupported_database_is_reported(url: str, place: Place) -> None:
    findings = examine(place, PIXYPROXY_DATABASE_URL=url)
    assert failing(findings) == ["settings"]
    assert "DATABASE_URL" in findings["settings"]["message"]


@pytest.mark.parametrize("url", ["mysql://h:port/x", "sqlite:////dev/null/x"])
def test_invalid_database_url_is_reported(url: str, place: Place) -> None:
    findings = examine(place, PIXYPROXY_DATABASE_URL=url)
    assert failing(findings) == ["database"]


def test_unreachable_upstream_is_reported(place: Place) -> None:
    with refusing_base_url() as url:
        findings = examine(place, OPENAI_API_KEY="sk-x", OPENAI_BASE_URL=url)
    assert failing(findings) == ["upstream"]
    assert "cannot be reached" in findings["upstream"]["message"]


def test_rejected_key_is_reported_without_buying(place: Place) -> None:
    with FakeUpstream() as upstream:
        examine(place, OPENAI_API_KEY="sk-wrong", OPENAI_BASE_URL=upstream.base_url)
        assert [(request.method, request.path) for request in upstream.requests] == [("GET", "/v1/models")]


@pytest.mark.parametrize(("name", "subject"), [("IMAGES", "picture store"), ("DATA_DIR", "data folder")])
def test_unusable_folder_is_reported(name: str, subject: str, place: Place) -> None:
    (place.folder / "file").write_text("no folder")
    findings = examine(place, **{f"PIXYPROXY_{name}": str(place.folder / "file" / "below")})
    assert subject in failing(findings)
    assert findings[subject]["message"]
    assert "None" not in findings[subject]["message"]


@pytest.mark.parametrize(("setting", "subject"), [("data_dir", "data folder"), ("images", "picture store")])
def test_folder_readable_by_other_users_is_reported(setting: str, subject: str, place: Place) -> None:
    folder: Path = getattr(place.settings, setting)
    folder.mkdir()
    folder.chmod(0o755)
    findings = examine(place)
    assert failing(findings) == [subject]
    assert f"`chmod -R o= {folder}`" in findings[subject]["message"]
    folder.chmod(0o750)
    assert failing(examine(place)) == []


def test_database_readable_by_other_users_is_reported(place: Place) -> None:
    database = place.folder / "shared" / "pictures.db"
    database.parent.mkdir()
    database.parent.chmod(0o755)
    database.touch()
    database.chmod(0o644)
    findings = examine(place, PIXYPROXY_DATABASE_URL=f"sqlite:///{database}")
    assert failing(findings) == ["database"]
    assert f"`chmod -R o= {database}`" in findings["database"]["message"]
    database.parent.chmod(0o700)
    assert failing(examine(place, PIXYPROXY_DATABASE_URL=f"sqlite:///{database}")) == []


def test_data_folder_without_room_for_uploads_is_reported(place: Place) -> None:
    findings = examine(place, PIXYPROXY_MAX_UPLOAD_BYTES=str(2**60))
    assert failing(findings) == ["data folder"]
    assert "PIXYPROXY_MAX_UPLOAD_BYTES" in findings["data folder"]["message"]
    assert [path.name for path in place.folder.glob("var/spool/*")] == []


def test_mistyped_variable_is_reported_with_a_suggestion(place: Place) -> None:
    findings = examine(place, PIXYPROXY_IMAGE_PER_MINUTE="5")
    assert failing(findings) == ["settings"]
    told = "PIXYPROXY_IMAGE_PER_MINUTE: unknown setting; did you mean PIXYPROXY_IMAGES_PER_MINUTE?"
    assert findings["settings"]["message"] == told
    refused = place.fail("tenant", "list", PIXYPROXY_IMAGE_PER_MINUTE="5")
    assert told in refused


def test_mistyped_variable_in_the_env_file_is_reported(place: Place) -> None:
    (place.folder / ".env").write_text("PIXYPROXY_IMAGE_PER_MINUTE=5\n")
    assert failing(examine(place)) == ["settings"]


def test_invalid_setting_is_named_without_its_value(place: Place) -> None:
    findings = examine(place, PIXYPROXY_MAX_BODY_BYTES="hunter2")
    assert failing(findings) == ["settings"]
    assert "MAX_BODY_BYTES" in findings["settings"]["message"]
    assert "hunter2" not in str(findings)


def test_upstream_check_buys_nothing(place: Place) -> None:
    with FakeUpstream() as upstream:
        settings = make_settings(place.folder, **upstream_settings(upstream))
        Place(place.folder, settings).run("doctor", "--json")
        assert all(request.method == "GET" for request in upstream.requests)
        assert upstream.requests


def test_setting_with_invalid_json_is_reported(place: Place) -> None:
    findings = examine(place, PIXYPROXY_TRUSTED_ISSUERS="nonsense")
    assert failing(findings) == ["settings"]
    message = findings["settings"]["message"]
    assert message.startswith("PIXYPROXY_TRUSTED_ISSUERS: ")
    assert "line 1, column 1" in message
    assert "docs/how-to/trust-an-issuer.md" in message


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('[{"name": "hunter2", }]', "PIXYPROXY_UPSTREAMS: is not valid JSON"),
        ('[{"name": "a", "base_url": "http://x/v1", "api_key": ""}]', "PIXYPROXY_UPSTREAMS at 0.api_key: "),
        ('[{"name": "hunter2 "}]', "PIXYPROXY_UPSTREAMS at 0.name: "),
    ],
)
def test_invalid_upstreams_setting_is_reported(value: str, problem: str, place: Place) -> None:
    findings = examine(place, PIXYPROXY_UPSTREAMS=value)
    assert failing(findings) == ["settings"]
    assert findings["settings"]["message"].startswith(problem)
    assert "docs/how-to/configure-an-upstream.md" in findings["settings"]["message"]
    assert "hunter2" not in str(findings)


def test_each_upstream_is_checked_by_name(place: Place) -> None:
    with FakeUpstream() as upstream, refusing_base_url() as refusing:
        listed = [
            {"name": "good", "base_url": upstream.base_url, "api_key": upstream.api_key, "models": ["gpt-image-2.5-*"]},
            {"name": "gone", "base_url": refusing, "api_key": "hunter2"},
        ]
        findings = examine(place, PIXYPROXY_UPSTREAMS=json.dumps(listed))
    assert failing(findings) == ["upstream gone"]
    assert findings["upstream good"]["message"] == "127.0.0.1, gpt-image-2.5-*: available, lists 2 models"
    assert findings["upstream gone"]["message"].startswith("127.0.0.1, any model: ")
    assert upstream.api_key not in str(findings)
    assert "hunter2" not in str(findings)


def test_upstream_errors_are_reported_with_advice(place: Place) -> None:
    with FakeUpstream() as upstream:
        root = upstream.base_url.removesuffix("/v1")
        listed = [
            {"name": "path", "base_url": f"{root}/elsewhere", "api_key": upstream.api_key},
            {"name": "key", "base_url": upstream.base_url, "api_key": "hunter2"},
        ]
        findings = examine(place, PIXYPROXY_UPSTREAMS=json.dumps(listed))
    assert "Check the path of its base URL; it is usually /v1." in findings["upstream path"]["message"]
    assert findings["upstream key"]["message"].endswith("The upstream rejected its API key. Check the key.")


def test_duplicate_upstream_name_is_reported(place: Place) -> None:
    with FakeUpstream() as upstream:
        one = {"name": "twin", "base_url": upstream.base_url, "api_key": upstream.api_key}
        findings = examine(place, PIXYPROXY_UPSTREAMS=json.dumps([one, one]))
    assert failing(findings) == ["settings"]
    assert "PIXYPROXY_UPSTREAMS: every upstream needs a unique name" in findings["settings"]["message"]


def test_hanging_upstream_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for name in [name for name in os.environ if name.startswith("PIXYPROXY_")]:
            monkeypatch.delenv(name)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("OPENAI_API_KEY", "hunter2")
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
        found = asyncio.run(examine_here(limits=_count_alone, answer_seconds=0.2))
        findings = {finding.subject: finding for finding in found}
    assert not findings["upstream"].ok
    assert findings["upstream"].message == "127.0.0.1, any model: The upstream did not list its models within 0.2 s."


def test_invalid_signing_keys_are_reported(place: Place) -> None:
    findings = examine(place, PIXYPROXY_SIGNING_KEYS="hunter2")
    assert failing(findings) == ["signing keys"]
    assert "EC P-256" in findings["signing keys"]["message"]
    assert "hunter2" not in str(findings)


async def _count_alone(_: Settings) -> str:
    return "each process counts for itself"


def test_unreachable_redis_is_reported(place: Place, redis: RedisServer) -> None:
    assert failing(examine(place, PIXYPROXY_REDIS_URL=redis.url)) == []
    redis.kill()
    findings = examine(place, PIXYPROXY_REDIS_URL=redis.url)
    assert failing(findings) == ["limits"]
    assert "Cannot connect to Redis" in findings["limits"]["message"]
    assert PASSWORD not in str(findings)


def test_processes_without_shared_limits_are_reported(place: Place) -> None:
    with serving(place.settings) as one:
        wait_until(lambda: len(one.call(lambda services: list_serving(services.database))) == 1)
        findings = examine(place)
        assert failing(findings) == []
        assert findings["processes"]["message"] == f"serving now: {socket.gethostname()} pid {os.getpid()}"
        with serving(place.settings):
            wait_until(lambda: len(one.call(lambda services: list_serving(services.database))) == 2)
            findings = examine(place)
            assert failing(findings) == ["processes"]
            assert "2 processes serve requests, 2 of them without Redis" in findings["processes"]["message"]
            assert "PIXYPROXY_REDIS_URL" in findings["processes"]["message"]
    assert examine(place)["processes"]["message"] == "none is serving now"


def test_missing_picture_files_are_reported(place: Place) -> None:
    with serving(place.settings) as server:
        tenant = server.new_tenant("t")
        with tenant.http as client:
            made = [client.post("/image", json={"prompt": "a fox"}).json()["guid"] for _ in range(3)]
    assert examine(place)["pictures"]["message"] == "all 3 sampled images have their files"
    (lost,) = place.settings.images.rglob(f"{made[1]}.*")
    lost.unlink()
    findings = examine(place)
    assert failing(findings) == ["pictures"]
    assert f"1 of 3 have no file in {place.settings.images}, for example {made[1]}." in findings["pictures"]["message"]
