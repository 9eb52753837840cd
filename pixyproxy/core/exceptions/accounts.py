"""Tenants, their keys and their users."""

from pixyproxy.core.exceptions.base import PixyProxyException


class TenantException(PixyProxyException):
    """Something about a tenant."""

    code = "tenant_error"
    default_message = "The tenant cannot be used that way."


class TenantNotFoundException(TenantException):
    """There is no such tenant."""

    code = "tenant_not_found"
    default_message = "There is no such tenant."


class TenantExistsException(TenantException):
    """The name is taken."""

    code = "tenant_exists"
    default_message = "A tenant of this name exists already. Choose another name."


class OwnTenantException(TenantException):
    """Suspending or deleting the tenant of the acting credential would leave nobody to undo it."""

    code = "tenant_own"
    default_message = "This credential belongs to the tenant itself. Use one of another tenant."


class ApiKeyException(PixyProxyException):
    """Something about an API key."""

    code = "api_key_error"
    default_message = "The API key cannot be used that way."


class ApiKeyNotFoundException(ApiKeyException):
    """There is no such API key in this tenant."""

    code = "api_key_not_found"
    default_message = "There is no such API key."


class ApiKeyRevokedException(ApiKeyException):
    """A revoked key cannot be brought back by rotating it."""

    code = "api_key_revoked"
    default_message = "This API key is revoked or expired. Make a new one."


class ApiKeyLimitException(ApiKeyException):
    """The tenant has as many API keys as it may have."""

    code = "api_key_limit"
    default_message = "This tenant has as many API keys as it may have. Revoke one first."


class UserException(PixyProxyException):
    """Something about a user."""

    code = "user_error"
    default_message = "The user cannot be used that way."


class UserNotFoundException(UserException):
    """There is no such user in this tenant."""

    code = "user_not_found"
    default_message = "There is no such user."


class UserExistsException(UserException):
    """The name is taken, on this server."""

    code = "user_exists"
    default_message = "This user name is taken. Choose another."


class UserLimitException(UserException):
    """The tenant has as many users as it may have."""

    code = "user_limit"
    default_message = "This tenant has as many users as it may have. Delete one first."
