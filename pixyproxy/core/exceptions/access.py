"""Missing or wrong credentials, guessing, and missing permissions."""

from pixyproxy.core.exceptions.base import PixyProxyException


class AuthenticationException(PixyProxyException):
    """The caller cannot be identified."""

    code = "authentication_failed"
    default_message = "This request needs a valid credential."


class CredentialMissingException(AuthenticationException):
    """A private resource was requested without a credential."""

    code = "credential_missing"
    default_message = (
        "Send a credential: `Authorization: Bearer` with an API key or an access token, or `X-API-Key: pxy_…`."
    )


class CredentialInvalidException(AuthenticationException):
    """The credential is unknown, malformed, wrong, revoked or expired: deliberately one error for all of them."""

    code = "credential_invalid"
    default_message = "This credential is not valid: it is unknown, mistyped, expired or revoked."


class IssuerUnavailableException(AuthenticationException):
    """No key of a trusted issuer could be fetched yet, so its tokens cannot be checked."""

    code = "issuer_unavailable"
    default_message = "This token cannot be checked: its issuer cannot be reached. Try again shortly."
    retry_after_seconds = 5


class TooManyFailuresException(PixyProxyException):
    """Too many wrong credentials from one address or for one name; correct passwords have to wait as well."""

    code = "too_many_failures"
    default_message = (
        "Too many wrong credentials from this address or for this name. Wait as long as `Retry-After` says."
    )
    retry_after_seconds = 60


class PermissionException(PixyProxyException):
    """The credential is valid but lacks the scope."""

    code = "scope_missing"
    default_message = "This credential lacks the scope that the request needs."


class GrantException(PermissionException):
    """A credential would grant rights that it does not have, or for longer than it is valid."""

    code = "grant_exceeds_caller"
    default_message = (
        "A credential cannot grant more than its own rights, or for longer than it is valid. Leave out the rights that "
        "this credential does not have, or use one without its limits and expiry."
    )


class TenantSuspendedException(PermissionException):
    """The credential is valid, but an operator has suspended its tenant."""

    code = "tenant_suspended"
    default_message = "This tenant is suspended. Ask the operator of this server."


class ModelNotAllowedException(PermissionException):
    """The tenant or the key is limited to other models."""

    code = "model_not_allowed"
    default_message = "This credential may not use this model. Use one of its `allowed_models`, which /me lists."
