"""Orders: what an upstream is asked for, and what it says beside the pictures."""

import json
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.image import Filename, MediaType, Prompt
from pixyproxy.core.models.tenant import ModelName, Visibility

MOST_PICTURES = 10
"""Of one order; the Images API's own limit (openai 3.52, ImageGenerateParams)."""
MOST_OPTION_BYTES = 64 * 1024
MOST_PREVIEWS = 3
"""Of one order, likewise."""

InputField = Literal["image", "mask", "markup"]
"""What a picture that comes with an order is for (openai 3.52, ImageEditParams)."""


Tokens = Annotated[int, Field(ge=0)]
DEEPEST_FACT = 20
"""Of what an answer says beside its pictures; pydantic writes JSON 254 deep, and reads it back only to 200."""


class Operation(StrEnum):
    """What the upstream is to do."""

    GENERATE = "generate"
    EDIT = "edit"


class InputPicture(FrozenModel):
    """A picture that comes with an order; its file is kept beside the order until that is over."""

    field: InputField
    media_type: MediaType
    byte_size: int
    sha256: str


class PictureOrder(FrozenModel):
    """All that an upstream has to know.

    ``options`` are further parameters (``size``, ``quality`` …), passed on as the client sent them.
    ``response_format`` is what the client asked for, if that is more than the upstream's default.
    """

    operation: Operation = Operation.GENERATE
    prompt: str
    model: str
    count: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1
    previews: Annotated[int, Field(ge=0, le=MOST_PREVIEWS)] = 0
    options: dict[str, Any] = Field(default_factory=dict)
    response_format: Literal["b64_json"] | None = None
    inputs: tuple[InputPicture, ...] = ()


def _require_json(options: dict[str, Any]) -> dict[str, Any]:
    """Refuse what cannot be sent on as JSON in UTF-8: NaN, lone surrogates; and what is no parameter but a load."""
    try:
        length = len(json.dumps(options, allow_nan=False, ensure_ascii=False).encode())
    except ValueError as error:
        problem = "must be JSON, without NaN or lone surrogates"
        raise ValueError(problem) from error
    if length > MOST_OPTION_BYTES:
        problem = "must not be longer than 64 KB together"
        raise ValueError(problem)
    return options


Options = Annotated[dict[str, Any], AfterValidator(_require_json)]


class NewOrder(FrozenModel):
    """What a caller asks for, whichever way it came in. What is None is the server's or the tenant's default."""

    operation: Operation = Operation.GENERATE
    prompt: Prompt
    model: ModelName | None = None
    count: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1
    previews: Annotated[int, Field(ge=0, le=MOST_PREVIEWS)] = 0
    options: Options = Field(default_factory=dict)
    response_format: Literal["b64_json"] | None = None
    inputs: tuple[InputPicture, ...] = ()
    visibility: Visibility | None = None
    filename: Filename | None = None


class UpstreamUsage(FrozenModel):
    """Tokens that an answer says it took. Image and text tokens of the output are one number in older answers."""

    input_text_tokens: Tokens = 0
    input_image_tokens: Tokens = 0
    output_text_tokens: Tokens = 0
    output_image_tokens: Tokens = 0


def _is_within(value: object, depth: int) -> bool:
    """Whether a value of JSON is nested at most this deep."""
    if not isinstance(value, dict | list | tuple):
        return True
    members = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_within(each, depth - 1) for each in members)


def _drop_deep(facts: dict[str, Any]) -> dict[str, Any]:
    """Drop what could be written and never be read again, and with it the picture that it came with."""
    return {name: value for name, value in facts.items() if _is_within(value, DEEPEST_FACT)}


class UpstreamAnswer(FrozenModel):
    """What an answer says beside its pictures.

    ``facts`` are its other members (``created``, ``background``, ``quality``, ``usage`` …) as they came, but for what
    is nested too deep, for clients of the OpenAI-compatible surface; ``revised_prompts`` has one entry a picture.
    """

    facts: Annotated[dict[str, Any], AfterValidator(_drop_deep)] = Field(default_factory=dict)
    usage: UpstreamUsage | None = None
    revised_prompts: tuple[str | None, ...] = ()


class ReceivedPicture(FrozenModel):
    """What a received picture turned out to be. Sizes in bytes and pixels, sha256 in hex digits."""

    media_type: MediaType
    byte_size: int
    sha256: str
    width: int
    height: int
