"""Every code block of the README and the docs works unchanged."""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pixyproxy.core.models.principal import Scope
from tests.support.pictures import png
from tests.support.server import (
    EVERY_IMAGE_SCOPE,
    UNLIMITED,
    RunningServer,
    TenantClient,
    make_settings,
    serving,
    upstream_settings,
)
from tests.support.upstream import FakeUpstream

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
TYPED = "correct horse battery staple\n"
"""The password that a reader types at a command's prompt."""
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
LINKS = [(document, target) for document in DOCUMENTS for target in LINK.findall(document.read_text())]
HANG_SECONDS = 240
"""The time after which a running shell block counts as hung."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: str
    number: int
    language: str
    code: str

    def __str__(self) -> str:
        """Return the name of the block's test."""
        return f"{self.document}-{self.number}"


BLOCKS = [
    Block(str(document.relative_to(ROOT)), number, match["language"], match["code"])
    for document in DOCUMENTS
    for number, match in enumerate(FENCE.finditer(document.read_text()), 1)
]


def blocks_in(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    session_upstream: FakeUpstream,
) -> Iterator[RunningServer]:
    """Yield a server started as the documents describe, with webhooks allowed to local addresses."""
    settings = make_settings(
        tmp_path_factory.mktemp("docs"),
        webhook_allowed_hosts="127.0.0.1",
        **UNLIMITED,
        **upstream_settings(session_upstream),
    )
    with serving(settings) as running:
        yield running


@pytest.fixture
def tenant(server: RunningServer) -> Iterator[TenantClient]:
    """Yield a reader's tenant, with a key that may also create webhooks."""
    tenant = server.new_tenant(f"reader {uuid.uuid4()}", scopes=EVERY_IMAGE_SCOPE | {Scope.KEY_MANAGE})
    with tenant.http:
        yield tenant


def test_every_block_is_in_a_tested_language() -> None:
    # Drawings are `text`: they contain nothing to run.
    assert {block.language for block in BLOCKS} <= {"sh", "python", "json", "ini", "text"}


@pytest.mark.parametrize("block", blocks_in("sh"), ids=str)
def test_a_shell_block_runs(block: Block, server: RunningServer, tenant: TenantClient, tmp_path: Path) -> None:
    tenant.http.post("/image", json={"prompt": "a quiet sea"}).raise_for_status()
    code = block.code.replace("http://127.0.0.1:8000", server.url)
    # A test must neither run the tests again nor serve forever, so `make` only prints its plan.
    code = re.sub(r"^make ", f"make --dry-run -C {ROOT} ", code, flags=re.MULTILINE)
    code = code.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    code = code.replace("curl ", "curl --silent --show-error --fail ")
    environment = os.environ | {
        "PIXYPROXY_API_KEY": tenant.api_key,
        "PIXYPROXY_DATA_DIR": str(tmp_path / "var"),
        "PIXYPROXY_IMAGES": str(tmp_path / "images"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],  # noqa: S607  (the shell that readers use)
        cwd=tmp_path, env=environment, input=TYPED, capture_output=True, text=True, check=False, timeout=HANG_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "problem" not in done.stdout


@pytest.mark.usefixtures("upstream")
@pytest.mark.parametrize("block", blocks_in("python"), ids=str)
def test_a_python_block_runs(block: Block, server: RunningServer, tenant: TenantClient, tmp_path: Path) -> None:
    (tmp_path / "fox.png").write_bytes(png(256, 256))
    code = block.code.replace("http://127.0.0.1:8000", server.url)
    environment = os.environ | {"PIXYPROXY_API_KEY": tenant.api_key}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=HANG_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", blocks_in("json"), ids=str)
def test_a_json_block_is_json(block: Block) -> None:
    assert json.loads(block.code)


@pytest.mark.parametrize("block", blocks_in("ini"), ids=str)
def test_a_settings_block_names_known_settings(block: Block) -> None:
    example = (ROOT / ".env.example").read_text()
    names = [line.partition("=")[0] for line in block.code.splitlines()]
    assert len(names) > 0
    assert [name for name in names if f"{name}=" not in example] == []


@pytest.mark.parametrize(("document", "target"), LINKS, ids=[f"{document.name}-{target}" for document, target in LINKS])
def test_a_link_within_the_project_resolves(document: Path, target: str) -> None:
    assert (document.parent / target).exists()
