"""Rows of a data source: JSONL, Parquet, CSV and Arrow files, folders of them, saved `datasets` directories, tasks.

Nothing is skipped, cut or guessed: the first malformed row stops, named by file and line (or row, counted from 0).
Text stays as written: the number 75 is the answer "75", 75.0 is "75.0". The one exception is layout: blank lines of
a JSONL or CSV file hold no row.
"""

import codecs
import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rollout.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from rollout.data.tasks.rows import TaskRow

Message = Mapping[str, Any]
"""`role` and `content`, both text, and whatever else the chat template reads."""

Record = tuple[str, Mapping[str, Any]]
"""(where it stands, for messages; column → value)"""

LONGEST_CSV_CELL = 2**30
"""Characters. Python's own limit of 128 Ki is shorter than a long worked solution."""

# Folders often hold the splits of one data set side by side; training on the test file must not happen by accident.
SPLIT_OF_FILE = re.compile(r"(train|test|validation|valid|val|dev|eval|held-out)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where rows come from: a path or a generated task, never both.

    The keys and defaults are those of `data.sources.NAME` and `eval.sets.NAME` of a recipe, as far as they say something
    of rows.
    """

    name: str
    path: str = ""
    """A data file, a folder of files of one kind, or a directory written by `save_to_disk`."""
    task: str = ""
    """A generated task instead of a path."""
    split: str = "train"
    """Split of a task, of a saved `datasets` directory, or of a folder whose files are named after splits."""
    prompt_column: str = "prompt"
    answer_column: str = "answer"
    """Empty: the rows have no reference answer."""
    answer_pattern: str = ""
    """Regular expression; the answer is the first group of its last match in the answer column."""
    completion_column: str = ""
    """Empty: the rows have no worked completion. May be the answer column too."""
    chosen_column: str = ""
    """Empty, with `rejected_column`: the rows are no preference pairs."""
    rejected_column: str = ""
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
class Row:
    """One problem, before it is rendered and tokenised."""

    row_id: str
    """`<source>/<row, counted from 0>` for files, `<source>/<problem>` for tasks; the same in every run."""
    source: str
    rubric: str
    question: str
    """Never blank."""
    answer: str
    """Empty only when the source has no answer column."""
    completion: str
    """Empty only when the source has no completion column."""
    chosen: str = ""
    """The better of two responses; like `rejected`, empty only when the source has no such columns."""
    rejected: str = ""
    messages: tuple[Message, ...] = ()
    """A conversation with at least one turn of the assistant; the question is then its first user message, the completion
    the last turn of the assistant."""
    baseline: str = ""
    """Empty only when the source has no baseline column."""
    keeps_thought: bool = True
    fields: Mapping[str, str]
    """The remaining columns: nested values as JSON text, missing ones as empty text. With an `entry_point` (HumanEval)
    the question too, as `prompt`."""


def load_rows(source: Source, seed: int) -> list[Row]:
    """All rows of a source in file order, at most `source.limit`. `seed` is for generated tasks; files ignore it.

    Raises:
        InputError: nothing there, unknown kind of file, unknown split, task or option, missing column, malformed
            row, bad `answer_pattern`, or no row at all.
    """
    if bool(source.path) == bool(source.task):
        raise InputError(f"source {source.name!r} needs either `path` or `task`")
    rows = _task_rows(source, seed) if source.task else _file_rows(source)
    taken = list(islice(rows, source.limit or None))
    if not taken:
        raise InputError(f"source {source.name!r}: {source.path or source.task} holds no rows")
    return taken


def _task_rows(source: Source, seed: int) -> Iterator[Row]:
    # Only here: the generators are not needed to read a file.
    from rollout.data.tasks import task_rows

    for problem in task_rows(source.task, source.split, seed, source.limit, source.options):
        yield Row(
            row_id=f"{source.name}/{problem.problem_id}",
            source=source.name,
            rubric=source.rubric,
            question=problem.question,
            answer=problem.answer,
            completion=problem.completion,
            chosen=_made(source, problem, "chosen_column"),
            rejected=_made(source, problem, "rejected_column"),
            baseline=_made(source, problem, "baseline_column"),
            keeps_thought=bool(source.keep_thought),
            fields={},
        )


def _made(source: Source, problem: "TaskRow", setting: str) -> str:
    """What a task makes under the name of a column."""
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
    pattern = _compiled(source)
    records = (record for path in _files(source) for record in READERS[path.suffix.lower()](path))
    for index, (where, values) in enumerate(records):
        yield _row(source, pattern, index, where, values)


def _row(source: Source, pattern: re.Pattern[str] | None, index: int, where: str, values: Mapping[str, Any]) -> Row:
    if source.messages_column:
        return _conversation(source, index, where, values)
    question = _text(where, values, source.prompt_column, "prompt_column")
    answer = completion = ""
    if source.answer_column:
        answer = _text(where, values, source.answer_column, "answer_column")
        if pattern is not None:
            answer = _extracted(where, pattern, answer, source.answer_column)
    if source.completion_column:
        completion = _text(where, values, source.completion_column, "completion_column")
    chosen = rejected = ""
    if source.chosen_column:
        chosen = _text(where, values, source.chosen_column, "chosen_column")
        rejected = _text(where, values, source.rejected_column, "rejected_column")
    baseline = _text(where, values, source.baseline_column, "baseline_column") if source.baseline_column else ""
    columns = ("prompt", "answer", "completion", "chosen", "rejected", "baseline")
    used = {getattr(source, f"{column}_column") for column in columns}
    fields = {column: field_text(value) for column, value in values.items() if column not in used}
    if "entry_point" in fields:
        # Tests in the form of HumanEval belong to a program that begins as the prompt does.
        fields["prompt"] = question
    return Row(
        row_id=f"{source.name}/{index}",
        source=source.name,
        rubric=source.rubric,
        question=question,
        answer=answer,
        completion=completion,
        chosen=chosen,
        rejected=rejected,
        baseline=baseline,
        keeps_thought=_keeps_thought(source, where, values),
        fields=fields,
    )


def _keeps_thought(source: Source, where: str, values: Mapping[str, Any]) -> bool:
    if isinstance(source.keep_thought, bool):
        return source.keep_thought
    value = _value(where, values, source.keep_thought, "keep_thought")
    said = str(value).strip().lower()
    if said not in _TRUTHS:
        raise InputError(f"{where}: column {source.keep_thought!r} is {_shown(value)}, not true or false")
    return _TRUTHS[said]


_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
"""As JSON, CSV and Parquet files write them."""


def _conversation(source: Source, index: int, where: str, values: Mapping[str, Any]) -> Row:
    column = source.messages_column
    listed = _value(where, values, column, "messages_column")
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{where}: column {column!r} is {_shown(listed)}, not a list of messages")
    messages = tuple(_message(f"{where}: message {i} of column {column!r}", each) for i, each in enumerate(listed, 1))
    said = {
        role: [message["content"] for message in messages if message["role"] == role] for role in ("user", "assistant")
    }
    for role, contents in said.items():
        if not contents:
            raise InputError(f"{where}: column {column!r} has no message of role {role!r}")
    return Row(
        row_id=f"{source.name}/{index}",
        source=source.name,
        rubric=source.rubric,
        question=said["user"][0],
        answer="",
        completion=said["assistant"][-1],
        messages=messages,
        fields={other: field_text(value) for other, value in values.items() if other != column},
    )


def _message(where: str, value: Any) -> Message:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} is {_shown(value)}, not an object with role and content")
    for key in ("role", "content"):
        if not isinstance(value.get(key), str):
            raise InputError(f"{where}: {key} is {_shown(value.get(key))}, not text; it has: {', '.join(value)}")
    if not value["content"].strip() and value["role"] != "system":
        raise InputError(f"{where}: the content of role {value['role']!r} is empty; fill it or remove the row")
    # A table gives every message the keys of all.
    return {key: each for key, each in value.items() if each is not None}


def _value(where: str, values: Mapping[str, Any], column: str, setting: str) -> Any:
    if column not in values:
        drop = ', or set answer_column="" if there is none' if setting == "answer_column" else ""
        raise InputError(
            f"{where}: no column {column!r}{did_you_mean(column, values)}\n"
            f"columns: {', '.join(values)}; choose one with `{setting}`{drop}"
        )
    return values[column]


def _text(where: str, values: Mapping[str, Any], column: str, setting: str) -> str:
    """A column that must hold text or a number, as text."""
    value = _value(where, values, column, setting)
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value)
    if not isinstance(value, str) and not is_number:
        raise InputError(f"{where}: column {column!r} is {_shown(value)}, not text or a number")
    text = str(value)
    if not text.strip():
        raise InputError(f"{where}: column {column!r} is empty; fill it or remove the row")
    return text


def field_text(value: Any) -> str:
    """A value of any column as text: nested ones as JSON, a missing one as empty text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _compiled(source: Source) -> re.Pattern[str] | None:
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


def _extracted(where: str, pattern: re.Pattern[str], text: str, column: str) -> str:
    """First group of the last match, without surrounding space."""
    answer = ""
    for match in pattern.finditer(text):
        answer = (match.group(1) or "").strip()
    if not answer:
        raise InputError(f"{where}: answer_pattern {pattern.pattern!r} finds no answer in column {column!r}")
    return answer


# --- Which files


def _files(source: Source) -> list[Path]:
    """The files of a source in reading order, all of one kind that `READERS` knows."""
    path = Path(source.path).expanduser()
    if path.is_file():
        _refuse_split(source, [])
        if path.suffix.lower() not in READERS:
            raise InputError(f"{path}: cannot read {path.suffix or 'a file without suffix'}; use {', '.join(READERS)}")
        return [path]
    if not path.is_dir():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"source {source.name!r}: no file or folder at {path}{did_you_mean(path.name, beside)}")
    if (path / "dataset_dict.json").is_file():
        splits = _read_json(path / "dataset_dict.json").get("splits", [])
        if source.split not in splits:
            raise _unknown_split(source, splits)
        return _saved_files(path / source.split)
    if (path / "state.json").is_file():
        held = _read_json(path / "state.json").get("_split")
        _refuse_split(source, [held] if held else [])
        return _saved_files(path)
    return _folder_files(source, path)


