"""``pixyproxy key`` and ``pixyproxy user``."""

import asyncio
import os
import re
import subprocess
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from pixyproxy.core.models.api_key import NewApiKey
from pixyproxy.service.composition import Services, open_services
from pixyproxy.service.cursors import MOST_LISTED
from pixyproxy.service.private.identity.tenants import command_grantor
from tests.cli.conftest import Place
from tests.support.process import PROGRAM, environment_of
from tests.support.server import ACTOR

API_KEY = re.compile(r"pxy_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}")
PASSWORD = "correct horse battery staple"


def seconds_from_now(moment: str) -> float:
    """Return how far in the future a printed time lies."""
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


def test_keys_are_created_listed_and_revoked(place: Place) -> None:
    place.succeed("tenant", "create", "acme")
    scopes = ("--scope", "image:generate", "--scope", "image:read")
    limits = ("--expires-in-days", "90", "--model", "gpt-image-2", "--images-per-minute", "3")
    made = place.load("key", "create", "website", "--tenant", "acme", *scopes, *limits)
    assert API_KEY.fullmatch(made["api_key"])
    assert made["scopes"] == ["image:generate", "image:read"]
    assert (made["allowed_models"], made["images_per_minute"]) == (["gpt-image-2"], 3)
    assert 0 < timedelta(days=90).total_seconds() - seconds_from_now(made["expires_at"]) < 60
    (listed,) = place.load("key", "list", "--tenant", "acme")
    assert listed == {name: value for name, value in made.items() if name != "api_key"}
    assert made["api_key"].split("_")[2] not in place.succeed("key", "list", "--tenant", "acme")
    assert place.succeed("key", "revoke", made["guid"].upper(), "--tenant", "acme") == "Key revoked.\n"
    (listed,) = place.load("key", "list", "--tenant", "acme")
    assert listed["revoked_at"] is not None
    refused = place.fail("key", "rotate", made["guid"], "--tenant", "acme")
    assert refused == "This API key is revoked or expired. Create a new one.\n"


def test_key_without_scopes_gets_the_default_scopes(place: Place) -> None:
    place.succeed("bootstrap")
    shown = place.succeed("key", "create", "website")
    assert re.search(r"GUID: .*\nAPI key: pxy_\w+\nStore the key now", shown)
    administrator, made = place.load("key", "list")
    assert made["scopes"] == ["image:generate", "image:manage", "image:read"]
    assert (made["expires_at"], made["allowed_models"], made["images_per_minute"]) == (None, None, None)
    assert administrator["scopes"] == sorted(administrator["scopes"])


def test_rotated_key_keeps_its_id_and_its_former_secret_for_the_grace_period(place: Place) -> None:
    place.succeed("bootstrap")
    made = place.load("key", "create", "website")
    rotated = place.load("key", "rotate", made["guid"].upper())
    assert (rotated["guid"], rotated["key_id"]) == (made["guid"], made["key_id"])
    assert API_KEY.fullmatch(rotated["api_key"])
    assert rotated["api_key"] != made["api_key"]
    assert 0 <= 86_400 - seconds_from_now(rotated["former_secret_until"]) < 60
    again = place.load("key", "rotate", made["guid"], "--grace-seconds", "0")
    assert seconds_from_now(again["former_secret_until"]) <= 0
    assert place.fail("key", "rotate", made["guid"], "--grace-seconds", "2592001").startswith("grace_seconds: ")
    secrets = [key["api_key"].split("_")[2] for key in (made, rotated, again)]
    told = place.succeed("key", "list", "--json") + place.succeed("audit", "list", "--json")
    assert not [secret for secret in secrets if secret in told]


def test_key_of_another_tenant_cannot_be_rotated_or_revoked(place: Place) -> None:
    place.succeed("bootstrap")
    place.succeed("tenant", "create", "other")
    (key,) = place.load("key", "list")
    for command in ("revoke", "rotate"):
        assert place.fail("key", command, key["guid"], "--tenant", "other") == "There is no such API key.\n"
    assert place.load("key", "list") == [key]


@pytest.mark.parametrize(
    ("options", "named"), [(("--model", "no such\nmodel"), "allowed_models"), (("--tenant", "nobody"), "tenant")]
)
def test_invalid_key_options_are_rejected(options: tuple[str, ...], named: str, place: Place) -> None:
    place.succeed("bootstrap")
    (line,) = place.fail("key", "create", "x", *options).splitlines()
    assert named in line
    assert len(place.load("key", "list")) == 1


