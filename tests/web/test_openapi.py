"""The OpenAPI document: completeness, accuracy, and fuzzing with Schemathesis."""

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
from tests.support.scale import scaled
from tests.support.server import UNLIMITED, TenantClient, make_settings, serving, upstream_settings
from tests.support.upstream import FakeUpstream, Verbatim

SCHEMATHESIS = str(Path(sys.executable).parent / "schemathesis")
ROOT = Path(__file__).parents[2]
CONFIGURATION = """
[auth]
# Otherwise it treats POST /user as a public sign-up.
auto-signup = false

[phases.examples]
fill-missing = true

[phases.coverage]
# The 405 tests cover other methods.
unexpected-methods = ["TRACE"]
"""
FAIL_WITHOUT_AUTHENTICATION = """
[warnings]
fail-on = ["missing_auth"]
"""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the OpenAPI document."""
    return create_app(make_settings(tmp_path_factory.mktemp("document"))).openapi()


def references(node: object) -> Iterator[str]:
    """Yield every ``$ref`` in a document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every operation of a document."""
    return [operation for path in document["paths"].values() for operation in path.values()]


def resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """Return the schema that a schema refers to, directly or as one of several."""
    for each in (schema, *schema.get("anyOf", [])):
        if "$ref" in each:
            found: dict[str, Any] = document["components"]["schemas"][each["$ref"].rpartition("/")[2]]
            return found
    return schema


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert len(found) > 20
    for reference in found:
        node: Any = document
        for name in reference.removeprefix("#/").split("/"):
            assert name in node, reference
            node = node[name]


@pytest.mark.parametrize("path", ["/image", "/image/{guid}", "/image/{guid}/content"])
def test_read_operations_are_documented_as_public(path: str, document: dict[str, Any]) -> None:
    security = document["paths"][path]["get"].get("security", [])
    assert {} in security
    assert {"Bearer": []} in security


@pytest.mark.parametrize("operation", ["post /image", "patch /image/{guid}", "delete /image/{guid}"])
def test_write_operations_are_documented_as_private(operation: str, document: dict[str, Any]) -> None:
    method, path = operation.split()
    security = document["paths"][path][method]["security"]
    assert {} not in security
    assert [list(scheme) for scheme in security] == [["Bearer"], ["SignIn"]]


def test_document_has_two_security_schemes(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"].keys() == {"Bearer", "SignIn"}
    assert document["security"] == [{"Bearer": []}, {"SignIn": []}]
    for path in ("/auth/token", "/auth/revoke"):
        assert document["paths"][path]["post"]["security"] == []


def test_create_image_documents_image_and_generation_responses(document: dict[str, Any]) -> None:
    responses = document["paths"]["/image"]["post"]["responses"]
    schemas = {status: responses[status]["content"]["application/json"]["schema"] for status in ("201", "202")}
    assert schemas == {
        "201": {"$ref": "#/components/schemas/ImageDetail"},
        "202": {"$ref": "#/components/schemas/GenerationDetail"},
    }


def test_every_request_body_has_an_example(document: dict[str, Any]) -> None:
    without = []
    for operation in operations(document):
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            schema = resolved(content["schema"], document)
            required = [schema["properties"][name] for name in schema.get("required", [])]
            if media_type == "application/json":
                without += [] if schema.get("examples") else [operation["operationId"]]
            else:
                without += [
                    operation["operationId"] for field in required if not field.get("examples", field.get("enum"))
                ]
    assert without == []


def test_every_tag_has_a_description(document: dict[str, Any]) -> None:
    used = {tag for operation in operations(document) for tag in operation["tags"]}
    assert used == {tag["name"] for tag in document["tags"]}


def test_public_url_is_listed_as_server(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, public_url="https://pictures.example.com/")
    servers = create_app(settings).openapi()["servers"]
    assert [server["url"] for server in servers] == ["/", "https://pictures.example.com"]


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(document)]
    assert len(ids) == len(set(ids))


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TenantClient]:
    """Yield a tenant of a server whose upstream accepts any order."""
    with FakeUpstream() as upstream:
        # Any order succeeds, because the document does not describe the upstream's errors.
        upstream.behave(Verbatim(body=b'{"data":[{"b64_json":"%b"}]}' % base64.b64encode(png(64, 64))))
        settings = make_settings(
            tmp_path_factory.mktemp("fuzzed"),
            # The hooks point every webhook to an unused address.
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
def test_schemathesis_finds_no_failures(credential: str, fuzzed: TenantClient, tmp_path: Path) -> None:
    configuration = CONFIGURATION
    command = [SCHEMATHESIS, "run", f"{fuzzed.http.base_url}/openapi.json", "--checks", "all", "--no-color"]
    command += ["--seed", "1", "--max-examples", scaled("2", "20"), "--no-shrink"]
    command += ["--suppress-health-check", "all", "--generation-deterministic"]
    if credential == "with a key":
        # Random fuzzing would only repeat the coverage phase.
        command += ["--phases", scaled("examples,coverage,stateful", "examples,coverage,fuzzing,stateful")]
        # Without a key, Schemathesis correctly warns that some operations only return 401.
        configuration += FAIL_WITHOUT_AUTHENTICATION
        command += ["--header", f"Authorization: Bearer {fuzzed.api_key}"]
        # At /key it would find and change its own key.
        command += ["--exclude-operation-id", "revoke_key", "--exclude-operation-id", "rotate_key"]
        # The document cannot describe which bytes are a picture, and which images the tenant owns.
        command += ["--exclude-operation-id", "edit_openai_image"]
        # The response is endless.
        command += ["--exclude-operation-id", "follow_generations"]
    else:
        # One request per operation is enough for the 401.
        command += ["--phases", scaled("examples", "examples,coverage")]
    (tmp_path / "schemathesis.toml").write_text(configuration)
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "default",
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=scaled(300, 1800)
    )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
