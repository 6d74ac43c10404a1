"""`[data]`: the sources of prompts, and the template that they are put into."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.sections.base import Names, Section
from rollout.data.known_sets import KNOWN_SETS, PLACEHOLDER, KnownSet
from rollout.data.rows import HUB, Source
from rollout.data.template_settings import CHAT, Dress, FewShot, is_chat


class SourceSection(Section):
    """A source of prompts: a file, a directory, a generated task, or the rows of an earlier stage."""

    path: Annotated[str, Names("data")] = ""
    """File of the source (JSONL, JSON or CSV, compressed or not, Parquet or Arrow), a folder of such files, a pattern
    (`data/train-*.parquet`), a saved `datasets` directory, or a data set of the Hugging Face hub (`hub:openai/gsm8k`)."""
    set: Literal[
        "",
        "gsm8k",
        "aime24",
        "amc23",
        "math",
        "math500",
        "numinamath",
        "numinamath-cot",
        "deepscaler",
        "dapo-math",
        "apps",
        "taco",
        "livecodebench",
        "humaneval",
    ] = ""
    """Data set that `path` holds as it is published: columns, rubric (`math`, `answer-line` or `code`) and form of
    the question need not be named."""
    task: str = ""
    """Generated task in place of a path: `arithmetic`, `puzzles` or `manners`."""
    stage: str = ""
    """Earlier stage, in place of a path, whose rows the source takes."""
    split: str = "train"
    """Split to take of a generated task (`train` or `held-out`), of a `datasets` directory, or of a data set of the hub."""
    subset: str = ""
    """Subset (configuration) of a data set of the hub, such as `main`; empty: the only one."""
    revision: str = ""
    """Branch, tag or commit of a data set of the hub; empty: the newest."""
    prompt_column: str = "prompt"
    """Column that holds the question."""
    answer_column: str = "answer"
    """Column that holds the reference answer; empty: none."""
    answer_pattern: str = ""
    """Regular expression whose first group is the answer inside `answer_column`, such as `#### (.+)`."""
    starter_column: str = ""
    """Column that holds the code that a program begins with, shown behind the question; a row without one is told to read
    standard input. Empty: the question alone."""
    completion_column: str = ""
    """Column that holds a worked completion (SFT); empty: none."""
    prompt_form: str = ""
    """Text with `{prompt}` in it, into which a question is put before the template; empty: the question alone, or the
    form that `set` is asked in."""
    chosen_column: str = ""
    """Column that holds the better of two responses (reward models, DPO); with it no answer column is expected."""
    rejected_column: str = ""
    """Column that holds the worse of two responses."""
    messages_column: str = ""
    """Column that holds conversations (SFT): lists of messages with `role` and `content`, which the model's chat
    template renders. In place of prompt, answer and completion columns."""
    rubric: str = "default"
    """Rubric that scores the completions: a name in `rewards.rubrics`."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Share of the source relative to the others; with `sft.epochs`, how often an epoch passes through it. 0: none
    before a step of the stage's schedule gives it a share."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Number of rows to take, the first ones; 0: all."""
    options: dict[str, int | float | str | bool] = {}
    """Options of the generated task."""
    keep_thought: bool | str = True
    """Whether rows that a `reject` stage samples from the source keep their thought, which R1 gives to complex
    questions and not to simple ones; or the column of the file that says so of each question, true or false."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_set(cls, raw: Any) -> Any:
        """Write out the keys of a published set."""
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
        for key in ("subset", "revision"):
            if getattr(self, key) and not self.path.startswith(HUB):
                raise ValueError(
                    f"{key} = {getattr(self, key)!r} is of a data set of the hub; name one: path = 'hub:OWNER/NAME'"
                )
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

    def source(self, name: str) -> "Source":
        """The source as `load_rows` takes it. `name`: the name of this section in the recipe."""
        # Only here: brings pyarrow.
        from rollout.data.sources import Source

        none_of_rows = {"weight", "prompt_form", "correct", "judged_by", "stage"}
        return Source(name=name, **self.model_dump(exclude=none_of_rows))


class FewShotSection(Section):
    """Worked examples, or a text, before every question."""

    path: Annotated[str, Names("data")] = ""
    """File of worked examples that stand before every question, in training and evaluation: as turns in a chat template,
    elsewhere as text. Kinds of files as of a source; any other, such as `shots.txt`, is text that is put before the
    question. Empty: none."""
    prompt_column: str = "prompt"
    """Column of the questions of the examples."""
    completion_column: str = "completion"
    """Column of the completions of the examples."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Number of examples to take, the first ones; 0: all."""


class DataSection(Section):
    sources: dict[str, SourceSection] = {}
    """Data source, by a name of your choice; several are mixed by weight."""
    template: Annotated[str, Names("template")] = "plain"
    """Template of prompts: `plain`, `r1-zero`, `chat` (the model's own chat template), a chat template in a Jinja file
    (`my.jinja`), which exports then carry, or a text file with `{prompt}` in it."""
    system: str = ""
    """System message that a chat template gets before every conversation which brings none of its own; empty: none but
    what the template writes by itself."""
    template_args: dict[str, bool | int | float | str | list[Any] | dict[str, Any]] = {}
    """Variables of the chat template, such as `enable_thinking`."""
    few_shot: FewShotSection = FewShotSection()
    max_prompt_tokens: Annotated[int, Field(ge=1)] = 256
    """Longest prompt, in tokens; a longer one is reported and skipped, never cut."""

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, values: Any) -> Any:
        """`few_shot = "shots.jsonl"` is a file with the usual columns."""
        if isinstance(values, dict) and isinstance(path := values.get("few_shot"), str):
            return {**values, "few_shot": {"path": path}}
        return values

    @model_validator(mode="after")
    def _finite(self) -> Self:
        for name, value in self.template_args.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"template_args.{name} = {value}: a template takes finite numbers")
        return self

    @property
    def dress(self) -> Dress:
        """What is said of the chat template; nothing under other templates."""
        template = self.template if is_chat(self.template) else CHAT
        return Dress(template=template, system=self.system, args=self.template_args)

    @property
    def shots(self) -> FewShot | None:
        """The examples before every question; None: there are none."""
        return FewShot(**self.few_shot.model_dump()) if self.few_shot.path else None


def published_set(source: Any) -> KnownSet | None:
    """The published set that a source, as it is written in a recipe, names by `set`; None: it names none."""
    name = source.get("set") if isinstance(source, dict) else None
    return KNOWN_SETS.get(name) if isinstance(name, str) else None


def rubric_asked(source: Any) -> Any:
    """The rubric that a source, as it is written in a recipe, asks for; empty or None where it names none."""
    known = published_set(source)
    return source.get("rubric", known.rubric if known else "") if isinstance(source, dict) else None
