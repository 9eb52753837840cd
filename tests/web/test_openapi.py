"""The OpenAPI document: whole, true, and withstanding whatever Schemathesis makes of it."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pixyproxy.core.models.principal import Scope
from pixyproxy.web.app import create_app
from tests.support.pictures import png
from tests.support.server import UNLIMITED, TenantClient, make_settings, serving, upstream_settings
from tests.support.upstream import FakeUpstream, Verbatim

SCHEMATHESIS = str(Path(sys.executable).parent / "schemathesis")
ROOT = Path(__file__).parents[2]
CONFIGURATION = """
[warnings]
fail-on = ["missing_auth"]
"""


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """The OpenAPI document."""
    return create_app(make_settings(tmp_path)).openapi()


def references(node: object) -> Iterator[str]:
    """Every ``$ref`` in a document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in set(references(document)):
        node: Any = document
        for name in reference.removeprefix("#/").split("/"):
            assert name in node, reference
            node = node[name]


@pytest.mark.parametrize("path", ["/image", "/image/{guid}", "/image/{guid}/content"])
def test_reading_is_documented_as_open_to_everyone(path: str, document: dict[str, Any]) -> None:
    security = document["paths"][path]["get"].get("security", [])
    assert {} in security
    assert {"Bearer": []} in security


@pytest.mark.parametrize("operation", ["post /image", "patch /image/{guid}", "delete /image/{guid}"])
def test_making_and_managing_are_documented_as_private(operation: str, document: dict[str, Any]) -> None:
    method, path = operation.split()
    security = document["paths"][path][method]["security"]
    assert {} not in security
    for scheme in ("Bearer", "ApiKeyHeader", "OAuth2"):
        assert scheme in set().union(*security)


def test_every_operation_has_an_id_of_its_own(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TenantClient]:
    """A tenant of a server whose upstream takes any order."""
    with FakeUpstream() as upstream:
        # Whatever was ordered: what an upstream refuses is not in the document.
        upstream.behave(Verbatim(body=b'{"data":[{"b64_json":"%b"}]}' % base64.b64encode(png(64, 64))))
        settings = make_settings(
            tmp_path_factory.mktemp("fuzzed"),
            # The hooks lead every webhook there, where nobody listens.
            webhook_allowed_hosts="127.0.0.0/8",
            **UNLIMITED,
            **upstream_settings(upstream),
        )
        with serving(settings) as server:
            server.hash_cheaply()
            tenant = server.new_tenant("fuzzed", scopes=frozenset(Scope))
            with tenant.http:
                yield tenant


@pytest.mark.parametrize("credential", ["with a key", "without a key"])
def test_schemathesis_finds_nothing(credential: str, fuzzed: TenantClient, tmp_path: Path) -> None:
    command = [SCHEMATHESIS, "run", f"{fuzzed.http.base_url}/openapi.json", "--checks", "all", "--no-color"]
    command += ["--seed", "1", "--max-examples", "5", "--no-shrink"]
    command += ["--suppress-health-check", "all", "--generation-deterministic"]
    if credential == "with a key":
        # Without one, Schemathesis rightly warns that it only gets 401 from some.
        (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
        command += ["--header", f"Authorization: Bearer {fuzzed.api_key}"]
        # What it finds at /key is the very key that it has.
        command += ["--exclude-operation-id", "revoke_key", "--exclude-operation-id", "rotate_key"]
        # Which bytes are a picture, and which image is the tenant's, no document can say.
        command += ["--exclude-operation-id", "edit_openai_image"]
    else:
        # A fuzzer that has no key meets 401 at random; the systematic phase meets it everywhere.
        command += ["--phases", "examples,coverage"]
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "default",
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
