"""One reader a format of data files: from a path to records."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rollout.data.json_rows import json_records
from rollout.data.json_text import json_text, read_json
from rollout.data.short_floats import shortening
from rollout.data.text_files import CODECS, lines, plain_suffix
from rollout.errors import InputError

Record = tuple[str, Mapping[str, Any]]
"""A row as its file holds it: (where it stands, for messages; column → value)."""

LONGEST_CSV_CELL = 2**30
"""Characters of the longest cell that is read. Python's own limit of 128 Ki is shorter than a long worked solution."""

BATCH_BYTES = 64 << 20
"""Size of the rows of a table that are held at once, as Arrow and as Python's objects."""
MOST_ROWS = 1024


def _jsonl_records(path: Path) -> Iterator[Record]:
    for number, line in lines(path):
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
    reader = csv.reader((line for _, line in lines(path)), strict=True)
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


def _parquet_records(path: Path) -> Iterator[Record]:
    return table_records(path, "Parquet", _parquet_batches)


def _parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            held = file.metadata.row_group(group)
            size = rows_at_once(held.num_rows, held.total_byte_size)
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


def rows_at_once(rows: int, num_bytes: int) -> int:
    """Number of rows that are held at once, of `rows` that weigh `num_bytes`."""
    return max(1, min(MOST_ROWS, BATCH_BYTES * rows // max(num_bytes, 1)))


def _arrow_records(path: Path) -> Iterator[Record]:
    return table_records(path, "Arrow", _arrow_batches)


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
            size = rows_at_once(batch.num_rows, batch.nbytes)
            yield from (batch.slice(start, size) for start in range(0, batch.num_rows, size))


def table_records(path: Path, kind: str, batches: Callable[[Path], Iterable[pa.RecordBatch]]) -> Iterator[Record]:
    """The rows of a table. `kind`: what it is, for messages."""
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


Reader = Callable[[Path], Iterator[Record]]

READERS: Mapping[str, Reader] = {
    ".jsonl": _jsonl_records,
    ".ndjson": _jsonl_records,
    ".json": json_records,
    ".parquet": _parquet_records,
    ".csv": _csv_records,
    ".arrow": _arrow_records,
    ".feather": _arrow_records,
}
"""Suffix of a file (lower case) → the reader of its format."""

TEXTS = (".jsonl", ".ndjson", ".json", ".csv")
"""Suffixes of text, which may be compressed as a whole; tables are compressed inside."""

KNOWN_KINDS = f"{', '.join(READERS)} ({', '.join(TEXTS)} also with {', '.join(CODECS)} behind)"
"""Kinds of files, for messages."""


def reader_of(path: Path) -> Reader | None:
    """The reader for a file by its name; None: there is none."""
    suffix = plain_suffix(path)
    return None if suffix != path.suffix.lower() and suffix not in TEXTS else READERS.get(suffix)


def quote(value: Any) -> str:
    """A value in a message: short, in JSON's words."""
    text = json_text(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
