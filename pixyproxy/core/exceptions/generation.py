"""Generations without a picture because of PixyProxy itself: budgets, limits, the queue, retries, the record."""

from pixyproxy.core.exceptions.images import ImageException


class ImageGenerationException(ImageException):
    """A generation yielded no picture."""

    code = "generation_failed"
    default_message = "The picture could not be generated."


class BudgetUnpricedException(ImageGenerationException):
    """The tenant has a budget but the model has no price, so the budget cannot be enforced."""

    code = "budget_unpriced"
    default_message = (
        "This tenant has a monthly budget, but the price of this model is not known. Nothing was bought. "
        "The operator must set a price or remove the budget."
    )


class BudgetExceededException(ImageGenerationException):
    """The order could cost more than the rest of the tenant's budget of this month."""

    code = "budget_exceeded"
    default_message = (
        "This order may cost more than the rest of this tenant's monthly budget. Nothing was bought. "
        "Name `size` and `quality`: without them the highest price is assumed. /me shows the rest of the budget."
    )


class ImageLimitException(ImageGenerationException):
    """The order asks for more pictures than the rest of the minute's limit."""

    code = "rate_limited"
    default_message = "Too many pictures: the rest of the rate limit allows fewer. Nothing was bought. Order fewer."
    retry_after_seconds = 60


class QueueFullException(ImageGenerationException):
    """The tenant has the maximum number of waiting orders; this one was not accepted."""

    code = "queue_full"
    default_message = "Too many orders of this tenant are already waiting. Nothing was bought. Try again later."
    retry_after_seconds = 10


class QueueTimeoutException(ImageGenerationException):
    """The order waited too long for a slot at an upstream."""

    code = "queue_timeout"
    default_message = "The image service had no free slot for this order in time. Nothing was bought. Try again later."
    retry_after_seconds = 10


class ModelUnknownException(ImageGenerationException):
    """No upstream is configured for the model."""

    code = "model_not_found"
    default_message = "This server has no image service for this model. See /v1/models for the available models."


class GenerationNotFoundException(ImageGenerationException):
    """The generation does not exist or belongs to another tenant."""

    code = "generation_not_found"
    default_message = "There is no generation with this GUID."


class GenerationResolvedException(ImageGenerationException):
    """Only a generation with an unknown outcome can be resolved."""

    code = "generation_resolved"
    default_message = "The outcome of this generation is already known; there is nothing to resolve."


class GenerationInFlightException(ImageGenerationException):
    """A request with this Idempotency-Key is still in progress."""

    code = "generation_in_flight"
    default_message = "A request with this Idempotency-Key is in progress. Repeat it shortly to get its picture."


class GenerationUnknownException(ImageGenerationException):
    """The request with this Idempotency-Key may have been paid for; it is never repeated silently."""

    code = "generation_unknown"
    default_message = (
        "An earlier request with this Idempotency-Key or this content has an unknown outcome and is not repeated. "
        "Send it with a new Idempotency-Key to buy the picture, possibly for a second time."
    )


class GenerationCancelledException(ImageGenerationException):
    """The order was cancelled while it waited."""

    code = "generation_cancelled"
    default_message = "This order was cancelled before it started. Nothing was charged. Order again to get the picture."


class GenerationDeletedException(ImageGenerationException):
    """The picture made with this Idempotency-Key was deleted."""

    code = "generation_deleted"
    default_message = "The picture made with this Idempotency-Key was deleted. Use a new key to order another."


class IdempotencyMismatchException(ImageGenerationException):
    """The Idempotency-Key was used with another request."""

    code = "idempotency_mismatch"
    default_message = "This Idempotency-Key was already used with a different request. Use a new key for a new request."


class RecordPendingException(ImageGenerationException):
    """The picture is paid for and on disk; it is recorded once the database is back."""

    code = "record_pending"
    default_message = (
        "The picture was made and is safe, but the database cannot record it at the moment. Do not order it again: "
        "it will appear under the GUID in `image`, and the generation in `generation` will become stored."
    )
    retry_after_seconds = 10
