"""Exceptions about tenants, API keys and users."""

from pixyproxy.core.exceptions.base import PixyProxyException


class TenantException(PixyProxyException):
    """An error about a tenant."""

    code = "tenant_error"
    default_message = "This action is not possible with this tenant."


class TenantNotFoundException(TenantException):
    """The tenant does not exist."""

    code = "tenant_not_found"
    default_message = "There is no such tenant."


class TenantExistsException(TenantException):
    """The tenant's name is taken."""

    code = "tenant_exists"
    default_message = "A tenant with this name already exists. Choose another name."


class OwnTenantException(TenantException):
    """A credential cannot suspend or delete its own tenant: the action could not be undone with it."""

    code = "tenant_own"
    default_message = "A credential cannot suspend or delete its own tenant. Use a credential of another tenant."


class ApiKeyException(PixyProxyException):
    """An error about an API key."""

    code = "api_key_error"
    default_message = "This action is not possible with this API key."


class ApiKeyNotFoundException(ApiKeyException):
    """The tenant has no such API key."""

    code = "api_key_not_found"
    default_message = "There is no such API key."


class ApiKeyRevokedException(ApiKeyException):
    """A revoked or expired key cannot be rotated."""

    code = "api_key_revoked"
    default_message = "This API key is revoked or expired. Create a new one."


class ApiKeyLimitException(ApiKeyException):
    """The tenant has the maximum number of API keys."""

    code = "api_key_limit"
    default_message = "This tenant has reached its maximum number of API keys. Revoke one first."


class UserException(PixyProxyException):
    """An error about a user."""

    code = "user_error"
    default_message = "This action is not possible with this user."


class UserNotFoundException(UserException):
    """The tenant has no such user."""

    code = "user_not_found"
    default_message = "There is no such user."


class UserExistsException(UserException):
    """The user name is taken on this server."""

    code = "user_exists"
    default_message = "This user name is taken. Choose another."


class UserLimitException(UserException):
    """The tenant has the maximum number of users."""

    code = "user_limit"
    default_message = "This tenant has reached its maximum number of users. Delete one first."
