"""The models that the fake upstream lists."""

import json
from collections.abc import Mapping

from tests.support.upstream.behaviours import Behaviour, Refusal, Verbatim

MODELS_PATH = "/v1/models"

MODELS: Mapping[str, int] = {
    "gpt-image-2.5-flare": 1_788_825_600,
    "gpt-image-2.5-sunburst": 1_788_825_600,
    "gpt-image-2": 1_776_729_600,
    "gpt-image-1.5": 1_764_633_600,
    "gpt-image-1-mini": 1_758_844_800,
}
"""Every model with its creation time (Unix time)."""


def models_answer(path: str) -> Behaviour:
    """Return the response to a GET of the list or of one model: 404 for an unknown model."""
    if path == MODELS_PATH:
        return _json({"object": "list", "data": [_model(name) for name in MODELS]})
    name = path.removeprefix(f"{MODELS_PATH}/")
    if name in MODELS:
        return _json(_model(name))
    message = f"The model '{name}' does not exist"
    return Refusal(status=404, message=message, code="model_not_found", param="model")


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": MODELS[name], "owned_by": "system"}


def _json(value: dict[str, object]) -> Verbatim:
    return Verbatim(body=json.dumps(value).encode())
