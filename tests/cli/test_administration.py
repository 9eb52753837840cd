"""bootstrap, tenant, key, migrate: administration from a shell."""

import re
from pathlib import Path

import pytest

from pixyproxy.core.models.tenant import Scope
from tests.cli.conftest import Place

GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
API_KEY = re.compile(r"pxy_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}")
ROOT = Path(__file__).parents[2]


def test_bootstrap_shows_a_key_once(any_place: Place) -> None:
    first = any_place.load("bootstrap")
    assert first.keys() == {"tenant", "api_key"}
    assert GUID.fullmatch(first["tenant"])
    assert API_KEY.fullmatch(first["api_key"])
    assert any_place.load("bootstrap") == {"tenant": first["tenant"], "api_key": None}
    assert "already" in any_place.succeed("bootstrap")
    assert len(any_place.load("tenant", "list")) == 1


def test_bootstrap_gives_a_new_key_when_every_administrators_key_is_revoked(place: Place) -> None:
    first = place.load("bootstrap")
    (key,) = place.load("key", "list")
    assert sorted(key["scopes"]) == sorted(Scope)
    place.succeed("key", "revoke", key["guid"])
    second = place.load("bootstrap")
    assert second["tenant"] == first["tenant"]
    assert API_KEY.fullmatch(second["api_key"])
    assert second["api_key"] != first["api_key"]


def test_bootstrap_tells_people_to_keep_the_key(place: Place) -> None:
    assert re.search(r"API key: pxy_\w+\nKeep the key now", place.succeed("bootstrap"))


def test_tenants_are_created_and_listed(place: Place) -> None:
    made = place.load("tenant", "create", "ümläut 🦊 & co", "--visibility", "private")
    assert made.keys() == {"guid", "name", "default_visibility", "created_at"}
    assert (made["name"], made["default_visibility"]) == ("ümläut 🦊 & co", "private")
    place.succeed("tenant", "create", "second")
    assert [tenant["name"] for tenant in place.load("tenant", "list")] == ["ümläut 🦊 & co", "second"]
    table = place.succeed("tenant", "list")
    assert len(table.splitlines()) == 3
    assert made["guid"] in table


def test_a_tenant_that_exists_is_not_made_again(place: Place) -> None:
    place.succeed("tenant", "create", "acme")
    assert place.fail("tenant", "create", "acme") == ("A tenant of this name exists already. Choose another name.\n")


@pytest.mark.parametrize("name", ["   ", "a" * 256])
def test_a_tenant_needs_a_name_of_sensible_length(name: str, place: Place) -> None:
    assert place.fail("tenant", "create", name) == "A tenant's name has 1 to 255 characters.\n"


def test_a_table_is_not_broken_by_what_is_in_it(place: Place) -> None:
    name = f"[bold]red[/bold] [/] {'x' * 200}"
    place.succeed("tenant", "create", name)
    assert name in place.succeed("tenant", "list")


def test_keys_are_created_listed_and_revoked(any_place: Place) -> None:
    any_place.succeed("tenant", "create", "acme")
    scopes = ("--scope", "image:generate", "--scope", "image:read")
    made = any_place.load("key", "create", "website", "--tenant", "acme", *scopes, "--expires-in-days", "90")
    assert API_KEY.fullmatch(made["api_key"])
    assert sorted(made["scopes"]) == ["image:generate", "image:read"]
    (listed,) = any_place.load("key", "list", "--tenant", "acme")
    assert (listed["guid"], listed["name"], listed["revoked_at"]) == (made["guid"], "website", None)
    assert listed["expires_at"] == made["expires_at"]
    assert "secret_sha256" not in listed
    assert made["api_key"].split("_")[2] not in any_place.succeed("key", "list", "--tenant", "acme")
    assert any_place.succeed("key", "revoke", made["guid"].upper(), "--tenant", "acme") == "The key is revoked.\n"
    (listed,) = any_place.load("key", "list", "--tenant", "acme")
    assert listed["revoked_at"] is not None


def test_the_scopes_of_a_key_come_in_one_order(place: Place) -> None:
    place.succeed("bootstrap")
    (key,) = place.load("key", "list")
    assert key["scopes"] == sorted(key["scopes"])


def test_a_key_without_scopes_named_is_for_images(place: Place) -> None:
    place.succeed("tenant", "create", "acme")
    made = place.load("key", "create", "website", "--tenant", "acme")
    assert sorted(made["scopes"]) == ["image:generate", "image:manage", "image:read"]


def test_a_key_of_another_tenant_is_not_revoked(place: Place) -> None:
    place.succeed("bootstrap")
    place.succeed("tenant", "create", "other")
    (key,) = place.load("key", "list")
    assert place.fail("key", "revoke", key["guid"], "--tenant", "other") == "There is no such API key.\n"
    assert [(left["guid"], left["revoked_at"]) for left in place.load("key", "list")] == [(key["guid"], None)]


def test_keys_of_a_tenant_that_does_not_exist(place: Place) -> None:
    assert place.fail("key", "create", "x", "--tenant", "nobody") == "There is no such tenant.\n"


def test_migrate_may_be_run_again(place: Place) -> None:
    for _ in range(2):
        assert place.succeed("migrate").endswith("The database schema is up to date.\n")


@pytest.mark.parametrize("dialect", ["mysql", "sqlite"])
def test_migrate_prints_the_schema_that_is_checked_in(dialect: str, place: Place) -> None:
    assert place.succeed("migrate", "--sql", dialect) == (ROOT / "sql" / f"schema.{dialect}.sql").read_text()
    assert not place.settings.data_dir.exists()


def test_migrate_knows_no_other_dialect(place: Place) -> None:
    assert place.fail("migrate", "--sql", "oracle") == "--sql takes `mysql` or `sqlite`.\n"
