"""The root, and what is about the server itself."""

from typing import ClassVar


class PixyProxyException(Exception):
    """The root. ``context`` holds further facts that are safe to show, such as a GUID."""

    code: ClassVar[str] = "internal_error"
    default_message: ClassVar[str] = "Something went wrong inside PixyProxy. The request id names it in the log."
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
    """The settings cannot work; the message says which and how to mend it."""

    code = "configuration_invalid"
    default_message = "A setting is wrong. Run `pixyproxy doctor`."


class ServerBusyException(PixyProxyException):
    """The wait for one of a few places ran out."""

    code = "server_busy"
    default_message = "Too many requests wait for the same thing just now. Try again shortly."
    retry_after_seconds = 2


class TooManyAtOnceException(PixyProxyException):
    """One client has more requests of an expensive kind under way than it may have."""

    code = "too_many_at_once"
    default_message = "Too many requests of this kind are under way for you. Wait for their answers first."
    retry_after_seconds = 1
