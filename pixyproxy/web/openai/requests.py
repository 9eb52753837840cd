"""Convert requests of OpenAI clients (openai 3.52, ImageGenerateParams and ImageEditParams) to orders.

Unknown parameters are passed on to the upstream unchanged.
"""

import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Annotated, Any, BinaryIO, Literal, cast

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from pixyproxy.core.models.base import REFUSE_COERCION
from pixyproxy.core.models.image import GUID_PATTERN, Filename, ImageGuid, Prompt
from pixyproxy.core.models.order import MOST_PICTURES, MOST_PREVIEWS, InputField, NewOrder, Operation, Options
from pixyproxy.core.models.tenant import ModelName, Visibility
from pixyproxy.data.files.durable import as_storage_exception
from pixyproxy.service.private.generation.inputs import Upload

MOST_OF_FIELD: dict[InputField, int] = {"image": 16, "mask": 1, "markup": 1}
"""The Images API's own limits (openai 3.52, ImageEditParams), for files and GUIDs together."""
MOST_INPUTS = sum(MOST_OF_FIELD.values())
MOST_FIELDS = 64
"""Fields other than files; they are held in memory, at most 8 MB."""
MOST_FIELD_BYTES = 128 * 1024
"""Of each such field: the longest prompt, 32,000 characters, fits in UTF-8."""
FORM = "multipart/form-data"
FORMS = {FORM, "application/x-www-form-urlencoded"}
"""The second can only name existing images."""
INPUT_FIELDS: dict[str, InputField] = {"image": "image", "image_guid": "image", "mask": "mask", "markup": "markup"}
ITEM = re.compile(r"\[[0-9]*\]$")
"""The suffix of the name of a field with several values: ``image[]``, ``image[0]``."""
NUMBERS = ("n", "partial_images", "output_compression", "frame_count", "frame_duration_ms")
OTHERS = "parameters"
NOT_TO_BE_PASSED_ON = (
    "parameters passed on to the upstream must be JSON without NaN or lone surrogates, not deeply nested, and at most "
    "64 KB in total"
)
FLAGS = {"true": True, "1": True, "false": False, "0": False}
EXTENDED_FILENAME = re.compile(rb";\s*filename\*\s*=", re.IGNORECASE)
OPTIONS: TypeAdapter[dict[str, Any]] = TypeAdapter(Options)


