"""The base of all sections of a recipe."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Refuses unknown keys, is not changed after it is read, and takes the docstring of a key as its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
