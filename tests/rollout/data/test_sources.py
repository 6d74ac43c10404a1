"""Rows come out as they were written, or the mistake is named by file and line."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from rollout.data import readers
from rollout.data.rows import Row, Source
from rollout.data.sources import load_rows
from rollout.errors import InputError

REAL = Path(__file__).parents[3].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"the public data sets are not at {REAL}")

TABLE = {"prompt": ["a", "b", "c"], "answer": [1, 2, 3], "note": ["x", None, "z"]}


def load(path: Path, **settings: Any) -> list[Row]:
    return load_rows(Source(name="s", path=str(path), **settings), seed=1)


def error(path: Path, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        load(path, **settings)
    message = str(caught.value)
    assert len(message.splitlines()) <= 2
    return message


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def jsonl(path: Path, *records: object) -> Path:
    return write(path, *(json.dumps(record) for record in records))


def stream(path: Path, table: pa.Table) -> Path:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def saved(folder: Path, *shards: Sequence[str], split: str | None = None) -> Path:
    """A folder as `datasets.Dataset.save_to_disk` writes it (checked against datasets 5.2)."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{len(shards):05}.arrow" for i in range(len(shards))]
    for name, questions in zip(names, shards, strict=True):
        stream(folder / name, pa.table({"prompt": list(questions), "answer": ["1"] * len(questions)}))
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": split}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def questions(rows: list[Row]) -> list[str]:
    return [row.question for row in rows]


# --- What comes out


def test_a_row_holds_its_columns_by_role(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "a.jsonl", {"q": "1+1", "a": "2", "c": "<think>", "level": 3, "tags": ["x", 1.5], "no": None}
    )

    (row,) = load(path, prompt_column="q", answer_column="a", completion_column="c", rubric="math")

    assert (row.row_id, row.source, row.rubric) == ("s/0", "s", "math")
    assert (row.question, row.answer, row.completion) == ("1+1", "2", "<think>")
    assert row.fields == {"level": "3", "tags": '["x", 1.5]', "no": ""}


@pytest.mark.parametrize(
    ("answer", "read"),
    [(["0.5", "\\frac{1}{2}"], '["0.5", "\\\\frac{1}{2}"]'), ([42], '["42"]'), ([2.50, "x"], '["2.5", "x"]')],
)
def test_a_list_of_answers_is_kept_as_a_list_of_texts(tmp_path: Path, answer: list[Any], read: str) -> None:
    (row,) = load(jsonl(tmp_path / "a.jsonl", {"prompt": "p", "answer": answer}))
    assert row.answer == read


@pytest.mark.parametrize("answer", [[], [["a"]], ["a", None], [" "], [{"a": 1}], {"x": 1}, {}, [True]])
def test_a_list_of_what_are_no_answers_is_told(tmp_path: Path, answer: Any) -> None:
    with pytest.raises(InputError, match=r"a.jsonl:1: column 'answer' is "):
        load(jsonl(tmp_path / "a.jsonl", {"prompt": "p", "answer": answer}))


def test_floats_of_32_bits_read_as_they_were_written(tmp_path: Path) -> None:
    f32 = pa.float32()
    table = pa.table(
        {
            "prompt": ["p"],
            "answer": pa.array([0.1], f32),
            "list": pa.array([[0.1, None]], pa.list_(f32)),
            "deep": pa.array([{"x": [{"y": 0.3, "z": 0.3}]}], pa.struct([("x", pa.list_(pa.struct([("y", f32), ("z", pa.float64())])))])),
            "map": pa.array([[("k", 0.7)]], pa.map_(pa.string(), f32)),
            "coded": pa.array([2.5e-5], f32).dictionary_encode(),
            "half": pa.array(np.array([0.1], np.float16)),
            "none": pa.array([None], f32),
        }
    )  # fmt: skip
    for kind, write_table in (("parquet", pyarrow.parquet.write_table), ("feather", pyarrow.feather.write_feather)):
        write_table(table, tmp_path / f"a.{kind}")
        (row,) = load(tmp_path / f"a.{kind}")
        assert row.answer == "0.1"
        assert row.fields == {
            "list": "[0.1, null]", "deep": '{"x": [{"y": 0.3, "z": 0.3}]}', "map": '[["k", 0.7]]', "coded": "2.5e-05", "half": "0.1",
            "none": "",
        }  # fmt: skip


