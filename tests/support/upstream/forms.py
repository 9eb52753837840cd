"""Multipart forms, parsed into parameters and files."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_QUOTED = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_INTEGERS = frozenset({"n", "output_compression", "partial_images", "frame_count", "frame_duration_ms"})
_FLAGS = {"true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class UploadedFile:
    """A file of a form, as it arrived."""

    name: str
    """The field's name, with its brackets: `image[]` if there are several."""
    filename: str
    content_type: str
    content: bytes

    @property
    def parameter(self) -> str:
        """The field's name without brackets."""
        return self.name.partition("[")[0]


@dataclass(frozen=True)
class Form:
    """The content of a form. Numbers and flags are converted, to match the JSON of the other endpoint."""

    body: dict[str, Any]
    files: tuple[UploadedFile, ...]


def form_of(raw: bytes, content_type: str) -> Form | None:
    """Return the form in `raw`, or `None` if it is not a form (RFC 7578)."""
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    if not content_type.lower().startswith("multipart/form-data") or boundary is None:
        return None
    form = Form({}, ())
    files = []
    for headers, content in _sections(raw, boundary[1].encode()):
        told = dict(_QUOTED.findall(headers.get("content-disposition", "")))
        name = told.get("name", "")
        if "filename" in told:
            media_type = headers.get("content-type", "application/octet-stream")
            files.append(UploadedFile(name=name, filename=told["filename"], content_type=media_type, content=content))
        else:
            _put(form.body, name, content.decode(errors="replace"))
    return Form(form.body, tuple(files))


def _sections(raw: bytes, boundary: bytes) -> Iterator[tuple[dict[str, str], bytes]]:
    """Yield the headers, with names in lower case, and the content of every part."""
    for section in (b"\r\n" + raw).split(b"\r\n--" + boundary)[1:]:
        if section.startswith(b"--"):
            return
        head, _, content = section.partition(b"\r\n\r\n")
        lines = (line.partition(":") for line in head.decode(errors="replace").splitlines() if ":" in line)
        yield {name.strip().lower(): value.strip() for name, _, value in lines}, content


def _put(body: dict[str, Any], name: str, text: str) -> None:
    """Store a field as its brackets say: `svg[model]` in an object, `tags[]` in a list."""
    first, *inner = re.split(r"\]?\[", name.removesuffix("]"))
    if inner == [""]:
        body.setdefault(first, []).append(text)
    elif inner:
        nested = body.setdefault(first, {})
        for key in inner[:-1]:
            nested = nested.setdefault(key, {})
        nested[inner[-1]] = text
    else:
        body[first] = _typed(first, text)


def _typed(name: str, text: str) -> object:
    if name == "stream":
        return _FLAGS.get(text, text)
    if name in _INTEGERS:
        with contextlib.suppress(ValueError):
            return int(text)
    return text
