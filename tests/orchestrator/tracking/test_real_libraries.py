"""Runs at W&B, MLflow and Trackio by their own libraries, offline, read back. Skipped where a library is not installed; all three:
`pip install -e '.[wandb,mlflow,trackio]'`."""

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.checks.trackers import is_installed
from orchestrator.config.sections.tracking import TrackerName
from orchestrator.run.store import RunStore
from orchestrator.run.trajectories import TRAJECTORY
from orchestrator.tracking.processes import tracked
from tests.orchestrator.stage_context import Lines
from tests.orchestrator.tracking import wandb_file
from tests.orchestrator.tracking.followed import EVIL, evaluate, mark_of, store_in, tracked_recipe, train

pytestmark = pytest.mark.filterwarnings("default")


def need(name: TrackerName) -> None:
    if not is_installed(name):
        pytest.skip(f"{name} is not installed (pip install -e '.[{name}]')")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def start(
    folder: Path, name: TrackerName, first: int, last: int, step: int, ending: BaseException | None = None
) -> None:
    """One start of a run, with steps and an evaluation at its end."""
    display = Lines()
    store = store_in(folder, name)
    file = store.trajectory_file("rl", 10)
    file.parent.mkdir(parents=True, exist_ok=True)
    row = {"prompt": "2+2", "completion": EVIL, "reward": 1.0, "status": "ok"}
    pq.write_table(pa.Table.from_pylist([row], TRAJECTORY), file)

    def work() -> None:
        with tracked(tracked_recipe(name), store.folder, display):
            store.record("stage", "rl", event="start")
            train(store, first, last)
            evaluate(store, step)
            if ending:
                raise ending

    if ending:
        with pytest.raises(type(ending)):
            work()
    else:
        work()
    assert not [line for line in display.lines if "warning" in line or "has not got" in line], display.lines


def two_starts(folder: Path, name: TrackerName) -> RunStore:
    """A run that failed after step 10, and goes on from the checkpoint at 8."""
    start(folder, name, 1, 10, 10, RuntimeError("engine"))
    start(folder, name, 9, 12, 12)
    return store_in(folder, name)


def test_wandb_offline(tmp_path: Path) -> None:
    need("wandb")
    store = two_starts(tmp_path / "first", "wandb")
    files = wandb_file.offline_files(store.folder)
    runs = [record.run for file in files for record in wandb_file.records(file) if record.HasField("run")]
    assert {run.run_id for run in runs} == {mark_of(store).id}
    assert {(run.project, run.display_name) for run in runs} == {("small", "first")}
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["stages"][1]["name"] == "rl"
    rows = [row for file in files for row in wandb_file.history(file)]
    steps = [row for row in rows if "rl/reward/mean" in row]
    assert [row["rl/step"] for row in steps] == list(range(1, 13))
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})
    assert [(row["rl/step"], row["rl/eval/gsm8k/pass@1"]) for row in rows if "rl/eval/gsm8k/pass@1" in row] == [(10, 0.5), (12, 0.5)]  # fmt: skip
    assert rows[-1]["Results/rl, step 12/gsm8k/pass@1"] == 0.5
    (sample,) = (store.folder / "wandb").glob("offline-run-*/files/media/table/rl/samples_*.table.json")
    table = json.loads(sample.read_text())
    assert "\\x1b[31m" in table["data"][0][table["columns"].index("completion")]
    exits = [record.exit.exit_code for file in files for record in wandb_file.records(file) if record.HasField("exit")]
    assert exits == [1, 0]
    assert not_for_others(store.folder / "wandb")


def test_mlflow_in_a_local_database(tmp_path: Path) -> None:
    need("mlflow")
    store = two_starts(tmp_path / "first", "mlflow")
    client: Any = importlib.import_module("mlflow.tracking").MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    (run,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.tags["rayzero.id"] == mark_of(store, "mlflow").id
    history = client.get_metric_history(run.info.run_id, "rl/reward/mean")
    assert sorted((metric.step, metric.value) for metric in history) == [(step, step / 10) for step in range(1, 13)]
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "rl/eval/gsm8k/pass_at_1")] == [10, 12]
    assert run.data.metrics["Results/rl_ step 12/gsm8k/pass_at_1"] == 0.5
    assert run.data.params["stages.rl.kind"] == '"grpo"'
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "tables/rl/samples-000010.json")).read_text())
    assert "\\x1b[31m" in table["data"][0][table["columns"].index("completion")]
    assert not_for_others(tmp_path, besides=store.folder)


def test_trackio_in_its_local_database(tmp_path: Path) -> None:
    need("trackio")
    store = two_starts(tmp_path / "first", "trackio")
    storage: Any = importlib.import_module("trackio.sqlite_storage")
    folder = storage.TRACKIO_DIR
    storage.TRACKIO_DIR = tmp_path / "trackio"  # where it was imported before this test, it has read another
    try:
        (name,) = storage.SQLiteStorage.get_runs("small")
        logs = storage.SQLiteStorage.get_logs("small", name)
    finally:
        storage.TRACKIO_DIR = folder
    assert name == f"first-{mark_of(store, 'trackio').id[:6]}"
    assert [log["step"] for log in logs if "rl/reward/mean" in log] == list(range(1, 13))
    assert [log["step"] for log in logs if "rl/eval/gsm8k/pass@1" in log] == [10, 12]
    assert [log for log in logs if "Results/rl, step 12/gsm8k/pass@1" in log]
    (table,) = [log["rl/samples"] for log in logs if "rl/samples" in log]
    assert "\\x1b[31m" in table["_value"][0]["completion"]
    assert not_for_others(tmp_path, besides=store.folder)


def not_for_others(folder: Path, besides: Path | None = None) -> bool:
    """Whether the value of a variable of the recipe is in none of a folder's files."""
    files = [path for path in folder.rglob("*") if path.is_file() and not (besides and path.is_relative_to(besides))]
    assert files
    return not any(b"not-for-others" in path.read_bytes() for path in files)
