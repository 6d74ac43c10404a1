"""What a tracker gets of a run: in order, once, also after a crash, and nothing of its failures reaches the run."""

import dataclasses
import threading
from pathlib import Path

import pytest

from orchestrator.tracking.follower import Ended
from orchestrator.tracking.mark import MarkFile
from tests.orchestrator.tracking.followed import (
    Memory,
    evaluate,
    follow_to_end,
    follower,
    mark_of,
    store_in,
    train,
)


def test_steps_of_all_stages_reach_the_tracker_in_order_with_their_figures(tmp_path: Path) -> None:
    store, tracker = store_in(tmp_path / "r"), Memory()
    train(store, 1, 3, stage="warm")
    train(store, 1, 2)
    assert follow_to_end(store, tracker)
    assert tracker.steps("warm") == [1, 2, 3]
    assert tracker.steps("rl") == [1, 2]
    assert tracker.entries[0].figures == {"reward/mean": 0.1, "learner/lr": 1e-5}
    assert [entry.line for entry in tracker.entries] == sorted(entry.line for entry in tracker.entries)
    assert tracker.endings == ["finished"]


def test_a_follower_sends_while_the_run_goes_on(tmp_path: Path) -> None:
    store, tracker, ended = store_in(tmp_path / "r"), Memory(), Ended()
    came = threading.Event()
    tracker.before_send = came.set
    thread = threading.Thread(target=follower(store, tracker, []).follow, args=(ended,), kwargs={"look_s": 0.01})
    thread.start()
    train(store, 1, 1)
    assert came.wait(10)
    train(store, 2, 2)
    ended.tell("finished")
    thread.join(10)
    assert tracker.steps() == [1, 2]


def test_a_continued_run_goes_on_in_the_same_tracker_run(tmp_path: Path) -> None:
    store, tracker = store_in(tmp_path / "r"), Memory()
    train(store, 1, 2)
    follow_to_end(store, tracker, "stopped")
    train(store, 3, 4)
    follow_to_end(store, tracker)
    assert tracker.steps() == [1, 2, 3, 4]
    assert len({run.id for run in tracker.opened}) == 1
    assert tracker.endings == ["stopped", "finished"]


def test_steps_that_a_resume_repeats_are_sent_once(tmp_path: Path) -> None:
    """The checkpoint was at 2, the crash after 4."""
    store, tracker = store_in(tmp_path / "r"), Memory()
    train(store, 1, 4)
    evaluate(store, 4)
    follow_to_end(store, tracker, "failed")
    train(store, 3, 6, reward=7)
    evaluate(store, 4)
    evaluate(store, 6, "after")
    follow_to_end(store, tracker)
    assert tracker.steps() == [1, 2, 3, 4, 5, 6]
    assert tracker.values("reward/mean")[2:4] == [0.3, 0.4]
    assert [entry.step for entry in tracker.entries if "eval/gsm8k/k" in entry.figures] == [4, 6]


def test_of_steps_that_were_not_sent_before_a_crash_the_newest_is(tmp_path: Path) -> None:
    store, tracker = store_in(tmp_path / "r"), Memory()
    train(store, 1, 2)
    follow_to_end(store, tracker)
    train(store, 3, 4)  # recorded, and the machine went down
    train(store, 3, 5, reward=7)
    follow_to_end(store, tracker)
    assert tracker.steps() == [1, 2, 3, 4, 5]
    assert tracker.values("reward/mean") == pytest.approx([0.1, 0.2, 7.3, 7.4, 7.5])


def test_what_was_sent_before_the_mark_was_written_is_not_sent_again_where_the_tracker_knows(tmp_path: Path) -> None:
    store, tracker = store_in(tmp_path / "r"), Memory(knows=True)
    train(store, 1, 3)
    follow_to_end(store, tracker)
    marks = MarkFile(store.folder, "wandb")
    marks._write(dataclasses.replace(marks.read(), lines=1))
    train(store, 4, 4)
    follow_to_end(store, tracker)
    assert tracker.steps() == [1, 2, 3, 4]