def _folder_files(source: Source, folder: Path) -> list[Path]:
    """Data files right inside a folder, sorted by name; hidden files and other kinds (a README) are no data."""
    files = sorted(entry for entry in folder.iterdir() if entry.is_file() and entry.name[0] not in "._")
    files = [entry for entry in files if entry.suffix.lower() in READERS]
    if not files:
        inside = [f"{entry.name}/" for entry in sorted(folder.iterdir()) if entry.is_dir()][:8]
        hint = f"; it holds the folders {', '.join(inside)}" if inside else ""
        raise InputError(f"source {source.name!r}: no {', '.join(READERS)} file in {folder}{hint}")
    splits = {entry: match[1].lower() for entry in files if (match := SPLIT_OF_FILE.match(entry.name))}
    if splits:
        files = _split_files(source, files, splits)
    else:
        _refuse_split(source, [])
    if len({READERS[entry.suffix.lower()] for entry in files}) > 1:
        names = ", ".join(entry.name for entry in files[:8])
        raise InputError(f"source {source.name!r}: {folder} mixes kinds of files ({names}); name one file")
    return files


def _split_files(source: Source, files: Sequence[Path], splits: Mapping[Path, str]) -> list[Path]:
    for entry in files:
        if entry not in splits:
            raise InputError(
                f"source {source.name!r}: {next(iter(splits)).name} is named after a split, {entry.name} is not; "
                f"name one file instead of the folder {entry.parent}"
            )
    chosen = [entry for entry in files if splits[entry] == source.split]
    if not chosen:
        raise _unknown_split(source, sorted(set(splits.values())))
    return chosen


