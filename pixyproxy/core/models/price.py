"""Prices: an operator's price file entry for one model, in dollars."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field, StringConstraints

from pixyproxy.core.models.base import REFUSE_COERCION, FrozenModel

ANY = "*"
"""In a table: every key not listed."""

Dollars = Annotated[Decimal, REFUSE_COERCION, Field(ge=0, le=1_000_000, decimal_places=6)]
"""Six decimals are whole micro-dollars, so arithmetic is rounded only once, at the end."""
Tokens = Annotated[int, REFUSE_COERCION, Field(gt=0, le=100_000_000)]
Quality = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Size = Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]{0,4}x[1-9][0-9]{0,4}|auto|\*)$")]

Amount = TypeVar("Amount", int, Decimal)
Row = Annotated[Mapping[Size, Amount], Field(min_length=1)]
Table = Annotated[Mapping[Quality, Row[Amount]], Field(min_length=1)]
"""By quality, then by size; ``*`` stands for any other quality or size."""


def _as_table(value: object) -> object:
    """Turn a single number, the price for everything, into a table."""
    return value if isinstance(value, Mapping) else {ANY: {ANY: value}}


class TokenRates(FrozenModel):
    """Dollars per million tokens, which equal micro-dollars per token.

    Answers do not report cached tokens (openai 3.52, ``UsageInputTokensDetails``), so the cached rates only inform the
    reader of the file, and all tokens are charged in full.
    """

    input_text: Dollars
    input_image: Dollars
    output_image: Dollars
    output_text: Dollars | None = None
    cached_input_text: Dollars | None = None
    cached_input_image: Dollars | None = None


class TokenPrice(FrozenModel):
    """A model billed by tokens, with the most tokens that a picture of each quality and size takes.

    ``most_output_text_tokens`` is the maximum that comes with one picture, ``most_input_tokens`` the maximum of one
    input picture, by ``input_fidelity``.
    """

    per_million_tokens: TokenRates
    most_output_tokens: Table[Tokens]
    most_output_text_tokens: Annotated[int, REFUSE_COERCION, Field(ge=0, le=100_000_000)] = 0
    most_input_tokens: Annotated[Mapping[Quality, Tokens], Field(min_length=1)]


class PicturePrice(FrozenModel):
    """A model billed per picture, as by resellers, or free of charge."""

    per_picture: Annotated[Table[Dollars], BeforeValidator(_as_table)]


ModelPrice = TokenPrice | PicturePrice
