"""Revalidation rejects a model built without validation, and does not reveal its values."""

from typing import Any

import pytest

from pixyproxy.core.exceptions import ImagePromptException, InvalidRequestException, PixyProxyException
from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.image import ImageChange, ImageFilter, ImagePrompt
from pixyproxy.core.models.tenant import Visibility
from pixyproxy.service.revalidation import revalidate

SECRET = "hunter2 \u202e"


def _unchecked(kind: type[FrozenModel], **fields: Any) -> FrozenModel:  # noqa: ANN401  (whatever is not acceptable)
    return kind.model_construct(**fields)


@pytest.mark.parametrize(
    "model",
    [
        ImagePrompt(prompt="a fox", size="1024x1024", output_compression=0, visibility=Visibility.PRIVATE),
        ImageFilter(prompt="fox", mine=True),
        ImageChange(filename="a.png"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_valid_model_is_returned_unchanged(model: FrozenModel) -> None:
    assert revalidate(model) == model


@pytest.mark.parametrize(
    ("model", "field", "kind"),
    [
        (_unchecked(ImagePrompt, prompt=""), "prompt", ImagePromptException),
        (_unchecked(ImagePrompt, prompt=" \n"), "prompt", ImagePromptException),
        (_unchecked(ImagePrompt, prompt=SECRET * 32_000), "prompt", ImagePromptException),
        (_unchecked(ImagePrompt, prompt=None), "prompt", ImagePromptException),
        (_unchecked(ImagePrompt, prompt={"a": SECRET}), "prompt", ImagePromptException),
        (_unchecked(ImagePrompt, prompt="a", size=SECRET), "size", ImagePromptException),
        (_unchecked(ImagePrompt, prompt="a", model=SECRET), "model", ImagePromptException),
        (_unchecked(ImagePrompt, prompt="a", filename=f"../{SECRET}"), "filename", ImagePromptException),
        (_unchecked(ImagePrompt, prompt="a", output_format="svg"), "output_format", ImagePromptException),
        (_unchecked(ImagePrompt, prompt="a", output_compression=101), "output_compression", ImagePromptException),
        (_unchecked(ImagePrompt, prompt="a", visibility=SECRET), "visibility", ImagePromptException),
        (_unchecked(ImageFilter, guid=SECRET), "guid", InvalidRequestException),
        (_unchecked(ImageChange, filename="a\r\nb"), "filename", InvalidRequestException),
    ],
)
def test_invalid_model_is_rejected_with_its_fields_but_not_its_values(
    model: FrozenModel, field: str, kind: type[PixyProxyException]
) -> None:
    with pytest.raises(kind) as caught:
        revalidate(model)
    assert type(caught.value) is kind
    assert caught.value.message.startswith(f"{field}: ")
    assert "hunter2" not in caught.value.message


def test_every_invalid_field_is_named() -> None:
    with pytest.raises(ImagePromptException) as caught:
        revalidate(_unchecked(ImagePrompt, prompt="", size="big", quality="%"))
    assert [problem.partition(":")[0] for problem in caught.value.message.split("; ")] == ["prompt", "size", "quality"]
