"""Output tokens of one picture, as OpenAI publishes them by model, quality and size."""

from collections.abc import Mapping

_EDGE = 1024
_SIZES = ("1024x1024", "1024x768", "1024x1536", "1920x1080", "2560x1440", "3840x2160")
_ROWS: Mapping[str, tuple[int, ...]] = {
    "low": (196, 134, 158, 147, 205, 371),
    "medium": (439, 301, 343, 343, 478, 865),
    "high": (1756, 1204, 1372, 1320, 1843, 3336),
    "xhigh": (3122, 2140, 2459, 2347, 3276, 5930),
    "max": (7024, 4815, 5488, 5280, 7370, 13342),
}
_GPT_IMAGE_2_5 = {quality: dict(zip(_SIZES, row, strict=True)) for quality, row in _ROWS.items()}
_GPT_IMAGE_2 = {
    "low": _GPT_IMAGE_2_5["low"],
    "medium": _GPT_IMAGE_2_5["high"],
    "high": _GPT_IMAGE_2_5["max"],
}
_OLDER = {
    "low": {"1024x1024": 272, "1024x1536": 408, "1536x1024": 400},
    "medium": {"1024x1024": 1056, "1024x1536": 1584, "1536x1024": 1568},
    "high": {"1024x1024": 4160, "1024x1536": 6240, "1536x1024": 6208},
}
QUALITIES = frozenset(_GPT_IMAGE_2_5)
"""The qualities of the newest models. One that an older model lacks counts as its most expensive."""


def output_tokens(model: object, *, quality: str, width: int, height: int) -> int:
    """Return the tokens of one picture; an unpublished size costs at most as much as a square of its area."""
    table = _table_of(str(model))
    row = table.get(quality, table["high"])
    listed = row.get(f"{width}x{height}", row.get(f"{height}x{width}"))
    return listed or round(row["1024x1024"] * min(1, width * height / _EDGE**2))


def _table_of(model: str) -> Mapping[str, Mapping[str, int]]:
    if model.startswith("gpt-image-2.5"):
        return _GPT_IMAGE_2_5
    return _GPT_IMAGE_2 if model.startswith("gpt-image-2") else _OLDER