def test_integers_of_any_length_are_read(tmp_path: Path) -> None:
    long = "9" * 5000
    line = f'{{"prompt": "p", "answer": -{long}, "tests": {{"outputs": [{long}, 1.5, "ä"]}}, "n": {long}}}'
    (row,) = load(write(tmp_path / "a.jsonl", line))
    assert row.answer == f"-{long}"
    assert row.fields == {"tests": f'{{"outputs": [{long}, 1.5, "ä"]}}', "n": long}


@pytest.mark.parametrize(
    ("record", "settings", "column"),
    [
        ({"prompt": "a \ud83d b", "answer": "1"}, {}, "prompt"),
        ({"prompt": "a", "answer": "\udc00"}, {}, "answer"),
        ({"prompt": "a", "answer": ["1", "\udc00"]}, {}, "answer"),
        ({"prompt": "a", "answer": "1", "note": {"deep": ["\ud83d"]}}, {}, "note"),
        ({"messages": [{"role": "user", "content": "\ud83d"}, {"role": "assistant", "content": "b"}]}, {"messages_column": "messages"},
         "messages"),
        ({"prompt": "a", "chosen": "\ud83d", "rejected": "b"},
         {"answer_column": "", "chosen_column": "chosen", "rejected_column": "rejected"}, "chosen"),
    ],
)  # fmt: skip
def test_half_a_surrogate_pair_is_named_by_row_and_column(
    tmp_path: Path, record: dict[str, Any], settings: dict[str, Any], column: str
) -> None:
    path = jsonl(tmp_path / "a.jsonl", record)
    assert error(path, **settings).startswith(f"{path}:1: column {column!r} holds \\ud83d"[:-6])
    assert "half of a surrogate pair" in error(path, **settings)


def test_a_whole_surrogate_pair_is_a_character(tmp_path: Path) -> None:
    (row,) = load(write(tmp_path / "a.jsonl", '{"prompt": "\\ud83d\\ude00", "answer": 1}'))
    assert row.question == "😀"


def test_text_that_is_not_utf8_is_named_by_row_and_column(tmp_path: Path) -> None:
    ends = pa.py_buffer(np.array([0, 1, 2, 3], np.int32).tobytes())
    broken = pa.Array.from_buffers(pa.string(), 3, [None, ends, pa.py_buffer(b"12\xff")])
    pyarrow.parquet.write_table(pa.table({"prompt": ["a", "b", "c"], "answer": broken}), tmp_path / "a.parquet")
    assert error(tmp_path / "a.parquet").endswith(
        "row 2 (from 0): column 'answer' is not UTF-8 text; convert it to UTF-8"
    )


def test_a_batch_that_arrow_cannot_make_is_read_in_smaller_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(
        pa.table({"prompt": [f"q{i}" for i in range(100)], "answer": ["1"] * 100}), path, row_group_size=60
    )
    sizes = []

    class Narrow(pyarrow.parquet.ParquetFile):  # type: ignore[misc]
        def iter_batches(self, batch_size: int, **settings: Any) -> Any:
            sizes.append(batch_size)
            for number, batch in enumerate(super().iter_batches(batch_size=batch_size, **settings)):
                if batch_size > 7 and number:
                    raise pa.ArrowNotImplementedError(
                        "Nested data conversions not implemented for chunked array outputs"
                    )
                yield batch

    monkeypatch.setattr(readers, "MOST_ROWS", 20)
    monkeypatch.setattr(readers.pq, "ParquetFile", Narrow)
    assert [row.question for row in load(path)] == [f"q{i}" for i in range(100)]
    assert sizes == [20, 2, 20, 2]


