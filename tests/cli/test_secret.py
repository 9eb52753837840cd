"""The installation's secret: a process with another one does not start, and `keys reseal` changes it."""

import json

import pytest

from tests.cli.conftest import Place
from tests.support.keys import write_former_file
from tests.support.server import make_settings, serving
from tests.support.tokens import KEY

FIRST = "the secret that the installation began with"
SECOND = "the secret that comes after the first one"
REFUSED = "This process has another secret than this installation. Set PIXYPROXY_SECRET_KEY to the secret of the other"


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("tenant", "list")])
def test_process_with_another_secret_does_not_start(command: tuple[str, ...], place: Place) -> None:
    place.succeed("keys", "list")
    (line,) = place.fail(*command, PIXYPROXY_SECRET_KEY=SECOND).splitlines()
    assert line.startswith(REFUSED)


def test_process_with_another_secret_does_not_start_with_keys_of_the_setting(place: Place) -> None:
    place.succeed("keys", "list")
    pem = KEY.private_pem.get_secret_value()
    assert place.fail("keys", "list", PIXYPROXY_SECRET_KEY=SECOND, PIXYPROXY_SIGNING_KEYS=pem).startswith(REFUSED)


def test_doctor_reports_another_secret(place: Place) -> None:
    place.succeed("keys", "list")
    findings = json.loads(place.run("doctor", "--json", PIXYPROXY_SECRET_KEY=SECOND).stdout)
    assert [finding["subject"] for finding in findings if not finding["ok"]] == ["signing keys"]
    (message,) = [finding["message"] for finding in findings if not finding["ok"]]
    assert message.startswith(REFUSED)


def test_reseal_changes_the_secret_and_keeps_the_keys(any_place: Place) -> None:
    place = any_place
    place.succeed("tenant", "create", "acme", PIXYPROXY_SECRET_KEY=FIRST)
    token = place.succeed("token", "issue", "--tenant", "acme", PIXYPROXY_SECRET_KEY=FIRST).strip()
    keys = place.succeed("keys", "list", PIXYPROXY_SECRET_KEY=FIRST)
    told = place.succeed("keys", "reseal", PIXYPROXY_SECRET_KEY=SECOND, PIXYPROXY_FORMER_SECRET_KEY=FIRST)
    assert told == "Secret changed. Restart every process with the new one.\n"
    assert place.fail("keys", "list", PIXYPROXY_SECRET_KEY=FIRST).startswith(REFUSED)
    assert place.succeed("keys", "list", PIXYPROXY_SECRET_KEY=SECOND) == keys
    settings = place.settings.model_copy(
        update={"secret_key": make_settings(place.folder, secret_key=SECOND).secret_key}
    )
    with serving(settings) as server, server.client(token) as client:
        assert client.get("/me").json()["tenant"]["name"] == "acme"
    (entry,) = place.load("audit", "list", "--action", "signing_keys.resealed", PIXYPROXY_SECRET_KEY=SECOND)
    assert entry["details"] == {"keys": "kept"}


def test_reseal_replaces_a_moved_secret_file_with_a_new_secret(place: Place) -> None:
    keys = place.succeed("keys", "list")
    secret = place.settings.data_dir / "secret_key"
    former = secret.rename(place.folder / "former")
    place.succeed("keys", "reseal", "--former-file", str(former))
    assert place.succeed("keys", "list") == keys
    assert secret.read_text() != former.read_text()


def test_reseal_without_the_former_secret_changes_nothing(place: Place) -> None:
    keys = place.succeed("keys", "list")
    refusals = [
        place.fail("keys", "reseal", PIXYPROXY_SECRET_KEY=SECOND),
        place.fail("keys", "reseal", PIXYPROXY_SECRET_KEY=SECOND, PIXYPROXY_FORMER_SECRET_KEY=FIRST),
        place.fail("keys", "reseal", "--former-file", "nowhere", PIXYPROXY_SECRET_KEY=SECOND),
    ]
    assert [refusal.splitlines() for refusal in refusals] == [
        ["Set PIXYPROXY_FORMER_SECRET_KEY, or pass --former-file. If the former secret is lost, pass --lost."],
        ["The former secret is not the secret of this installation. If it is lost, pass --lost."],
        ["No such file or directory: nowhere"],
    ]
    assert place.succeed("keys", "list") == keys


def test_reseal_with_a_lost_secret_replaces_the_keys(place: Place) -> None:
    keys = place.succeed("keys", "list")
    place.succeed("keys", "reseal", "--lost", PIXYPROXY_SECRET_KEY=SECOND)
    (key,) = place.succeed("keys", "list", PIXYPROXY_SECRET_KEY=SECOND).splitlines()
    assert key not in keys


def test_key_file_readable_by_others_is_refused(place: Place) -> None:
    file = write_former_file(place.settings.data_dir, [KEY])
    file.chmod(0o640)
    line = place.fail("serve", "--port", "0").splitlines()[-1]
    assert line == f"Other users may read {file}. Run `chmod 600 {file}`, then rotate the keys."
    file.chmod(0o600)
    assert place.succeed("keys", "list") == f"{KEY.kid}\n"
    assert not file.exists()
