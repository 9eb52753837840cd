"""Exceptions of the database."""

from pixyproxy.core.exceptions.base import PixyProxyException


class DatabaseException(PixyProxyException):
    """An unexpected database error. If ``in_doubt``, the transaction may have been committed."""

    in_doubt = False
    code = "database_error"
    default_message = (
        "An unexpected database error occurred. Report it with the request id, which identifies it in the log."
    )


class DatabaseUnavailableException(DatabaseException):
    """The database cannot be reached. Nothing was changed."""

    code = "database_unavailable"
    default_message = "The database cannot be reached at the moment. Nothing was changed. Try again shortly."
    retry_after_seconds = 5


class DatabaseBusyException(DatabaseException):
    """The wait for a connection or a lock timed out. Nothing was changed."""

    code = "database_busy"
    default_message = "The database is too busy at the moment. Nothing was changed. Try again shortly."
    retry_after_seconds = 1


class SearchTimeoutException(DatabaseException):
    """A search exceeded its time limit; the same search would again."""

    code = "search_timeout"
    default_message = (
        "This search took too long and was aborted. Use more common words, or search only your own images (`mine`)."
    )


class SignInUnrecordedException(DatabaseException):
    """A failed sign-in could not be written to the audit log, so its result is not revealed."""

    code = "sign_in_unrecorded"
    default_message = "The sign-in could not be recorded, so it was not completed. Try again shortly."
    retry_after_seconds = 5


class SchemaException(DatabaseException):
    """The server must not run on this schema; the message says what to do."""

    code = "schema_unusable"
    default_message = "The database schema does not fit this version of PixyProxy."
