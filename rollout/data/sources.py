"""Rows of a data source: JSONL, Parquet, CSV and Arrow files, folders of them, saved `datasets` directories, tasks.

Nothing is skipped, cut or guessed: the first malformed row stops, named by file and line (or row, counted from 0).
Text stays as written: the number 75 is the answer "75", 75.0 is "75.0". The one exception is layout: blank lines of
a JSONL or CSV file hold no row.
"""

import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from rollout.data.columns import column_value
from rollout.data.files import source_files
from rollout.data.json_text import ValueText, integer_text, json_text
from rollout.data.known_sets import PLACEHOLDER
from rollout.data.messages import TOOLS, messages_of, tools_of
from rollout.data.readers import Record, quote, reader_of
from rollout.data.responses import with_responses
from rollout.data.rows import HUB, Dialogue, Row, Source
from rollout.data.starter import starter_text
from rollout.data.tasks.rows import TaskRow
from rollout.data.templates import worded
from rollout.errors import InputError


def load_rows(source: Source, seed: int) -> list[Row]:
    """All rows of a source in file order, at most `source.limit`. `seed` is for generated tasks; files ignore it.

    Raises:
        InputError: nothing there, unknown kind of file, unknown split, task or option, missing column, malformed
            row, bad `answer_pattern`, or no row at all.
    """
    return list(iter_rows(source, seed))


def iter_rows(source: Source, seed: int) -> Iterator[Row]:
    """As `load_rows`, one row at a time: a file may hold more than memory does."""
    if bool(source.path) == bool(source.task):
        raise InputError(f"source {source.name!r} needs either `path` or `task`")
    rows = islice(_task_rows(source, seed) if source.task else _file_rows(source), source.limit or None)
    first = next(rows, None)
    if first is None:
        raise InputError(f"source {source.name!r}: {source.path or source.task} holds no rows")
    yield first
    yield from rows


def _task_rows(source: Source, seed: int) -> Iterator[Row]:
    # Only here: the generators are not needed to read a file.
    from rollout.data.tasks.registry import task_rows

    for problem in task_rows(source.task, source.split, seed, source.limit, source.options):
        yield Row(
            row_id=f"{source.name}/{problem.problem_id}",
            source=source.name,
            rubric=source.rubric,
            question=problem.question,
            answer=problem.answer,
            completion=problem.completion,
            chosen=_task_text(source, problem, "chosen_column"),
            rejected=_task_text(source, problem, "rejected_column"),
            baseline=_task_text(source, problem, "baseline_column"),
            keeps_thought=bool(source.keep_thought),
            fields={},
        )


def _task_text(source: Source, problem: TaskRow, setting: str) -> str:
    """The text that a task makes under the name of a column; empty where the source names none."""
    column = getattr(source, setting)
    if not column:
        return ""
    texts = {"completion": problem.completion, "chosen": problem.chosen, "rejected": problem.rejected}
    held = {name: text for name, text in texts.items() if text}
    if column not in held:
        raise InputError(
            f"source {source.name!r}: the task {source.task!r} makes no {column!r}; "
            f"{setting} can be: {', '.join(held) or 'nothing'}"
        )
    return held[column]


def _file_rows(source: Source) -> Iterator[Row]:
    pattern = _compile_pattern(source)
    if source.path.startswith(HUB):
        # Only here: brings `datasets`.
        from rollout.data.hub import hub_records

        records = hub_records(source)
    else:
        records = (record for path in source_files(source) for record in _records(path))
    for index, (where, values) in enumerate(records):
        yield _row(source, pattern, index, where, values)


def _records(path: Path) -> Iterator[Record]:
    reader = reader_of(path)
    assert reader is not None, f"source_files gave {path}"
    return reader(path)


