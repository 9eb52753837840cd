"""Errors of the token endpoint (RFC 6749 §5.2)."""

from pixyproxy.core.exceptions.base import PixyProxyException


class OAuthException(PixyProxyException):
    """The token endpoint refused the request (RFC 6749 §5.2); ``code`` is the standard's."""

    code = "invalid_request"
    default_message = "The token request is not valid: a parameter is missing, repeated or malformed."


class OAuthRequestException(OAuthException):
    """A parameter is missing, repeated or malformed."""


class OAuthClientException(OAuthException):
    """The client's id or secret is wrong, or missing where required."""

    code = "invalid_client"
    default_message = "The client is unknown or its secret is wrong. Send a key id and the key's secret."


class OAuthGrantException(OAuthException):
    """The user name, password or refresh token is not valid."""

    code = "invalid_grant"
    default_message = "The user name, the password or the refresh token is not valid."


class OAuthGrantTypeException(OAuthException):
    """The server does not support the grant type."""

    code = "unsupported_grant_type"
    default_message = "grant_type must be password, client_credentials or refresh_token."


class OAuthUnauthorizedException(OAuthException):
    """The grant is disabled."""

    code = "unauthorized_client"
    default_message = "Signing in with a password is disabled on this server."


class OAuthScopeException(OAuthException):
    """The scope is unknown, or the client or user does not have it."""

    code = "invalid_scope"
    default_message = "The scope is unknown or exceeds the rights of this user or key."
