"""The ``signing_keys`` and ``installation`` tables."""

from datetime import UTC, datetime, timedelta, timezone

from pixyproxy.core.models.signing_key import Installation, StoredSigningKey
from pixyproxy.data.database import Repositories

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
INSTALLATION = Installation(secret_salt="ab" * 16, secret_verifier="cd" * 32, keys_revision=0)


def key(kid: str, retires_at: datetime | None = None) -> StoredSigningKey:
    return StoredSigningKey(kid=kid, sealed_pem=f"sealed {kid}", signs_from=AT, retires_at=retires_at)


def stored(data: Repositories) -> dict[str, StoredSigningKey]:
    return {each.kid: each for each in data.signing_keys.list_all()}


def test_keys_round_trip(data: Repositories) -> None:
    keys = [key("a"), key("b", AT + SECOND), key("A", datetime(2038, 1, 20, tzinfo=UTC))]
    for each in keys:
        data.signing_keys.insert(each)
    assert stored(data) == {each.kid: each for each in keys}


def test_time_of_another_zone_is_the_same_moment(data: Repositories) -> None:
    elsewhere = datetime(2026, 11, 21, 13, tzinfo=timezone(timedelta(hours=1)))
    data.signing_keys.insert(StoredSigningKey(kid="a", sealed_pem="x", signs_from=elsewhere, retires_at=None))
    assert stored(data)["a"].signs_from == AT


def test_replace_sealed_changes_only_that_key(data: Repositories) -> None:
    for kid in ("a", "b"):
        data.signing_keys.insert(key(kid))
    data.signing_keys.replace_sealed(key("a").model_copy(update={"sealed_pem": "new"}))
    assert {kid: each.sealed_pem for kid, each in stored(data).items()} == {"a": "new", "b": "sealed b"}


def test_retire_affects_only_keys_without_a_retirement(data: Repositories) -> None:
    data.signing_keys.insert(key("a", AT))
    data.signing_keys.insert(key("b"))
    data.signing_keys.retire(at=AT + SECOND)
    assert {kid: each.retires_at for kid, each in stored(data).items()} == {"a": AT, "b": AT + SECOND}


def test_retire_all_retires_every_key_at_the_latest_then(data: Repositories) -> None:
    for each in (key("a", AT - SECOND), key("b", AT + SECOND), key("c")):
        data.signing_keys.insert(each)
    data.signing_keys.retire_all(at=AT)
    assert {kid: each.retires_at for kid, each in stored(data).items()} == {"a": AT - SECOND, "b": AT, "c": AT}


def test_private_halves_are_erased_on_retirement(data: Repositories) -> None:
    for each in (key("a", AT), key("b", AT + SECOND), key("c")):
        data.signing_keys.insert(each)
    data.signing_keys.erase_retired(at=AT)
    assert {kid: each.sealed_pem for kid, each in stored(data).items()} == {
        "a": None,
        "b": "sealed b",
        "c": "sealed c",
    }


def test_only_one_installation_can_be_created(data: Repositories) -> None:
    assert data.signing_keys.installation() is None
    assert data.signing_keys.create_installation(INSTALLATION)
    assert not data.signing_keys.create_installation(INSTALLATION.model_copy(update={"secret_verifier": "ef" * 32}))
    assert data.signing_keys.installation() == INSTALLATION


def test_lock_counts_changes_and_checks_the_verifier(data: Repositories) -> None:
    assert not data.signing_keys.lock(INSTALLATION.secret_verifier)
    data.signing_keys.create_installation(INSTALLATION)
    assert data.signing_keys.lock(INSTALLATION.secret_verifier)
    assert not data.signing_keys.lock("ef" * 32)
    assert data.signing_keys.installation() == INSTALLATION.model_copy(update={"keys_revision": 1})


def test_change_secret_replaces_salt_and_verifier(data: Repositories) -> None:
    data.signing_keys.create_installation(INSTALLATION)
    data.signing_keys.change_secret(salt="12" * 16, verifier="34" * 32)
    assert data.signing_keys.installation() == Installation(
        secret_salt="12" * 16, secret_verifier="34" * 32, keys_revision=0
    )
