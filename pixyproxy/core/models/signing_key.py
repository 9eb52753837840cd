"""Private keys that sign access tokens, and their database rows."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, SecretStr

from pixyproxy.core.models.base import FrozenModel


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class SigningKey(FrozenModel):
    """An EC P-256 key as PEM (PKCS #8); ``kid`` is the thumbprint of its public half (RFC 7638).

    It is published at once, and signs from ``signs_from`` until a later key does. At ``retires_at`` the last token that
    it signed has expired; None while no later key is known.
    """

    kid: str
    private_pem: SecretStr
    signs_from: Moment
    retires_at: Moment | None = None

    def is_published(self, at: datetime) -> bool:
        """Return whether tokens signed with it may still be valid."""
        return self.retires_at is None or at < self.retires_at


class StoredSigningKey(FrozenModel):
    """A row of ``signing_keys``; ``sealed_pem`` is the encrypted private key, or None once erased.

    The row of an erased key is retained, so that a copy of the key in an old file is not imported again.
    """

    kid: str
    sealed_pem: str | None
    signs_from: Moment
    retires_at: Moment | None


class Installation(FrozenModel):
    """The row of ``installation``: the verifier of the secret (hexadecimal), and a counter of key changes."""

    secret_salt: str
    secret_verifier: str
    keys_revision: int
