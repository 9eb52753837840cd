"""The file in which earlier releases stored signing keys."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.core.models.signing_key import SigningKey
from pixyproxy.core.models.token import LONGEST_TOKEN_SECONDS
from pixyproxy.data.files.former_signing_keys import FormerSigningKeys
from tests.support.keys import write_former_file

SIGNS_FROM = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER = SIGNS_FROM + timedelta(days=1)


def key(kid: str, signs_from: datetime = SIGNS_FROM) -> SigningKey:
    return SigningKey(kid=kid, private_pem=SecretStr(f"-----{kid}-----\n"), signs_from=signs_from)


@pytest.fixture
def file(tmp_path: Path) -> FormerSigningKeys:
    """Return the file of a data folder, with two keys."""
    write_former_file(tmp_path / "var", [key("a"), key("b", LATER)])
    return FormerSigningKeys(tmp_path / "var")


def test_absent_file_has_no_keys(tmp_path: Path) -> None:
    assert FormerSigningKeys(tmp_path / "var").load() == ()
    assert not (tmp_path / "var").exists()


def test_each_key_is_retired_by_its_successor(file: FormerSigningKeys) -> None:
    end = LATER + timedelta(seconds=LONGEST_TOKEN_SECONDS)
    assert file.load() == (key("a").model_copy(update={"retires_at": end}), key("b", LATER))


def test_remove_leaves_no_files(file: FormerSigningKeys) -> None:
    file.remove()
    assert list(file.folder.iterdir()) == []
    assert file.load() == ()
    file.remove()


def test_file_that_cannot_be_removed_is_named(file: FormerSigningKeys) -> None:
    file.path.unlink()
    (file.path / "in the way").mkdir(parents=True)
    with pytest.raises(ConfigurationException, match="now in the database, but the file cannot be removed"):
        file.remove()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644, 0o666])
def test_file_accessible_to_others_is_rejected(file: FormerSigningKeys, mode: int) -> None:
    file.path.chmod(mode)
    with pytest.raises(ConfigurationException, match="chmod 600"):
        file.load()
    file.path.chmod(0o600)
    assert [each.kid for each in file.load()] == ["a", "b"]


BROKEN = {
    "empty": b"",
    "no JSON": b"-----BEGIN PRIVATE KEY-----",
    "cut off": b'{"keys": [{"kid": "a", "private_p',
    "no UTF-8": b"\xff\xfe",
    "a list": b"[]",
    "no keys": b'{"keys": []}',
    "keys null": b'{"keys": null}',
    "a key without a key": b'{"keys": [{"kid": "secret", "signs_from": "2026-11-21T12:00:00+00:00"}]}',
    "a time without a zone": b'{"keys": [{"kid": "secret", "private_pem": "x", "signs_from": "2026-11-21T12:00:00"}]}',
    "more than keys": b'{"keys": [], "secret": 1}',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_file_is_named_but_not_quoted(file: FormerSigningKeys, content: bytes) -> None:
    file.path.write_bytes(content)
    with pytest.raises(ConfigurationException, match="is not a valid file") as refusal:
        file.load()
    assert str(file.path) in refusal.value.message
    assert "secret" not in refusal.value.message


def test_folder_in_place_of_the_file_is_rejected(file: FormerSigningKeys) -> None:
    file.path.unlink()
    file.path.mkdir()
    with pytest.raises(ConfigurationException, match="is not a valid file"):
        file.load()
