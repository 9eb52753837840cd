"""``pixyproxy bootstrap``, ``migrate`` and ``tenant``."""

import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from pixyproxy.core.models.principal import Scope
from tests.cli.conftest import Place
from tests.support.process import PROGRAM, environment_of
from tests.support.upstream import refusing_base_url

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


def test_bootstrap_issues_a_new_key_if_all_administrator_keys_are_revoked(place: Place) -> None:
    first = place.load("bootstrap")
    (key,) = place.load("key", "list")
    assert sorted(key["scopes"]) == sorted(Scope)
    place.succeed("key", "revoke", key["guid"])
    second = place.load("bootstrap")
    assert second["tenant"] == first["tenant"]
    assert API_KEY.fullmatch(second["api_key"])
    assert second["api_key"] != first["api_key"]


def test_bootstrap_prints_a_hint_to_store_the_key(place: Place) -> None:
    assert re.search(r"API key: pxy_\w+\nStore the key now", place.succeed("bootstrap"))


def test_tenants_are_created_listed_and_changed(any_place: Place) -> None:
    limits = ("--images-per-minute", "7", "--monthly-budget-usd", "12.5", "--model", "gpt-image-2", "--model", "x/y")
    made = any_place.load("tenant", "create", "ümläut 🦊 & co", "--visibility", "private", *limits)
    assert made == {
        "guid": made["guid"],
        "name": "ümläut 🦊 & co",
        "status": "active",
        "default_visibility": "private",
        "images_per_minute": 7,
        "monthly_budget_usd": 12.5,
        "allowed_models": ["gpt-image-2", "x/y"],
        "created_at": made["created_at"],
    }
    any_place.succeed("tenant", "create", "second")
    gone = ("--unset", "images_per_minute", "--unset", "monthly_budget_usd", "--unset", "allowed_models")
    renamed = ("--name", "umlaut", "--status", "suspended", "--visibility", "public")
    changed = any_place.load("tenant", "update", "ümläut 🦊 & co", *renamed, *gone)
    unset = {"images_per_minute": None, "monthly_budget_usd": None, "allowed_models": None}
    told = {"name": "umlaut", "status": "suspended", "default_visibility": "public"}
    assert changed == made | told | unset
    assert any_place.load("tenant", "update", made["guid"], "--status", "active") == changed | {"status": "active"}
    assert [tenant["name"] for tenant in any_place.load("tenant", "list")] == ["umlaut", "second"]
    table = any_place.succeed("tenant", "list")
    assert len(table.splitlines()) == 3
    assert made["guid"] in table


def test_tenant_update_keeps_settings_that_are_not_given(place: Place) -> None:
    made = place.load("tenant", "create", "acme", "--images-per-minute", "7", "--monthly-budget-usd", "0.000001")
    changed = place.load("tenant", "update", "acme", "--model", "gpt-image-2")
    assert changed == made | {"allowed_models": ["gpt-image-2"]}


def test_duplicate_tenant_name_is_rejected(place: Place) -> None:
    place.succeed("tenant", "create", "acme")
    place.succeed("tenant", "create", "second")
    taken = "A tenant with this name already exists. Choose another name.\n"
    assert place.fail("tenant", "create", "acme") == taken
    assert place.fail("tenant", "update", "second", "--name", "acme") == taken


@pytest.mark.parametrize("name", ["   ", "a" * 256, "two\nlines"])
def test_invalid_tenant_name_is_rejected(name: str, place: Place) -> None:
    (line,) = place.fail("tenant", "create", name).splitlines()
    assert line.startswith("name: ")
    assert not place.load("tenant", "list")


def test_table_prints_markup_in_names_literally(place: Place) -> None:
    name = f"[bold]red[/bold] [/] {'x' * 200}"
    place.succeed("tenant", "create", name)
    assert name in place.succeed("tenant", "list")


def test_tenant_is_deleted_after_confirmation(place: Place) -> None:
    for name in ("acme", "second", "third"):
        place.succeed("tenant", "create", name)
    refused = place.run("tenant", "delete", "acme", typed="n\n")
    assert (refused.returncode, "acme" in refused.stdout) == (1, True)
    assert place.run("tenant", "delete", "acme").returncode == 1
    assert len(place.load("tenant", "list")) == 3
    assert place.succeed("tenant", "delete", "acme", typed="y\n").endswith("Tenant deleted.\n")
    assert place.succeed("tenant", "delete", "second", "--yes") == "Tenant deleted.\n"
    assert [tenant["name"] for tenant in place.load("tenant", "list")] == ["third"]
    # The name is free again.
    place.succeed("tenant", "create", "acme")


