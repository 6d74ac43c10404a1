"""`[rewards]` and `[sandbox]`: the functions that score completions, and the limits of programs that run for it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from orchestrator.config.sections.base import Names, Resources, Section
from rewards.processes.forms import Form


class FunctionSection(Section):
    """One reward function of a rubric. Keys that are not named here are arguments of the function."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: Annotated[str, Names("function")] = ""
    """Reward function: one that ships (`rayzero recipes --rewards` lists them), `path/to/file.py:function` or
    `package.module:function`; empty: LABEL is the name."""
    weight: float = 1.0
    """Factor of the function's value in the reward, which is the sum over the rubric. `LABEL = 0.5` is short for `LABEL
    = { weight = 0.5 }`."""
    gate: str = ""
    """LABEL of another function of the rubric: this one counts only where that one gives 1 or more; empty: always."""
    group: bool = False
    """Whether a function of your own scores a group at once: it gets the list of its completions and returns a list of
    numbers. Functions in TRL's form do in any case."""
    form: Literal["", Form] = ""
    """Form that a function of your own is written in: `plain` (prompt, completion, reference), `trl`, `trl-messages`,
    `verl`, `verl-batch`, `openrlhf` or `evaluate`; empty: as its signature says, and as `rayzero check` tells."""
    entry: str = ""
    """Entry of the table that a function of your own returns which is its value; empty: `value` or `score`, of
    OpenRLHF's `rewards`, and of a scorer the only number there."""


ANSWER_LINE = r"(?im)^[ \t*_#>]*(?:the )?(?:final )?answer[*_ ]*:[*_]*"
"""Mark of a line such as `Answer: 42`, behind which the answer stands."""

_FORMAT = FunctionSection(name="format", weight=0.2)
SHIPPED_RUBRICS: Mapping[str, dict[str, FunctionSection]] = {
    "math": {"accuracy": FunctionSection(name="accuracy"), "format": _FORMAT},
    "answer-line": {
        "accuracy": FunctionSection.model_validate({"name": "accuracy", "pattern": ANSWER_LINE}),
        "format": _FORMAT,
    },
    "code": {"code_tests": FunctionSection(name="code_tests"), "format": _FORMAT},
}
"""Rubrics that a source may ask for where the recipe has none of that name."""


class RewardsSection(Section):
    rubrics: dict[str, dict[str, FunctionSection]] = {"default": SHIPPED_RUBRICS["math"]}
    """Reward function of a rubric, by the rubric's name and a LABEL of your choice. Without any, there is the rubric
    `default`, equal to `math`. Rubrics `math` (accuracy, format), `answer-line` (the same, for replies that end with
    `Answer: 42`) and `code` (code_tests, format) need not be written out."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Number of Ray actors that score completions."""
    processes: Annotated[int, Field(ge=1)] = 1
    """Child processes of each scoring actor, for symbolic checks, functions of your own and programs."""
    function_timeout_s: Annotated[float, Field(gt=0)] = 10
    """Longest run of a function of your own on one completion, in seconds; then it is stopped, which counts as an
    error."""
    resources: Resources = {}
    """Custom resources of the cluster's nodes that each scoring actor takes, such as `{ cheap = 1 }`: where it may live (`ray start
    --resources`)."""
    timeout_s: Annotated[float, Field(gt=0)] = 60
    """Longest silence of a scoring actor that has work, in seconds; then it is replaced."""
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of completions that may fail to be scored, of the last 200 or of two batches, whichever is more; above it the run stops
    and names the reward function."""
    outage_s: Annotated[float, Field(ge=0)] = 1800
    """Longest outage of what scores (a judge, a reward model, a server, the sandbox), in seconds: meanwhile nothing is generated and
    nothing dropped, and what waits is scored when it is back; then the run stops. 0: no wait."""

    @field_validator("rubrics", mode="before")
    @classmethod
    def _write_out(cls, rubrics: Any) -> Any:
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
    """Limits of the programs that a model writes."""

    allow_weak: bool = False
    """Whether programs that a model wrote run even where the kernel lacks what contains them (`rayzero doctor` says
    what)."""
    packages: tuple[str, ...] = ()
    """Packages of rayzero's own environment that programs and their tests may import, beside the standard library: names of
    modules (`numpy`, `scipy.optimize`) or of distributions (`scikit-learn`), with what they require."""
    time_limit_s: Annotated[float, Field(gt=0)] = 6
    """Wall time of one test of a program, in seconds, where the task sets none."""
    total_s: Annotated[float, Field(gt=0)] = 60
    """Wall time of all tests of a program together, in seconds."""
    memory_mb: Annotated[int, Field(ge=16)] = 512
    """Memory of all processes of a program together, in MiB, where the task sets none."""
    processes: Annotated[int, Field(ge=1)] = 16
    """Processes and threads that a program may have at any time."""
    file_mb: Annotated[int, Field(ge=1)] = 16
    """Largest file that a program may write, its output included, in MiB."""


def _by_label(functions: Any) -> Any:
    """Write a rubric with one table for each function."""
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
