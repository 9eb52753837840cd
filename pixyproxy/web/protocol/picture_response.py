"""Serve a picture over HTTP: validators, conditions, ranges and content negotiation (RFC 9110)."""

import json
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from starlette.background import BackgroundTask
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, MalformedRangeHeader, RangeNotSatisfiable, Response, StreamingResponse

from pixyproxy.core.models.image import StoredImage
from pixyproxy.core.models.tenant import Visibility
from pixyproxy.service.public.images import PictureFile
from pixyproxy.web.protocol.base64_body import base64_length, with_pictures


class PictureResponse(FileResponse):
    """A picture file with ranges, instead of Starlette's plain-text errors for bad ranges.

    A malformed range is ignored (RFC 9110 §14.2); one outside the picture raises 416.
    """

    chunk_size = 256 * 1024

    def __init__(self, picture: PictureFile, headers: dict[str, str]) -> None:
        super().__init__(
            picture.path,
            headers=headers,
            media_type=picture.image.media_type,
            filename=picture.image.filename,
            stat_result=picture.status,
            content_disposition_type="inline",
        )

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []
        except RangeNotSatisfiable as error:
            raise HTTPException(416, headers={"Content-Range": f"bytes */{file_size}"}) from error


def picture_headers(image: StoredImage) -> dict[str, str]:
    """Return the headers of a picture response, also for 304.

    The bytes under a GUID never change but its visibility can, so caches may store a public picture but must revalidate
    it. The content security policy stops scripts if a browser takes the picture for another type.
    """
    return {
        "ETag": f'"{image.sha256}"',
        "Last-Modified": format_datetime(image.created_at, usegmt=True),
        "Cache-Control": f"{'public' if image.visibility is Visibility.PUBLIC else 'private'}, no-cache",
        "Vary": "Accept",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


def picture_as_json(picture: PictureFile, headers: dict[str, str]) -> Response:
    """Return the picture as JSON with streamed base64, and only the headers that apply to every representation."""
    about = picture.image.model_dump(include={"guid", "filename", "media_type"})
    parts = (json.dumps(about).encode("ascii").removesuffix(b"}") + b', "content_base64": "', b'"}')
    length = sum(map(len, parts)) + base64_length(picture.status.st_size)
    kept = {name: headers[name] for name in ("Vary", "Cache-Control")} | {"Content-Length": str(length)}
    pieces = with_pictures(parts, [picture.path])
    # If the client disconnects, an unclosed generator would keep its file open until garbage collection.
    closing = BackgroundTask(pieces.aclose)
    return StreamingResponse(pieces, headers=kept, media_type="application/json", background=closing)


def is_not_modified(request: Headers, picture: dict[str, str]) -> bool:
    """Return whether the client's copy is current: ``If-None-Match``, else ``If-Modified-Since`` (RFC 9110 §13)."""
    if (known := request.get("if-none-match")) is not None:
        tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
        return bool({"*", picture["ETag"]} & tags)
    since = _http_date(request.get("if-modified-since", ""))
    modified = _http_date(picture["Last-Modified"])
    return since is not None and modified is not None and modified <= since


def prefers_json(accept: str, media_type: str) -> bool:
    """Return whether ``Accept`` prefers JSON to the picture's own type (RFC 9110 §12.5.1)."""
    qualities = dict(_quality(part) for part in accept.split(","))
    own = qualities.get(media_type, qualities.get("image/*", qualities.get("*/*", 0.0)))
    return qualities.get("application/json", 0.0) > own


def _quality(part: str) -> tuple[str, float]:
    """Return one media range of ``Accept`` and its weight; 0 if the weight is malformed."""
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    weight = next((value[2:] for value in parameters if value.startswith("q=")), "1")
    try:
        return name, float(weight)
    except ValueError:
        return name, 0.0


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
