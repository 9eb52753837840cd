"""The database."""

from pixyproxy.core.exceptions.base import PixyProxyException


class DatabaseException(PixyProxyException):
    """An error of the database that no rule foresees. ``in_doubt``: it may have been done all the same."""

    in_doubt = False
    code = "database_error"
    default_message = "The database answered with an error. The request id names it in the log."


class DatabaseUnavailableException(DatabaseException):
    """The database cannot be reached. What was asked for was not done."""

    code = "database_unavailable"
    default_message = "The database cannot be reached just now. Nothing was changed; try again shortly."
    retry_after_seconds = 5


class DatabaseBusyException(DatabaseException):
    """The wait for a connection or a lock ran out. What was asked for was not done."""

    code = "database_busy"
    default_message = "The database is too busy just now. Nothing was changed; try again shortly."
    retry_after_seconds = 1


class SearchTimeoutException(DatabaseException):
    """A search took longer than searches may; the same one would again."""

    code = "search_timeout"
    default_message = (
        "This search takes too long and was ended. Use words that more pictures have, or search your own (`mine`)."
    )


class SignInUnrecordedException(DatabaseException):
    """A failed sign-in could not be written to the audit log, so it is not even told that it failed."""

    code = "sign_in_unrecorded"
    default_message = "The sign-in could not be written down, so it is not answered. Try again shortly."
    retry_after_seconds = 5


class SchemaException(DatabaseException):
    """The server must not run on this schema; the message says what to do."""

    code = "schema_unusable"
    default_message = "The database schema does not fit this version of PixyProxy."
