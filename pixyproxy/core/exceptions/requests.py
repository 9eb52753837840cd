"""Exceptions about invalid requests."""

from pixyproxy.core.exceptions.base import PixyProxyException


class InvalidRequestException(PixyProxyException):
    """A model in the service layer is not valid."""

    code = "invalid_request"
    default_message = "The request is not valid."


class InvalidCursorException(InvalidRequestException):
    """The cursor was altered, was not issued here, or belongs to another filter."""

    code = "invalid_cursor"
    default_message = "This cursor is not valid for this filter. Start again without `cursor`."
