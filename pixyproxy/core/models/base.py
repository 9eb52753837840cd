"""The configuration that every model shares."""

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """Immutable, and strict about its fields: an unknown one is an error, never ignored."""

    # What a model refuses may be a secret, and an error that nobody foresaw is logged.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
