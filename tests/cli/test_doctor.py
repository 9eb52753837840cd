"""``pixyproxy doctor``: what works, and what to mend where something does not."""

import json
from typing import Any

import pytest

from tests.cli.conftest import Place
from tests.support.server import make_settings, upstream_settings
from tests.support.upstream import FakeUpstream, refusing_base_url

SUBJECTS = ["settings", "data folder", "database", "picture store", "signing keys", "prices", "upstream"]


def examine(place: Place, **environment: str) -> dict[str, Any]:
    """The findings by subject; the exit code tells whether all is well."""
    done = place.run("doctor", "--json", **environment)
    findings = json.loads(done.stdout)
    assert done.returncode == (0 if all(finding["ok"] for finding in findings) else 1)
    return {finding["subject"]: finding for finding in findings}


def failing(findings: dict[str, Any]) -> list[str]:
    """The subjects that something is wrong with."""
    return [subject for subject, finding in findings.items() if not finding["ok"]]


def test_all_is_well_on_each_database(any_place: Place) -> None:
    findings = examine(any_place)
    assert list(findings) == SUBJECTS
    assert failing(findings) == []
    assert "offline" in findings["upstream"]["message"]


def test_people_get_a_line_for_each_subject(place: Place) -> None:
    lines = place.succeed("doctor").splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"ok    {subject}" for subject in SUBJECTS]


def test_a_database_that_cannot_be_reached(place: Place) -> None:
    with refusing_base_url() as url:
        port = url.split(":")[2].removesuffix("/v1")
        findings = examine(place, PIXYPROXY_DATABASE_URL=f"mysql://user:hunter2@127.0.0.1:{port}/pixyproxy")
    assert failing(findings) == ["database"]
    assert "hunter2" not in str(findings)


@pytest.mark.parametrize("url", ["postgres://x/y", "mysql:/x"])
def test_a_database_that_is_not_supported(url: str, place: Place) -> None:
    findings = examine(place, PIXYPROXY_DATABASE_URL=url)
    assert failing(findings) == ["settings"]
    assert "DATABASE_URL" in findings["settings"]["message"]


@pytest.mark.parametrize("url", ["mysql://h:port/x", "sqlite:////dev/null/x"])
def test_a_database_url_that_leads_nowhere(url: str, place: Place) -> None:
    findings = examine(place, PIXYPROXY_DATABASE_URL=url)
    assert failing(findings) in (["database"], ["settings"])


def test_an_upstream_that_cannot_be_reached(place: Place) -> None:
    with refusing_base_url() as url:
        findings = examine(place, OPENAI_API_KEY="sk-x", OPENAI_BASE_URL=url)
    assert failing(findings) == ["upstream"]
    assert "cannot be reached" in findings["upstream"]["message"]


def test_an_upstream_that_refuses_the_key_buys_nothing(place: Place) -> None:
    with FakeUpstream() as upstream:
        examine(place, OPENAI_API_KEY="sk-wrong", OPENAI_BASE_URL=upstream.base_url)
        assert [(request.method, request.path) for request in upstream.requests] == [("GET", "/v1/models")]


@pytest.mark.parametrize(("name", "subject"), [("IMAGES", "picture store"), ("DATA_DIR", "data folder")])
def test_a_folder_that_is_none(name: str, subject: str, place: Place) -> None:
    (place.folder / "file").write_text("no folder")
    findings = examine(place, **{f"PIXYPROXY_{name}": str(place.folder / "file" / "below")})
    assert subject in failing(findings)
    assert findings[subject]["message"]
    assert "None" not in findings[subject]["message"]


def test_a_mistyped_variable(place: Place) -> None:
    findings = examine(place, PIXYPROXY_IMAGE_PER_MINUTE="5")
    assert failing(findings) == ["settings"]
    assert "PIXYPROXY_IMAGE_PER_MINUTE" in findings["settings"]["message"]


def test_a_mistyped_variable_in_the_env_file(place: Place) -> None:
    (place.folder / ".env").write_text("PIXYPROXY_IMAGE_PER_MINUTE=5\n")
    assert failing(examine(place)) == ["settings"]


def test_a_wrong_value_is_named_without_being_repeated(place: Place) -> None:
    findings = examine(place, PIXYPROXY_MAX_BODY_BYTES="hunter2")
    assert failing(findings) == ["settings"]
    assert "MAX_BODY_BYTES" in findings["settings"]["message"]
    assert "hunter2" not in str(findings)


def test_a_good_upstream_is_asked_for_nothing_that_costs(place: Place) -> None:
    with FakeUpstream() as upstream:
        settings = make_settings(place.folder, **upstream_settings(upstream))
        Place(place.folder, settings).run("doctor", "--json")
        assert all(request.method == "GET" for request in upstream.requests)
        assert upstream.requests


def test_a_setting_that_is_not_the_json_that_it_has_to_be(place: Place) -> None:
    findings = examine(place, PIXYPROXY_TRUSTED_ISSUERS="nonsense")
    assert failing(findings) == ["settings"]
    assert "trusted_issuers" in findings["settings"]["message"]


def test_signing_keys_that_are_none(place: Place) -> None:
    findings = examine(place, PIXYPROXY_SIGNING_KEYS="hunter2")
    assert failing(findings) == ["signing keys"]
    assert "EC P-256" in findings["signing keys"]["message"]
    assert "hunter2" not in str(findings)
