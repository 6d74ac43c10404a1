"""An export is whole or absent, and on the disk before it has its name."""

import os
from pathlib import Path

import pytest

from learner import export


def test_files_are_synced_before_the_folder_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, aside = tmp_path / "export", tmp_path / "export.part"
    for place, text in ((folder, "old"), (aside, "new")):
        (place / "deep").mkdir(parents=True)
        (place / "deep" / "file").write_text(text)
    synced: list[str] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    export._complete(aside, folder)
    assert (folder / "deep/file").read_text() == "new"
    assert set(synced[:-1]) == {f"{aside}/deep/file", f"{aside}/deep", str(aside)}
    assert synced[-1] == str(tmp_path)
    assert list(tmp_path.iterdir()) == [folder]