def test_tests_in_the_form_of_humaneval_keep_the_program_that_they_complete(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"code": "def f():", "entry_point": "f", "test": "…"})
    (row,) = load(path, prompt_column="code", answer_column="")
    assert row.fields == {"prompt": "def f():", "entry_point": "f", "test": "…"}


def test_numbers_stay_as_written(tmp_path: Path) -> None:
    written = ["75", "75.0", "-0.50", "1e400", "123456789012345678901234567890"]
    path = write(tmp_path / "a.jsonl", *(f'{{"prompt": 7, "answer": "{n}", "n": {n}}}' for n in written))

    assert [row.fields["n"] for row in load(path)] == written
    assert load(path)[0].question == "7"

    path = write(tmp_path / "b.jsonl", '{"prompt": 7, "answer": 75}', '{"prompt": 7, "answer": 75.0}')
    assert [row.answer for row in load(path)] == ["75", "75.0"]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "feather", "arrow file", "arrow stream"])
def test_every_kind_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    table = pa.table(TABLE)
    path = tmp_path / f"data.{kind.split()[0]}"
    if kind == "jsonl":
        jsonl(path, *table.to_pylist())
    elif kind == "csv":
        write(path, "prompt,answer,note", "a,1,x", "b,2,", "c,3,z")
    elif kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    elif kind == "arrow stream":
        stream(path, table)
    else:
        pyarrow.feather.write_feather(table, path)

    rows = load(path)

    assert [(row.row_id, row.question, row.answer) for row in rows] == [
        ("s/0", "a", "1"),
        ("s/1", "b", "2"),
        ("s/2", "c", "3"),
    ]
    assert [row.fields for row in rows] == [{"note": "x"}, {"note": ""}, {"note": "z"}]
    assert questions(load(path, limit=2)) == ["a", "b"]


def test_text_survives_line_ends_marks_and_separators(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"prompt": "a\xe2\x80\xa8b", "answer": "1"}\r\n\r\n{"prompt": "{x} \\n", "answer": "2"}'
    )

    assert questions(load(path)) == ["a\u2028b", "{x} \n"]

    path = tmp_path / "a.csv"
    path.write_bytes(b'prompt,answer\r\n"two\nlines, ""quoted""",1\r\n\r\n' + b"x" * 200_000 + b",2\r\n")
    assert questions(load(path)) == ['two\nlines, "quoted"', "x" * 200_000]


def test_answer_is_the_first_group_of_the_last_match(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "p", "answer": "#### 1 then\n####  2,000 \r\n"})

    assert load(path, answer_pattern="#### (.+)")[0].answer == "2,000"


def test_a_column_may_be_answer_and_completion(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "p", "answer": "so #### 2"})

    (row,) = load(path, answer_pattern="#### (.+)", completion_column="answer")

    assert (row.answer, row.completion) == ("2", "so #### 2")


def test_what_completions_are_compared_with_may_be_one_of_a_pair(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "a", "good": "b", "bad": "c", "note": "d"})
    pairs = {"chosen_column": "good", "rejected_column": "bad", "answer_column": ""}
    (row,) = load(path, **pairs, baseline_column="good")
    assert (row.baseline, row.chosen, row.rejected, row.fields) == ("b", "b", "c", {"note": "d"})
    (row,) = load(path, answer_column="", baseline_column="bad")
    assert (row.baseline, row.fields) == ("c", {"good": "b", "note": "d"})
    assert "choose one with `baseline_column`" in error(path, answer_column="", baseline_column="old")


@pytest.mark.parametrize(
    ("value", "kept"), [(True, True), (False, False), (1, True), (0, False), ("yes", True), ("False", False)]
)
def test_a_column_may_say_which_rows_keep_their_thought(tmp_path: Path, value: object, kept: bool) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "a", "answer": "b", "complex": value})
    assert [row.keeps_thought for row in load(path, keep_thought="complex")] == [kept]
    assert [row.keeps_thought for row in load(path)] == [True]
    assert [row.keeps_thought for row in load(path, keep_thought=False)] == [False]


