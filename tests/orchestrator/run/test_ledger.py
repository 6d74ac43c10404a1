"""The account of every prompt, from the files of steps: what adds up, and what is told when it does not."""

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.run.ledger import ACCOUNT, compact, describe_ledger, read_ledger
from orchestrator.run.steps import write_step
from orchestrator.run.trajectories import group_batch
from orchestrator.run.waiting import WaitingLog
from tests.factories import scored_group
from tests.orchestrator.run.test_steps import record


def step(run: Path, number: int, numbers: list[int], taken: int, dropped: tuple[tuple[int, str], ...] = ()) -> Path:
    path = run / "trajectories" / "rl" / f"step-{number:06d}.parquet"
    one = record(step=number, numbers=numbers, dropped=list(dropped), state={"buffer": {"admitted": taken}})
    groups = [scored_group([1, 0], group_id=f"rl/{each}") for each in numbers]
    write_step(path, one, [group_batch(group) for group in groups], [np.zeros(2)] * len(groups), trained_at=number - 1)
    return path


def lines(run: Path) -> str:
    ledger = read_ledger(run, "rl")
    assert ledger is not None
    return "\n".join(describe_ledger("rl", ledger))


def a_run(run: Path) -> Path:
    step(run, 1, [0, 1], 4)
    step(run, 2, [2, 4], 6, dropped=((3, "no_signal"),))
    return run


def test_it_adds_up(tmp_path: Path) -> None:
    log = WaitingLog(tmp_path / "rl" / "waiting")
    log.written(2, [])
    log.add(6, scored_group([1, 0], group_id="rl/6"))
    log.drop(7, "unscored")
    text = lines(a_run(tmp_path))
    assert (
        "8 prompts taken = 4 trained in 2 steps + 2 dropped (1 no_signal, 1 unscored) + 2 on their way, 1 of them back"
        in text
    )
    assert "every number is there once" in text


def test_a_stage_without_steps_has_none(tmp_path: Path) -> None:
    assert read_ledger(tmp_path, "rl") is None


def test_what_is_in_two_places_is_told(tmp_path: Path) -> None:
    a_run(tmp_path)
    step(tmp_path, 3, [4, 5], 6, dropped=((0, "stale"), (9, "stale")))
    text = lines(tmp_path)
    assert "group 4: trained in step 2 and in step 3" in text
    assert "group 0: trained in step 1, and dropped as stale" in text
    assert "group 9: was never taken" in text
    assert "every number" not in text


def test_a_gap_and_a_damaged_file_are_told(tmp_path: Path) -> None:
    a_run(tmp_path)
    step(tmp_path, 4, [6, 7], 8)
    path = step(tmp_path, 5, [8, 9], 10)
    path.write_bytes(path.read_bytes()[:100])
    text = lines(tmp_path)
    assert "step 3: no file of it" in text
    assert "step 5: " in text
    assert "cannot be read" in text


def test_metrics_that_count_otherwise_are_told(tmp_path: Path) -> None:
    a_run(tmp_path)
    line = {"kind": "step", "stage": "rl", "step": 2, "count/trained": 5}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert "metrics.jsonl counts 5 trained, the files 4" in lines(tmp_path)


@pytest.mark.parametrize("torn", [False, True])
def test_files_that_are_gone_stay_in_the_account(tmp_path: Path, torn: bool) -> None:
    for number in range(1, 7):
        step(tmp_path, number, [2 * number - 2, 2 * number - 1], 2 * number)
    before = lines(tmp_path)
    compact(tmp_path, "rl", keep=2, checkpoint=3)
    folder = tmp_path / "trajectories" / "rl"
    assert sorted(path.name for path in folder.glob("*.parquet")) == [f"step-00000{n}.parquet" for n in (4, 5, 6)]
    if torn:
        with (folder / ACCOUNT).open("a") as account:
            account.write('{"step": 4, "num')
    assert lines(tmp_path) == before
    compact(tmp_path, "rl", keep=2, checkpoint=6)
    assert sorted(path.name for path in folder.glob("*.parquet")) == [f"step-00000{n}.parquet" for n in (5, 6)]
    assert lines(tmp_path) == before