@pytest.mark.parametrize(
    "command",
    ["tenant update", "tenant delete --yes", "key list --tenant", "user list --tenant", "token issue --tenant"],
)
def test_unknown_tenant_is_rejected(command: str, place: Place) -> None:
    assert place.fail(*command.split(), "nobody") == "There is no such tenant.\n"


def test_migrate_is_idempotent(place: Place) -> None:
    for _ in range(2):
        assert place.succeed("migrate").endswith("The database schema is up to date.\n")


@pytest.mark.parametrize("dialect", ["mysql", "sqlite"])
def test_migrate_prints_the_checked_in_schema(dialect: str, place: Place) -> None:
    assert place.succeed("migrate", "--sql", dialect) == (ROOT / "sql" / f"schema.{dialect}.sql").read_text()
    assert not place.settings.data_dir.exists()


def test_migrate_rejects_an_unknown_dialect(place: Place) -> None:
    assert place.fail("migrate", "--sql", "oracle") == "Invalid value for --sql. Use `mysql` or `sqlite`.\n"


COMMANDS = {
    "": "serve migrate bootstrap generate doctor tenant key user token keys audit --version",
    "tenant": "create list update delete",
    "key": "create list rotate revoke",
    "user": "create list update delete",
    "token": "issue",
    "keys": "rotate list",
    "audit": "list verify",
}


@pytest.mark.parametrize("group", COMMANDS)
def test_help_lists_every_command(group: str, place: Place) -> None:
    text = place.succeed(*group.split(), "--help", COLUMNS="200")
    listed = re.findall(r"^[ │]*(--version|[a-z]+)\b", text, re.MULTILINE)
    assert set(COMMANDS[group].split()) <= set(listed)
    assert not place.settings.data_dir.exists()


def test_version_is_the_package_version(place: Place) -> None:
    assert place.succeed("--version") == f"{version('pixyproxy')}\n"


def modules_of(place: Place, *arguments: str) -> set[str]:
    """Return the modules that the installed program loads for a command."""
    environment = environment_of(place.settings) | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        [PROGRAM, *arguments], cwd=place.folder, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("arguments", ["--version", "tenant list", "audit verify"])
def test_commands_do_not_load_the_web_framework(arguments: str, place: Place) -> None:
    """FastAPI takes longer to load than a command takes to run."""
    loaded = modules_of(place, *arguments.split())
    assert "typer" in loaded
    assert not loaded & {"fastapi", "starlette", "slowapi", "uvicorn", "openai"}


def test_generate_does_not_load_the_database(place: Place) -> None:
    loaded = modules_of(place, "generate", "--help")
    assert "pixyproxy.cli.program" in loaded
    assert not loaded & {"sqlalchemy", "mysql.connector", "jose", "passlib", "fastapi"}


@pytest.mark.parametrize(
    "command",
    [
        "tenant update acme --status deleting",
        "key create x --scope all",
        "user create ann --role god",
        "tenant nonsense",
    ],
)
def test_invalid_argument_is_reported(command: str, place: Place) -> None:
    done = place.run(*command.split())
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage: pixyproxy" in done.stderr
    assert not place.settings.data_dir.exists()


@pytest.mark.parametrize("command", ["bootstrap", "tenant list", "user list", "audit verify"])
def test_unusable_database_or_folder_is_reported_in_one_sentence(command: str, place: Place) -> None:
    with refusing_base_url() as url:
        port = url.split(":")[2].removesuffix("/v1")
        database = f"mysql://user:hunter2@127.0.0.1:{port}/x"
        errors = place.fail(*command.split(), PIXYPROXY_DATABASE_URL=database)
    assert errors.splitlines()[-1].startswith(f"The database at 127.0.0.1:{port} cannot be reached")
    assert "hunter2" not in errors
    (place.folder / "file").write_text("no folder")
    errors = place.fail(*command.split(), PIXYPROXY_DATA_DIR=str(place.folder / "file" / "below"))
    assert errors.splitlines()[-1] == f"Not a directory: {place.folder / 'file' / 'below'}"