@pytest.mark.parametrize("value", ["maybe", 2, None, [True]])
def test_whether_a_thought_is_kept_is_never_guessed(tmp_path: Path, value: object) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "a", "answer": "b", "complex": value})
    assert ":1: column 'complex' is " in error(path, keep_thought="complex")
    assert "not true or false" in error(path, keep_thought="complex")
    assert "choose one with `keep_thought`" in error(path, keep_thought="hard")


def test_no_answer_column_means_no_answer(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "p", "answer": "2"})

    (row,) = load(path, answer_column="")

    assert (row.answer, row.fields) == ("", {"answer": "2"})


# --- Folders and splits


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    jsonl(tmp_path / "b.jsonl", {"prompt": "b", "answer": 1})
    jsonl(tmp_path / "a.jsonl", {"prompt": "a", "answer": 1})
    write(tmp_path / "README.md", "not data")
    write(tmp_path / "._a.jsonl", "not data")

    assert [(row.row_id, row.question) for row in load(tmp_path)] == [("s/0", "a"), ("s/1", "b")]


def test_a_folder_of_splits_gives_one_split(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test"):
        jsonl(tmp_path / f"{name}.jsonl", {"prompt": name, "answer": 1})

    assert questions(load(tmp_path)) == ["train-00000-of-00002", "train-00001-of-00002"]
    assert questions(load(tmp_path, split="test")) == ["test"]
    assert "no split 'dev'" in error(tmp_path, split="dev")
    assert "its splits: test, train" in error(tmp_path, split="dev")

    jsonl(tmp_path / "testimony.jsonl", {"prompt": "p", "answer": 1})
    assert "test.jsonl is named after a split, testimony.jsonl is not" in error(tmp_path)


def test_a_saved_dataset_is_read_in_the_order_of_its_shards(tmp_path: Path) -> None:
    folder = saved(tmp_path / "d", "abc", "d", split="validation")

    assert questions(load(folder)) == ["a", "b", "c", "d"]
    assert questions(load(folder, split="validation")) == ["a", "b", "c", "d"]
    assert "no split 'test'" in error(folder, split="test")


def test_split_picks_from_a_saved_dataset_dict(tmp_path: Path) -> None:
    saved(tmp_path / "train", "ab")
    saved(tmp_path / "test", "c")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')

    assert questions(load(tmp_path)) == ["a", "b"]
    assert questions(load(tmp_path, split="test")) == ["c"]
    assert "its splits: train, test" in error(tmp_path, split="dev")


def test_a_damaged_saved_dataset_is_named(tmp_path: Path) -> None:
    missing = saved(tmp_path / "missing", "a")
    (missing / "data-00000-of-00001.arrow").unlink()
    assert "data-00000-of-00001.arrow is missing" in error(missing)

    mapped = saved(tmp_path / "mapped", "a")
    (mapped / "state.json").write_text('{"_data_files": [], "_indices_data_files": [{"filename": "indices.arrow"}]}')
    assert "flatten_indices()" in error(mapped)

    (mapped / "state.json").write_text("{}")
    assert "no `_data_files`" in error(mapped)
    (mapped / "state.json").write_text("{")
    assert "state.json: cannot be read" in error(mapped)


# --- Tasks


def test_a_task_gives_rows_of_its_own(tmp_path: Path) -> None:
    rows = load_rows(Source(name="sums", task="arithmetic", limit=3, rubric="r"), seed=1)

    assert len({row.row_id for row in rows}) == 3
    for row in rows:
        assert row.row_id.startswith("sums/")
        assert (row.source, row.rubric, dict(row.fields)) == ("sums", "r", {})
        left, right = row.question.rstrip("=").split("+")
        assert int(left) + int(right) == int(row.answer)
        assert row.answer in row.completion
    assert rows != load_rows(Source(name="sums", task="arithmetic", limit=3, rubric="r"), seed=2)


def test_a_task_is_compared_with_what_it_makes() -> None:
    source = Source(name="s", task="arithmetic", limit=1, baseline_column="completion", keep_thought=False)
    (row,) = load_rows(source, seed=1)
    assert row.baseline == row.completion
    assert not row.keeps_thought
    with pytest.raises(InputError, match=r"makes no 'chosen'; baseline_column can be: completion"):
        load_rows(replace(source, baseline_column="chosen"), seed=1)


@pytest.mark.parametrize("settings", [{}, {"path": "a.jsonl", "task": "arithmetic"}])
def test_a_source_is_a_path_or_a_task(settings: dict[str, str]) -> None:
    with pytest.raises(InputError, match="either `path` or `task`"):
        load_rows(Source(name="s", **settings), seed=1)  # type: ignore[arg-type]


# --- Mistakes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "p" "answer": 1}', "not valid JSON: Expecting ',' delimiter at column 16"),
        ('{"prompt": "p", "answer": NaN}', "not valid JSON: NaN is not a JSON value"),
        ('{"prompt": "p", "answer": ' + "[" * 100_000, "not valid JSON: "),
        ('["p", 1]', 'is ["p", 1], not an object'),
        ('{"prompt": " ", "answer": 1}', "column 'prompt' is empty"),
        ('{"prompt": null, "answer": 1}', "column 'prompt' is null, not text or a number"),
        ('{"prompt": ["p"], "answer": 1}', "message 1 of column 'prompt' is \"p\", not an object with role"),
        ('{"prompt": "p", "answer": true}', "column 'answer' is true, not text or a number"),
        ('{"prompt": "p", "answer": ""}', "column 'answer' is empty"),
        (
            '{"prompt": "p", "reply": 1}',
            "no column 'answer'\ncolumns: prompt, reply; choose one with `answer_column`",
        ),
    ],
)
def test_the_first_malformed_row_stops_and_is_named_by_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"prompt": "p", "answer": 1}', "", line, "{")

    assert error(path).startswith(f"{path}:3: {message}")
    assert len(load(path, limit=1)) == 1


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"promt": "p", "answer": 1})

    assert "no column 'prompt'; did you mean 'promt'?\ncolumns: promt, answer" in error(path)


