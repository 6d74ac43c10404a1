"""Which files a data source is made of, in reading order."""

import glob
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rollout.data.readers import KNOWN_KINDS, reader_of
from rollout.data.rows import Source
from rollout.data.text_files import plain_suffix
from rollout.errors import InputError, did_you_mean

# Folders often hold the splits of one data set side by side; training on the test file must not happen by accident.
SPLIT_OF_FILE = re.compile(r"(train|test|validation|valid|val|dev|eval|held-out)(?![a-z])", re.IGNORECASE)


def source_files(source: Source) -> list[Path]:
    """The files of a source in reading order, all of one kind that `READERS` knows."""
    path = Path(source.path).expanduser()
    if path.is_file():
        _refuse_split(source, [])
        if reader_of(path) is None:
            raise InputError(f"{path}: cannot read {path.suffix or 'a file without suffix'}; use {KNOWN_KINDS}")
        return [path]
    if not path.exists() and any(sign in path.name + str(path.parent) for sign in "*?["):
        return _matching_files(source, path)
    if not path.is_dir():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"source {source.name!r}: no file or folder at {path}{did_you_mean(path.name, beside)}")
    if (path / "dataset_dict.json").is_file():
        splits = _read_json(path / "dataset_dict.json").get("splits", [])
        if source.split not in splits:
            raise _unknown_split(source, splits)
        return _saved_files(path / source.split)
    if (path / "state.json").is_file():
        held = _read_json(path / "state.json").get("_split")
        _refuse_split(source, [held] if held else [])
        return _saved_files(path)
    return _folder_files(source, path)


def _folder_files(source: Source, folder: Path) -> list[Path]:
    """Data files right inside a folder, sorted by name; hidden files and other kinds (a README) are no data."""
    files = sorted(entry for entry in folder.iterdir() if entry.is_file() and entry.name[0] not in "._")
    files = [entry for entry in files if reader_of(entry)]
    # Beside files of another kind a .json describes them.
    files = [entry for entry in files if plain_suffix(entry) != ".json"] or files
    if not files:
        inside = [f"{entry.name}/" for entry in sorted(folder.iterdir()) if entry.is_dir()][:8]
        hint = f"; it holds the folders {', '.join(inside)}" if inside else ""
        raise InputError(f"source {source.name!r}: no {KNOWN_KINDS} file in {folder}{hint}")
    splits = _splits(files)
    if splits:
        files = _split_files(source, files, splits)
    else:
        _refuse_split(source, [])
    return _of_one_kind(source, folder, files)


def _matching_files(source: Source, pattern: Path) -> list[Path]:
    """Data files that a pattern with `*`, `?`, `[…]` or `**` matches, sorted by path. Who names the files of one split means it."""
    found = sorted(Path(name) for name in glob.glob(str(pattern), recursive=True))
    files = [entry for entry in found if entry.is_file() and reader_of(entry)]
    if not files:
        raise InputError(f"source {source.name!r}: no {KNOWN_KINDS} file matches {pattern}")
    splits = _splits(files)
    if splits and (len(set(splits.values())) > 1 or len(splits) < len(files)):
        files = _split_files(source, files, splits)
    else:
        _refuse_split(source, list(splits.values())[:1])
    return _of_one_kind(source, pattern, files)


def _splits(files: Sequence[Path]) -> dict[Path, str]:
    """The split that a file is named after, of those that are."""
    return {entry: match[1].lower() for entry in files if (match := SPLIT_OF_FILE.match(entry.name))}


def _of_one_kind(source: Source, where: Path, files: list[Path]) -> list[Path]:
    if len({reader_of(entry) for entry in files}) > 1:
        names = ", ".join(entry.name for entry in files[:8])
        raise InputError(f"source {source.name!r}: {where} mixes kinds of files ({names}); name one file")
    return files


def _split_files(source: Source, files: Sequence[Path], splits: Mapping[Path, str]) -> list[Path]:
    for entry in files:
        if entry not in splits:
            raise InputError(
                f"source {source.name!r}: {next(iter(splits)).name} is named after a split, {entry.name} is not; "
                f"name one file instead of the folder {entry.parent}"
            )
    chosen = [entry for entry in files if splits[entry] == source.split]
    if not chosen:
        raise _unknown_split(source, sorted(set(splits.values())))
    return chosen


def _saved_files(folder: Path) -> list[Path]:
    """The Arrow shards of one split that `datasets` saved, in the order that its `state.json` gives."""
    state = _read_json(folder / "state.json")
    if state.get("_indices_data_files"):
        raise InputError(f"{folder}: saved with an index mapping; call flatten_indices() and save_to_disk() again")
    try:
        files = [folder / shard["filename"] for shard in state["_data_files"]]
    except (KeyError, TypeError):
        raise InputError(f"{folder / 'state.json'}: no `_data_files`; save the data set again") from None
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} is missing, though state.json names it; save the data set again")
        if file.suffix != ".arrow":
            raise InputError(f"{file}: a saved data set holds .arrow shards; save it again")
    return files


def _refuse_split(source: Source, held: Sequence[str]) -> None:
    """Say so when a split was asked for and there is nothing to choose from (`train` is the default: not asked)."""
    if source.split != "train" and source.split not in held:
        raise _unknown_split(source, held)


def _unknown_split(source: Source, splits: Sequence[str]) -> InputError:
    known = f"its splits: {', '.join(splits)}" if splits else "it has no splits; leave `split` out"
    return InputError(f"source {source.name!r}: no split {source.split!r} in {source.path}; {known}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object; save the data set again")
    return value
