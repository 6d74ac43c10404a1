"""Columns beside prompt and answer: text for those who read text, with the note of what was no text."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollout.data.json_text import ValueText
from rollout.data.rows import Row, Source
from rollout.data.sources import load_rows

ROW: dict[str, Any] = {"problem": "1+1=", "solution": 2, "level": 3, "name": "3", "tags": ["a"], "none": None, "x": 0.5}


def written(path: Path, kind: str) -> Row:
    file = path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([ROW]), file)
    else:
        file.write_text(json.dumps(ROW) + "\n")
    (row,) = load_rows(Source(name="s", path=str(file), prompt_column="problem", answer_column="solution"), 0)
    return row


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_remembers_whether_it_was_text(tmp_path: Path, kind: str) -> None:
    row = written(tmp_path, kind)
    assert row.fields == {"level": "3", "name": "3", "tags": '["a"]', "none": "", "x": "0.5"}
    assert {name for name, text in row.fields.items() if isinstance(text, ValueText)} == {"level", "tags", "none", "x"}
    assert (row.columns, row.answer, isinstance(row.answer, ValueText)) == (("problem", "solution"), "2", True)