def _row(source: Source, pattern: re.Pattern[str] | None, index: int, where: str, values: Mapping[str, Any]) -> Row:
    if source.messages_column:
        return _conversation(source, index, where, values)
    row_id = f"{source.name}/{index}"
    values = with_responses(where, values, source)
    question, dialogue = _prompt(row_id, where, values, source.prompt_column)
    if source.starter_column:
        code = column_value(where, values, source.starter_column, "starter_column")
        form = PLACEHOLDER + starter_text(code, values)
        question, dialogue = worded(question, form), dialogue and worded(dialogue, form)
    answer = completion = ""
    if source.answer_column:
        answer = _answer(where, values, source)
        if answer and pattern is not None:
            answer = _extract(where, pattern, answer, source.answer_column)
    if source.completion_column:
        completion = _text(where, values, source.completion_column, "completion_column")
    chosen = rejected = ""
    if source.chosen_column:
        chosen = _text(where, values, source.chosen_column, "chosen_column")
        rejected = _text(where, values, source.rejected_column, "rejected_column")
    baseline = _text(where, values, source.baseline_column, "baseline_column") if source.baseline_column else ""
    columns = ("prompt", "answer", "completion", "chosen", "rejected", "baseline")
    used = {getattr(source, f"{column}_column") for column in columns}
    used |= {TOOLS} if dialogue and dialogue.tools else set()
    fields = {column: field_text(value) for column, value in values.items() if column not in used}
    if "entry_point" in fields:
        # Tests in the form of HumanEval belong to a program that begins as the prompt does.
        fields["prompt"] = question
    elif dialogue:
        # The question is its text; a reward function may read who said what.
        fields[source.prompt_column] = ValueText(json_text(dialogue.messages))
    texts = {
        getattr(source, f"{column}_column"): text
        for column, text in zip(columns, (question, answer, completion, chosen, rejected, baseline), strict=True)
    }
    if dialogue:
        texts |= {source.prompt_column: json_text(dialogue.messages), TOOLS: json_text(dialogue.tools)}
    check_encodable(where, texts | fields)
    return Row(
        row_id=row_id,
        place=where,
        source=source.name,
        rubric=source.rubric,
        question=question,
        dialogue=dialogue,
        answer=answer,
        completion=completion,
        chosen=chosen,
        rejected=rejected,
        baseline=baseline,
        keeps_thought=_keeps_thought(source, where, values),
        fields=fields,
        columns=(source.prompt_column, source.answer_column),
    )


def _prompt(row_id: str, where: str, values: Mapping[str, Any], column: str) -> tuple[str, Dialogue | None]:
    """(question, dialogue) of a prompt that is text or a list of messages; one turn of a user alone is its text."""
    value = column_value(where, values, column, "prompt_column")
    if not isinstance(value, list):
        return _text(where, values, column, "prompt_column"), None
    messages = messages_of(where, value, column)
    users = [message["content"] for message in messages if message["role"] == "user"]
    if not users:
        raise InputError(f"{where}: column {column!r} has no message of role 'user'")
    if messages[-1]["role"] == "assistant":
        raise InputError(
            f"{where}: column {column!r} ends with a turn of the assistant, so nothing is asked; end it with the user's, or "
            "name the column of whole conversations with `messages_column`"
        )
    tools = tools_of(where, values.get(TOOLS))
    question = "\n\n".join(users)
    if len(messages) == 1 and not tools:
        return question, None
    return question, Dialogue(row_id=row_id, messages=messages, tools=tools)


def _keeps_thought(source: Source, where: str, values: Mapping[str, Any]) -> bool:
    if isinstance(source.keep_thought, bool):
        return source.keep_thought
    value = column_value(where, values, source.keep_thought, "keep_thought")
    said = str(value).strip().lower()
    if said not in _TRUTHS:
        raise InputError(f"{where}: column {source.keep_thought!r} is {quote(value)}, not true or false")
    return _TRUTHS[said]


_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
"""Words for true and false, as JSON, CSV and Parquet files write them."""


