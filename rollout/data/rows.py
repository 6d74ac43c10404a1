"""A data source as a recipe says it, and one row of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]
"""A message of a conversation: `role` and `content`, both text, and whatever else the chat template reads, such as
`reasoning_content` and `tool_calls`; the content may be empty beside these."""


HUB = "hub:"
"""What stands before the id of a data set of the Hugging Face hub in a path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where rows come from: a path or a generated task, never both.

    The keys and defaults are those of `data.sources.NAME` and `eval.sets.NAME` of a recipe, as far as they say something
    of rows.
    """

    name: str
    path: str = ""
    """A data file, a folder of files of one kind or a pattern that matches some, a directory written by `save_to_disk`, or `hub:` and a hub id."""
    set: str = ""
    """Published set that the path holds; in some rows of these the answer is empty, which `accuracy` cannot score and says so."""
    task: str = ""
    """A generated task instead of a path."""
    split: str = "train"
    """Split of a task, of a saved `datasets` directory, or of a folder whose files are named after splits."""
    subset: str = ""
    """Subset (configuration) of a data set of the hub; empty: the only one."""
    revision: str = ""
    """Branch, tag or commit of a data set of the hub; empty: the newest."""
    prompt_column: str = "prompt"
    answer_column: str = "answer"
    """Column of the reference answer; empty: the rows have none."""
    answer_pattern: str = ""
    """Regular expression; the answer is the first group of its last match in the answer column."""
    starter_column: str = ""
    """Column of the code that a program begins with, which is shown behind the question; where it is empty a program reads
    standard input. Empty: the question alone."""
    completion_column: str = ""
    """Column of the worked completion; empty: the rows have none. May be the answer column too."""
    chosen_column: str = ""
    """Column of the better of two responses; empty, with `rejected_column`: the rows are no preference pairs."""
    rejected_column: str = ""
    """Column of the worse of two responses; set together with `chosen_column`."""
    messages_column: str = ""
    """Column of conversations; prompt, answer and completion columns are then not read."""
    baseline_column: str = ""
    """Column of responses to compare completions with (evaluation), or of a task what it makes; empty: there are none."""
    keep_thought: bool | str = True
    """Whether a completion sampled for a row keeps its thought, or the column that says so (rejection sampling)."""
    rubric: str = "default"
    limit: int = 0
    """Take only the first rows; 0: all."""
    options: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    """Options of the generated task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """Messages that ask for a reply, where they are more than the text of one user."""

    row_id: str
    messages: tuple[Message, ...]
    """At least one, the last not of the assistant; one at least of the user."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tools that may be called, as chat templates take them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One problem, before it is rendered and tokenised."""

    row_id: str
    """Name of the row: `<source>/<row, counted from 0>` for files, `<source>/<problem>` for tasks; the same in every run."""
    place: str = ""
    """File and line (or row) that it was read from, for messages; empty for generated tasks."""
    source: str
    rubric: str
    question: str
    """The question of the problem; never blank. Of a `dialogue` what its users say, with a blank line between turns."""
    dialogue: Dialogue | None = None
    """What is asked, where the prompt is more than a text."""
    answer: str
    """Reference answer; empty only when the source has no answer column, or is of a published set."""
    completion: str
    """Worked completion; empty only when the source has no completion column."""
    chosen: str = ""
    """The better of two responses; empty only when the source has no column of them."""
    rejected: str = ""
    """The worse of two responses; empty only when the source has no column of them."""
    messages: tuple[Message, ...] = ()
    """A conversation with at least one turn of the assistant; the question is then its first user message, the completion
    the last turn of the assistant."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tools that the assistant of a conversation may call, as chat templates take them (JSON schemas of functions)."""
    baseline: str = ""
    """Response to compare completions with; empty only when the source has no baseline column."""
    keeps_thought: bool = True
    fields: Mapping[str, str]
    """The remaining columns: nested values as JSON text, missing ones as empty text. With an `entry_point` (HumanEval)
    the question too, as `prompt`."""
    columns: tuple[str, str] = ("prompt", "answer")
    """Names of the columns that question and answer stand in."""

    @property
    def asked(self) -> "str | Dialogue":
        """What is asked, as templates take it."""
        return self.dialogue or self.question
