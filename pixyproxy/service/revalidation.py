"""Revalidation of models that the web layer or the command line passes to a service."""

from typing import TypeVar

from pydantic import ValidationError

from pixyproxy.core.exceptions import ImagePromptException, InvalidRequestException, PixyProxyException
from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.image import ImagePrompt
from pixyproxy.core.models.order import NewOrder

Model = TypeVar("Model", bound=FrozenModel)


def revalidate(incoming: Model) -> Model:
    """Return a validated copy of the model: an instance may have been built without validation.

    Raises ``ImagePromptException`` for an order and ``InvalidRequestException`` for other models; the
    message names the invalid fields and the reasons, never the values.
    """
    try:
        return type(incoming).model_validate(incoming.model_dump(exclude_unset=True, warnings=False))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        kind: type[PixyProxyException] = (
            ImagePromptException if isinstance(incoming, ImagePrompt | NewOrder) else InvalidRequestException
        )
        raise kind(problems) from error
