"""The exception handler: RFC 9457 problem JSON, OpenAI's envelope under ``/v1``, or OAuth errors.

The table assigns each core exception a status; a test fails if a class is missing. The framework's exceptions and
unexpected ones go through the same function.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from slowapi.errors import RateLimitExceeded
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixyproxy.core import exceptions as core
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.service.private.audit import entry
from pixyproxy.web.errors.problem import OAUTH_PATHS, Problem, oauth_response, problem_response
from pixyproxy.web.middleware.url_prefix import route_path
from pixyproxy.web.openai.envelope import PREFIX, openai_response
from pixyproxy.web.openai.requests import MOST_FIELD_BYTES, MOST_FIELDS, MOST_INPUTS, is_form
from pixyproxy.web.rate_limits.buckets import SCOPE_KEY, Counted

logger = logging.getLogger(__name__)

STATUS: dict[type[core.PixyProxyException], HTTPStatus] = {
    core.PixyProxyException: HTTPStatus.INTERNAL_SERVER_ERROR,
    core.ConfigurationException: HTTPStatus.INTERNAL_SERVER_ERROR,
    core.AuthenticationException: HTTPStatus.UNAUTHORIZED,
    core.CredentialMissingException: HTTPStatus.UNAUTHORIZED,
    core.CredentialInvalidException: HTTPStatus.UNAUTHORIZED,
    core.IssuerUnavailableException: HTTPStatus.SERVICE_UNAVAILABLE,
    core.ServerBusyException: HTTPStatus.SERVICE_UNAVAILABLE,
    core.TooManyAtOnceException: HTTPStatus.TOO_MANY_REQUESTS,
    core.TooManyFailuresException: HTTPStatus.TOO_MANY_REQUESTS,
    core.PermissionException: HTTPStatus.FORBIDDEN,
    core.GrantException: HTTPStatus.UNPROCESSABLE_ENTITY,
    core.TenantSuspendedException: HTTPStatus.FORBIDDEN,
    core.ModelNotAllowedException: HTTPStatus.FORBIDDEN,
    core.OAuthException: HTTPStatus.BAD_REQUEST,
    core.OAuthRequestException: HTTPStatus.BAD_REQUEST,
    core.OAuthClientException: HTTPStatus.UNAUTHORIZED,
    core.OAuthGrantException: HTTPStatus.BAD_REQUEST,
    core.OAuthGrantTypeException: HTTPStatus.BAD_REQUEST,
    core.OAuthUnauthorizedException: HTTPStatus.BAD_REQUEST,
    core.OAuthScopeException: HTTPStatus.BAD_REQUEST,
    core.InvalidRequestException: HTTPStatus.UNPROCESSABLE_ENTITY,
    core.InvalidCursorException: HTTPStatus.BAD_REQUEST,
    core.TenantException: HTTPStatus.BAD_REQUEST,
    core.TenantNotFoundException: HTTPStatus.NOT_FOUND,
    core.TenantExistsException: HTTPStatus.CONFLICT,
    core.OwnTenantException: HTTPStatus.CONFLICT,
    core.ApiKeyException: HTTPStatus.BAD_REQUEST,
    core.ApiKeyNotFoundException: HTTPStatus.NOT_FOUND,
    core.ApiKeyRevokedException: HTTPStatus.CONFLICT,
    core.ApiKeyLimitException: HTTPStatus.CONFLICT,
    core.UserException: HTTPStatus.BAD_REQUEST,
    core.UserNotFoundException: HTTPStatus.NOT_FOUND,
    core.UserExistsException: HTTPStatus.CONFLICT,
    core.UserLimitException: HTTPStatus.CONFLICT,
    core.WebhookException: HTTPStatus.BAD_REQUEST,
    core.WebhookNotFoundException: HTTPStatus.NOT_FOUND,
    core.WebhookTargetException: HTTPStatus.UNPROCESSABLE_ENTITY,
    core.WebhookLimitException: HTTPStatus.CONFLICT,
    core.DatabaseException: HTTPStatus.INTERNAL_SERVER_ERROR,
    core.DatabaseUnavailableException: HTTPStatus.SERVICE_UNAVAILABLE,
    core.DatabaseBusyException: HTTPStatus.SERVICE_UNAVAILABLE,
    core.SearchTimeoutException: HTTPStatus.UNPROCESSABLE_ENTITY,
    core.SignInUnrecordedException: HTTPStatus.SERVICE_UNAVAILABLE,
    core.SchemaException: HTTPStatus.INTERNAL_SERVER_ERROR,
    core.ImageException: HTTPStatus.BAD_REQUEST,
    core.ImageNotFoundException: HTTPStatus.NOT_FOUND,
    core.ImagePromptException: HTTPStatus.UNPROCESSABLE_ENTITY,
    core.InputPictureException: HTTPStatus.UNPROCESSABLE_ENTITY,
    core.ImageStorageException: HTTPStatus.SERVICE_UNAVAILABLE,
    core.StorageFullException: HTTPStatus.INSUFFICIENT_STORAGE,
    core.PictureMissingException: HTTPStatus.INTERNAL_SERVER_ERROR,
    core.ImageGenerationException: HTTPStatus.BAD_GATEWAY,
    core.BudgetUnpricedException: HTTPStatus.PAYMENT_REQUIRED,
    core.BudgetExceededException: HTTPStatus.PAYMENT_REQUIRED,
    core.ImageLimitException: HTTPStatus.TOO_MANY_REQUESTS,
    core.QueueFullException: HTTPStatus.SERVICE_UNAVAILABLE,
    core.QueueTimeoutException: HTTPStatus.SERVICE_UNAVAILABLE,
    core.ModelUnknownException: HTTPStatus.NOT_FOUND,
    core.GenerationNotFoundException: HTTPStatus.NOT_FOUND,
    core.GenerationResolvedException: HTTPStatus.CONFLICT,
    core.GenerationCancelledException: HTTPStatus.CONFLICT,
    core.PromptRefusedException: HTTPStatus.BAD_REQUEST,
    core.UpstreamCredentialException: HTTPStatus.BAD_GATEWAY,
    core.UpstreamFundsException: HTTPStatus.SERVICE_UNAVAILABLE,
    core.UpstreamAddressException: HTTPStatus.BAD_GATEWAY,
    core.UpstreamBusyException: HTTPStatus.SERVICE_UNAVAILABLE,
    core.UpstreamErrorException: HTTPStatus.BAD_GATEWAY,
    core.UpstreamUnreachableException: HTTPStatus.SERVICE_UNAVAILABLE,
    core.UpstreamAnswerException: HTTPStatus.BAD_GATEWAY,
    core.PictureUnusableException: HTTPStatus.BAD_GATEWAY,
    core.UpstreamSilentException: HTTPStatus.BAD_GATEWAY,
    core.UpstreamTimeoutException: HTTPStatus.GATEWAY_TIMEOUT,
    core.GenerationInFlightException: HTTPStatus.CONFLICT,
    core.GenerationUnknownException: HTTPStatus.CONFLICT,
    core.GenerationDeletedException: HTTPStatus.CONFLICT,
    core.IdempotencyMismatchException: HTTPStatus.UNPROCESSABLE_ENTITY,
    core.RecordPendingException: HTTPStatus.SERVICE_UNAVAILABLE,
}

FRAMEWORK_CODES: dict[int, tuple[str, str]] = {
    400: (
        "malformed_body",
        "The request body cannot be parsed. Send UTF-8 JSON, one body length, and no deep nesting or masses of lists.",
    ),
    404: ("route_not_found", "No resource exists at this path. See /docs for the available paths."),
    405: ("method_not_allowed", "This path does not support this method. `Allow` lists the supported methods."),
    413: ("body_too_large", "The request body is too large. Send a smaller body."),
    414: ("query_too_long", "The query string is too long or has too many parameters. Send fewer."),
    416: ("range_not_satisfiable", "The requested range is outside the picture. `Content-Range` gives its size."),
    422: (
        core.InvalidRequestException.code,
        "The body has over 100 members in an object, 1,000 items in a list, or 10,000 values. Send fewer.",
    ),
    429: ("rate_limited", "Too many requests of this kind. Retry after the seconds in the `Retry-After` header."),
    431: ("headers_too_large", "The request has too many headers or too long ones. Send fewer or shorter headers."),
}
"""The status of the framework's own errors → code and detail."""

