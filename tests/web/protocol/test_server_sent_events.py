"""Server-sent events with pictures."""

import json
from base64 import b64decode
from pathlib import Path

import pytest

from pixyproxy.web.protocol.base64_body import PIECE_BYTES
from pixyproxy.web.protocol.server_sent_events import event_with_picture


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, 2 * PIECE_BYTES + 5])
@pytest.mark.anyio
async def test_event_has_picture_from_file_or_memory(size: int, tmp_path: Path) -> None:
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "picture").write_bytes(content)
    for picture in (tmp_path / "picture", content):
        said = b"".join([piece async for piece in event_with_picture("partial", {"index": 3}, picture, event_id=7)])
        first, second, third = said.decode().split("\n", 2)
        assert (first, second) == ("id: 7", "event: partial")
        data = json.loads(third.removeprefix("data: "))
        assert b64decode(data.pop("b64_json")) == content
        assert data == {"index": 3}


@pytest.mark.anyio
async def test_missing_picture_raises_before_first_piece(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await anext(event_with_picture("partial", {}, tmp_path / "gone"))
