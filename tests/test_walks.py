"""Checks over the whole project: a new exception, setting, error code or method fails until it is complete."""

import ast
import inspect
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from pixyproxy.core import exceptions
from pixyproxy.core.exceptions import OAuthException, PixyProxyException
from pixyproxy.core.settings import Settings
from pixyproxy.data.repositories import (
    api_keys,
    audit_log,
    budgets,
    generations,
    images,
    processes,
    refresh_tokens,
    revoked_tokens,
    signing_keys,
    tenants,
    users,
    webhook_deliveries,
    webhooks,
)
from pixyproxy.data.repositories.api_keys import ApiKeys
from pixyproxy.data.repositories.budgets import Budgets
from pixyproxy.data.repositories.generations import Generations
from pixyproxy.data.repositories.images import Images
from pixyproxy.data.repositories.refresh_tokens import RefreshTokens
from pixyproxy.data.repositories.revoked_tokens import RevokedTokens
from pixyproxy.data.repositories.users import Users
from pixyproxy.data.repositories.webhook_deliveries import WebhookDeliveries
from pixyproxy.data.repositories.webhooks import Webhooks
from pixyproxy.web.app import create_app
from pixyproxy.web.errors.handler import FRAMEWORK_CODES, STATUS
from tests.support.server import make_settings

ROOT = Path(__file__).parent.parent
EXCEPTIONS = [
    kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, PixyProxyException)
]
WITHOUT_TENANT = {
    "Images.record": "NewImage carries the tenant",
    "Images.sample": "operators search for missing files of every tenant",
    "Generations.claim": "NewGeneration carries the tenant",
    "Generations.find": "operators resolve generations of every tenant, and spool entries name no tenant",
    "Generations.list_changes": "one poll serves all followers in a process, whose tenants were checked",
    "Generations.find_all": "recovery finishes lost generations of every tenant",
    "Generations.find_undecided": "retained answers name no tenant",
    "Generations.list_unresolved": "operators resolve generations of every tenant",
    "Generations.list_abandoned": "recovery finishes abandoned generations of every tenant",
    "Generations.release_leases": "a process works for every tenant",
    "Generations.renew_leases": "a process works for every tenant",
    "ApiKeys.insert": "StoredApiKey carries the tenant",
    "ApiKeys.find_for_authentication": "runs before the tenant is known",
    "ApiKeys.active_administrator_exists": "bootstrap checks the whole server",
    "Generations.list_of_status": "operators list generations of every tenant",
    "Users.insert": "StoredUser carries the tenant",
    "Users.find_for_sign_in": "runs before the tenant is known",
    "RefreshTokens.insert": "RefreshToken carries the tenant",
    "RefreshTokens.find": "runs before the tenant is known",
    "RefreshTokens.lock": "runs before the tenant is known",
    "RefreshTokens.delete_expired": "recovery deletes expired tokens of every tenant",
    "RevokedTokens.insert": "RevokedToken carries the tenant",
    "RevokedTokens.delete_expired": "recovery deletes expired tokens of every tenant",
    "Webhooks.insert": "StoredWebhook carries the tenant",
    "WebhookDeliveries.insert": "StoredDelivery carries the tenant",
    "WebhookDeliveries.list_due_tenants": "deliveries are made for every tenant, and this lists the tenants",
    "WebhookDeliveries.delete_old": "old deliveries of every tenant are deleted",
}
REPOSITORIES = (
    Images,
    Generations,
    Budgets,
    ApiKeys,
    Users,
    RefreshTokens,
    RevokedTokens,
    Webhooks,
    WebhookDeliveries,
)
"""The repositories of data that tenants own."""

MADE_IN_CODE = {"where", "number", "column", "columns", "condition", "conditions", "name", "names", "otherwise"}
"""Names and conditions, all written in the code, that SQL may be composed of besides a module's constants."""


STATEMENT = re.compile(r"SELECT|INSERT|UPDATE|DELETE|WHERE|LIKE")
MODULES = [
    api_keys,
    audit_log,
    budgets,
    generations,
    images,
    processes,
    refresh_tokens,
    revoked_tokens,
    signing_keys,
    tenants,
    users,
    webhook_deliveries,
    webhooks,
]


@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_every_exception_has_a_status(kind: type[PixyProxyException]) -> None:
    assert kind in STATUS


def test_only_project_exceptions_have_a_status() -> None:
    assert set(STATUS) == set(EXCEPTIONS)


def _variable(name: str) -> str:
    return name.upper() if name.startswith("openai_") else f"PIXYPROXY_{name.upper()}"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_example(name: str) -> None:
    assert re.search(rf"^#? ?{_variable(name)}=", (ROOT / ".env.example").read_text(), re.MULTILINE)


def test_every_name_in_the_example_is_a_setting() -> None:
    names = re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    known = {
        name.upper() if name.startswith("openai_") else f"PIXYPROXY_{name.upper()}" for name in Settings.model_fields
    }
    assert set(names) == known
    assert len(names) == len(known)


def _codes() -> list[str]:
    codes = {kind.code for kind in EXCEPTIONS} | {code for code, _ in FRAMEWORK_CODES.values()}
    return sorted(codes | {"malformed_json", "malformed_request", "invalid_request"})


@pytest.mark.parametrize("code", _codes())
def test_every_error_code_is_documented(code: str) -> None:
    assert f"`{code}`" in (ROOT / "docs" / "reference" / "errors.md").read_text()


ANSWERED = [kind for kind in EXCEPTIONS if kind not in {exceptions.ConfigurationException, exceptions.SchemaException}]
"""Exceptions that end requests. The others end commands and have no row with a status."""


@pytest.mark.parametrize("kind", ANSWERED, ids=lambda kind: kind.__name__)
def test_the_documented_status_is_the_returned_status(kind: type[PixyProxyException]) -> None:
    problems, oauth = (ROOT / "docs" / "reference" / "errors.md").read_text().split("## OAuth 2")
    section = oauth if issubclass(kind, OAuthException) else problems + oauth.partition("## Generation")[2]
    assert re.findall(rf"^\| `{kind.code}` \| (\d+) \|", section, re.MULTILINE) == [str(STATUS[kind])]


METHODS = {
    f"{repository.__name__}.{name}": method
    for repository in REPOSITORIES
    for name, method in inspect.getmembers(repository, inspect.isfunction)
    if not name.startswith("_")
}


@pytest.mark.parametrize("name", sorted(METHODS.keys() - WITHOUT_TENANT))
def test_every_method_on_tenant_data_requires_the_tenant(name: str) -> None:
    parameter = inspect.signature(METHODS[name]).parameters["tenant_id"]
    assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
    assert parameter.default is inspect.Parameter.empty


@pytest.mark.parametrize("name", WITHOUT_TENANT)
def test_no_exemption_is_obsolete(name: str) -> None:
    assert "tenant_id" not in inspect.signature(METHODS[name]).parameters


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_no_statement_contains_a_caller_supplied_value(module: ModuleType) -> None:
    formatted = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.JoinedStr)]
    statements = [node for node in formatted if STATEMENT.search(ast.unparse(node))]
    assert len(statements) > 0
    names = {part.id for node in statements for part in ast.walk(node) if isinstance(part, ast.Name)}
    assert {name for name in names if not name.isupper()} <= MADE_IN_CODE


def test_the_openapi_document_is_current(tmp_path: Path) -> None:
    stored = json.loads((ROOT / "docs" / "openapi.json").read_text())
    assert stored == json.loads(json.dumps(create_app(make_settings(tmp_path)).openapi()))
