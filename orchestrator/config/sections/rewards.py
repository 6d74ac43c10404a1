"""`[rewards]` and `[sandbox]`: what scores completions, and where programs are run for it."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from orchestrator.config.sections.base import Section


class FunctionSection(Section):
    """One reward function of a rubric. Keys that are not named here are arguments of the function."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: str = ""
    """A function that ships (`rayzero recipes --rewards` lists them), `path/to/file.py:function` or
    `package.module:function`; empty: LABEL is the name."""
    weight: float = 1.0
    """The reward is the sum of weight times value. `LABEL = 0.5` is short for `LABEL = { weight = 0.5 }`."""
    gate: str = ""
    """LABEL of another function of the rubric: this one counts only where that one gives 1 or more."""
    group: bool = False
    """A function of your own that gets the list of all completions of a group and returns a list of numbers."""


_FORMAT = FunctionSection(name="format", weight=0.2)
SHIPPED_RUBRICS: Mapping[str, dict[str, FunctionSection]] = {
    "math": {"accuracy": FunctionSection(name="accuracy"), "format": _FORMAT},
    "code": {"code_tests": FunctionSection(name="code_tests"), "format": _FORMAT},
}
"""A source may ask for these where the recipe has none of that name."""


class RewardsSection(Section):
    rubrics: dict[str, dict[str, FunctionSection]] = {"default": SHIPPED_RUBRICS["math"]}
    """Rubric name → label → reward function. `math` (accuracy, format) and `code` (code_tests, format) are there without
    being named."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Ray actors that score."""
    processes: Annotated[int, Field(ge=1)] = 1
    """Child processes of each, for symbolic checks, functions of your own and programs."""
    function_timeout_s: Annotated[float, Field(gt=0)] = 10
    """Longest run of a function of your own on one completion; then it is killed, which counts as an error."""
    timeout_s: Annotated[float, Field(gt=0)] = 60
    """Longest silence of a reward actor that has work; then it is replaced."""
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of completions that may fail to be scored; above it the run stops and names the reward."""

    @field_validator("rubrics", mode="before")
    @classmethod
    def _written_out(cls, rubrics: Any) -> Any:
        """`LABEL = 0.5` and `functions = [{ name = …, … }]` as tables by label."""
        if not isinstance(rubrics, dict):
            return rubrics
        return {name: _by_label(functions) for name, functions in rubrics.items()}

    @model_validator(mode="after")
    def _gates(self) -> Self:
        for rubric, functions in self.rubrics.items():
            for label, function in functions.items():
                if function.gate and (function.gate not in functions or function.gate == label):
                    others = ", ".join(other for other in functions if other != label)
                    raise ValueError(
                        f"rewards.rubrics.{rubric}.{label}.gate = {function.gate!r}: not another function of the "
                        f"rubric; there is: {others or 'none'}"
                    )
        return self


class SandboxSection(Section):
    """Where programs that a model writes are run."""

    allow_weak: bool = False
    """Run them even where the kernel lacks what contains them (`rayzero doctor` says what)."""
    time_limit_s: Annotated[float, Field(gt=0)] = 6
    """Wall time of one test, where the task says nothing."""
    total_s: Annotated[float, Field(gt=0)] = 60
    """Wall time of all tests of a program together."""
    memory_mb: Annotated[int, Field(ge=16)] = 512
    """Of all processes of a program together, where the task says nothing."""
    processes: Annotated[int, Field(ge=1)] = 16
    """Processes and threads of a program at any time."""
    file_mb: Annotated[int, Field(ge=1)] = 16
    """Largest file of a program, its output included."""


def _by_label(functions: Any) -> Any:
    """A rubric with one table a function."""
    if not isinstance(functions, dict):
        return functions
    tables: dict[str, Any] = {}
    for label, value in functions.items():
        listed = value if label == "functions" and isinstance(value, list) else [value]
        for function in listed:
            table = {"weight": function} if isinstance(function, int | float) else function
            if not isinstance(table, dict):
                tables[label] = table
                continue
            own = str(table.get("label") or (table.get("name", "") if listed is value else label))
            if own in tables:
                raise ValueError(f"two functions of a rubric are called {own!r}; give one a `label` of its own")
            name = table.get("name") or own
            tables[own] = {"name": name} | {key: each for key, each in table.items() if key not in ("name", "label")}
    return tables
