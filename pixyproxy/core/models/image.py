"""Images: requests to make, change or find them, and the responses."""

from datetime import datetime
from typing import Annotated, Literal, NewType

from pydantic import ConfigDict, Field, StringConstraints, field_validator

from pixyproxy.core.models.base import REFUSE_COERCION, FrozenModel
from pixyproxy.core.models.tenant import ModelName, TenantId, Visibility

ImageId = NewType("ImageId", int)
ImageGuid = NewType("ImageGuid", str)
GenerationId = NewType("GenerationId", int)

GUID_PATTERN = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
PROMPT_MAX_LENGTH = 32_000
"""In characters; the upstream's own limit for GPT image models (openai 3.52, ImageGenerateParams)."""

MOST_WORDS = 8
"""The most words in a search."""

MediaType = Literal["image/png", "image/jpeg", "image/webp", "image/gif"]
PictureFormat = Literal["png", "jpeg", "webp", "gif"]
"""Raster formats only: an SVG can contain scripts and is not served to anonymous viewers."""

Filename = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=255,
        pattern=r"^[^\x00-\x1f\x7f-\x9f/\\\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]+$",
    ),
]
"""A name for display and for saving, never a path: no control characters and no slashes.

No bidirectional controls (Unicode's ``Bidi_Control``) either: with U+202E, ``photo…gpj.exe`` is displayed as
``photoexe.jpg``.
"""

UpstreamOption = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,32}$")]
"""Passed on unchanged: the upstream defines the valid values, so none are listed here."""


LISTED_PROMPT_LENGTH = 500
"""The most characters of a prompt in a list."""
PromptTruncated = Annotated[
    bool, Field(description=f"Whether `prompt` is only its first {LISTED_PROMPT_LENGTH} characters, as in lists.")
]

Prompt = Annotated[str, StringConstraints(min_length=1, max_length=PROMPT_MAX_LENGTH, pattern=r"\S")]


class ImagePrompt(FrozenModel):
    """The request to make an image."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "a red fox in the snow", "size": "1024x1024"}]}
    )

    prompt: Prompt = Field(
        description="The picture's description: 1 to 32,000 characters, not only white space.",
        examples=["a red fox in the snow"],
    )
    model: ModelName | None = Field(default=None, description="The upstream's model; default: the server's.")
    size: Annotated[str, StringConstraints(pattern=r"^(auto|[1-9][0-9]{0,3}x[1-9][0-9]{0,3})$")] | None = Field(
        default=None, description="`WIDTHxHEIGHT` in pixels, or `auto`.", examples=["1024x1024"]
    )
    quality: UpstreamOption | None = None
    background: UpstreamOption | None = None
    output_format: PictureFormat | None = None
    output_compression: Annotated[int, Field(ge=0, le=100), REFUSE_COERCION] | None = None
    moderation: UpstreamOption | None = None
    visibility: Visibility | None = Field(default=None, description="Default: the tenant's.")
    filename: Filename | None = Field(default=None, description="Default: derived from the prompt.")


class GenerationPrompt(ImagePrompt):
    """The request to make images in the background."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "a red fox in the snow", "n": 2}]})

    n: Annotated[int, Field(ge=1, le=10), REFUSE_COERCION] = Field(default=1, description="The number of pictures.")
    partial_images: Annotated[int, Field(ge=0, le=3), REFUSE_COERCION] = Field(
        default=0, description="The number of previews to send as events while the picture is made."
    )


class ImageChange(FrozenModel):
    """A change to an image; omitted fields stay unchanged."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"visibility": "private", "filename": "fox.png"}]})

    visibility: Visibility | None = None
    filename: Filename | None = None


class ImageFilter(FrozenModel):
    """The filter of a list of images. Texts are matched literally, ignoring case."""

    prompt: Annotated[str, StringConstraints(max_length=200)] | None = Field(
        default=None, description=f"Words that must all occur in the prompt; at most {MOST_WORDS}."
    )
    filename: Annotated[str, StringConstraints(max_length=255)] | None = Field(
        default=None, description="A part of the filename."
    )
    guid: Annotated[str, StringConstraints(pattern=GUID_PATTERN)] | None = Field(
        default=None, description="The GUID of the image."
    )
    mine: bool = Field(default=False, description="Only images of the caller's tenant; requires a credential.")

    @field_validator("prompt")
    @classmethod
    def _few_words(cls, value: str | None) -> str | None:
        """Limit the words: each is searched in every prompt."""
        if value is not None and len(value.split()) > MOST_WORDS:
            problem = f"must have at most {MOST_WORDS} words"
            raise ValueError(problem)
        return value

    @property
    def words(self) -> tuple[str, ...]:
        """The distinct words of ``prompt``."""
        return tuple(dict.fromkeys((self.prompt or "").split()))

    @property
    def is_search(self) -> bool:
        """Whether the filter searches texts, which no index covers."""
        return bool(self.words or self.filename)


class NewImage(FrozenModel):
    """A generated picture that is about to be recorded. Sizes in bytes and pixels, times in UTC."""

    guid: ImageGuid
    tenant_id: TenantId
    generation_id: GenerationId
    filename: str
    prompt: str
    visibility: Visibility
    media_type: MediaType
    byte_size: int
    sha256: str
    width: int
    height: int
    model: str
    created_at: datetime
    updated_at: datetime


class StoredImage(NewImage):
    """An image row; ``id`` never leaves the server."""

    id: ImageId


class ImageDetail(FrozenModel):
    """An image as shown to viewers. Sizes in bytes and pixels, times in UTC, sha256 in hex digits."""

    guid: ImageGuid
    prompt: str
    prompt_truncated: PromptTruncated = False
    filename: str
    created_at: datetime
    updated_at: datetime
    visibility: Visibility
    media_type: MediaType
    width: int
    height: int
    byte_size: int
    sha256: str
    model: str
    content_url: str


class ImageContent(FrozenModel):
    """A picture in JSON, for clients that accept only JSON."""

    guid: ImageGuid
    filename: str
    media_type: MediaType
    content_base64: str
