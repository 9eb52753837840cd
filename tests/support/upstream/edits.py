"""Validation of an edit as in the real API: its parameters and its pictures."""

import io
from collections.abc import Iterator
from typing import Any

from PIL import Image

from tests.support.upstream.behaviours import Refusal
from tests.support.upstream.forms import UploadedFile
from tests.support.upstream.validation import KNOWN_PARAMETERS, invalid, refusal_of

EDIT_PARAMETERS = (KNOWN_PARAMETERS - {"moderation"}) | {"image", "input_fidelity", "markup", "mask"}
"""The parameters of an edit, files included; any other is a 400."""

_FILES = ("image", "mask", "markup")
_MOST_IMAGES = 16
_MOST_BYTES = {"image": 50_000_000, "mask": 4_000_000, "markup": 50_000_000}
_FORMATS = {"image": ("PNG", "WEBP", "JPEG"), "mask": ("PNG",), "markup": ("PNG",)}
_MEDIA_TYPES = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
_FIDELITIES = {"gpt-image-1.5": {"high", "low"}, "gpt-image-1-mini": {"low"}, "gpt-image-2": set()}


def refusal_of_edit(body: dict[str, Any], files: tuple[UploadedFile, ...]) -> Refusal | None:
    """Return the first error that the real API would find in a form, if any."""
    if not body and not files:
        message = "Invalid Content-Type header: expected multipart/form-data."
        return Refusal(status=400, message=message, code="unsupported_content_type")
    misnamed = next((file.name for file in files if file.parameter not in _FILES), None)
    if misnamed:
        return invalid(misnamed, code="unknown_parameter")
    textual = next((name for name in _FILES if name in body), None)
    if textual:
        return invalid(textual, code="invalid_type")
    refusal = refusal_of(body, known=EDIT_PARAMETERS) if body else invalid("prompt", code="missing_required_parameter")
    return refusal or _bad_fidelity(body) or _bad_files(body, files)


def _bad_fidelity(body: dict[str, Any]) -> Refusal | None:
    fidelity = body.get("input_fidelity")
    allowed = _FIDELITIES.get(str(body.get("model")), {"high", "low"})
    return None if fidelity is None or fidelity in allowed else invalid("input_fidelity")


def _bad_files(body: dict[str, Any], files: tuple[UploadedFile, ...]) -> Refusal | None:
    counts = {name: sum(file.parameter == name for file in files) for name in _FILES}
    if not counts["image"]:
        return invalid("image", code="missing_required_parameter")
    for name in _FILES:
        if counts[name] > (_MOST_IMAGES if name == "image" else 1):
            return invalid(name)
    if counts["mask"] and (counts["markup"] or body.get("output_format") == "gif"):
        return invalid("mask")
    model = str(body.get("model") or "gpt-image-2.5")
    if counts["markup"] and not model.startswith("gpt-image-2.5"):
        return invalid("markup")
    return next(filter(None, (_bad_file(file) for file in files)), None) or _bad_sizes(files)


def _bad_file(file: UploadedFile) -> Refusal | None:
    name = file.parameter
    if _MEDIA_TYPES.get(file.content_type) not in _FORMATS[name]:
        message = (
            f"Invalid file '{name}': unsupported mimetype ('{file.content_type}'). "
            "Supported file formats are 'image/jpeg', 'image/png', and 'image/webp'."
        )
        return Refusal(status=400, message=message, param=name, code="unsupported_file_mimetype")
    if len(file.content) >= _MOST_BYTES[name] or _size_of(file, formats=_FORMATS[name]) is None:
        message = "Invalid image file or mode, please check your image file."
        return Refusal(status=400, message=message, param=name, code="invalid_image_file")
    return None


def _bad_sizes(files: tuple[UploadedFile, ...]) -> Refusal | None:
    """Return the error for a mask or markup whose size differs from the first image."""
    first = next(_sizes(files, "image"))
    for name in ("mask", "markup"):
        if any(size != first for size in _sizes(files, name)):
            return invalid(name)
    return None


def _sizes(files: tuple[UploadedFile, ...], name: str) -> Iterator[tuple[int, int] | None]:
    return (_size_of(file, formats=_FORMATS[name]) for file in files if file.parameter == name)


def _size_of(file: UploadedFile, *, formats: tuple[str, ...]) -> tuple[int, int] | None:
    """Return (width, height) from the header, or `None` if it is not a picture of these formats."""
    try:
        with Image.open(io.BytesIO(file.content), formats=formats) as picture:
            return picture.size
    except (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
