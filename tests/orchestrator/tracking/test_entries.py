"""Lines of metrics.jsonl as entries: names, tables of samples, and texts that nothing obeys."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.run.trajectories import TRAJECTORY
from orchestrator.tracking.entries import CELL, Entry, MetricsTail, Selection, by_stage
from tests.orchestrator.tracking.followed import EVIL, evaluate, store_in, train


def entries_of(folder: Path, *, samples: int = 8, every: int = 10) -> list[Entry]:
    return Selection(folder, samples=samples, samples_every=every).entries(MetricsTail(folder).read())


def trajectories(folder: Path, step: int, rows: int) -> None:
    file = folder / "trajectories" / "rl" / f"step-{step:06d}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    row = {"prompt": "2+2", "answer": "4", "completion": EVIL, "reward": 1.0, "token_ids": [1, 2], "status": "ok"}
    pq.write_table(pa.Table.from_pylist([row] * rows, TRAJECTORY), file)


def test_figures_of_an_evaluation_stand_under_its_set(tmp_path: Path) -> None:
    evaluate(store_in(tmp_path / "r"), 3)
    (entry,) = entries_of(tmp_path / "r")
    assert dict(by_stage(entry)) == {
        "rl/eval/gsm8k/pass@1": 0.5,
        "rl/eval/gsm8k/k": 4,
        "rl/eval/gsm8k/problems": 3,
        "rl/eval/gsm8k/labels/accuracy": 0.5,
    }
    assert entry.step == 3


def test_a_model_s_text_is_inert(tmp_path: Path) -> None:
    evaluate(store_in(tmp_path / "r"), 3)
    (entry,) = entries_of(tmp_path / "r")
    assert entry.table is not None
    (row,) = entry.table.rows
    text = row[list(entry.table.columns).index("completion")]
    assert isinstance(text, str)
    assert text.isprintable()
    assert "\\x1b[31m\\u202e" in text


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    store = store_in(tmp_path / "r")
    store.record("eval", "rl", step=1, label="during", set="s", samples=[{"completion": "a" * 10 * CELL}])
    (entry,) = entries_of(tmp_path / "r")
    assert entry.table is not None
    assert entry.table.rows == [["a" * CELL + "…"]]


def test_samples_of_training_are_sent_every_so_many_steps(tmp_path: Path) -> None:
    store = store_in(tmp_path / "r")
    for step in range(1, 5):
        trajectories(store.folder, step, rows=6)
    train(store, 1, 6)
    tables = {entry.step: entry.table for entry in entries_of(store.folder, samples=5, every=2)}
    assert [step for step, table in tables.items() if table] == [2, 4]  # of step 6 there is no file
    assert tables[2] is not None
    assert tables[2].columns == ["prompt", "answer", "completion", "reward", "status", "finish_reason"]
    assert len(tables[2].rows) == 5


def test_no_text_leaves_the_run_where_no_samples_are_asked_for(tmp_path: Path) -> None:
    store = store_in(tmp_path / "r")
    trajectories(store.folder, 1, rows=2)
    train(store, 1, 1)
    evaluate(store, 1)
    assert [entry.table for entry in entries_of(store.folder, samples=0, every=1)] == [None, None]


def test_yields_of_rejection_sampling_are_figures(tmp_path: Path) -> None:
    store_in(tmp_path / "r").record("reject", "rl", prompts=9, yields={"samples": 4, "kept": 2}, length_mean=1.5)
    (entry,) = entries_of(tmp_path / "r")
    assert entry.figures == {"reject/prompts": 9, "reject/yields/samples": 4, "reject/yields/kept": 2, "reject/length_mean": 1.5}  # fmt: skip


def test_lines_that_are_no_records_have_their_numbers_all_the_same(tmp_path: Path) -> None:
    store = store_in(tmp_path / "r")
    (store.folder / "metrics.jsonl").write_bytes(b'not json\n[1]\n{"kind": "step"}\n')
    train(store, 5, 5)
    assert [(entry.line, entry.step) for entry in entries_of(store.folder)] == [(2, 0), (3, 5)]
