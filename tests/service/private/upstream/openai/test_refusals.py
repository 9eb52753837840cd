"""Classification of refusals: the body decides first, then the status."""

from typing import Any

import pytest

from pixyproxy.core.exceptions import (
    ImageGenerationException,
    PromptRefusedException,
    UpstreamAddressException,
    UpstreamBusyException,
    UpstreamCredentialException,
    UpstreamErrorException,
    UpstreamFundsException,
    UpstreamSilentException,
)
from pixyproxy.service.private.upstream.openai.refusals import exception_of

CLIENT, ACCOUNT, KEY, BUSY = (
    PromptRefusedException,
    UpstreamFundsException,
    UpstreamCredentialException,
    UpstreamBusyException,
)
ADDRESS, FAILURE, SILENCE = UpstreamAddressException, UpstreamErrorException, UpstreamSilentException


def openai(message: str, *, kind: str = "invalid_request_error", code: str | None = None) -> dict[str, Any]:
    """Return an error as OpenAI and Together write it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def azure(code: str, message: str, **more: object) -> dict[str, Any]:
    """Return an error as Azure writes it."""
    return {"error": {"code": code, "message": message, **more}}


def xai(code: str, error: str) -> dict[str, Any]:
    """Return an error as xAI writes it: a sentence or a word, and a text."""
    return {"code": code, "error": error}


def numbered(code: int, message: str, **more: object) -> dict[str, Any]:
    """Return an error as LocalAI and OpenRouter write it, with the status as its code."""
    return {"error": {"code": code, "message": message, **more}}


FORBIDDEN = "The caller does not have permission to execute the specified operation"
INVALID = "Client specified an invalid argument"
SHAPES: dict[str, list[tuple[int, object, type[ImageGenerationException]]]] = {
    "OpenAI": [
        (
            400,
            openai(
                "Your request was rejected by the safety system.",
                kind="image_generation_user_error",
                code="moderation_blocked",
            ),
            CLIENT,
        ),
        (400, openai("Your request was rejected.", code="content_policy_violation"), CLIENT),
        (403, openai("Your request was rejected as a result of our safety system."), CLIENT),
        (403, openai("Your request was rejected.", code="content_policy_violation"), CLIENT),
        (400, openai("Invalid value: '1x1'.", code="invalid_value"), CLIENT),
        (400, openai("Billing hard limit has been reached.", code="billing_hard_limit_reached"), ACCOUNT),
        (
            400,
            openai("Billing hard limit has been reached.", kind="image_generation_user_error", code=None),
            ACCOUNT,
        ),
        (
            429,
            openai("You exceeded your current quota.", kind="insufficient_quota", code="insufficient_quota"),
            ACCOUNT,
        ),
        (429, openai("Rate limit reached.", kind="requests", code="rate_limit_exceeded"), BUSY),
        (401, openai("Incorrect API key provided: sk-1.", code="invalid_api_key"), KEY),
        (401, openai("You must be a member of an organization to use the API."), KEY),
        (403, openai("Your organization must be verified to use the model `gpt-image-2`."), KEY),
        (403, openai("Country not supported", code="unsupported_country_region_territory"), KEY),
        (403, openai("Project `p` does not have access to model `m`", code="model_not_found"), CLIENT),
        (404, openai("The model `m` does not exist or you do not have access to it.", code="model_not_found"), CLIENT),
        (404, openai("Invalid URL (POST /images/generations)"), ADDRESS),
        (409, openai("The resource was updated."), FAILURE),
        (500, openai("The server had an error.", kind="server_error"), FAILURE),
        (503, openai("The engine is currently overloaded.", kind="service_unavailable"), FAILURE),
    ],
    "Azure": [
        (400, azure("contentFilter", "Your task failed as a result of our safety system."), CLIENT),
        (
            400,
            azure("content_policy_violation", "x", inner_error={"code": "ResponsibleAIPolicyViolation"}),
            CLIENT,
        ),
        (400, azure("BadRequest", "x", innererror={"code": "ResponsibleAIPolicyViolation"}), CLIENT),
        (
            400,
            azure(
                "400",
                "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
            ),
            CLIENT,
        ),
        (401, azure("401", "Access denied due to invalid subscription key or wrong API endpoint."), KEY),
        (401, {"statusCode": 401, "message": "Unauthorized. Access token is missing, invalid or expired."}, KEY),
        (403, azure("403", "Access denied due to Virtual Network/Firewall rules."), KEY),
        (
            403,
            azure(
                "Forbidden", "Your resource has been temporarily blocked: behavior that may violate our content policy."
            ),
            KEY,
        ),
        (404, azure("DeploymentNotFound", "The API deployment for this resource does not exist."), CLIENT),
        (404, azure("404", "Resource not found"), ADDRESS),
        (429, azure("429", "Requests have exceeded the call rate limit. Please retry after 9 seconds."), BUSY),
        (429, azure("RateLimitReached", "Retry later."), BUSY),
    ],
    "xAI": [
        (403, xai(FORBIDDEN, "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"), CLIENT),
        (403, xai("permission-denied", "Content violates usage guidelines."), CLIENT),
        (400, xai(INVALID, "Generated image rejected by content moderation."), CLIENT),
        (400, xai(INVALID, "Incorrect API key provided: xai-1. You can obtain one from the console."), KEY),
        (400, xai("invalid-argument", "Argument not supported: quality"), CLIENT),
        (403, xai(FORBIDDEN, "Your newly created teams doesn't have any credits yet."), ACCOUNT),
        (
            403,
            xai("permission-denied", "Your team 1-2 has either used all available credits or reached its limit."),
            ACCOUNT,
        ),
        (403, xai("permission-denied", "Your API key is blocked."), KEY),
        (429, xai("Some resource has been exhausted", "Your team 1-2 has either used all available credits."), ACCOUNT),
        (429, xai("Some resource has been exhausted", "Too many requests for team 1-2."), BUSY),
        (404, xai("Some requested entity was not found", "The model grok-x does not exist."), CLIENT),
        (404, b"", ADDRESS),
        (422, b"Failed to deserialize the JSON body into the target type: prompt: invalid type", CLIENT),
    ],
    "LocalAI": [
        (400, numbered(400, "size must be WIDTHxHEIGHT", type="invalid_request_error", param=None), CLIENT),
        (401, numbered(401, "An authentication key is required", type="invalid_request_error"), KEY),
        (404, numbered(404, "Not Found", type=""), ADDRESS),
        (404, numbered(404, 'model "flux" not found', type=""), CLIENT),
        (405, numbered(405, "Method Not Allowed"), ADDRESS),
        (500, numbered(500, "could not load model: no such file", type=""), FAILURE),
    ],
    "Together": [
        (400, openai("Input validation error: `steps` must be at most 4"), CLIENT),
        (422, openai("The prompt was flagged: it may contain NSFW content."), CLIENT),
        (401, openai("Invalid API key provided.", code="invalid_api_key"), KEY),
        (402, openai("Credit limit exceeded, please navigate to billing.", kind="credit_limit"), ACCOUNT),
        (404, openai("Unable to access model flux. Please visit the model list.", code="model_not_available"), CLIENT),
        (429, openai("You have reached the rate limit specific to this model.", kind="model_rate_limit"), BUSY),
        (503, openai("The server is overloaded or not ready yet.", kind="service_unavailable"), FAILURE),
    ],
    "OpenRouter": [
        (400, numbered(400, "prompt is required"), CLIENT),
        (401, numbered(401, "No auth credentials found"), KEY),
        (402, numbered(402, "Insufficient credits. Add more and retry."), ACCOUNT),
        (403, numbered(403, "Input refused", metadata={"reasons": ["violence"], "flagged_input": "a"}), CLIENT),
        (403, numbered(403, "The model requires moderation and your input was flagged"), CLIENT),
        (403, numbered(403, "Key limit exceeded"), KEY),
        (404, numbered(404, "No endpoints found for m."), CLIENT),
        (408, numbered(408, "Your request timed out"), SILENCE),
        (429, numbered(429, "Rate limit exceeded: free-models-per-day"), BUSY),
        (502, numbered(502, "Provider returned error"), SILENCE),
        (503, numbered(503, "No available model provider meets your routing requirements"), FAILURE),
    ],
    "others": [
        (400, [{"error": {"code": 400, "message": "Request contains an invalid argument."}}], CLIENT),
        (412, openai("Account pixy is suspended, possibly due to reaching the spending limit.", kind="error"), ACCOUNT),
        (404, {"detail": "Not Found"}, ADDRESS),
        (422, {"detail": [{"loc": ["body", "n"], "msg": "too large"}]}, CLIENT),
        (404, b"<html>404: model not found</html>", ADDRESS),
        (403, b"<html>Blocked by moderation</html>", KEY),
        (413, b"<html>", CLIENT),
        (302, b"", ADDRESS),
        (500, b"<html>", SILENCE),
        (500, {}, SILENCE),
        (503, b"upstream connect error", SILENCE),
        (500, openai("Rejected.", code="content_policy_violation"), CLIENT),
        (500, openai("The safety system is down.", kind="server_error"), FAILURE),
        (504, openai("Timed out.", kind="server_error"), SILENCE),
        (418, {}, FAILURE),
    ],
}
CASES = [(name, *case) for name, cases in SHAPES.items() for case in cases]


@pytest.mark.parametrize(
    ("server", "status", "body", "expected"), CASES, ids=[f"{name} {status}" for name, status, _, _ in CASES]
)
def test_refusal_maps_to_its_exception(
    server: str, status: int, body: object, expected: type[ImageGenerationException]
) -> None:
    said = body.decode() if isinstance(body, bytes) else body
    assert type(exception_of(said, status=status)) is expected, server


@pytest.mark.parametrize(
    "words", ["insufficient credits", "invalid api key", "billing hard limit", "your team a used all available credits"]
)
@pytest.mark.parametrize("status", [400, 403, 422])
def test_repeated_prompt_does_not_pause_the_upstream(words: str, status: int) -> None:
    body = openai(f"Your input '{words}' was rejected by the safety system")
    assert type(exception_of(body, status=status)) is CLIENT
    echoed = openai(f"Invalid prompt: {words}")
    assert type(exception_of(echoed, status=400)) is CLIENT


def test_retry_after_applies_only_to_limits() -> None:
    limit = exception_of(openai("Wait."), status=429, retry_after=7)
    assert limit.retry_after_seconds == 7
    funds = exception_of(openai("Pay.", code="insufficient_quota"), status=429, retry_after=7)
    assert funds.retry_after_seconds is None


@pytest.mark.parametrize("code", [None, "", "two words", "x" * 65, "a\r\nb", "<b>", ["a"], "404", 5])
def test_only_plain_codes_are_shown(code: object) -> None:
    assert exception_of({"error": {"message": "words", "code": code}}, status=400).context == {}


@pytest.mark.parametrize("parameter", ["size", "image[0].file", "tools[1]"])
def test_plain_parameter_is_shown(parameter: str) -> None:
    error = {"message": "words", "code": "invalid_value", "param": parameter}
    context = exception_of({"error": error}, status=400).context
    assert context == {"upstream_code": "invalid_value", "upstream_param": parameter}


@pytest.mark.parametrize("parameter", [None, "", "two words", "x" * 65, "<b>", 5])
def test_other_parameter_is_not_shown(parameter: object) -> None:
    assert exception_of({"error": {"message": "words", "param": parameter}}, status=400).context == {}
