"""Deterministic pictures that any decoder accepts, and a few that none should accept.

The same arguments give the same bytes (for one release of Pillow), so tests may compare hashes. Another `seed` gives
another picture.
"""

import io
import random
import struct
import zlib

from PIL import Image

_BLOCKS_PER_EDGE = 16
_RGB_BYTES = 3
_NOISE_WIDTH = 1024
_IHDR_CRC_START = 12
_IHDR_SIZE_START = 16
_IHDR_CRC_END = 29


def png(width: int, height: int, *, seed: int = 0) -> bytes:
    """Return a PNG of coloured blocks: a few kilobytes at any size."""
    return _encoded(_blocks(width, height, seed=seed), file_format="PNG")


def transparent_png(width: int, height: int, *, seed: int = 0) -> bytes:
    """Return a PNG of coloured blocks whose left half is fully transparent: a mask or markup."""
    picture = _blocks(width, height, seed=seed).convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, width // 2, height))
    return _encoded(picture, file_format="PNG")


def jpeg(width: int, height: int, *, seed: int = 0) -> bytes:
    """Return a JPEG of coloured blocks."""
    return _encoded(_blocks(width, height, seed=seed), file_format="JPEG")


def webp(width: int, height: int, *, seed: int = 0) -> bytes:
    """Return a lossy WebP of coloured blocks, encoded with the fastest method."""
    buffer = io.BytesIO()
    _blocks(width, height, seed=seed).save(buffer, format="WEBP", method=0)
    return buffer.getvalue()


def gif(width: int, height: int, *, seed: int = 0) -> bytes:
    """Return an animated GIF of two different frames of 200 ms each."""
    first, second = (_blocks(width, height, seed=frame).quantize(64) for frame in (seed, ~seed))
    buffer = io.BytesIO()
    first.save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=[second],
        duration=200,
        loop=0,
    )
    return buffer.getvalue()


def noise_png(byte_size: int, *, seed: int = 0) -> bytes:
    """Return a PNG of `byte_size` bytes, within 2 % from 200,000 bytes upwards.

    It is 1024 pixels wide and at least as high, like an upstream's usual pictures. The upper rows are noise, which does
    not compress; the rest is black, which takes almost no bytes.
    """
    noise_rows = max(1, round(byte_size / (_RGB_BYTES * _NOISE_WIDTH)))
    height = max(_NOISE_WIDTH, noise_rows)
    noise = random.Random(seed).randbytes(_RGB_BYTES * _NOISE_WIDTH * noise_rows)
    pixels = noise.ljust(_RGB_BYTES * _NOISE_WIDTH * height, b"\0")
    picture = Image.frombytes("RGB", (_NOISE_WIDTH, height), pixels)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def svg() -> bytes:
    """Return an SVG that contains a script and must never be served as a picture."""
    return (
        b'<?xml version="1.0" encoding="UTF-8"?>\n'
        b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64">'
        b"<script>alert(1)</script>"
        b'<circle cx="32" cy="32" r="30" fill="teal"/></svg>\n'
    )


def png_claiming(width: int, height: int) -> bytes:
    """Return a small PNG whose header claims `width` x `height` pixels.

    These are the first 33 bytes of a decompression bomb. The header's checksum is valid, so a reader can only reject
    the claim itself.
    """
    honest = png(16, 16)
    header = honest[_IHDR_CRC_START:_IHDR_SIZE_START] + struct.pack(">II", width, height)
    header += honest[_IHDR_SIZE_START + 8 : _IHDR_CRC_END]
    checksum = struct.pack(">I", zlib.crc32(header))
    return honest[:_IHDR_CRC_START] + header + checksum + honest[_IHDR_CRC_END + 4 :]


def _blocks(width: int, height: int, *, seed: int) -> Image.Image:
    edge = _BLOCKS_PER_EDGE
    colours = random.Random(seed).randbytes(_RGB_BYTES * edge * edge)
    small = Image.frombytes("RGB", (edge, edge), colours)
    return small.resize((width, height), Image.Resampling.NEAREST)


def _encoded(picture: Image.Image, *, file_format: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=file_format)
    return buffer.getvalue()
