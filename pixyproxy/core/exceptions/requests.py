"""What a request has wrong before anything is decided about it."""

from pixyproxy.core.exceptions.base import PixyProxyException


class InvalidRequestException(PixyProxyException):
    """A model that reached the service layer is not valid."""

    code = "invalid_request"
    default_message = "The request is not valid."


class InvalidCursorException(InvalidRequestException):
    """A cursor that was altered, is not ours, or belongs to another filter."""

    code = "invalid_cursor"
    default_message = "This cursor is not valid for this filter. Start again without `cursor`."
