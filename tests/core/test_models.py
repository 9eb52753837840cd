"""Models: frozen, with validated fields."""

import pytest
from pydantic import ValidationError

from pixyproxy.core.models.image import PROMPT_MAX_LENGTH, ImageChange, ImageFilter, ImagePrompt


@pytest.mark.parametrize("prompt", ["a", " a ", "🦊" * PROMPT_MAX_LENGTH, "\n\tx", "a\0b"])
def test_nonempty_prompt_is_accepted(prompt: str) -> None:
    assert ImagePrompt(prompt=prompt).prompt == prompt


@pytest.mark.parametrize("prompt", ["", " ", "\n\t \u2003", "a" * (PROMPT_MAX_LENGTH + 1), "\ud800", None, 5])
def test_empty_overlong_or_non_text_prompt_is_rejected(prompt: object) -> None:
    with pytest.raises(ValidationError):
        ImagePrompt.model_validate({"prompt": prompt})


@pytest.mark.parametrize(
    "filename", ["", "a/b", "a\\b", "a\nb", "a\0", "a\x7f", "a\x85b", "a\u2028b", "x" * 256, "/etc/passwd"]
)
def test_filename_with_path_or_line_break_is_rejected(filename: str) -> None:
    with pytest.raises(ValidationError):
        ImageChange(filename=filename)


@pytest.mark.parametrize("filename", ["a.png", "naïve 🦊; \"x\" 'y'.png", "x" * 255, "..."])
def test_other_filenames_are_accepted(filename: str) -> None:
    assert ImageChange(filename=filename).filename == filename


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", "0x10"), ("size", "10x"), ("size", "10X10"), ("size", "99999x1"), ("size", "1024x1024\n"),
        ("model", ""), ("model", "-x"), ("model", "a b"), ("model", "a" * 129), ("quality", "HIGH"), ("quality", ""),
        ("output_format", "svg"), ("output_compression", -1), ("output_compression", 101), ("tenant_id", 1),
        ("n", 2), ("user", "x"),
    ],
)  # fmt: skip
def test_unknown_or_out_of_range_option_is_rejected(name: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        ImagePrompt.model_validate({"prompt": "a", name: value})
    assert [error["loc"] for error in caught.value.errors()] == [(name,)]


@pytest.mark.parametrize("guid", ["", "x", "0" * 36, "12345678-1234-1234-1234-1234567890ab\n", "%"])
def test_filter_rejects_malformed_guid(guid: str) -> None:
    with pytest.raises(ValidationError):
        ImageFilter(guid=guid)


def test_models_are_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ImagePrompt(prompt="a").prompt = "b"  # type: ignore[misc]  # the subject of this test
