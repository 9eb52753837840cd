"""The root exception, and errors of the server itself."""

from typing import ClassVar


class PixyProxyException(Exception):
    """The root exception. ``context`` holds further facts that are safe to show, such as a GUID."""

    code: ClassVar[str] = "internal_error"
    default_message: ClassVar[str] = (
        "An internal error occurred in PixyProxy. Report it with the request id, which identifies it in the log."
    )
    retry_after_seconds: int | None = None

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after_seconds: int | None = None,
        context: dict[str, str] | None = None,
    ) -> None:
        self.message = message or self.default_message
        self.context = context or {}
        if retry_after_seconds is not None:
            self.retry_after_seconds = retry_after_seconds
        super().__init__(self.message)


class ConfigurationException(PixyProxyException):
    """The settings are invalid; the message says which and how to correct it."""

    code = "configuration_invalid"
    default_message = "A setting is invalid. Run `pixyproxy doctor`."


class ServerBusyException(PixyProxyException):
    """The wait for a limited resource timed out."""

    code = "server_busy"
    default_message = "The server is busy: too many requests wait for the same resource. Try again shortly."
    retry_after_seconds = 2


class TooManyAtOnceException(PixyProxyException):
    """One client has too many expensive requests running."""

    code = "too_many_at_once"
    default_message = "Too many of your requests of this kind are running. Wait for their responses first."
    retry_after_seconds = 1
