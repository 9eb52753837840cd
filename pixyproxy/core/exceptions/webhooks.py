"""Exceptions about webhooks."""

from pixyproxy.core.exceptions.base import PixyProxyException


class WebhookException(PixyProxyException):
    """An error about a webhook."""

    code = "webhook_error"
    default_message = "This action is not possible with this webhook."


class WebhookNotFoundException(WebhookException):
    """The tenant has no such webhook."""

    code = "webhook_not_found"
    default_message = "There is no such webhook."


class WebhookTargetException(WebhookException):
    """The server must not or cannot call the address."""

    code = "webhook_target_refused"
    default_message = (
        "This URL cannot be called: it must be https, and its host must resolve to public addresses only. "
        "The operator may allow other hosts (PIXYPROXY_WEBHOOK_ALLOWED_HOSTS)."
    )


class WebhookLimitException(WebhookException):
    """The tenant has the maximum number of webhooks."""

    code = "webhook_limit"
    default_message = "This tenant has reached its maximum number of webhooks. Delete one first."
