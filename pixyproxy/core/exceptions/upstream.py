"""Generations without a picture because of the upstream's answer, or because there was none."""

from pixyproxy.core.exceptions.generation import ImageGenerationException


class PromptRefusedException(ImageGenerationException):
    """The upstream refused the request; it would refuse the same request again."""

    code = "prompt_refused"
    default_message = (
        "The image model refused this request. Nothing was bought. Change the prompt or its options and try again."
    )


class UpstreamCredentialException(ImageGenerationException):
    """The upstream refuses PixyProxy's own key, or the key may not use the model."""

    code = "upstream_credential_refused"
    default_message = (
        "The image service refuses PixyProxy's own credential. Nothing was bought. The operator must check "
        "OPENAI_API_KEY, or the upstream's api_key in PIXYPROXY_UPSTREAMS, and what the key may use."
    )


class UpstreamFundsException(ImageGenerationException):
    """PixyProxy's account with the upstream has no credit left or is suspended."""

    code = "upstream_out_of_funds"
    default_message = (
        "PixyProxy's account with the image service has no credit left. Nothing was bought. "
        "The operator must add credit or raise the account's limit."
    )


class UpstreamAddressException(ImageGenerationException):
    """The upstream has no Images API at its base URL, so the URL is wrong."""

    code = "upstream_address_wrong"
    default_message = (
        "The image service has no Images API at its configured address. Nothing was bought. The operator must check "
        "OPENAI_BASE_URL, or the upstream's base_url in PIXYPROXY_UPSTREAMS: most end in /v1."
    )


class UpstreamBusyException(ImageGenerationException):
    """The upstream's rate limit is exhausted."""

    code = "upstream_busy"
    default_message = "The image service has reached its rate limit. Nothing was bought. Try again later."
    retry_after_seconds = 20


class UpstreamErrorException(ImageGenerationException):
    """The upstream reported an internal failure."""

    code = "upstream_failed"
    default_message = "The image service reported an internal failure. No picture was made. Try again shortly."


class UpstreamUnreachableException(ImageGenerationException):
    """No connection to the upstream could be made, so it did nothing."""

    code = "upstream_unreachable"
    default_message = "The image service cannot be reached. Nothing was bought. Try again shortly."
    retry_after_seconds = 10


class UpstreamAnswerException(ImageGenerationException):
    """The upstream's answer is complete but holds no picture. It is not called again; nothing is charged here."""

    code = "upstream_answer_invalid"
    default_message = (
        "The answer of the image service holds no picture. Nothing was stored or charged. "
        "Use a new Idempotency-Key, or none, to try again."
    )


class PictureUnusableException(UpstreamAnswerException):
    """The upstream sent a picture that cannot be stored: not PNG, JPEG, WebP or GIF, too large, or not readable.

    It was probably paid for, so the outcome is unknown and the answer is retained for the operator.
    """

    code = "upstream_picture_unusable"
    default_message = (
        "The image service sent something that cannot be stored as a picture: not PNG, JPEG, WebP or GIF, too large, "
        "or not readable. It is retained for the operator, and its possible cost stays reserved until they decide. "
        "Repeating the request may buy the same again."
    )


class UpstreamSilentException(ImageGenerationException):
    """The connection was lost after the request was sent, so it may have been paid for."""

    code = "upstream_silent"
    default_message = (
        "The image service closed the connection early, so it may have done the work. "
        "It was not called again, and nothing was stored. Repeating the request may buy a second picture."
    )


class UpstreamTimeoutException(UpstreamSilentException):
    """The call timed out after the request was sent, so it may have been paid for."""

    code = "upstream_timeout"
    default_message = (
        "The image service took too long, so it may still do the work. "
        "It was not called again, and nothing was stored. Repeating the request may buy a second picture."
    )
