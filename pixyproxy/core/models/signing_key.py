"""The private keys that sign access tokens."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, SecretStr

from pixyproxy.core.models.base import FrozenModel


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


class SigningKey(FrozenModel):
    """An EC P-256 key as PEM (PKCS #8); ``kid`` is the thumbprint of its public half (RFC 7638).

    From ``signs_from`` on it signs, unless a later key does already. It is published before that.
    """

    kid: str
    private_pem: SecretStr
    signs_from: Annotated[AwareDatetime, AfterValidator(_in_utc)]
