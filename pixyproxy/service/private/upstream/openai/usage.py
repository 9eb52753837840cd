"""The token usage in a response."""

from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from pixyproxy.core.models.order import UpstreamUsage

Tokens = Annotated[int, Field(strict=True, ge=0, lt=2**31)]


class _Details(BaseModel, hide_input_in_errors=True):
    text_tokens: Tokens
    image_tokens: Tokens


class _Usage(BaseModel, hide_input_in_errors=True):
    """The Images API's ``usage`` (openai 3.52, ImagesResponse and ImageGenCompletedEvent)."""

    input_tokens_details: _Details
    output_tokens: Tokens
    output_tokens_details: _Details | None = None


def read_usage(usage: object) -> UpstreamUsage | None:
    """Return the tokens of a response's ``usage``.

    Return None if it is invalid: a paid picture must not be lost because of it.
    """
    try:
        read = _Usage.model_validate(usage)
    except ValidationError:
        return None
    output = read.output_tokens_details or _Details(text_tokens=0, image_tokens=read.output_tokens)
    return UpstreamUsage(
        input_text_tokens=read.input_tokens_details.text_tokens,
        input_image_tokens=read.input_tokens_details.image_tokens,
        output_text_tokens=output.text_tokens,
        output_image_tokens=output.image_tokens,
    )


def add_usages(usages: list[UpstreamUsage | None]) -> UpstreamUsage | None:
    """Return the sum; None if one of them is unknown, or the list is empty."""
    known = [usage.model_dump() for usage in usages if usage is not None]
    if not known or len(known) < len(usages):
        return None
    return UpstreamUsage(**{name: sum(usage[name] for usage in known) for name in known[0]})
