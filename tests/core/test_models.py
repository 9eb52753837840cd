"""Models: frozen, and strict about what they hold."""

import pytest
from pydantic import ValidationError

from pixyproxy.core.models.image import PROMPT_MAX_LENGTH, ImageChange, ImageFilter, ImagePrompt


@pytest.mark.parametrize("prompt", ["a", " a ", "🦊" * PROMPT_MAX_LENGTH, "\n\tx", "a\0b"])
def test_a_prompt_with_something_in_it_is_taken(prompt: str) -> None:
    assert ImagePrompt(prompt=prompt).prompt == prompt


@pytest.mark.parametrize("prompt", ["", " ", "\n\t \u2003", "a" * (PROMPT_MAX_LENGTH + 1), "\ud800", None, 5])
def test_a_prompt_that_is_empty_too_long_or_no_text_is_not(prompt: object) -> None:
    with pytest.raises(ValidationError):
        ImagePrompt.model_validate({"prompt": prompt})


@pytest.mark.parametrize(
    "filename", ["", "a/b", "a\\b", "a\nb", "a\0", "a\x7f", "a\x85b", "a\u2028b", "x" * 256, "/etc/passwd"]
)
def test_a_filename_that_is_a_path_or_breaks_a_line_is_not_taken(filename: str) -> None:
    with pytest.raises(ValidationError):
        ImageChange(filename=filename)


@pytest.mark.parametrize("filename", ["a.png", "naïve 🦊; \"x\" 'y'.png", "x" * 255, "..."])
def test_any_other_filename_is(filename: str) -> None:
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
def test_an_option_out_of_bounds_or_unknown_is_not_taken(name: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        ImagePrompt.model_validate({"prompt": "a", name: value})
    assert [error["loc"] for error in caught.value.errors()] == [(name,)]


@pytest.mark.parametrize("guid", ["", "x", "0" * 36, "12345678-1234-1234-1234-1234567890ab\n", "%"])
def test_a_filter_takes_nothing_for_a_guid_that_is_none(guid: str) -> None:
    with pytest.raises(ValidationError):
        ImageFilter(guid=guid)


def test_models_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ImagePrompt(prompt="a").prompt = "b"  # type: ignore[misc]  # what the test is about
