"""Who may call: credentials that are missing or wrong, guessing, and what a known caller may not do."""

from pixyproxy.core.exceptions.base import PixyProxyException


class AuthenticationException(PixyProxyException):
    """The caller cannot be identified."""

    code = "authentication_failed"
    default_message = "This request needs a valid credential."


class CredentialMissingException(AuthenticationException):
    """A private resource was asked for without any credential."""

    code = "credential_missing"
    default_message = (
        "Send a credential: `Authorization: Bearer` with an API key or an access token, or `X-API-Key: pxy_…`."
    )


class CredentialInvalidException(AuthenticationException):
    """Unknown, malformed, wrong, revoked or expired: deliberately one answer for all of them."""

    code = "credential_invalid"
    default_message = "This credential is not valid: it is unknown, mistyped, expired or revoked."


class IssuerUnavailableException(AuthenticationException):
    """No key of a trusted issuer could be had yet, so its tokens can be neither believed nor refused."""

    code = "issuer_unavailable"
    default_message = "The issuer of this token cannot be reached to check it. Try again shortly."
    retry_after_seconds = 5


class TooManyFailuresException(PixyProxyException):
    """Too many wrong credentials from one address, or for one name; right ones have to wait as well."""

    code = "too_many_failures"
    default_message = "Too many wrong credentials came from here or for this name. Wait as long as `Retry-After` says."
    retry_after_seconds = 60


class PermissionException(PixyProxyException):
    """The credential is good but lacks the scope."""

    code = "scope_missing"
    default_message = "This credential does not carry the scope that the request needs."


class GrantException(PermissionException):
    """A credential would grant what it does not carry itself, or for longer than it is valid."""

    code = "grant_exceeds_caller"
    default_message = (
        "Nobody can grant more than they may do themselves, or for longer. Leave out what this credential does not "
        "carry, or use one without its limits and expiry."
    )


class TenantSuspendedException(PermissionException):
    """The credential is good, but an operator has suspended its tenant."""

    code = "tenant_suspended"
    default_message = "This tenant is suspended. Its operator can tell why."


class ModelNotAllowedException(PermissionException):
    """The tenant, or the key, is limited to other models."""

    code = "model_not_allowed"
    default_message = "This credential may not use this model. Ask for one of its `allowed_models`, as /me lists them."