UNREADABLE_FORM = (
    "The form cannot be parsed: it is malformed, or has too many or too long fields. /v1/images/edits accepts "
    f"{MOST_INPUTS} files and {MOST_FIELDS} other fields of up to {MOST_FIELD_BYTES // 1024} KB each."
)
EDITS_PATH = "/v1/images/edits"
OPENAI_PATHS = ("/images/", "/models")
"""Paths that an OpenAI SDK requests if its ``base_url`` lacks ``/v1``; it can only display OpenAI's error format."""
BELOW_V1 = "No resource exists at this path. The OpenAI-compatible API is under /v1: add /v1 to the SDK's `base_url`."
OF_SEVERAL = {"n", "stream", "partial_images"}
SEVERAL = "For several pictures or for events, use POST /generation or POST /v1/images/generations."
MOST_ERRORS = 20
"""Maximum number of errors listed in a response."""
KEY_HEADER = ("header", "idempotency-key")
KEY_RULE = "must be 1 to 255 visible ASCII characters; omit the header instead of sending it empty"

WITH_RETRY_AFTER = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}
CHALLENGE = 'Bearer realm="pixyproxy"'


async def answer_exception(request: Request, exception: Exception) -> Response:
    """Return the response to an exception. It never echoes input, and includes the request id of the log."""
    if isinstance(exception, core.PermissionException):
        exception = await _written_down(request, exception)
    problem = describe(request, exception)
    path = route_path(request.scope)
    if path.startswith((PREFIX, *OPENAI_PATHS)):
        return openai_response(problem)
    if path in OAUTH_PATHS:
        return oauth_response(_as_oauth(problem))
    return problem_response(problem)


