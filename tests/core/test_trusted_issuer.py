"""The settings of a trusted issuer."""

import pytest
from pydantic import ValidationError

from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.trusted_issuer import TrustedIssuer

WHOLE = {"issuer": "https://login.example.com", "audience": "https://pictures.example.com", "tenant": "studio"}


def test_defaults_are_the_safe_choice() -> None:
    issuer = TrustedIssuer.model_validate(WHOLE)
    assert issuer.allowed_scopes == frozenset(Scope) - {Scope.ADMIN, Scope.USER_MANAGE, Scope.KEY_MANAGE}
    assert issuer.algorithms == {"RS256", "ES256"}
    assert (issuer.scope_claim, issuer.scope_map, issuer.jwks_url) == ("scope", {}, None)


@pytest.mark.parametrize(
    "issuer",
    [
        "https://login.example.com",
        "https://login.example.com/",
        "https://login.example.com/realms/a",
        "http://localhost:8080",
        "http://127.0.0.1/a",
        "http://[::1]:1",
    ],
)
def test_issuer_is_not_normalized(issuer: str) -> None:
    assert TrustedIssuer.model_validate({**WHOLE, "issuer": issuer}).issuer == issuer


@pytest.mark.parametrize("field", ["issuer", "jwks_url"])
@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.com",
        "http://10.0.0.1/keys",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://user@evil.example.com",
    ],
)
def test_url_that_a_network_could_alter_is_rejected(field: str, url: str) -> None:
    with pytest.raises(ValidationError, match="must start with https://"):
        TrustedIssuer.model_validate({**WHOLE, field: url})


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "login.example.com"},
        {"issuer": "https://"},
        {"issuer": ""},
        {"audience": ""},
        {"tenant": None},
        {"tenant_claim": "org"},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"allowed_scopes": ["everything"]},
        {"scope_map": {"draw": ["everything"]}},
        {"jwks_url": "file:///etc/passwd"},
        {"secret": "x"},
    ],
    ids=repr,
)
def test_invalid_setting_is_rejected(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrustedIssuer.model_validate({**WHOLE, **changes})
