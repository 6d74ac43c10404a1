"""The base of all sections of a recipe."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

OF_THE_SECTION = ("CPU", "GPU", "memory", "object_store_memory")
"""Resources that Ray knows by itself."""


class Section(BaseModel):
    """Refuses unknown keys, is not changed after it is read, and takes the docstring of a key as its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _custom(resources: dict[str, float]) -> dict[str, float]:
    for name, amount in resources.items():
        if name in OF_THE_SECTION or not name:
            raise ValueError(f"{name!r} is no custom resource; `cpus` and `gpus` say how much of a host is taken")
        if amount <= 0:
            raise ValueError(f"{name} = {amount:g}: give a positive amount, or leave it out")
    return resources


Resources = Annotated[dict[str, float], AfterValidator(_custom)]
"""Custom resources of Ray nodes, by name."""