async def _written_down(request: Request, refusal: core.PermissionException) -> Exception:
    """Return the refusal after it is in the audit log, or the error that prevented the audit entry.

    All refusals pass through here, so no route can omit the entry.
    """
    principal = getattr(request.state, "principal", None)
    if principal is None:
        return refusal
    try:
        await request.app.state.limits.note_refusal(principal.subject)
        await request.app.state.services.audit.record(
            entry(
                principal.actor,
                AuditAction.SCOPE_REFUSED,
                tenant_guid=principal.tenant_guid,
                target=f"{request.method} {request.scope['route'].path}",
                details={"code": refusal.code} | refusal.context,
            )
        )
    except Exception as error:  # noqa: BLE001  (any error replaces the refusal in the response)
        return error
    return refusal


def _as_oauth(problem: Problem) -> Problem:
    """Return the problem for an OAuth endpoint, where invalid parameters are 400, not 422 (RFC 6749 §5.2)."""
    if problem.status != HTTPStatus.UNPROCESSABLE_ENTITY:
        return problem
    names = ", ".join(dict.fromkeys(str(error["loc"][-1]) for error in problem.members.get("errors", ())))
    detail = f"Send a form (application/x-www-form-urlencoded). Missing or invalid: {names or 'its parameters'}."
    return replace(problem, status=HTTPStatus.BAD_REQUEST, detail=detail)


def allowed_methods(routers: list[APIRouter]) -> dict[str, str]:
    """Return path → all its methods, for ``Allow``; the framework only knows the methods of one route."""
    methods: dict[str, set[str]] = {}
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute):
                methods.setdefault(route.path, set()).update(route.methods or ())
    for names in methods.values():
        if "GET" in names:
            names.add("HEAD")
    return {path: ", ".join(sorted(names)) for path, names in methods.items()}


@dataclass(frozen=True)
class ErrorBoundary:
    """Handle unexpected exceptions inside the request log, before the framework does."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; respond to an exception unless a response has started."""
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_noted)
        except Exception as error:
            if scope["type"] != "http":
                raise
            if begun:
                logger.exception("the response was aborted by an unexpected error")
                return
            response = await answer_exception(Request(scope), error)
            await response(scope, receive, send)


