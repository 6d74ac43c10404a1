"""Files and folders are whole or absent, whenever a write is cut short."""

import contextlib
import os
import re
from pathlib import Path

import pytest

from orchestrator.run import files
from orchestrator.run.files import (
    begin_folder,
    complete,
    move_link,
    new_folder,
    remove_folder,
    replaced_file,
    sweep,
    write_file,
)
from rollout.errors import InputError

ANY = re.compile(r".+")


class Cut(Exception):
    """The end of the process, at a fault point."""


def cut_at(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    def end(reached: str, _: Path) -> None:
        if reached == moment:
            raise Cut

    monkeypatch.setattr(files, "fault_point", end)


def fill(folder: Path, text: str) -> None:
    aside = begin_folder(folder)
    (aside / "deep").mkdir()
    (aside / "deep" / "file").write_text(text)
    complete(folder)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(TypeError):
        write_file(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"new"


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    with contextlib.suppress(Cut), replaced_file(path) as aside:
        aside.write_bytes(b"half")
        raise Cut
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("moment", "found"), [("written", b"old"), ("synced", b"old"), ("renamed", b"new"), ("never", b"new")]
)
def test_a_file_is_the_old_or_the_new_wherever_its_write_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, found: bytes
) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    cut_at(monkeypatch, moment)
    with contextlib.suppress(Cut):
        write_file(path, b"new")
    assert path.read_bytes() == found


@pytest.mark.parametrize(
    ("moment", "found"),
    [("written", "old"), ("synced", "old"), ("moved away", "old"), ("renamed", "new"), ("never", "new")],
)
def test_a_folder_is_the_old_or_the_new_once_what_was_cut_short_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, found: str
) -> None:
    folder = tmp_path / "folder"
    fill(folder, "old")
    cut_at(monkeypatch, moment)
    try:
        fill(folder, "new")
    except Cut:
        # What was cut short does not look like a whole one, before anything is swept.
        assert all((path / "deep/file").exists() for path in tmp_path.iterdir() if files.is_whole(path))
    sweep(tmp_path, ANY)
    assert (folder / "deep/file").read_text() == found
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(("moment", "there"), [("written", False), ("synced", False), ("renamed", True)])
def test_a_first_folder_is_whole_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, there: bool
) -> None:
    cut_at(monkeypatch, moment)
    with pytest.raises(Cut):
        fill(tmp_path / "folder", "new")
    assert (tmp_path / "folder").exists() == there


def test_a_new_folder_takes_the_place_of_an_empty_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with new_folder(path) as aside:
        (aside / "file").write_text("new")
        assert not any(path.iterdir())
    assert (path / "file").read_text() == "new"
    with pytest.raises(OSError, match="not empty"), new_folder(path) as aside:
        (aside / "file").write_text("newer")
    assert (path / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_folder_whose_block_fails_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with new_folder(tmp_path / "folder") as aside:
            (aside / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any(tmp_path.iterdir())


def test_what_is_renamed_was_synced_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file, and after it the folder that names it; else a power cut could leave a name without its bytes."""
    events: list[str] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(files, "fault_point", lambda moment, _: events.append(f"<{moment}>"))
    fill(tmp_path / "folder", "new")
    before, after = events[: events.index("<synced>")], events[events.index("<synced>") :]
    assert {"folder.part", "deep", "file"} <= set(before)
    assert after == ["<synced>", tmp_path.name, "<renamed>"]


def test_a_folder_that_is_being_deleted_does_not_look_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "folder", "old")

    def cut(path: Path, **_: object) -> None:
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(files.shutil, "rmtree", cut)
        with pytest.raises(Cut):
            remove_folder(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    sweep(tmp_path, ANY)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_write_left_is_deleted_once_it_is_old(tmp_path: Path) -> None:
    left = [tmp_path / name for name in ("recipe.toml.123.part", "deep/step-000001.parquet.4.part")]
    mine = [tmp_path / name for name in ("notes.part", "a.1.part.txt", "folder.1.part/file")]
    for path in (*left, *mine, tmp_path / "young.5.part"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if "young" not in path.name:
            os.utime(path, (0, 0))
    files.sweep_files(tmp_path)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in (*mine, tmp_path / "young.5.part"))


def test_a_link_moves(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        move_link(tmp_path / "link", Path(name))
        assert (tmp_path / "link").resolve() == tmp_path / name
    assert (tmp_path / "link").readlink() == Path("b")


def test_where_a_file_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    files.check_writable("--out", tmp_path / "new" / "file")
    with pytest.raises(InputError, match=r"--out .*: is a folder"):
        files.check_writable("--out", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, not a folder"):
        files.check_writable("--out", tmp_path / "file" / "deeper" / "file")
