"""Webhooks."""

from pixyproxy.core.exceptions.base import PixyProxyException


class WebhookException(PixyProxyException):
    """Something about a webhook."""

    code = "webhook_error"
    default_message = "The webhook cannot be used that way."


class WebhookNotFoundException(WebhookException):
    """There is no such webhook in this tenant."""

    code = "webhook_not_found"
    default_message = "There is no such webhook."


class WebhookTargetException(WebhookException):
    """The address is not one that the server may call."""

    code = "webhook_target_refused"
    default_message = (
        "This URL cannot be called: it must be https, and its host must resolve to public addresses. "
        "The operator may allow others (PIXYPROXY_WEBHOOK_ALLOWED_HOSTS)."
    )


class WebhookLimitException(WebhookException):
    """The tenant has as many webhooks as it may have."""

    code = "webhook_limit"
    default_message = "This tenant has as many webhooks as it may have. Delete one first."
