"""Signing keys of an installation whose secret costs one slow hash per process, and files of earlier releases."""

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from pydantic import SecretStr

from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.principal import Actor, SubjectType
from pixyproxy.core.models.signing_key import Installation, SigningKey
from pixyproxy.data.database import Database
from pixyproxy.service.private import audit
from pixyproxy.service.private.identity.installation_secret import derive_seal
from pixyproxy.service.private.identity.oauth.signing_keys import KeyRing, open_key_ring
from tests.support.server import make_settings

SECRET = SecretStr("a secret that all processes of a test share")
SALT = "00" * 16
OPERATOR = Actor(type=SubjectType.COMMAND, subject="operator")


async def open_ring(database: Database, folder: Path, **settings: object) -> KeyRing:
    """Return a key ring as opened by a server that starts with this data folder."""
    installation = Installation(secret_salt=SALT, secret_verifier=derive_seal(SECRET, SALT).verifier, keys_revision=0)
    await database.write(lambda data: data.signing_keys.create_installation(installation))
    return await open_key_ring(make_settings(folder, **settings), database, SECRET)


async def rotate(ring: KeyRing, at: datetime, *, at_once: bool = False) -> SigningKey:
    """Rotate the keys as an operator does."""
    return await ring.rotate(at, at_once=at_once, entry=audit.entry(OPERATOR, AuditAction.SIGNING_KEYS_ROTATED))


def published(ring: KeyRing, at: datetime) -> list[str]:
    """Return the ids of the published keys."""
    return [jwk["kid"] for jwk in ring.jwks(at)["keys"]]


def write_former_file(folder: Path, keys: Iterable[SigningKey]) -> Path:
    """Write the keys in the format of earlier releases, with the lock file beside them."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    rows = [
        {
            "kid": key.kid,
            "private_pem": key.private_pem.get_secret_value(),
            "signs_from": key.signs_from.isoformat(),
        }
        for key in keys
    ]
    path = folder / "signing_keys.json"
    path.touch(0o600)
    path.write_text(json.dumps({"keys": rows}, indent=2) + "\n")
    (folder / ".signing_keys.lock").touch(0o600)
    return path
