"""Orders that gave no picture for what an upstream said, or did not say."""

from pixyproxy.core.exceptions.generation import ImageGenerationException


class PromptRefusedException(ImageGenerationException):
    """The upstream refused the request itself; the same request will be refused again."""

    code = "prompt_refused"
    default_message = (
        "The image model refused this request. Nothing was bought. Change the prompt or its options and try again."
    )


class UpstreamCredentialException(ImageGenerationException):
    """The upstream does not accept PixyProxy's own key, or the key may not use the model."""

    code = "upstream_credential_refused"
    default_message = (
        "The image service refuses PixyProxy's own credential. Nothing was bought. "
        "The operator must check OPENAI_API_KEY, or its api_key in PIXYPROXY_UPSTREAMS, and what it may use."
    )


class UpstreamFundsException(ImageGenerationException):
    """The account with the upstream has no money or credit left, or is suspended for it."""

    code = "upstream_out_of_funds"
    default_message = (
        "PixyProxy's account with the image service has no credit left. Nothing was bought. "
        "The operator must add credit or raise the account's limit."
    )


class UpstreamAddressException(ImageGenerationException):
    """The upstream has nothing at the URL that it was asked at, so its base URL is wrong."""

    code = "upstream_address_wrong"
    default_message = (
        "The image service has no Images API at its configured address. Nothing was bought. "
        "The operator must check OPENAI_BASE_URL, or its base_url in PIXYPROXY_UPSTREAMS: most end in /v1."
    )


class UpstreamBusyException(ImageGenerationException):
    """The upstream's rate limit is used up."""

    code = "upstream_busy"
    default_message = "The image service is at its limit. Nothing was bought. Try again later."
    retry_after_seconds = 20


class UpstreamErrorException(ImageGenerationException):
    """The upstream reported a failure of its own."""

    code = "upstream_failed"
    default_message = "The image service reported a failure of its own. No picture came of it. Try again shortly."


class UpstreamUnreachableException(ImageGenerationException):
    """No connection to the upstream could be made, so it did nothing."""

    code = "upstream_unreachable"
    default_message = "The image service cannot be reached. Nothing was bought. Try again shortly."
    retry_after_seconds = 10


class UpstreamAnswerException(ImageGenerationException):
    """The upstream answered in full, but without a picture. It is not asked again; nothing is charged here."""

    code = "upstream_answer_invalid"
    default_message = (
        "The image service answered with something that is no picture. Nothing was stored or charged. "
        "Use a new Idempotency-Key, or none, to try again."
    )


class PictureUnusableException(UpstreamAnswerException):
    """The upstream sent a picture that cannot be stored: not PNG, JPEG, WebP or GIF, too large, or not readable.

    It was probably paid for, so the outcome is unknown and the answer is kept for the operator.
    """

    code = "upstream_picture_unusable"
    default_message = (
        "The image service sent something that cannot be stored as a picture: not PNG, JPEG, WebP or GIF, too large, "
        "or not readable. It is kept for the operator, and what it may cost stays reserved until they decide. "
        "Repeating the request may buy the same again."
    )


class UpstreamSilentException(ImageGenerationException):
    """Cut off after the request was sent: whether it was paid for cannot be known."""

    code = "upstream_silent"
    default_message = (
        "The image service broke off, so it may have done the work. "
        "It was not asked again, and nothing was stored. Repeating the request may buy a second picture."
    )


class UpstreamTimeoutException(UpstreamSilentException):
    """Out of time after the request was sent: whether it was paid for cannot be known."""

    code = "upstream_timeout"
    default_message = (
        "The image service took too long, so it may still do the work. "
        "It was not asked again, and nothing was stored. Repeating the request may buy a second picture."
    )
