"""Groups that wait survive a crash, and nothing else does."""

import errno
from pathlib import Path
from typing import Any

import pytest

from orchestrator.run.waiting import WaitingLog, waiting_groups
from tests.factories import scored_group
from tests.orchestrator.run.test_trajectories import a_group, same


def logs(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.log"))


def test_what_came_back_is_there_after_a_crash(tmp_path: Path) -> None:
    log = WaitingLog(tmp_path, lambda: [(0, 0), (7, 1)])
    log.add(3, a_group())
    log.add(8, scored_group([1, 0], group_id="rl/8"))
    log.drop(5, "no_signal")
    found = WaitingLog(tmp_path).restore(0)  # the first one was never closed
    assert sorted(found.groups) == [3, 8]
    assert found.dropped == {5: "no_signal"}
    assert found.segments == [[0, 0], [7, 1]]
    same(a_group(), waiting_groups(found)[3])


def test_what_is_trained_goes_with_its_log(tmp_path: Path) -> None:
    log = WaitingLog(tmp_path)
    for number in range(4):
        log.add(number, scored_group([1, 0], group_id=f"rl/{number}"))
    log.written(1, [0, 1])
    log.add(4, scored_group([1, 0], group_id="rl/4"))
    assert logs(tmp_path) == ["000000.log", "000001.log"]
    log.written(2, [2, 3])
    assert logs(tmp_path) == ["000001.log"]
    assert sorted(WaitingLog(tmp_path).restore(2).groups) == [4]
    log.written(3, [4])
    assert logs(tmp_path) == []


def test_a_group_that_is_dropped_later_does_not_wait(tmp_path: Path) -> None:
    log = WaitingLog(tmp_path)
    log.add(0, scored_group([1, 0]))
    log.drop(0, "stale")
    found = WaitingLog(tmp_path).restore(0)
    assert not found.groups
    assert found.dropped == {0: "stale"}


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_a_torn_end_costs_what_was_being_written_and_no_more(tmp_path: Path, cut: int) -> None:
    log = WaitingLog(tmp_path)
    for number in range(3):
        log.add(number, scored_group([1, 0], group_id=f"rl/{number}"))
    log.close()
    path = tmp_path / "000000.log"
    path.write_bytes(path.read_bytes()[:-cut])
    after = WaitingLog(tmp_path)
    assert sorted(after.restore(0).groups) == [0, 1]
    after.add(2, scored_group([1, 0], group_id="rl/2"))
    after.close()
    assert sorted(WaitingLog(tmp_path).restore(0).groups) == [0, 1, 2]


def test_a_turned_bit_is_no_group(tmp_path: Path) -> None:
    log = WaitingLog(tmp_path)
    log.add(0, scored_group([1, 0]))
    log.close()
    path = tmp_path / "000000.log"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert not WaitingLog(tmp_path).restore(0).groups


def test_a_full_disk_is_told_once_and_loses_nothing_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    log = WaitingLog(tmp_path, tell=told.append)
    full = True
    real = Path.open

    def open_file(path: Path, *args: Any, **options: Any) -> Any:
        if full and path.suffix == ".log":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", open_file)
    log.add(0, scored_group([1, 0]))
    log.add(1, scored_group([1, 0]))
    assert len(told) == 1
    assert "No space left" in told[0]
    assert "000000.log" in told[0]
    assert log.rows(1).num_rows == 2
    full = False
    log.add(2, scored_group([1, 0]))
    assert sorted(WaitingLog(tmp_path).restore(0).groups) == [2]