class OpenAIImageRequest(BaseModel):
    """The body of ``POST /v1/images/generations``; `visibility` and `filename` are PixyProxy extensions."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"prompt": "a red fox in the snow", "response_format": "url"}]},
    )

    prompt: Prompt
    model: ModelName | None = None
    n: Annotated[int, Field(ge=1, le=MOST_PICTURES), REFUSE_COERCION] | None = None
    stream: Annotated[bool, Field(strict=True)] | None = None
    partial_images: Annotated[int, Field(ge=0, le=MOST_PREVIEWS), REFUSE_COERCION] | None = None
    response_format: Literal["url", "b64_json"] | None = Field(
        default=None, description="`url` returns permanent URLs instead of base64."
    )
    visibility: Visibility | None = None
    filename: Filename | None = None

    def order(self, operation: Operation) -> NewOrder:
        """Return the order. Raise ``RequestValidationError`` if the other parameters cannot be passed on."""
        options = {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        try:
            # Too deeply nested values raise ``ValueError`` or ``RecursionError``.
            OPTIONS.dump_json(OPTIONS.validate_python(options))
        except (ValueError, RecursionError) as error:
            raise _invalid(OTHERS, NOT_TO_BE_PASSED_ON) from error
        return NewOrder(
            operation=operation,
            prompt=self.prompt,
            model=self.model,
            count=self.n or 1,
            previews=(self.partial_images or 0) if self.stream else 0,
            options=options,
            response_format="b64_json" if self.response_format == "b64_json" else None,
            visibility=self.visibility,
            filename=self.filename,
        )


class _PartParser(MultiPartParser):
    """A parser that stores files over 1 MB in a given folder: the system's may be small or not writable.

    A part with only the extended file name ``filename*=`` (RFC 5987) is also a file. RFC 7578 §4.2 forbids that form
    and Starlette's parser ignores it, but aiohttp and urllib3 1 send only that for non-ASCII names. If a plain
    name is present too, the last one wins.
    """

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], folder: Path) -> None:
        super().__init__(headers, stream, max_files=MOST_INPUTS, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES)
        self._folder = folder

    def on_headers_finished(self) -> None:
        """Read the headers of a part, and replace the file that Starlette (1.10) creates for it."""
        part = self._current_part
        part.content_disposition = EXTENDED_FILENAME.sub(b"; filename=", part.content_disposition or b"")
        super().on_headers_finished()
        if part.file is not None:
            part.file.file.close()
            file = SpooledTemporaryFile(max_size=self.spool_max_size, dir=str(self._folder))  # noqa: SIM115  (closed with the form)
            self._files_to_close_on_error[-1] = file
            part.file.file = cast("BinaryIO", file)


@asynccontextmanager
async def read_edit(request: Request, folder: Path) -> AsyncIterator[tuple[OpenAIImageRequest, list[Upload]]]:
    """Yield the fields and pictures of a ``POST /v1/images/edits`` form; its files are open inside the block.

    Large files are stored in ``folder``. Raise ``RequestValidationError``, or ``ImageStorageException`` if the folder
    is full or not writable.
    """
    if not is_form(request):
        name, problem = "Content-Type", f"must be {FORM}: send pictures and parameters as form fields"
        raise _invalid(name, problem)
    if _media_type(request) == FORM:
        await _parse_parts(request, folder)
    async with request.form(max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES) as form:
        uploads = _uploads(form)
        try:
            body = OpenAIImageRequest.model_validate(_parameters(form))
        except ValidationError as error:
            raise RequestValidationError(
                [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
            ) from error
        yield body, uploads


def is_form(request: Request) -> bool:
    """Return whether the content type is that of a form."""
    return _media_type(request) in FORMS


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _parse_parts(request: Request, folder: Path) -> None:
    """Parse the parts of the body. Raise ``HTTPException`` if malformed, ``ImageStorageException`` if not storable."""
    try:
        async with aclosing(request.stream()) as stream:
            # `request.form()` caches its result here; there is no other way to choose the parser.
            request._form = await _PartParser(request.headers, stream, folder).parse()  # noqa: SLF001
    except MultiPartException as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST) from error
    except OSError as error:
        raise as_storage_exception(error) from error


def _filled(form: FormData) -> list[tuple[str, UploadFile | str]]:
    """Return the fields that are not empty: clients and browsers send empty ones for blank inputs."""
    return [(name, value) for name, value in form.multi_items() if value and not _is_unselected(value)]


def _is_unselected(value: UploadFile | str) -> bool:
    """Return whether this is what a browser sends if no file was selected."""
    return isinstance(value, UploadFile) and not value.filename and not value.size


def _uploads(form: FormData) -> list[Upload]:
    uploads = [_upload(name, value) for name, value in _filled(form) if _field(name) in INPUT_FIELDS]
    counts = Counter(upload.field for upload in uploads)
    if not counts["image"]:
        problem = "is required: send a file, or the GUID of an existing image in `image_guid`"
        raise _invalid(INPUT_FIELDS["image"], problem)
    for field, most in MOST_OF_FIELD.items():
        if counts[field] > most:
            problem = f"must not occur more than {most} times, counting files and GUIDs together"
            raise _invalid(field, problem)
    return uploads


def _field(name: str) -> str:
    return ITEM.sub("", name)


def _upload(name: str, value: UploadFile | str) -> Upload:
    field = INPUT_FIELDS[_field(name)]
    if isinstance(value, UploadFile):
        return Upload(field, value.file)
    if re.fullmatch(GUID_PATTERN, value) is None:
        problem = "must be a file or the GUID of an image"
        raise _invalid(name, problem)
    return Upload(field, ImageGuid(value.lower()))


def _parameters(form: FormData) -> dict[str, Any]:
    """Return the other fields with JSON types; fields whose names end with ``[]`` are lists."""
    parameters: dict[str, Any] = {}
    lists: dict[str, list[str]] = {}
    for name, value in _filled(form):
        if _field(name) in INPUT_FIELDS:
            continue
        if isinstance(value, UploadFile):
            problem = "must not be a file"
            raise _invalid(name, problem)
        if name.endswith("[]"):
            lists.setdefault(name.removesuffix("[]"), []).append(value)
        elif name in NUMBERS and re.fullmatch(r"-?[0-9]{1,9}", value):
            parameters[name] = int(value)
        else:
            parameters[name] = FLAGS.get(value.lower(), value) if name == "stream" else value
    return {**lists, **parameters}


def _invalid(name: str, problem: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("body", name), "type": "value_error", "msg": problem}])
