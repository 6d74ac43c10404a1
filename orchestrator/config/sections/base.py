"""The base of all sections of a recipe: no unknown keys, no change after reading, docstrings as descriptions."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
