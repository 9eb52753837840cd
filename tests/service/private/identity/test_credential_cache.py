"""The credential cache: short-lived, bounded, and cleared by changes of rights."""

import time
from datetime import timedelta

import pytest
from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.service.private.identity.credential_cache import FRESH_SECONDS, MOST, CredentialCache
from tests.support.builders import new_tenant, principal_of

KEY = SecretStr("pxy_a")


@pytest.fixture
def recognized() -> CredentialCache:
    return CredentialCache()


@pytest.fixture
def principal() -> Principal:
    return principal_of(new_tenant(id=TenantId(1)))


def _ahead() -> float:
    """Keep entries fresh for the duration of a test."""
    return time.monotonic() + 1000


def test_fresh_credential_is_cached(recognized: CredentialCache, principal: Principal) -> None:
    recognized.put(KEY, principal, expires_at=None, checked_at=_ahead())
    assert recognized.get(KEY) is principal


@pytest.mark.parametrize("other", ["", "pxy_A", "pxy_a ", "🦊", "\ud800"])
def test_another_credential_is_a_miss(recognized: CredentialCache, principal: Principal, other: str) -> None:
    recognized.put(KEY, principal, expires_at=None, checked_at=_ahead())
    assert recognized.get(SecretStr(other)) is None


def test_stale_credential_is_a_miss(recognized: CredentialCache, principal: Principal) -> None:
    recognized.put(KEY, principal, expires_at=None, checked_at=time.monotonic() - FRESH_SECONDS - 0.001)
    assert recognized.get(KEY) is None


def test_cache_lifetime_is_below_the_documented_limit() -> None:
    assert FRESH_SECONDS < 1


def test_expired_credential_is_a_miss(recognized: CredentialCache, principal: Principal) -> None:
    recognized.put(KEY, principal, expires_at=clock.now(), checked_at=_ahead())
    assert recognized.get(KEY) is None
    recognized.put(KEY, principal, expires_at=clock.now() + timedelta(hours=1), checked_at=_ahead())
    assert recognized.get(KEY) is principal


def test_forget_all_clears_the_cache(recognized: CredentialCache, principal: Principal) -> None:
    keys = [SecretStr(f"pxy_{number}") for number in range(3)]
    for key in keys:
        recognized.put(key, principal, expires_at=None, checked_at=_ahead())
    assert [recognized.get(key) for key in keys] == [principal] * 3
    recognized.forget_all()
    assert [recognized.get(key) for key in keys] == [None] * 3


def test_cache_holds_at_most_ten_thousand_credentials(recognized: CredentialCache, principal: Principal) -> None:
    for number in range(MOST + 1):
        recognized.put(SecretStr(f"pxy_{number}"), principal, expires_at=None, checked_at=_ahead())
        assert len(recognized.known) <= MOST == 10_000
    assert recognized.get(SecretStr(f"pxy_{MOST}")) is principal


def test_credentials_are_not_stored(recognized: CredentialCache, principal: Principal) -> None:
    recognized.put(SecretStr("hunter2"), principal, expires_at=None, checked_at=_ahead())
    assert "hunter2" not in repr(recognized)
