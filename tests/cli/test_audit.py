"""``pixyproxy audit``: actions are listed, and alterations of the log are found."""

import json

import pytest
from sqlalchemy import text

from tests.cli.conftest import Place
from tests.support.databases import opened_engine

PASSWORD = "correct horse battery staple"


def alter(place: Place, statement: str) -> None:
    """Alter the log as someone with write access to the database would."""
    with (
        opened_engine(place.settings.effective_database_url.get_secret_value()) as engine,
        engine.begin() as connection,
    ):
        assert connection.execute(text(statement)).rowcount == 1


def test_actions_are_listed_newest_first_with_their_actor(place: Place) -> None:
    tenant = place.load("tenant", "create", "acme")
    key = place.load("key", "create", "website", "--tenant", "acme")
    user = place.load("user", "create", "ann", "--tenant", "acme", typed=PASSWORD)
    place.succeed("key", "revoke", key["guid"], "--tenant", "acme")
    entries = place.load("audit", "list")
    assert [(entry["sequence"], entry["action"], entry["target"]) for entry in entries] == [
        (4, "key.revoked", key["guid"]),
        (3, "user.created", user["guid"]),
        (2, "key.issued", key["guid"]),
        (1, "tenant.created", tenant["guid"]),
    ]
    assert {entry["actor_type"] for entry in entries} == {"command"}
    (actor,) = {entry["actor"] for entry in entries}
    assert place.load("audit", "list", "--action", "user.created", "--actor", actor) == [entries[1]]
    assert place.load("audit", "list", "--limit", "2") == entries[:2]
    assert place.load("audit", "list", "--actor", "nobody") == []
    table = place.succeed("audit", "list").splitlines()
    assert len(table) == 5
    assert "key.revoked" in table[1]


def test_unaltered_log_is_verified(place: Place) -> None:
    place.succeed("bootstrap")
    proven = place.load("audit", "verify")
    assert proven == {"entries": 2, "head_sha256": proven["head_sha256"], "problem": None}
    told = place.succeed("audit", "verify")
    assert told == f"All 2 entries are unaltered. Head: {proven['head_sha256']}\n"
    place.succeed("tenant", "create", "acme")
    assert place.load("audit", "verify")["head_sha256"] != proven["head_sha256"]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE audit_log SET actor = 'somebody else' WHERE sequence = 2", "entry 2 was changed"),
        ("DELETE FROM audit_log WHERE sequence = 1", "entry 1 is missing"),
        ("DELETE FROM audit_log WHERE sequence = 2", "entry 2 is missing"),
    ],
)
def test_altered_log_is_reported(statement: str, problem: str, place: Place) -> None:
    place.succeed("bootstrap")
    alter(place, statement)
    assert place.fail("audit", "verify") == f"The audit log was altered: {problem}.\n"
    done = place.run("audit", "verify", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["problem"] == problem
