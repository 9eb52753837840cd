"""Validation of a request as in the real API, following the types of openai 3.52."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.upstream.behaviours import Refusal
from tests.support.upstream.tokens import QUALITIES

_MAX_EDGE = 3840
_MAX_PIXELS = 3840 * 2160
_MAX_PROMPT = 32_000
_RETIRED_MODELS = frozenset({"dall-e-2", "dall-e-3", "gpt-image-1"})
_CHOICES: Mapping[str, frozenset[object]] = {
    "background": frozenset({"transparent", "opaque", "auto"}),
    "complexity": frozenset({"low", "medium", "high"}),
    "moderation": frozenset({"low", "auto"}),
    "output_format": frozenset({"png", "webp", "jpeg", "gif", "svg"}),
    "quality": frozenset({*QUALITIES, "auto"}),
    "stream": frozenset({True, False}),
}
_RANGES: Mapping[str, range] = {
    "n": range(1, 11),
    "output_compression": range(101),
    "partial_images": range(4),
    "frame_count": range(2, 17),
    "frame_duration_ms": range(1, 655_351),
}
KNOWN_PARAMETERS = frozenset(
    {
        *_CHOICES,
        *_RANGES,
        "model",
        "prompt",
        "safety_identifier",
        "size",
        "svg",
        "user",
    }
)
"""The parameters of GPT image models; any other is a 400."""


def refusal_of(body: dict[str, Any], *, known: frozenset[str] = KNOWN_PARAMETERS) -> Refusal | None:
    """Return the first error that the real API would find in `body`, if any."""
    if not body:
        return Refusal(status=400, message="We could not parse the JSON body.")
    unknown = next((name for name in body if name not in known), None)
    if unknown:
        return invalid(unknown, code="unknown_parameter")
    checks: tuple[Callable[[dict[str, Any]], Refusal | None], ...]
    checks = (_bad_prompt, _bad_model, _bad_choice, _bad_number)
    checks += (_bad_size, _bad_combination)
    return next(filter(None, (check(body) for check in checks)), None)


def invalid(param: str, *, code: str = "invalid_value") -> Refusal:
    """Return the 400 about one parameter."""
    message = f"Invalid value for parameter: '{param}'."
    if code != "invalid_value":
        message = f"{code.replace('_', ' ').capitalize()}: '{param}'."
    return Refusal(status=400, message=message, code=code, param=param)


def _bad_prompt(body: dict[str, Any]) -> Refusal | None:
    prompt = body.get("prompt")
    if prompt is None:
        return invalid("prompt", code="missing_required_parameter")
    good = isinstance(prompt, str) and prompt and len(prompt) <= _MAX_PROMPT
    return None if good else invalid("prompt")


def _bad_model(body: dict[str, Any]) -> Refusal | None:
    model = body.get("model")
    if model is None:
        return None
    if not isinstance(model, str):
        return invalid("model")
    if model in _RETIRED_MODELS or model.startswith("no-such"):
        message = f"The model '{model}' does not exist or you do not have access to it."
        return Refusal(status=404, message=message, code="model_not_found")
    return None


def _bad_choice(body: dict[str, Any]) -> Refusal | None:
    for name, choices in _CHOICES.items():
        value = body.get(name)
        if value is not None and (isinstance(value, list | dict) or value not in choices):
            return invalid(name)
    stream = body.get("stream")
    return None if stream is None or isinstance(stream, bool) else invalid("stream")


def _bad_number(body: dict[str, Any]) -> Refusal | None:
    for name, numbers in _RANGES.items():
        value = body.get(name)
        if value is not None and (type(value) is not int or value not in numbers):
            return invalid(name)
    return None


def _bad_size(body: dict[str, Any]) -> Refusal | None:
    size = body.get("size")
    good = size is None or size == "auto" or parsed_size(size)
    return None if good else invalid("size")


def _bad_combination(body: dict[str, Any]) -> Refusal | None:
    """Return the error for parameters that require other output formats."""
    wanted = body.get("output_format") or "png"
    for name, formats in (
        ("output_compression", {"webp", "jpeg"}),
        ("frame_count", {"gif"}),
        ("frame_duration_ms", {"gif"}),
        ("svg", {"svg"}),
    ):
        if body.get(name) is not None and wanted not in formats:
            return invalid(name)
    if body.get("background") == "transparent" and wanted not in {"png", "webp"}:
        return invalid("background")
    for name in ("stream", "partial_images"):
        if body.get(name) and wanted in {"gif", "svg"}:
            return invalid(name)
    return invalid("n") if wanted == "svg" and (body.get("n") or 1) > 1 else None


def parsed_size(size: object) -> tuple[int, int] | None:
    """Return (width, height) of a size that GPT image models accept, else `None`."""
    match = re.fullmatch(r"([1-9]\d{1,3})x([1-9]\d{1,3})", str(size))
    if match is None:
        return None
    width, height = int(match[1]), int(match[2])
    short, long = sorted((width, height))
    drawable = long <= 3 * short and long <= _MAX_EDGE
    drawable = drawable and width * height <= _MAX_PIXELS
    return (width, height) if drawable and not width % 16 | height % 16 else None
