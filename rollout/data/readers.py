"""The files of a data source, and one reader a format: from a path to records."""

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rollout.data.json_text import json_text, read_json
from rollout.data.rows import Source
from rollout.data.short_floats import shortening
from rollout.errors import InputError, did_you_mean

Record = tuple[str, Mapping[str, Any]]
"""A row as its file holds it: (where it stands, for messages; column → value)."""

LONGEST_CSV_CELL = 2**30
"""Characters of the longest cell that is read. Python's own limit of 128 Ki is shorter than a long worked solution."""

BATCH_BYTES = 64 << 20
"""Size of the rows of a table that are held at once, as Arrow and as Python's objects."""
MOST_ROWS = 1024

# Folders often hold the splits of one data set side by side; training on the test file must not happen by accident.
SPLIT_OF_FILE = re.compile(r"(train|test|validation|valid|val|dev|eval|held-out)(?![a-z])", re.IGNORECASE)


# --- Which files


def source_files(source: Source) -> list[Path]:
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


def _jsonl_records(path: Path) -> Iterator[Record]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            values = read_json(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not valid JSON: {error}") from None
        if not isinstance(values, dict):
            raise InputError(f"{where}: is {quote(values)}, not an object with columns")
        yield where, values


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
        for group in range(file.num_row_groups):
            held = file.metadata.row_group(group)
            size = _rows_at_once(held.num_rows, held.total_byte_size)
            yield from _group_batches(file, group, held.num_rows, size)


def _group_batches(file: pq.ParquetFile, group: int, rows: int, size: int) -> Iterator[pa.RecordBatch]:
    """The rows of a row group, `size` at a time; fewer where a batch does not fit.

    Arrow makes no batch of nested text beyond 2 GiB, and the sizes that a file tells are those of packed pages.
    """
    done = 0
    while done < rows:
        try:
            at = 0
            for batch in file.iter_batches(batch_size=size, row_groups=[group]):
                known, at = max(0, done - at), at + batch.num_rows
                if known < batch.num_rows:
                    done = at
                    yield batch.slice(known)
        except pa.ArrowNotImplementedError:
            if size == 1:
                raise
            size = max(1, size // 8)


def _rows_at_once(rows: int, num_bytes: int) -> int:
    return max(1, min(MOST_ROWS, BATCH_BYTES * rows // max(num_bytes, 1)))


def _arrow_records(path: Path) -> Iterator[Record]:
    return _table_records(path, "Arrow", _arrow_batches)


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Both IPC formats: the file format (Feather 2) begins with a magic word, the stream format does not."""
    with pa.OSFile(str(path)) as file:
        is_file_format = file.read(6) == b"ARROW1"
        file.seek(0)
        if is_file_format:
            reader = pa.ipc.open_file(file)
            whole = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            whole = pa.ipc.open_stream(file)
        for batch in whole:
            size = _rows_at_once(batch.num_rows, batch.nbytes)
            yield from (batch.slice(start, size) for start in range(0, batch.num_rows, size))


def _table_records(path: Path, kind: str, batches: Callable[[Path], Iterable[pa.RecordBatch]]) -> Iterator[Record]:
    row = 0
    shortened: dict[str, Callable[[Any], Any]] | None = None
    try:
        for batch in batches(path):
            if shortened is None:
                _check_unique(str(path), batch.schema.names)
                shortened = {field.name: change for field in batch.schema if (change := shortening(field.type))}
            for values in _row_values(path, row, batch):
                yield (
                    f"{path}: row {row} (from 0)",
                    values | {name: change(values[name]) for name, change in shortened.items()},
                )
                row += 1
    except (pa.ArrowException, OSError) as error:
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise InputError(f"{path}: cannot be read as {kind} from row {row} on: {first}") from None


def _row_values(path: Path, row: int, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Raises InputError, which names the row and the column, for text that is not UTF-8: Arrow does not look at it."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                try:
                    column[index].as_py()
                except UnicodeDecodeError:
                    raise InputError(
                        f"{path}: row {row + index} (from 0): column {name!r} is not UTF-8 text; convert it to UTF-8"
                    ) from None
        raise


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
"""Suffix of a file (lower case) → the reader of its format."""


def quote(value: Any) -> str:
    """A value in a message: short, in JSON's words."""
    text = json_text(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