def describe(request: Request, exception: Exception) -> Problem:
    """Return the problem for an exception; log it if it is the server's fault."""
    if isinstance(exception, core.PixyProxyException):
        return _describe_core(exception)
    if isinstance(exception, RequestValidationError):
        return _describe_validation(request, exception)
    if isinstance(exception, RateLimitExceeded):
        counted: Counted = request.scope[SCOPE_KEY]
        code, detail = FRAMEWORK_CODES[429]
        return Problem(429, code, detail, {}, {"Retry-After": str(counted.retry_after_seconds)})
    if isinstance(exception, HTTPException):
        return _describe_http(request, exception)
    logger.error("unexpected %s", type(exception).__name__, exc_info=exception)
    return Problem(500, core.PixyProxyException.code, core.PixyProxyException.default_message, {}, {})


def _describe_http(request: Request, exception: HTTPException) -> Problem:
    status, headers = exception.status_code, dict(exception.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        path = request.scope["route"].path
        headers["Allow"] = request.app.state.allowed_methods.get(path, headers.get("Allow", ""))
    code, detail = FRAMEWORK_CODES.get(status, (f"http_{status}", HTTPStatus(status).description))
    if status == HTTPStatus.BAD_REQUEST and is_form(request) and route_path(request.scope) == EDITS_PATH:
        detail = UNREADABLE_FORM
    if status == HTTPStatus.NOT_FOUND and route_path(request.scope).startswith(OPENAI_PATHS):
        detail = BELOW_V1
    return Problem(status, code, detail, {}, headers)


def _describe_core(exception: core.PixyProxyException) -> Problem:
    status = STATUS[type(exception)]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.warning("responded with %d %s, cause: %s", status, exception.code, _cause(exception))
    headers = {}
    if exception.retry_after_seconds is not None and status in WITH_RETRY_AFTER:
        headers["Retry-After"] = str(exception.retry_after_seconds)
    challenge = _challenge(exception)
    if challenge is not None:
        headers["WWW-Authenticate"] = challenge
    return Problem(status, exception.code, exception.message, dict(exception.context), headers)


def _challenge(exception: core.PixyProxyException) -> str | None:
    """Return the ``WWW-Authenticate`` challenge: RFC 6750 §3 for bearers, RFC 6749 §5.2 for OAuth clients."""
    if isinstance(exception, core.OAuthClientException):
        return 'Basic realm="pixyproxy", charset="UTF-8"'
    if isinstance(exception, core.CredentialInvalidException):
        return f'{CHALLENGE}, error="invalid_token"'
    if isinstance(exception, core.AuthenticationException):
        return CHALLENGE
    if type(exception) is core.PermissionException:
        return f'{CHALLENGE}, error="insufficient_scope", scope="{exception.context["scope"]}"'
    return None


def _cause(exception: core.PixyProxyException) -> str:
    """Return the class of an exception's cause, with the message of the driver or operating system.

    The upstream's message is left out: it may repeat the prompt or the key.
    """
    cause = exception.__cause__
    words = getattr(cause, "orig", None) or (cause if isinstance(cause, OSError) else "")
    return f"{type(cause).__name__} {words}".rstrip() if cause else "none"


def _describe_validation(request: Request, exception: RequestValidationError) -> Problem:
    """Return a 422 that names fields and rules, never their values; 400 if the body is not JSON."""
    errors = exception.errors()[:MOST_ERRORS]
    if any(error["type"] == "json_invalid" for error in errors):
        code, detail = "malformed_json", "The request body is not valid JSON. Correct its syntax."
        return Problem(400, code, detail, {}, {})
    if any(error["loc"] == ("body",) for error in errors):
        detail = "Send a JSON object, with `Content-Type: application/json`."
        return Problem(422, core.InvalidRequestException.code, detail, {}, {})
    listed = [{"loc": list(error["loc"]), "type": error["type"], "msg": _rule_of(error)} for error in errors]
    detail = "Some fields of the request are invalid. Correct the fields listed in `errors`."
    unknown = {error["loc"][-1] for error in errors if error["type"] == "extra_forbidden"}
    if route_path(request.scope) == "/image" and unknown & OF_SEVERAL:
        detail = f"{detail} {SEVERAL}"
    return Problem(422, core.InvalidRequestException.code, detail, {"errors": listed}, {})


def _rule_of(error: Mapping[str, Any]) -> str:
    """Return the rule that a field breaks, in words instead of a pattern."""
    if error["loc"] == KEY_HEADER:
        return KEY_RULE
    return str(error["msg"]).removeprefix("Value error, ")