def test_users_are_created_listed_changed_and_deleted(place: Place) -> None:
    place.succeed("tenant", "create", "acme")
    made = place.load("user", "create", "Ann@Example.org", "--tenant", "acme", typed=f"{PASSWORD}\n")
    assert made == {
        "guid": made["guid"],
        "username": "ann@example.org",
        "role": "member",
        "status": "active",
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
        "last_sign_in_at": None,
    }
    changes = ("--role", "tenant_admin", "--status", "disabled", "--password")
    changed = place.load("user", "update", made["guid"].upper(), "--tenant", "acme", *changes, typed="another one!")
    told = {"role": "tenant_admin", "status": "disabled", "updated_at": changed["updated_at"]}
    assert changed == made | told
    assert place.load("user", "list", "--tenant", "acme") == [changed]
    table = place.succeed("user", "list", "--tenant", "acme")
    assert "ann@example.org" in table
    assert "argon2" not in table
    assert place.succeed("user", "delete", made["guid"], "--tenant", "acme") == "User deleted.\n"
    assert place.load("user", "list", "--tenant", "acme") == []


def test_password_is_neither_printed_nor_stored_in_plain_text(place: Place) -> None:
    place.succeed("bootstrap")
    done = place.run("user", "create", "ann", typed=f"{PASSWORD}\r\n")
    assert done.returncode == 0
    assert PASSWORD not in done.stdout + done.stderr + place.succeed("audit", "list", "--json")
    database = place.settings.data_dir / "pixyproxy.db"
    written = [file for file in place.settings.data_dir.rglob("*") if file.is_file()]
    assert database in written
    assert [file for file in written if PASSWORD.encode() in file.read_bytes()] == []


@pytest.mark.parametrize("typed", ["", "\n", "eleven char\n", f"{'x' * 257}\n"])
def test_password_of_invalid_length_is_rejected(typed: str, place: Place) -> None:
    place.succeed("bootstrap")
    (line,) = place.fail("user", "create", "ann", typed=typed).splitlines()
    assert line.startswith("password: ")
    assert "eleven" not in line
    assert place.load("user", "list") == []


def test_user_name_is_unique_across_tenants(place: Place) -> None:
    for tenant in ("acme", "other"):
        place.succeed("tenant", "create", tenant)
    made = place.load("user", "create", "ann", "--tenant", "acme", typed=PASSWORD)
    taken = place.fail("user", "create", "ANN", "--tenant", "other", typed=PASSWORD)
    assert taken == "This user name is taken. Choose another.\n"
    assert place.fail("user", "create", "no name", "--tenant", "acme", typed=PASSWORD).startswith("username: ")
    assert place.load("user", "list", "--tenant", "acme") == [made]


def test_user_of_another_tenant_cannot_be_changed_or_deleted(place: Place) -> None:
    place.succeed("bootstrap")
    place.succeed("tenant", "create", "other")
    made = place.load("user", "create", "ann", typed=PASSWORD)
    for command in (("update", made["guid"], "--role", "operator"), ("delete", made["guid"])):
        assert place.fail("user", *command, "--tenant", "other") == "There is no such user.\n"
    assert place.load("user", "list") == [made]


def test_typed_password_is_confirmed_and_not_echoed(place: Place) -> None:
    place.succeed("bootstrap")
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [PROGRAM, "user", "create", "ann"],
        cwd=place.folder,
        env=environment_of(place.settings),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        # Without a controlling terminal, the program uses the standard streams it was given.
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = _read_until(ours, b"Password: ")
        os.write(ours, f"{PASSWORD}\n".encode())
        shown += _read_until(ours, b": ")
        os.write(ours, f"{PASSWORD}\n".encode())
        shown += _read_until(ours, None)
    os.close(ours)
    assert process.returncode == 0
    assert PASSWORD.encode() not in shown
    (user,) = place.load("user", "list")
    assert user["username"] == "ann"


def _read_until(terminal: int, text: bytes | None) -> bytes:
    """Return what a program writes to its terminal, up to this text or to the end."""
    shown = b""
    while text is None or text not in shown:
        try:
            shown += os.read(terminal, 1024)
        except OSError:  # Linux's error when the other end is closed
            break
    return shown


def test_list_shows_all_pages(place: Place) -> None:
    place.succeed("bootstrap")

    async def issue(services: Services) -> None:
        grantor = command_grantor(await services.tenants.require_tenant("default"), ACTOR)
        for number in range(MOST_LISTED):
            await services.api_keys.issue_key(NewApiKey(name=f"key {number}"), grantor=grantor)

    asyncio.run(_with_services(place, issue))
    names = [key["name"] for key in place.load("key", "list")]
    assert names[1:] == [f"key {number}" for number in range(MOST_LISTED)]


async def _with_services(place: Place, work: Callable[[Services], Awaitable[None]]) -> None:
    async with open_services(place.settings) as services:
        await work(services)
