"""Prices: what an operator writes into a price file about one model, in dollars."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field, StringConstraints

from pixyproxy.core.models.base import REFUSE_COERCION, FrozenModel

ANY = "*"
"""In a table: whatever is not listed beside it."""

Dollars = Annotated[Decimal, REFUSE_COERCION, Field(ge=0, le=1_000_000, decimal_places=6)]
"""Six decimals are whole micro-dollars, so that no arithmetic on them is ever rounded but at its end."""
Tokens = Annotated[int, REFUSE_COERCION, Field(gt=0, le=100_000_000)]
Quality = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Size = Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]{0,4}x[1-9][0-9]{0,4}|auto|\*)$")]

Amount = TypeVar("Amount", int, Decimal)
Row = Annotated[Mapping[Size, Amount], Field(min_length=1)]
Table = Annotated[Mapping[Quality, Row[Amount]], Field(min_length=1)]
"""By quality, then by size; ``*`` as a quality or a size stands for any other."""


def _as_table(value: object) -> object:
    """One price for all is written as a number."""
    return value if isinstance(value, Mapping) else {ANY: {ANY: value}}


class TokenRates(FrozenModel):
    """Dollars per million tokens, which are micro-dollars per token.

    No answer says how many of its tokens were cached (openai 3.52, ``UsageInputTokensDetails``), so the cached rates
    are kept for the reader of the file, and all tokens are charged in full.
    """

    input_text: Dollars
    input_image: Dollars
    output_image: Dollars
    output_text: Dollars | None = None
    cached_input_text: Dollars | None = None
    cached_input_image: Dollars | None = None


class TokenPrice(FrozenModel):
    """A model that is billed by tokens, and the most tokens that a picture of each quality and size takes.

    ``most_output_text_tokens`` are those that come along with one picture; ``most_input_tokens`` are those of one
    picture that is sent along, by ``input_fidelity``.
    """

    per_million_tokens: TokenRates
    most_output_tokens: Table[Tokens]
    most_output_text_tokens: Annotated[int, REFUSE_COERCION, Field(ge=0, le=100_000_000)] = 0
    most_input_tokens: Annotated[Mapping[Quality, Tokens], Field(min_length=1)]


class PicturePrice(FrozenModel):
    """A model that is billed by the picture, whatever it takes: resellers, and what costs nothing."""

    per_picture: Annotated[Table[Dollars], BeforeValidator(_as_table)]


ModelPrice = TokenPrice | PicturePrice
