"""Orders: the requests to an upstream, and its answers without the pictures."""

import json
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.image import Filename, MediaType, Prompt
from pixyproxy.core.models.tenant import ModelName, Visibility

MOST_PICTURES = 10
"""The most pictures of one order: the Images API's own limit (openai 3.52, ImageGenerateParams)."""
MOST_OPTION_BYTES = 64 * 1024
MOST_PREVIEWS = 3
"""The most previews of one order: the Images API's own limit (openai 3.52, ImageGenerateParams)."""

InputField = Literal["image", "mask", "markup"]
"""The purpose of an input picture (openai 3.52, ImageEditParams)."""


Tokens = Annotated[int, Field(ge=0)]
DEEPEST_FACT = 20
"""The deepest nesting of an answer's facts: pydantic writes JSON 254 levels deep but reads back only 200."""


class Operation(StrEnum):
    """The operation that the upstream is to perform."""

    GENERATE = "generate"
    EDIT = "edit"


class InputPicture(FrozenModel):
    """An input picture of an order; its file is stored with the order until that is finished."""

    field: InputField
    media_type: MediaType
    byte_size: int
    sha256: str


class PictureOrder(FrozenModel):
    """Everything that the upstream needs.

    ``options`` are further parameters (``size``, ``quality`` …), passed on as the client sent them. ``response_format``
    is set only if the client requested more than the upstream's default.
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
    """Reject options that cannot be sent as JSON in UTF-8 (NaN, lone surrogates) or are too long."""
    try:
        length = len(json.dumps(options, allow_nan=False, ensure_ascii=False).encode())
    except ValueError as error:
        problem = "must be JSON without NaN or lone surrogates"
        raise ValueError(problem) from error
    if length > MOST_OPTION_BYTES:
        problem = "must not exceed 64 KB in total"
        raise ValueError(problem)
    return options


Options = Annotated[dict[str, Any], AfterValidator(_require_json)]


class NewOrder(FrozenModel):
    """A caller's order, from any API. None stands for the server's or the tenant's default."""

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
    """The tokens reported by an answer. Older answers give image and text output tokens as one number."""

    input_text_tokens: Tokens = 0
    input_image_tokens: Tokens = 0
    output_text_tokens: Tokens = 0
    output_image_tokens: Tokens = 0


def _is_within(value: object, depth: int) -> bool:
    """Return whether a JSON value is nested at most this deep."""
    if not isinstance(value, dict | list | tuple):
        return True
    members = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_within(each, depth - 1) for each in members)


def _drop_deep(facts: dict[str, Any]) -> dict[str, Any]:
    """Drop facts that could be written but not read back, which would also make the picture unreadable."""
    return {name: value for name, value in facts.items() if _is_within(value, DEEPEST_FACT)}


class UpstreamAnswer(FrozenModel):
    """The parts of an upstream's answer other than the pictures.

    ``facts`` are its other members (``created``, ``background``, ``quality``, ``usage`` …) unchanged, except those
    nested too deep, for clients of the OpenAI-compatible API. ``revised_prompts`` has one entry per picture.
    """

    facts: Annotated[dict[str, Any], AfterValidator(_drop_deep)] = Field(default_factory=dict)
    usage: UpstreamUsage | None = None
    revised_prompts: tuple[str | None, ...] = ()


class ReceivedPicture(FrozenModel):
    """The measured properties of a received picture. Sizes in bytes and pixels, sha256 in hex digits."""

    media_type: MediaType
    byte_size: int
    sha256: str
    width: int
    height: int