def _saved_files(folder: Path) -> list[Path]:
    """The Arrow shards of one split that `datasets` saved, in the order that its `state.json` gives."""
    state = _read_json(folder / "state.json")
    if state.get("_indices_data_files"):
        raise InputError(f"{folder}: saved with an index mapping; call flatten_indices() and save_to_disk() again")
    try:
        files = [folder / shard["filename"] for shard in state["_data_files"]]
    except (KeyError, TypeError):
        raise InputError(f"{folder / 'state.json'}: no `_data_files`; save the data set again") from None
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} is missing, though state.json names it; save the data set again")
        if file.suffix != ".arrow":
            raise InputError(f"{file}: a saved data set holds .arrow shards; save it again")
    return files


def _refuse_split(source: Source, held: Sequence[str]) -> None:
    """Say so when a split was asked for and there is nothing to choose from (`train` is the default: not asked)."""
    if source.split != "train" and source.split not in held:
        raise _unknown_split(source, held)


def _unknown_split(source: Source, splits: Sequence[str]) -> InputError:
    known = f"its splits: {', '.join(splits)}" if splits else "it has no splits; leave `split` out"
    return InputError(f"source {source.name!r}: no split {source.split!r} in {source.path}; {known}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object; save the data set again")
    return value


# --- One reader a kind of file


