"""JSON in its forms, and text in its compressions: the same rows, or the mistake is named."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from rollout.data import text_files
from tests.rollout.data.test_sources import error, load, questions

ROWS = [{"prompt": f"p{i} ]}},{{[ \u2028é", "answer": i} for i in range(40)]


def zstd(text: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(text)
    return sink.getvalue().to_pybytes()


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress, ".zst": zstd, ".bz2": bz2.compress, ".xz": lzma.compress
}  # fmt: skip
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)
FORMS = {
    "list": json.dumps(ROWS),
    "indented list": json.dumps(ROWS, indent=2, ensure_ascii=False) + "\n",
    "lines": JSONL,
    "indented objects": "\n".join(json.dumps(row, indent=1) for row in ROWS),
    "byte order mark": "\ufeff" + json.dumps(ROWS),
}


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("form", FORMS)
def test_json_is_a_list_or_objects(form: str, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "PIECE", piece)
    path = tmp_path / "a.json"
    path.write_text(FORMS[form], encoding="utf-8")
    rows = load(path)
    assert [(row.question, row.answer) for row in rows] == [(row["prompt"], str(row["answer"])) for row in ROWS]


def test_numbers_of_json_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"prompt": "p", "answer": 75.0}, {"prompt": "q", "answer": ' + "9" * 5000 + "}]")
    assert [row.answer for row in load(path)] == ["75.0", "9" * 5000]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"prompt": "p", "answer": 1}', "a.json:1: not valid JSON: neither a comma nor ] behind row 0"),
        ('[{"prompt": "p", "answer": 1},]', "row 1 (from 0): not valid JSON"),
        ('[{"prompt": "p", "answer": 1}] {"prompt": 1}', "more behind the list"),
        ('{"prompt": "p", "answer": 1}\n{"prompt": "p" "answer": 1}', "a.json:2: not valid JSON: Expecting"),
        ('[\n{"prompt": "p",\n"answer": x}]', "row 0 (from 0): not valid JSON: Expecting value at line 3 column 11"),
        ('[{"prompt": "p", "answer": NaN}]', "NaN is not a JSON value"),
        ('[{"prompt": "p", "answer": 1}, 7]', "row 1 (from 0): is 7, not an object"),
        ('{"prompt": "p", "answer": 1', "a.json:1: not valid JSON"),
        ('"p', "not valid JSON"),
    ],
)
@pytest.mark.parametrize("piece", [3, 1 << 20])
def test_what_is_no_list_of_objects_is_named(
    text: str, said: str, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "PIECE", piece)
    (tmp_path / "a.json").write_text(text)
    assert said in error(tmp_path / "a.json")


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "A.JSONL"])
def test_compressed_text_reads_as_plain_text_does(name: str, packed: str, tmp_path: Path) -> None:
    text = "prompt,answer\n" + "".join(f"q{i},{i}\n" for i in range(3)) if name == "a.csv" else JSONL
    (tmp_path / name).write_text(text)
    # Two members one behind the other are one text, as the command line tools write them.
    whole = text.encode()
    path = tmp_path / f"{name}{packed}"
    path.write_bytes(PACK[packed](whole[:20]) + PACK[packed](whole[20:]))
    assert [(row.question, row.answer, row.fields) for row in load(path)] == [
        (row.question, row.answer, row.fields) for row in load(tmp_path / name)
    ]


@pytest.mark.parametrize("packed", PACK)
def test_what_is_cut_off_or_named_wrongly_is_said(packed: str, tmp_path: Path) -> None:
    whole = PACK[packed]("".join(json.dumps({"prompt": f"{i * i}", "answer": i}) + "\n" for i in range(999)).encode())
    cut = tmp_path / f"cut.jsonl{packed}"
    cut.write_bytes(whole[: len(whole) // 2])
    assert f"{cut}: cannot be read: " in error(cut)
    plain = tmp_path / f"plain.jsonl{packed}"
    plain.write_text(JSONL)
    assert f"it is not compressed: rename it without {packed}" in error(plain)
    named = tmp_path / "named.jsonl"
    named.write_bytes(whole)
    assert f"it is compressed: rename it to end in {packed}" in error(named)


def test_tables_are_compressed_inside(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(gzip.compress(b""))
    assert "cannot read .gz; use .jsonl" in error(path)


def test_folders_of_compressed_files(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a", "answer": 1}\n'))
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "b", "answer": 1}\n'))
    (tmp_path / "dataset_infos.json").write_text('{"default": {}}')
    assert questions(load(tmp_path)) == ["a"]
    assert questions(load(tmp_path, split="test")) == ["b"]
