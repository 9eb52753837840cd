"""Every fault of the fake upstream, with the client's response."""

from dataclasses import dataclass

from tests.support import upstream as fake
from tests.support.upstream import Behaviour


@dataclass(frozen=True)
class Fault:
    """One fault; ``retry_after`` is the expected header, or None for no header."""

    name: str
    behaviour: Behaviour
    status: int
    code: str
    retry_after: str | None = None
    upstream_code: str | None = None
    """The upstream's own code, if it is passed on."""
    slow: bool = False

    def __str__(self) -> str:
        """Return the name of the parametrized test."""
        return self.name


NO_PICTURE = (502, "upstream_answer_invalid")
UNUSABLE = (502, "upstream_picture_unusable")
MAYBE_PAID = {"upstream_silent", "upstream_timeout", UNUSABLE[1]}
"""Codes with unknown outcome: the same Idempotency-Key never buys again."""
ANSWERED = {NO_PICTURE[1]}
"""Codes of complete responses: the same Idempotency-Key gets the same error and never buys again either."""

FAULTS = [
    Fault("400 moderation", fake.MODERATED, 400, "prompt_refused", upstream_code="moderation_blocked"),
    Fault("400 policy", fake.POLICY_VIOLATION, 400, "prompt_refused", upstream_code="content_policy_violation"),
    Fault("401", fake.UNAUTHORIZED, 502, "upstream_credential_refused", upstream_code="invalid_api_key"),
    Fault("403", fake.FORBIDDEN, 502, "upstream_credential_refused", upstream_code="organization_not_verified"),
    Fault("404", fake.NOT_FOUND, 400, "prompt_refused", upstream_code="model_not_found"),
    Fault("409", fake.CONFLICT, 502, "upstream_failed"),
    Fault("422", fake.UNPROCESSABLE, 400, "prompt_refused"),
    Fault("429 rate", fake.RATE_LIMITED, 503, "upstream_busy", "7", "rate_limit_exceeded"),
    Fault("429 quota", fake.QUOTA_EXHAUSTED, 503, "upstream_out_of_funds", upstream_code="insufficient_quota"),
    Fault("400 credit", fake.OUT_OF_CREDIT, 503, "upstream_out_of_funds", upstream_code="billing_hard_limit_reached"),
    Fault("403 content", fake.FORBIDDEN_CONTENT, 400, "prompt_refused"),
    Fault("404 URL", fake.NO_SUCH_URL, 502, "upstream_address_wrong"),
    Fault("500", fake.SERVER_ERROR, 502, "upstream_failed"),
    Fault("503", fake.UNAVAILABLE, 502, "upstream_failed"),
    Fault("hangs", fake.HANG, 504, "upstream_timeout", slow=True),
    Fault("hangs after headers", fake.HANG_AFTER_HEADERS, 504, "upstream_timeout", slow=True),
    Fault("drips", fake.SLOW_DRIP, 504, "upstream_timeout", slow=True),
    Fault("closes without a byte", fake.CUT, 502, "upstream_silent"),
    Fault("closes half way", fake.TRUNCATED, 502, "upstream_silent"),
    Fault("HTML with 200", fake.HTML, *NO_PICTURE),
    Fault("HTML with 502", fake.Verbatim(body=b"<html>Bad Gateway</html>", status=502, content_type="text/html"), 502,
          "upstream_silent"),
    *(
        Fault(f"{status} {words}", behaviour, 502, "upstream_silent")
        for status in (408, 499, 502, 504, 520, 522, 524)
        for words, behaviour in (
            ("with a message", fake.Refusal(status=status, message="The gateway lost the upstream.")),
            ("without a message", fake.Verbatim(body=b"", status=status)),
        )
    ),
    Fault("a redirect", fake.Verbatim(body=b"", status=302), 502, "upstream_address_wrong"),
    Fault("an empty body", fake.EMPTY_BODY, *NO_PICTURE),
    Fault("data null", fake.DATA_NULL, *NO_PICTURE),
    Fault("data empty", fake.DATA_EMPTY, *NO_PICTURE),
    Fault("a JSON list", fake.JSON_LIST, *NO_PICTURE),
    Fault("a JSON string", fake.JSON_STRING, *NO_PICTURE),
    Fault("broken JSON", fake.BROKEN_JSON, *NO_PICTURE),
    Fault("deep JSON", fake.Verbatim(body=b"[" * 100_000), *NO_PICTURE),
    Fault("an item without picture", fake.NO_PICTURE, *NO_PICTURE),
    Fault("a number for a picture", fake.NUMBER_FOR_PICTURE, *NO_PICTURE),
    Fault("an empty picture", fake.Verbatim(body=b'{"created":1,"data":[{"b64_json":""}]}'), *NO_PICTURE),
    Fault("bad base64", fake.BAD_BASE64, *UNUSABLE),
    Fault("a URL that must not be called", fake.Linked(root="http://169.254.169.254"), *UNUSABLE),
    Fault("SVG called PNG", fake.SVG_AS_PNG, *UNUSABLE),
    Fault("HTML called PNG", fake.HTML_AS_PNG, *UNUSABLE),
    Fault("50,000² pixels", fake.HUGE_PIXELS, *UNUSABLE),
]  # fmt: skip