class _WrittenFloat(float):
    """A JSON number with a point or an exponent that prints as it was written."""

    text: str

    def __new__(cls, text: str) -> "_WrittenFloat":
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text


def _jsonl_records(path: Path) -> Iterator[Record]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            values = json.loads(line, parse_float=_WrittenFloat, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not valid JSON: {error}") from None
        if not isinstance(values, dict):
            raise InputError(f"{where}: is {_shown(values)}, not an object with columns")
        yield where, values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value; write null")


def _csv_records(path: Path) -> Iterator[Record]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CSV_CELL))
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    header: list[str] = []
    while True:
        # A quoted cell may span lines: the row is named by its first.
        where = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{where}: not valid CSV: {error}") from None
        if cells is None:
            return
        if not cells:
            continue
        if not header:
            header = cells
            _check_unique(where, header)
            continue
        if len(cells) != len(header):
            raise InputError(f"{where}: {len(cells)} columns, but the header names {len(header)}")
        yield where, dict(zip(header, cells, strict=True))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text with its line end). Split on newlines alone: JSON text may hold U+2028."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if number == 1:
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                try:
                    yield number, raw.decode("utf-8")
                except UnicodeDecodeError:
                    raise InputError(f"{path}:{number}: not UTF-8 text; convert the file to UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def _parquet_records(path: Path) -> Iterator[Record]:
    return _table_records(path, "Parquet", _parquet_batches)


def _parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=1024)


def _arrow_records(path: Path) -> Iterator[Record]:
    return _table_records(path, "Arrow", _arrow_batches)


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Both IPC formats: the file format (Feather 2) begins with a magic word, the stream format does not."""
    with pa.OSFile(str(path)) as file:
        is_file_format = file.read(6) == b"ARROW1"
        file.seek(0)
        if is_file_format:
            reader = pa.ipc.open_file(file)
            yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            yield from pa.ipc.open_stream(file)


def _table_records(path: Path, kind: str, batches: Callable[[Path], Iterable[pa.RecordBatch]]) -> Iterator[Record]:
    row = 0
    try:
        for batch in batches(path):
            _check_unique(str(path), batch.schema.names)
            for values in batch.to_pylist():
                yield f"{path}: row {row} (from 0)", values
                row += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise InputError(f"{path}: cannot be read as {kind}: {first}") from None


def _check_unique(where: str, columns: Sequence[str]) -> None:
    for column in columns:
        if list(columns).count(column) > 1:
            raise InputError(f"{where}: two columns are called {column!r}; rename one")


READERS: Mapping[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _jsonl_records,
    ".parquet": _parquet_records,
    ".csv": _csv_records,
    ".arrow": _arrow_records,
    ".feather": _arrow_records,
}
"""Suffix (lower case) → reader."""


def _shown(value: Any) -> str:
    """A value in a message: short, in JSON's words."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