def test_what_a_tracker_has_lost_is_sent_again(tmp_path: Path) -> None:
    """The library had taken it, and was killed before the server got it."""
    store, tracker = store_in(tmp_path / "r"), Memory(knows=True)
    train(store, 1, 3)
    follow_to_end(store, tracker)
    del tracker.entries[1:]
    follow_to_end(store, tracker)
    assert tracker.steps() == [1, 2, 3]


def test_a_line_that_is_being_written_waits_for_its_end(tmp_path: Path) -> None:
    store, tracker = store_in(tmp_path / "r"), Memory()
    train(store, 1, 1)
    file = store.folder / "metrics.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: len(whole) // 2])
    follow_to_end(store, tracker)
    assert tracker.steps() == [1]
    file.write_bytes(whole + whole.replace(b'"step": 1', b'"step": 2'))
    follow_to_end(store, tracker)
    assert tracker.steps() == [1, 2]


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), RuntimeError("wrong key"), SystemExit(1)])
def test_a_failure_is_told_once_and_tried_again(tmp_path: Path, problem: BaseException) -> None:
    store, tracker, told, ended = store_in(tmp_path / "r"), Memory(), [], Ended()
    train(store, 1, 2)
    tracker.failures = [problem] * 3
    tracker.before_send = lambda: ended.tell("finished")
    assert follower(store, tracker, told).follow(ended, look_s=0.01, again_s=0.01)
    assert tracker.steps() == [1, 2]
    assert len(told) == 1


def test_a_tracker_that_fails_to_the_end_gets_it_all_at_the_next_start(tmp_path: Path) -> None:
    store, tracker, told = store_in(tmp_path / "r"), Memory(), []
    train(store, 1, 2)
    tracker.failures = [ConnectionError("https://me:secret@host/x refused\nmore")] * 9
    assert not follow_to_end(store, tracker, told=told)
    assert told == ["https://host/x refused"]
    assert mark_of(store).lines == 0
    tracker.failures.clear()
    assert follow_to_end(store, tracker)
    assert tracker.steps() == [1, 2]


def test_a_library_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    store, told, ended = store_in(tmp_path / "r"), [], Ended()
    ended.tell("finished")

    def make() -> Memory:
        raise ImportError("libfoo.so: cannot open")

    made = follower(store, None, told)
    made._make = make
    assert not made.follow(ended, look_s=0.01, again_s=0.01)
    assert told == ["libfoo.so: cannot open"]


def test_the_table_of_all_models_is_sent_at_the_end_and_anew_when_it_has_changed(tmp_path: Path) -> None:
    store, tracker = store_in(tmp_path / "r"), Memory()
    store.record("stage", "rl", event="start")
    train(store, 1, 1)
    evaluate(store, 1, "after")

    def results() -> list[dict[str, float]]:
        return [dict(entry.figures) for entry in tracker.entries if entry.stage == "Results"]

    follow_to_end(store, tracker)
    assert results() == [{"rl/gsm8k/pass@1": 0.5}]
    follow_to_end(store, tracker)
    assert len(results()) == 1
    evaluate(store, 1, "after", **{"pass@1": 0.75})
    follow_to_end(store, tracker)
    assert results()[1:] == [{"rl/gsm8k/pass@1": 0.75}]


def test_a_run_that_is_far_ahead_is_sent_in_parts(tmp_path: Path) -> None:
    store, tracker = store_in(tmp_path / "r"), Memory()
    train(store, 1, 1201)
    sizes: list[int] = []
    tracker.before_send = lambda: sizes.append(len(tracker.entries))
    follow_to_end(store, tracker)
    assert tracker.steps() == list(range(1, 1202))
    assert sizes[:3] == [0, 500, 1000]
