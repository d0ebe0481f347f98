"""The base of every answer."""

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """A frozen value with stable keys: programs read them."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, from_attributes=True)