def test_a_pattern_that_finds_nothing_is_a_malformed_row(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "p", "answer": "#### 1"}, {"prompt": "p", "answer": "1"})

    assert (
        error(path, answer_pattern="#### (.+)")
        == f"{path}:2: answer_pattern '#### (.+)' finds no answer in column 'answer'"
    )
    assert "is not a regular expression: missing )" in error(path, answer_pattern="#### (.+")
    assert "has no group" in error(path, answer_pattern="#### .+")
    assert "needs an `answer_column`" in error(path, answer_pattern="(.)", answer_column="")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["prompt,answer", "a,1,2"], "2: 3 columns, but the header names 2"),
        (["prompt,answer", '"two', 'lines",1', "b"], "4: 1 columns, but the header names 2"),
        (["prompt,answer", '"never closed,1'], "2: not valid CSV: unexpected end of data"),
        (["prompt,prompt", "a,1"], "1: two columns are called 'prompt'"),
        (["prompt,answer", ",1"], "2: column 'prompt' is empty"),
    ],
)
def test_a_malformed_csv_row_is_named_by_its_first_line(tmp_path: Path, lines: list[str], message: str) -> None:
    path = write(tmp_path / "a.csv", *lines)

    assert error(path).startswith(f"{path}:{message}")


def test_rows_of_binary_files_are_counted_from_0(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"prompt": ["a", "b"], "answer": [1.0, float("nan")]}), path)
    assert error(path) == f"{path}: row 1 (from 0): column 'answer' is NaN, not text or a number"

    pyarrow.parquet.write_table(pa.table([["a"], ["b"]], names=["prompt", "prompt"]), path)
    assert error(path) == f"{path}: two columns are called 'prompt'; rename one"


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_a_binary_file_of_another_kind_is_named(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", '{"prompt": "p", "answer": 1}')

    assert error(path).startswith(f"{path}: cannot be read as ")


def test_text_that_is_not_utf8_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "p", "answer": 1}\n{"prompt": "caf\xe9", "answer": 1}\n')

    assert error(path) == f"{path}:2: not UTF-8 text; convert the file to UTF-8"


