"""The memory of credentials: short, bounded, and emptied by whatever changes what they may do."""

import time
from datetime import timedelta

import pytest
from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.service.private.identity.credential_cache import FRESH_SECONDS, MOST, RecognizedCredentials
from tests.support.builders import new_tenant, principal_of

KEY = SecretStr("pxy_a")


@pytest.fixture
def recognized() -> RecognizedCredentials:
    return RecognizedCredentials()


@pytest.fixture
def principal() -> Principal:
    return principal_of(new_tenant(id=TenantId(1)))


def _ahead() -> float:
    """A moment that is fresh for as long as a test may take."""
    return time.monotonic() + 1000


def test_what_was_checked_a_moment_ago_is_recalled(recognized: RecognizedCredentials, principal: Principal) -> None:
    recognized.remember(KEY, principal, expires_at=None, checked_at=_ahead())
    assert recognized.recall(KEY) is principal


@pytest.mark.parametrize("other", ["", "pxy_A", "pxy_a ", "🦊", "\ud800"])
def test_another_credential_is_not(recognized: RecognizedCredentials, principal: Principal, other: str) -> None:
    recognized.remember(KEY, principal, expires_at=None, checked_at=_ahead())
    assert recognized.recall(SecretStr(other)) is None


def test_what_was_checked_longer_ago_is_not(recognized: RecognizedCredentials, principal: Principal) -> None:
    recognized.remember(KEY, principal, expires_at=None, checked_at=time.monotonic() - FRESH_SECONDS - 0.001)
    assert recognized.recall(KEY) is None


def test_the_memory_is_shorter_than_what_is_promised() -> None:
    assert FRESH_SECONDS < 1


def test_what_has_expired_since_is_not(recognized: RecognizedCredentials, principal: Principal) -> None:
    recognized.remember(KEY, principal, expires_at=clock.now(), checked_at=_ahead())
    assert recognized.recall(KEY) is None
    recognized.remember(KEY, principal, expires_at=clock.now() + timedelta(hours=1), checked_at=_ahead())
    assert recognized.recall(KEY) is principal


def test_forgetting_forgets_everyone(recognized: RecognizedCredentials, principal: Principal) -> None:
    keys = [SecretStr(f"pxy_{number}") for number in range(3)]
    for key in keys:
        recognized.remember(key, principal, expires_at=None, checked_at=_ahead())
    assert [recognized.recall(key) for key in keys] == [principal] * 3
    recognized.forget_all()
    assert [recognized.recall(key) for key in keys] == [None] * 3


def test_no_more_than_ten_thousand_are_remembered(recognized: RecognizedCredentials, principal: Principal) -> None:
    for number in range(MOST + 1):
        recognized.remember(SecretStr(f"pxy_{number}"), principal, expires_at=None, checked_at=_ahead())
        assert len(recognized.known) <= MOST == 10_000
    assert recognized.recall(SecretStr(f"pxy_{MOST}")) is principal


def test_no_credential_is_kept(recognized: RecognizedCredentials, principal: Principal) -> None:
    recognized.remember(SecretStr("hunter2"), principal, expires_at=None, checked_at=_ahead())
    assert "hunter2" not in repr(recognized)
