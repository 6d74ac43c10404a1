"""Failures in a line: every kind of Ray's, every number of the system's; a defect keeps its traceback."""

import errno
import inspect
import os
import pickle
from pathlib import Path

import pytest
import ray.exceptions
from ray.exceptions import RayError, RayTaskError

from rollout.errors import InputError, ServiceError, StorageError, told
from rollout.failures import _WORDS, as_expected, failure

KINDS = [
    kind
    for kind in vars(ray.exceptions).values()
    if inspect.isclass(kind) and issubclass(kind, RayError) and kind is not RayTaskError
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_rays_errors_is_one_line(kind: type[RayError]) -> None:
    problem = kind.__new__(kind)  # as it may come: with nothing in it that its text needs
    said = as_expected(problem)
    assert isinstance(said, ServiceError)
    assert str(said)
    assert len(str(said).splitlines()) == 1
    assert str(failure(problem, "replica 0 to answer")).startswith("replica 0 to answer: ")


def test_kinds_that_tell_what_to_do_are_known_to_ray() -> None:
    assert [name for name, _, _ in _WORDS if not hasattr(ray.exceptions, name)] == []


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (ray.exceptions.ObjectStoreFullError("no 5 GB"), "object store is full: no 5 GB; give it more memory"),
        (ray.exceptions.OutOfDiskError("spill"), "disk that Ray spills to is full: spill; free some room"),
        (ray.exceptions.RuntimeEnvSetupError("pip\nno such wheel"), "could not be set up: no such wheel; look at"),
        (ray.exceptions.ActorUnschedulableError("8 GPUs"), "can have no place: .*8 GPUs.*; ask for less"),
        (ray.exceptions.ActorUnavailableError("lost\nlink", None), "cannot be reached just now"),
        (ray.exceptions.NodeDiedError("n1"), "its host is gone: n1"),
        (ray.exceptions.GetTimeoutError("5 s"), "no answer in time: 5 s"),
    ],
)
def test_what_failed_and_the_way_out(problem: RayError, said: str) -> None:
    with pytest.raises(ServiceError, match=said):
        raise failure(problem)


def test_what_an_actor_raised_keeps_its_kind() -> None:
    def raised(cause: Exception) -> Exception:
        return failure(RayTaskError("save", f"Traceback\n{type(cause).__name__}: {cause}", cause), "rank 0")

    assert isinstance(raised(InputError("no such model")), InputError)
    full = raised(OSError(errno.ENOSPC, "No space left on device", "/run/x"))
    assert isinstance(full, StorageError)
    assert (full.is_full, full.path) == (True, "/run/x")
    assert "rank 0: /run/x: No space left on device" in str(full)
    assert "rank 0: KeyError: " in str(raised(KeyError("x")))
    nested = raised(RayTaskError("inner", "Traceback\nServiceError: deep", ServiceError("deep")))
    assert str(nested) == "deep"


def test_a_file_that_cannot_be_written_is_told_with_path_reason_and_way_out(tmp_path: Path) -> None:
    def problem_of(act: object) -> str:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            act()  # type: ignore[operator]
        said = as_expected(caught.value)
        assert isinstance(said, StorageError)
        assert len(str(said).splitlines()) == 1
        return str(said)

    gone = tmp_path / "gone" / "file"
    assert problem_of(gone.read_bytes) == (
        f"{gone}: No such file or directory; it is not there, or has been taken away meanwhile: put it back, or name another"
    )
    (tmp_path / "file").write_text("")
    assert f"{tmp_path}/file/x: Not a directory; a part of the path is a file" in problem_of(
        (tmp_path / "file" / "x").read_bytes
    )
    assert "Is a directory; it is a folder" in problem_of(tmp_path.read_bytes)
    assert " → " in problem_of(lambda: os.rename(gone, tmp_path / "file"))
    assert "name too long" in problem_of((tmp_path / ("x" * 300)).read_bytes)


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_number_of_the_systems_is_one_line(number: int) -> None:
    said = as_expected(OSError(number, os.strerror(number), "/a/b"))
    assert isinstance(said, ServiceError)
    assert "/a/b" in str(said)
    assert len(str(said).splitlines()) == 1


def test_what_has_no_path_and_what_is_no_file() -> None:
    assert str(told(OSError(errno.EMFILE, "Too many open files"), "start")).startswith(
        "start: Too many open files; this"
    )
    refused = as_expected(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
    assert str(refused) == "ConnectionRefusedError: Connection refused"
    assert not isinstance(refused, StorageError)
    assert str(as_expected(OSError("odd\nlines"))) == "OSError: odd lines"


def test_a_storage_error_travels_between_processes() -> None:
    error = told(OSError(errno.ENOSPC, "No space left on device", "/run/x"))
    there = pickle.loads(pickle.dumps(error))  # noqa: S301  # as Ray does
    assert (str(there), there.path, there.is_full) == (str(error), "/run/x", True)


def test_notes_follow_and_groups_are_their_first_failure_and_a_defect_is_none() -> None:
    error = ServiceError("gone")
    error.add_note("continue with: rayzero train runs/x")
    assert str(as_expected(error)) == "gone\ncontinue with: rayzero train runs/x"
    group = ExceptionGroup("", [ExceptionGroup("", [OSError(errno.EIO, "I/O error", "/x")]), ServiceError("other")])
    group.add_note("a note")
    assert str(as_expected(group)).startswith("/x: I/O error; the disk failed")
    assert str(as_expected(group)).endswith("\na note")
    assert as_expected(KeyError("a defect")) is None
    assert as_expected(ExceptionGroup("", [KeyError("a defect")])) is None
