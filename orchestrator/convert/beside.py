"""Files that a file names: beside it, or where rayzero was started."""

import os
from collections.abc import Iterable
from pathlib import Path

from rollout.errors import InputError


def is_there(path: str) -> bool:
    """Whether there is a file or a folder; never an error, whatever the text is."""
    return os.path.exists(path)


def find_beside(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of some files that is there.

    Args:
        folder: of the file that names them.
        names: paths, relative to it or to where rayzero was started.
    """
    places = (place for name in names for place in (folder / name, Path(name)))
    return next((place for place in places if os.path.isfile(place)), None)


def text_of(path: Path) -> str:
    """The text of a file. Raises InputError where it has none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not text in UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
