"""The base of all sections of a recipe, and the types that several of them use."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

OF_THE_SECTION = ("CPU", "GPU", "memory", "object_store_memory")
"""Resources that Ray knows by itself."""


class Section(BaseModel):
    """Refuses unknown keys, is not changed after it is read, and takes the docstring of a key as its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


@dataclass(frozen=True)
class Names:
    """What the text of a key may name in a file system; orchestrator/plan/local_paths.py tells when it does.

    A key without this mark holds no path, and a test asks it of every text key.
    """

    what: Literal["data", "model", "template", "function", "anything"]
    """`function`: a file with the name of a function behind it. `anything`: a table that is handed on to what is not ours; a text
    in it is a path where it reads like one and something is there."""


def _custom(resources: dict[str, float]) -> dict[str, float]:
    for name, amount in resources.items():
        if name in OF_THE_SECTION or not name:
            raise ValueError(f"{name!r} is no custom resource; `cpus` and `gpus` say how much of a host is taken")
        if amount <= 0:
            raise ValueError(f"{name} = {amount:g}: give a positive amount, or leave it out")
    return resources


Resources = Annotated[dict[str, float], AfterValidator(_custom)]
"""Custom resources of Ray nodes, by name."""