def test_what_is_not_there_or_not_data_is_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "p", "answer": 1})
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    (tmp_path / "sub" / "data").mkdir(parents=True)

    assert f"no file or folder at {tmp_path / 'b.jsonl'}; did you mean 'a.jsonl'?" in error(tmp_path / "b.jsonl")
    assert "holds no rows" in error(empty)
    assert "holds no rows" in error(write(tmp_path / "a.json", "[]"))
    assert "cannot read .txt; use .jsonl, .ndjson, .json, .parquet" in error(write(tmp_path / "a.txt", "x"))
    assert "it has no splits; leave `split` out" in error(path, split="test")
    assert "it holds the folders data/" in error(tmp_path / "sub")
    write(tmp_path / "b.csv", "prompt,answer", "p,1")
    assert "mixes kinds of files" in error(tmp_path)


def test_a_pattern_names_files(tmp_path: Path) -> None:
    (tmp_path / "data" / "more").mkdir(parents=True)
    for number, name in enumerate(["train-0", "train-1", "test-0", "more/part-0", "more/part-1"]):
        jsonl(tmp_path / "data" / f"{name}.jsonl", {"prompt": f"p{number}", "answer": number})
    write(tmp_path / "data" / "README.md", "train")

    def answers(pattern: str, **settings: Any) -> str:
        return "".join(row.answer for row in load(tmp_path / pattern, **settings))

    assert answers("data/train-*.jsonl") == "01"
    assert answers("data/test-[0-9].jsonl") == "2"
    assert answers("data/test-*", split="test") == "2"
    assert answers("data/**/part-?.jsonl") == answers("data/more/*") == "34"
    # As of a folder: what is named after several splits is not mixed.
    assert answers("data/*.jsonl") == "01"
    assert answers("data/t*", split="test") == "2"
    assert "named after a split, part-0.jsonl is not" in error(tmp_path / "data" / "**" / "*.jsonl")
    assert "no split 'test'" in error(tmp_path / "data" / "train-*.jsonl", split="test")
    assert f"file matches {tmp_path}/data/dev-*.jsonl" in error(tmp_path / "data" / "dev-*.jsonl")
    write(tmp_path / "data" / "train-2.csv", "prompt,answer", "p,1")
    assert "train-* mixes kinds of files" in error(tmp_path / "data" / "train-*")
    # A file whose own name has such signs is that file.
    assert answers(str(jsonl(tmp_path / "a[1].jsonl", {"prompt": "p", "answer": 9}))) == "9"


# --- Real data


@needs_data
def test_gsm8k_gives_numbers_as_answers() -> None:
    rows = load(REAL / "gsm8k", prompt_column="question", answer_pattern="#### (.+)", completion_column="answer")

    assert len(rows) == 7473
    assert (rows[0].answer, rows[-1].row_id) == ("72", "s/7472")
    assert all(row.answer.lstrip("-").replace(",", "").replace(".", "").isdigit() for row in rows)
    assert all(row.completion.endswith(row.answer) for row in rows)
    assert "choose one with `prompt_column`" in error(REAL / "gsm8k" / "train.jsonl")


@needs_data
def test_evaluation_sets_are_read_as_they_are() -> None:
    aime = load(REAL / "aime24" / "test.jsonl", prompt_column="question")
    amc = load(REAL / "amc23" / "test.jsonl", prompt_column="question")
    code = load(REAL / "humaneval" / "HumanEval.jsonl", answer_column="", rubric="code")

    assert (len(aime), aime[0].answer) == (30, "204")
    assert (len(amc), amc[0].answer) == (40, "27.0")
    assert (len(code), code[0].fields["entry_point"]) == (164, "has_close_elements")
    assert all("def check(candidate)" in row.fields["test"] for row in code)
