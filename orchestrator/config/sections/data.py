"""`[data]`: where prompts come from, and what is asked."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.sections.base import Section
from rollout.data.known_sets import KNOWN_SETS, PLACEHOLDER, KnownSet
from rollout.data.rows import Source


class SourceSection(Section):
    """Where prompts come from: a file, a directory, or a generated task."""

    path: str = ""
    """A JSONL, Parquet, CSV or Arrow file, a folder of them, or a saved `datasets` directory."""
    set: Literal["", "gsm8k", "aime24", "amc23", "humaneval"] = ""
    """The file is this data set as it is published: columns, rubric (`math` or `code`) and form need not be named."""
    task: str = ""
    """A generated task instead of a path: `arithmetic`, `puzzles` or `manners`."""
    stage: str = ""
    """An earlier stage instead of a path: the rows that it left."""
    split: str = "train"
    """Split of a generated task (`train` or `held-out`) or of a `datasets` directory."""
    prompt_column: str = "prompt"
    """Column that holds the question."""
    answer_column: str = "answer"
    """Column that holds the reference answer; empty: none."""
    answer_pattern: str = ""
    """Regular expression whose first group is the answer inside that column, such as `#### (.+)`."""
    completion_column: str = ""
    """Column that holds a worked completion (SFT)."""
    prompt_form: str = ""
    """Text with `{prompt}` in it that the question is put into before the template; empty: the question alone, or
    what `set` asks with."""
    chosen_column: str = ""
    """Column that holds the better of two responses (reward models, DPO); then no answer column is expected."""
    rejected_column: str = ""
    """Column that holds the worse one."""
    messages_column: str = ""
    """Column of conversations (SFT): a list of messages with `role` and `content`, which the model's chat template
    renders. In place of prompt, answer and completion columns."""
    rubric: str = "default"
    """Rubric that scores the completions, a key of `rewards.rubrics`."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Share of this source relative to the others; with `sft.epochs`, how often it is passed through in an epoch. 0: not
    before a step of the stage's schedule gives it a share."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Take only the first rows; 0: all."""
    options: dict[str, int | float | str | bool] = {}
    """Options of the generated task."""
    keep_thought: bool | str = True
    """Whether rows sampled from it keep their thought (reject), which R1 gives to complex questions and not to simple
    ones; or the column of the file that says so of each question, true or false."""

    @model_validator(mode="before")
    @classmethod
    def _published(cls, raw: Any) -> Any:
        """The keys of a published set, written out."""
        known = published_set(raw)
        return {**known.columns, "rubric": known.rubric, **raw} if known else raw

    @model_validator(mode="before")
    @classmethod
    def _pairs_need_no_answer(cls, values: Any) -> Any:
        compared = isinstance(values, dict) and (values.get("chosen_column") or values.get("baseline_column"))
        if compared and not values.get("task") and "answer_column" not in values:
            return {**values, "answer_column": ""}
        return values

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(map(bool, (self.path, self.task, self.stage))) != 1:
            raise ValueError("a source has one of `path`, `task` and `stage`")
        if self.set and not self.path:
            raise ValueError(f"set = {self.set!r} says what a file holds; name the file with `path`")
        if self.prompt_form and PLACEHOLDER not in self.prompt_form:
            raise ValueError(f"prompt_form = {self.prompt_form!r} has no {PLACEHOLDER} for the question; add it")
        if bool(self.chosen_column) != bool(self.rejected_column):
            raise ValueError("preference pairs need both `chosen_column` and `rejected_column`")
        if self.task and isinstance(self.keep_thought, str):
            raise ValueError(
                f"keep_thought = {self.keep_thought!r}: a generated task has no columns; give true or false"
            )
        return self

    @property
    def holds_pairs(self) -> bool:
        """Whether the rows are preference pairs."""
        return bool(self.chosen_column)

    def source(self, name: str) -> Source:
        """What `load_rows` takes, under the name of this section."""
        none_of_rows = {"weight", "set", "prompt_form", "correct", "judged_by", "stage"}
        return Source(name=name, **self.model_dump(exclude=none_of_rows))


class DataSection(Section):
    sources: dict[str, SourceSection] = {}
    """Named sources of prompts, mixed by weight."""
    template: str = "plain"
    """`plain`, `r1-zero`, `chat` (the model's own chat template), or a text file with `{prompt}` in it."""
    max_prompt_tokens: Annotated[int, Field(ge=1)] = 256
    """A longer prompt is reported and skipped, never cut."""


def published_set(source: Any) -> KnownSet | None:
    """What a source as it is written in a recipe names by `set`."""
    name = source.get("set") if isinstance(source, dict) else None
    return KNOWN_SETS.get(name) if isinstance(name, str) else None


def rubric_asked(source: Any) -> Any:
    known = published_set(source)
    return source.get("rubric", known.rubric if known else "") if isinstance(source, dict) else None