def _conversation(source: Source, index: int, where: str, values: Mapping[str, Any]) -> Row:
    column = source.messages_column
    messages = messages_of(where, column_value(where, values, column, "messages_column"), column)
    said = {
        role: [message["content"] for message in messages if message["role"] == role] for role in ("user", "assistant")
    }
    for role, contents in said.items():
        if not contents:
            raise InputError(f"{where}: column {column!r} has no message of role {role!r}")
    tools = tools_of(where, values.get(TOOLS))
    fields = {other: field_text(value) for other, value in values.items() if other not in (column, TOOLS)}
    check_encodable(where, {column: json_text(messages), TOOLS: json_text(tools), **fields})
    return Row(
        row_id=f"{source.name}/{index}",
        place=where,
        source=source.name,
        rubric=source.rubric,
        question=said["user"][0],
        answer="",
        completion=said["assistant"][-1],
        messages=messages,
        tools=tools,
        fields=fields,
    )


def _text(where: str, values: Mapping[str, Any], column: str, setting: str) -> str:
    """A column that must hold text or a number, as text."""
    value = column_value(where, values, column, setting)
    if not isinstance(value, str) and not _is_number(value):
        raise InputError(f"{where}: column {column!r} is {quote(value)}, not text or a number")
    text = field_text(value)
    if not text.strip():
        raise InputError(f"{where}: column {column!r} is empty; fill it or remove the row")
    return text


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a text can name."""
    if isinstance(value, float | Decimal):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _answer(where: str, values: Mapping[str, Any], source: Source) -> str:
    """The reference answer: text or a number, or a list of accepted ones (`answer_text`); empty where a published set has none."""
    column = source.answer_column
    value = column_value(where, values, column, "answer_column")
    if source.set and not field_text(value).strip():
        return ""
    if not isinstance(value, list | Mapping):
        return _text(where, values, column, "answer_column")
    try:
        return answer_text(value)
    except ValueError as problem:
        raise InputError(f"{where}: column {column!r} {problem}; fill it or remove the row") from None


def answer_text(value: Any) -> str:
    """A reference answer as text; a list of accepted ones as a JSON list of texts, as `rewards.builtin` reads it.

    Raises:
        ValueError: it is no text, no number and no list of some; the message goes on behind the name of its place.
    """
    if isinstance(value, str) or _is_number(value):
        return field_text(value)
    if not isinstance(value, list) or not value:
        raise ValueError(f"is {quote(value)}, not text, a number or a list of accepted answers")
    for each in value:
        if not _is_number(each) and not (isinstance(each, str) and each.strip()):
            raise ValueError(f"is {quote(value)}, of which {quote(each)} is not text or a number")
    return ValueText(json_text([field_text(each) for each in value]))


def field_text(value: Any) -> str:
    """A value of any column as text, a `ValueText` where it is none: nested ones as JSON, a missing one as empty text."""
    if value is None:
        return ValueText()
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return ValueText(integer_text(value))
    return ValueText(value if isinstance(value, float | Decimal) else json_text(value))


def check_encodable(where: str, texts: Mapping[str, str]) -> None:
    """Raises InputError for a column with half of a surrogate pair, which JSON can name and no tokenizer or file takes."""
    for column, text in texts.items():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            sign = f"\\u{ord(text[error.start]):04x}"
            raise InputError(
                f"{where}: column {column!r} holds {sign}, half of a surrogate pair, which no tokenizer takes\n"
                "write the whole character, or remove the row"
            ) from None


def _compile_pattern(source: Source) -> re.Pattern[str] | None:
    if not source.answer_pattern:
        return None
    named = f"source {source.name!r}: answer_pattern {source.answer_pattern!r}"
    if not source.answer_column:
        raise InputError(f"{named} needs an `answer_column` to look in")
    try:
        pattern = re.compile(source.answer_pattern)
    except re.error as error:
        raise InputError(f"{named} is not a regular expression: {error}") from None
    if pattern.groups == 0:
        raise InputError(f"{named} has no group; put the answer in parentheses, such as '#### (.+)'")
    return pattern


def _extract(where: str, pattern: re.Pattern[str], text: str, column: str) -> str:
    """First group of the last match, without surrounding space."""
    answer = ""
    for match in pattern.finditer(text):
        answer = (match.group(1) or "").strip()
    if not answer:
        raise InputError(f"{where}: answer_pattern {pattern.pattern!r} finds no answer in column {column!r}")
    return answer
