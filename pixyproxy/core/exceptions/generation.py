"""Orders that gave no picture for a reason of ours: budgets, limits, the queue, repeats, the record."""

from pixyproxy.core.exceptions.images import ImageException


class ImageGenerationException(ImageException):
    """A generation that gave no picture."""

    code = "generation_failed"
    default_message = "The picture could not be generated."


class BudgetUnpricedException(ImageGenerationException):
    """The tenant has a budget and the model has no price, so the budget could not be kept."""

    code = "budget_unpriced"
    default_message = (
        "This tenant has a monthly budget, but no price is known for the model. Nothing was bought. "
        "The operator must set a price or take the budget away."
    )


class BudgetExceededException(ImageGenerationException):
    """The order could cost more than is left of the tenant's budget of this month."""

    code = "budget_exceeded"
    default_message = (
        "What is left of this tenant's monthly budget is less than this order may cost. Nothing was bought. "
        "Name `size` and `quality`: without them an order may cost the most there is. /me tells what is left."
    )


class ImageLimitException(ImageGenerationException):
    """An order for several pictures, and fewer are left of the limit of a minute."""

    code = "rate_limited"
    default_message = "Too many pictures at once: fewer are left of the limit. Nothing was bought. Ask for fewer."
    retry_after_seconds = 60


class QueueFullException(ImageGenerationException):
    """As many orders of the tenant wait as may; none was accepted."""

    code = "queue_full"
    default_message = "Too many orders of this tenant wait already. Nothing was bought. Try again later."
    retry_after_seconds = 10


class QueueTimeoutException(ImageGenerationException):
    """The order waited for a place at an upstream for as long as it may."""

    code = "queue_timeout"
    default_message = "The image service had no place for this order in time. Nothing was bought. Try again later."
    retry_after_seconds = 10


class ModelUnknownException(ImageGenerationException):
    """No upstream is configured for the model."""

    code = "model_not_found"
    default_message = "No image service here offers this model. /v1/models lists those that there are."


class GenerationNotFoundException(ImageGenerationException):
    """There is no such generation, or it is another tenant's."""

    code = "generation_not_found"
    default_message = "There is no generation with this GUID."


class GenerationResolvedException(ImageGenerationException):
    """Only a generation whose outcome is unknown can be resolved."""

    code = "generation_resolved"
    default_message = "The outcome of this generation is known; there is nothing to resolve."


class GenerationInFlightException(ImageGenerationException):
    """A request with this Idempotency-Key is still being worked on."""

    code = "generation_in_flight"
    default_message = "A request with this Idempotency-Key is being worked on. Repeat it shortly to get its picture."


class GenerationUnknownException(ImageGenerationException):
    """The request with this Idempotency-Key may have been paid for; it is never repeated silently."""

    code = "generation_unknown"
    default_message = (
        "The earlier sending of this request ended without a known outcome and is not repeated. "
        "Send it with a new Idempotency-Key to buy the picture, possibly for a second time."
    )


class GenerationCancelledException(ImageGenerationException):
    """The order was cancelled while it waited."""

    code = "generation_cancelled"
    default_message = "This order was cancelled before it began; nothing was charged. Order anew to get the picture."


class GenerationDeletedException(ImageGenerationException):
    """The picture that this Idempotency-Key made has been deleted."""

    code = "generation_deleted"
    default_message = "The picture made under this Idempotency-Key was deleted. Use a new key to make another."


class IdempotencyMismatchException(ImageGenerationException):
    """This Idempotency-Key was used with another request."""

    code = "idempotency_mismatch"
    default_message = "This Idempotency-Key was used with a different request. Use a new key for a new request."


class RecordPendingException(ImageGenerationException):
    """The picture is paid for and on disk; its record is written once the database is back."""

    code = "record_pending"
    default_message = (
        "The picture was made and is safe, but the database cannot record it just now. Do not make it again: "
        "it will appear under the GUID in `image`, and the generation in `generation` will be stored."
    )
    retry_after_seconds = 10
