"""The README and the docs are true: code blocks run unchanged, links resolve, and the reference is complete."""

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
from typer.core import TyperGroup
from typer.main import get_group

from pixyproxy.cli import app
from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.webhook import WebhookEvent
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
"""What a reader types where a command asks for a password."""
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)")
LINKS = [(document, *target) for document in DOCUMENTS for target in LINK.findall(document.read_text())]
CODE_PATH = re.compile(r"`((?:benchmarks|cli|core|data|docs|scripts|service|sql|tests|web)/[\w/.*-]+)`")
"""A file or folder of the project that a document names in backticks."""
CODE_PATHS = sorted({path for document in DOCUMENTS for path in CODE_PATH.findall(document.read_text())})
REFERENCE = ROOT / "docs" / "reference"
HANG_SECONDS = 240
"""A shell block that is still running then hangs."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: str
    number: int
    language: str
    code: str

    def __str__(self) -> str:
        """Return the name of the test of this block."""
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
    """Yield a server as the documents start it: webhooks may call the local machine."""
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
    """Yield a tenant of a reader, whose key may also manage webhooks and read usage."""
    scopes = EVERY_IMAGE_SCOPE | {Scope.KEY_MANAGE, Scope.USAGE_READ}
    tenant = server.new_tenant(f"reader {uuid.uuid4()}", scopes=scopes)
    with tenant.http:
        yield tenant


def test_every_block_is_in_a_tested_language() -> None:
    # Drawings are `text`: there is nothing in them to run.
    assert {block.language for block in BLOCKS} <= {"sh", "python", "json", "ini", "text"}


@pytest.mark.parametrize("block", blocks_in("sh"), ids=str)
def test_a_shell_block_runs(block: Block, server: RunningServer, tenant: TenantClient, tmp_path: Path) -> None:
    tenant.http.post("/image", json={"prompt": "a quiet sea"}).raise_for_status()
    code = block.code.replace("http://127.0.0.1:8000", server.url)
    # A test must neither run the tests again nor serve for ever: of `make` only the plan is made.
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


@pytest.mark.parametrize(
    ("document", "target", "anchor"),
    LINKS,
    ids=[f"{document.name}-{target}-{anchor}" for document, target, anchor in LINKS],
)
def test_a_link_within_the_project_resolves(document: Path, target: str, anchor: str) -> None:
    page = document.parent / target if target else document
    assert page.exists()
    assert {anchor} - _anchors_of(page) <= {""}


def _anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs both make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE) if page.suffix == ".md" else []
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", CODE_PATHS)
def test_a_named_path_exists(path: str) -> None:
    assert [*ROOT.glob(path), *(ROOT / "pixyproxy").glob(path)]


def test_every_page_is_in_the_navigation_once() -> None:
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(pages)


def test_every_setting_is_in_the_reference_with_its_default() -> None:
    example = re.findall(r"^# ([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    page = (REFERENCE / "settings.md").read_text().partition("## Variables of commands")[0]
    assert sorted(re.findall(r"^\| `([A-Z_]+)` \| `?([^|`]*?)`? ?\|", page, re.MULTILINE)) == sorted(example)


def test_every_route_is_in_the_reference() -> None:
    paths = json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", (REFERENCE / "http-api.md").read_text(), re.MULTILINE)) == routes


def _commands(group: TyperGroup, *names: str) -> Iterator[str]:
    """Yield each command below ``group`` as a user types it."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from _commands(command, *names, name)
        else:
            yield " ".join(("pixyproxy", *names, name))


def test_every_command_is_in_the_reference() -> None:
    page = (REFERENCE / "cli.md").read_text()
    rows = re.findall(r"^\| `(pixyproxy [a-z ]+[a-z])(?: [A-Z]+)?` \|", page, re.MULTILINE)
    assert sorted(rows) == sorted(_commands(get_group(app)))


def test_every_event_of_webhooks_is_in_the_reference() -> None:
    page = (REFERENCE / "webhooks.md").read_text()
    assert set(re.findall(r"^\| `(generation\.\w+)` \|", page, re.MULTILINE)) == set(WebhookEvent)


def test_the_folder_tree_has_every_package() -> None:
    tree = (ROOT / "CONTRIBUTING.md").read_text().split("```text\n")[1].split("```")[0]
    folders: list[str] = []
    named = set()
    for indent, name in re.findall(r"^( *)(\w+)/ ?", tree, re.MULTILINE):
        folders[len(indent) // 2 :] = [name]
        named.add("/".join(folders))
    packages = {str(init.parent.relative_to(ROOT)) for init in (ROOT / "pixyproxy").rglob("__init__.py")}
    assert {name for name in named if name.startswith("pixyproxy")} == packages
