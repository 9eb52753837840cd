"""What the token endpoint refuses (RFC 6749 §5.2)."""

from pixyproxy.core.exceptions.base import PixyProxyException


class OAuthException(PixyProxyException):
    """A request that the token endpoint refuses (RFC 6749 §5.2); ``code`` is the standard's own."""

    code = "invalid_request"
    default_message = "The request is not one that the token endpoint understands."


class OAuthRequestException(OAuthException):
    """A parameter is missing, repeated or malformed."""


class OAuthClientException(OAuthException):
    """The client's id and secret are wrong, or missing where they are needed."""

    code = "invalid_client"
    default_message = "The client is not known or its secret is wrong. Send a key id and the key's secret."


class OAuthGrantException(OAuthException):
    """Wrong user name or password, or a refresh token that is no longer good."""

    code = "invalid_grant"
    default_message = "The user name, the password or the refresh token is not valid."


class OAuthGrantTypeException(OAuthException):
    """A grant that this server does not know."""

    code = "unsupported_grant_type"
    default_message = "grant_type must be password, client_credentials or refresh_token."


class OAuthUnauthorizedException(OAuthException):
    """The grant is switched off."""

    code = "unauthorized_client"
    default_message = "Signing in with a password is switched off on this server."


class OAuthScopeException(OAuthException):
    """A scope that does not exist, or that the client or user does not have."""

    code = "invalid_scope"
    default_message = "The scope is unknown, or more than this user or key may have."
