"""The message about ranks that cannot go on names the one that keeps the others."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from learner.progress import LEAST_BYTES, Note, Progress, RankState, diagnosis

AT = "mini-batch 2 of 4, micro-batch 1 of 3"


def stands(count: int, collective: str = "all_reduce", seconds: float = 30.0, **changes: object) -> RankState:
    note = Note(verb="train", part=AT, collective=collective, inside=bool(collective), count=count)
    return RankState(note=note, seconds=seconds, **changes)  # type: ignore[arg-type]


def test_a_note_tells_the_part_and_the_collective() -> None:
    progress = Progress()
    assert str(progress.read()[0]) == "rest"
    with progress.verb("train"):
        assert str(progress.read()[0]) == "its beginning"
        progress.at(AT)
        seen = []

        def reduce() -> None:
            seen.append(str(progress.read()[0]))

        progress._watch("all_reduce", reduce)()
        assert seen == [f"{AT}, in all_reduce (number 2)"]
        assert str(progress.read()[0]) == f"{AT}, after all_reduce (number 2)"
    assert str(progress.read()[0]) == "rest"


def test_a_verb_that_fails_leaves_its_note_for_another_thread_to_read() -> None:
    progress, read = Progress(), []

    def train() -> None:
        with progress.verb("train"):
            progress.at(AT)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        train()
    thread = threading.Thread(target=lambda: read.append(progress.read()[0]))
    thread.start()
    thread.join()
    assert (read[0].verb, read[0].part) == ("train", AT)


def test_a_dead_rank_explains_the_errors_of_its_peers() -> None:
    lost = stands(9, failed="RuntimeError: connection closed by peer")
    text = diagnosis("train", {0: lost, 1: RankState(died="SIGKILL"), 2: lost}, 3.0)
    assert text == f"`train` of 3 learner ranks: rank 1 died (SIGKILL); ranks 0, 2 at {AT}, in all_reduce (number 9)"


def test_of_ranks_that_raised_the_one_that_got_least_far_is_named() -> None:
    ranks = {0: stands(9, failed="RuntimeError: timed out"), 1: stands(8, "", failed="ValueError: bad"), 2: stands(9)}
    text = diagnosis("train", ranks, 3.0)
    assert text.startswith(f"`train` of 3 learner ranks: rank 1 failed at {AT}: ValueError: bad; ranks 0, 2 at")


def test_a_rank_that_does_not_answer_is_named() -> None:
    text = diagnosis("train", {0: stands(9), 1: RankState()}, 60.0)
    assert text.startswith("`train` of 2 learner ranks: waited 60 s; rank 1 does not answer")
    assert f"rank 0 at {AT}, in all_reduce" in text


def test_a_rank_that_hangs_is_the_one_that_got_least_far() -> None:
    text = diagnosis("train", {0: stands(9), 1: stands(7, "", seconds=59), 2: RankState(finished=True)}, 60.0)
    assert text == (
        f"`train` of 3 learner ranks: waited 60 s; rank 1 got least far at {AT} for 59 s; "
        f"rank 0 at {AT}, in all_reduce (number 9); rank 2 finished"
    )


def test_many_ranks_at_one_place_are_told_together() -> None:
    text = diagnosis("save", {rank: stands(3) for rank in range(1, 64)} | {0: RankState()}, 60.0)
    assert "ranks 1, 2, 3, 4, 5, 6, 7, 8 … at" in text


def test_a_rank_that_reads_or_writes_files_has_not_stood(tmp_path: Path) -> None:
    progress = Progress()
    with progress.verb("save"):
        progress._note = replace(progress._note, since=time.monotonic() - 100)
        assert progress.read()[1] >= 100
        (tmp_path / "part").write_bytes(b"x" * LEAST_BYTES)
        assert progress.read()[1] < 1
        progress._moved -= 50
        assert 50 <= progress.read()[1] < 51  # and stands again
