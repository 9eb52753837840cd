"""API keys: their form, and that a key which is not in force is answered like any other that is not."""

import random
import re
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from pixyproxy.core import clock
from pixyproxy.core.exceptions import ApiKeyNotFoundException, CredentialInvalidException
from pixyproxy.core.models.tenant import ApiKeyGuid, IssuedApiKey, Scope, Tenant
from pixyproxy.data.database import Database
from pixyproxy.service.private.api_keys import ALPHABET, API_KEY, ApiKeyService
from tests.support.builders import new_guid

pytestmark = pytest.mark.anyio
SCOPES = frozenset({Scope.IMAGE_READ, Scope.ADMIN})


@pytest.fixture
def service(database: Database) -> ApiKeyService:
    return ApiKeyService(database)


@pytest.fixture
async def issued(service: ApiKeyService, tenant: Tenant) -> IssuedApiKey:
    return await service.issue_key(tenant, name="naïve key", scopes=SCOPES)


async def _refuse(service: ApiKeyService, presented: str) -> None:
    with pytest.raises(CredentialInvalidException) as caught:
        await service.authenticate(SecretStr(presented))
    assert type(caught.value) is CredentialInvalidException
    assert caught.value.message == CredentialInvalidException.default_message
    assert not caught.value.context


async def test_a_key_stands_for_its_tenant_and_scopes(
    service: ApiKeyService, tenant: Tenant, issued: IssuedApiKey
) -> None:
    principal = await service.authenticate(issued.api_key)
    assert (principal.tenant_id, principal.tenant_guid) == (tenant.id, tenant.guid)
    assert (principal.subject, principal.scopes) == (issued.detail.guid, SCOPES)
    assert principal.default_visibility is tenant.default_visibility


async def test_a_key_has_the_form_that_scanners_know(issued: IssuedApiKey) -> None:
    assert re.fullmatch(r"pxy_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}", issued.api_key.get_secret_value())
    assert issued.api_key.get_secret_value().split("_")[1] == issued.detail.key_id


async def test_no_two_keys_are_alike(service: ApiKeyService, tenant: Tenant) -> None:
    keys = [await service.issue_key(tenant, name="k", scopes=SCOPES) for _ in range(5)]
    assert len({key.api_key.get_secret_value() for key in keys}) == 5
    assert len({key.detail.key_id for key in keys}) == 5


async def test_the_secret_is_shown_once_and_kept_nowhere(
    service: ApiKeyService, database: Database, tenant: Tenant, issued: IssuedApiKey
) -> None:
    match = API_KEY.fullmatch(issued.api_key.get_secret_value())
    assert match is not None
    assert match["secret"] not in repr(issued)
    assert match["secret"] not in repr(await service.list_keys(tenant_id=tenant.id))
    row = await database.read(lambda data: data.connection.execute(text("SELECT * FROM api_keys")).one())
    assert match["secret"] not in str(tuple(row))


async def test_any_single_character_changed_is_refused(service: ApiKeyService, issued: IssuedApiKey) -> None:
    key = issued.api_key.get_secret_value()
    chosen = random.Random(1)
    for _ in range(200):
        position = chosen.randrange(len(key))
        other = chosen.choice([character for character in ALPHABET + "_" if character != key[position]])
        altered = key[:position] + other + key[position + 1 :]
        assert API_KEY.fullmatch(altered) is None or altered[:-6] + _checksum(altered[:-6]) != altered
        await _refuse(service, altered)


def _checksum(body: str) -> str:
    """The checksum by the book: CRC-32 in base 62, six digits, most significant first."""
    crc = 0xFFFFFFFF
    for byte in body.encode():
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    number, digits = crc ^ 0xFFFFFFFF, ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return digits


async def test_the_checksum_is_crc_32_in_base_62(issued: IssuedApiKey) -> None:
    key = issued.api_key.get_secret_value()
    assert key[-6:] == _checksum(key[:-6])


@pytest.mark.parametrize("part", ["secret", "key_id"])
async def test_another_secret_or_key_id_with_a_true_checksum_is_refused(
    service: ApiKeyService, issued: IssuedApiKey, part: str
) -> None:
    _, key_id, rest = issued.api_key.get_secret_value().split("_")
    body = f"pxy_{key_id}_{rest[42::-1]}" if part == "secret" else f"pxy_{key_id[::-1]}_{rest[:43]}"
    await _refuse(service, body + _checksum(body))


@pytest.mark.parametrize(
    "presented", ["", "pxy_", "pxy__", "Bearer x", "pxy_" + "a" * 62, "\0", "🦊", "é" * 66, "x" * 100_000, "\ud800"]
)
async def test_what_has_not_the_form_is_refused(service: ApiKeyService, presented: str) -> None:
    await _refuse(service, presented)


@pytest.mark.parametrize("around", [" {}", "{}\n", "{} ", "{0}{0}"])
async def test_a_key_with_something_around_it_is_refused(
    service: ApiKeyService, issued: IssuedApiKey, around: str
) -> None:
    await _refuse(service, around.format(issued.api_key.get_secret_value()))


async def test_a_revoked_key_is_refused_at_once(service: ApiKeyService, tenant: Tenant, issued: IssuedApiKey) -> None:
    await service.revoke_key(issued.detail.guid, tenant_id=tenant.id)
    await _refuse(service, issued.api_key.get_secret_value())


async def test_an_expired_key_is_refused(service: ApiKeyService, tenant: Tenant) -> None:
    for seconds in (0, -1, -1_000_000):
        expires_at = clock.now() + timedelta(seconds=seconds)
        key = await service.issue_key(tenant, name="k", scopes=SCOPES, expires_at=expires_at)
        await _refuse(service, key.api_key.get_secret_value())


async def test_a_key_that_expires_later_is_in_force(service: ApiKeyService, tenant: Tenant) -> None:
    expires_at = clock.now() + timedelta(minutes=5)
    key = await service.issue_key(tenant, name="k", scopes=SCOPES, expires_at=expires_at)
    assert (await service.authenticate(key.api_key)).subject == key.detail.guid


async def test_a_tenant_lists_its_own_keys(
    service: ApiKeyService, tenant: Tenant, stranger: Tenant, issued: IssuedApiKey
) -> None:
    assert await service.list_keys(tenant_id=tenant.id) == [issued.detail]
    assert await service.list_keys(tenant_id=stranger.id) == []


async def test_another_tenant_cannot_revoke_a_key(
    service: ApiKeyService, stranger: Tenant, issued: IssuedApiKey
) -> None:
    with pytest.raises(ApiKeyNotFoundException):
        await service.revoke_key(issued.detail.guid, tenant_id=stranger.id)
    assert await service.authenticate(issued.api_key)


async def test_an_absent_key_cannot_be_revoked(service: ApiKeyService, tenant: Tenant) -> None:
    with pytest.raises(ApiKeyNotFoundException):
        await service.revoke_key(ApiKeyGuid(new_guid()), tenant_id=tenant.id)
