"""The file of signing keys: private, whole, and the same for all processes."""

import json
import multiprocessing
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import SecretStr

from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.core.models.signing_key import SigningKey
from pixyproxy.data.signing_keys import SigningKeyFile

SIGNS_FROM = datetime(2026, 11, 21, 12, tzinfo=UTC)


def key(kid: str) -> SigningKey:
    return SigningKey(kid=kid, private_pem=SecretStr(f"-----{kid}-----\n"), signs_from=SIGNS_FROM)


def create_in(folder: Path, kid: str) -> str:
    """What a process that starts does; it stands at the top, because another process looks for it there."""
    return SigningKeyFile(folder).create_first(key(kid))[0].kid


def add_in(folder: Path, kid: str) -> None:
    SigningKeyFile(folder).replace(lambda present: (*present, key(kid)))


@pytest.fixture
def file(tmp_path: Path) -> SigningKeyFile:
    return SigningKeyFile(tmp_path / "var")


def test_where_there_is_no_file_there_are_no_keys(file: SigningKeyFile) -> None:
    assert file.load() is None
    assert file.version() is None


def test_keys_come_back_as_they_were(file: SigningKeyFile) -> None:
    keys = (key("a"), SigningKey(kid="b", private_pem=SecretStr("ü\n"), signs_from=SIGNS_FROM + timedelta(seconds=1)))
    file.replace(lambda _: keys)
    assert file.load() == keys


def test_a_time_of_another_zone_is_the_same_moment(file: SigningKeyFile) -> None:
    elsewhere = datetime(2026, 11, 21, 13, tzinfo=timezone(timedelta(hours=1)))
    file.create_first(SigningKey(kid="a", private_pem=SecretStr("x"), signs_from=elsewhere))
    assert file.load() == (SigningKey(kid="a", private_pem=SecretStr("x"), signs_from=SIGNS_FROM),)


def test_only_its_user_reads_the_file(file: SigningKeyFile) -> None:
    file.create_first(key("a"))
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.folder.stat().st_mode) == 0o700
    file.replace(lambda present: present)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_the_first_key_stays(file: SigningKeyFile) -> None:
    assert file.create_first(key("a")) == (key("a"),)
    assert file.create_first(key("b")) == (key("a"),)


def test_nothing_is_left_beside_the_file_and_its_lock(file: SigningKeyFile) -> None:
    file.create_first(key("a"))
    file.replace(lambda present: (*present, key("b")))
    assert sorted(path.name for path in file.folder.iterdir()) == [".signing_keys.lock", "signing_keys.json"]


def test_sixteen_threads_at_once_agree_on_one_key(file: SigningKeyFile) -> None:
    ready = threading.Barrier(16)

    def create(number: int) -> str:
        ready.wait(20)
        return create_in(file.folder, str(number))

    with ThreadPoolExecutor(16) as threads:
        assert len(set(threads.map(create, range(16)))) == 1


def test_processes_that_start_together_agree_on_one_key(file: SigningKeyFile) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as processes:
        first = processes.starmap(create_in, [(file.folder, str(number)) for number in range(8)], chunksize=1)
    assert len(set(first)) == 1


def test_processes_that_write_together_lose_no_key(file: SigningKeyFile) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as processes:
        processes.starmap(add_in, [(file.folder, str(number)) for number in range(24)], chunksize=1)
    assert {each.kid for each in file.load() or ()} == {str(number) for number in range(24)}


def test_a_change_that_fails_leaves_the_file_and_frees_the_lock(file: SigningKeyFile) -> None:
    file.create_first(key("a"))

    def fail(_: tuple[SigningKey, ...]) -> tuple[SigningKey, ...]:
        raise LookupError

    with pytest.raises(LookupError):
        file.replace(fail)
    assert file.load() == (key("a"),)
    assert file.replace(lambda present: (*present, key("b"))) == (key("a"), key("b"))


def test_every_write_and_every_chmod_is_another_version(file: SigningKeyFile) -> None:
    file.create_first(key("a"))
    first = file.version()
    assert file.version() == first
    file.replace(lambda present: present)
    second = file.version()
    file.path.chmod(0o640)
    assert len({first, second, file.version()}) == 3


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644, 0o666])
def test_a_file_that_others_may_use_is_refused(file: SigningKeyFile, mode: int) -> None:
    file.create_first(key("a"))
    file.path.chmod(mode)
    with pytest.raises(ConfigurationException, match="chmod 600"):
        file.load()
    file.path.chmod(0o600)
    assert file.load() == (key("a"),)


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
def test_a_broken_file_is_named_and_not_quoted(file: SigningKeyFile, content: bytes) -> None:
    file.create_first(key("a"))
    file.path.write_bytes(content)
    with pytest.raises(ConfigurationException, match="cannot be read") as refusal:
        file.load()
    assert str(file.path) in refusal.value.message
    assert "secret" not in refusal.value.message
    with pytest.raises(ConfigurationException):
        file.create_first(key("b"))
    assert file.path.read_bytes() == content


def test_a_folder_in_place_of_the_file_is_refused(file: SigningKeyFile) -> None:
    file.path.mkdir(parents=True)
    with pytest.raises(ConfigurationException, match="cannot be read"):
        file.load()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("in the way")
    with pytest.raises(ConfigurationException, match="cannot be"):
        SigningKeyFile(tmp_path / "var").create_first(key("a"))


def test_a_name_that_is_taken_by_a_folder_leaves_nothing_behind(file: SigningKeyFile) -> None:
    file.create_first(key("a"))
    file.path.unlink()

    def take_the_name(_: tuple[SigningKey, ...]) -> tuple[SigningKey, ...]:
        file.path.mkdir()
        return (key("b"),)

    with pytest.raises(ConfigurationException, match="cannot be written"):
        file.replace(take_the_name)
    assert sorted(path.name for path in file.folder.iterdir()) == [".signing_keys.lock", "signing_keys.json"]


def test_the_file_holds_json_that_an_operator_can_read(file: SigningKeyFile) -> None:
    file.create_first(key("a"))
    assert json.loads(file.path.read_text()) == {
        "keys": [{"kid": "a", "private_pem": "-----a-----\n", "signs_from": "2026-11-21T12:00:00+00:00"}]
    }
