"""Clients generated from the OpenAPI document of a running server can make, read and edit pictures."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.server import TenantClient
from tests.support.tools import Tools, ensure_tools
from tests.support.upstream import FakeUpstream

HERE = Path(__file__).parent
# Without hooks the client is not formatted.
CONFIGURATION = {"package_name_override": "pixyproxy_client", "post_hooks": []}


@pytest.fixture(scope="module")
def tools() -> Tools:
    """Return the generators and Redocly's linter."""
    return ensure_tools()


@pytest.fixture
def folder(tools: Tools, tenant: TenantClient) -> Iterator[Path]:
    """Yield a folder with the server's ``openapi.json``, from which Node finds its packages."""
    with TemporaryDirectory(dir=tools.folder) as name:
        folder = Path(name)
        (folder / "openapi.json").write_bytes(tenant.http.get("/openapi.json").content)
        yield folder


def assert_made_and_edited(printed: str, tenant: TenantClient, upstream: FakeUpstream) -> None:
    outcome = json.loads(printed)
    made, edited = (tenant.http.get(f"/image/{outcome[name]}").json() for name in ("guid", "edited"))
    assert outcome["sha256"] == outcome["read_sha256"] == made["sha256"]
    assert (made["prompt"], edited["prompt"]) == ("a red fox in the snow", "the same at night")
    assert [request.path for request in upstream.requests] == ["/v1/images/generations", "/v1/images/edits"]
    assert [file.parameter for file in upstream.requests[1].files] == ["image"]


def test_openapi_python_client(tools: Tools, folder: Path, tenant: TenantClient, upstream: FakeUpstream) -> None:
    (folder / "configuration.json").write_text(json.dumps(CONFIGURATION))
    generate = ["-m", "openapi_python_client", "generate", "--path", "openapi.json", "--config", "configuration.json"]
    tools.run_python(*generate, "--meta", "none", "--output-path", "pixyproxy_client", cwd=folder)
    shutil.copy(HERE / "make_and_edit.py", folder)
    printed = tools.run_python("make_and_edit.py", str(tenant.http.base_url), tenant.api_key, cwd=folder)
    assert_made_and_edited(printed, tenant, upstream)


def test_openapi_typescript(tools: Tools, folder: Path, tenant: TenantClient, upstream: FakeUpstream) -> None:
    for name in ("make_and_edit.ts", "tsconfig.json", "package.json"):
        shutil.copy(HERE / name, folder)
    tools.run_node("openapi-typescript", "openapi.json", "--output", "schema.d.ts", cwd=folder)
    tools.run_node("tsc", "--project", ".", cwd=folder)
    printed = tools.run_node("make_and_edit.ts", str(tenant.http.base_url), tenant.api_key, cwd=folder)
    assert_made_and_edited(printed, tenant, upstream)


def test_redocly_finds_neither_errors_nor_warnings(tools: Tools, folder: Path) -> None:
    report = tools.run_node(
        "redocly", "lint", "--extends=recommended-strict", "--format=json", "openapi.json", cwd=folder
    )
    assert json.loads(report)["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}
