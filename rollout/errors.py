"""The ways in which a run can fail on purpose, and how their messages are worded.

Exception
├── InputError             something the user gave is wrong: printed as it is, exit code 2, no traceback
└── ServiceError           the infrastructure failed after its retries: named, exit code 1, the run can be resumed
    ├── GroupError         one group could not be generated, by engines that are well: it is dropped, and the run goes on
    ├── NobodyLoadedError  every engine failed to take a publish: it may be tried again when they are back
    └── StorageError       a file could not be read or written: with its path and the way out
"""

import difflib
import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """A mistake of the user's, told in one or two lines: what, the value, the way out."""


class ServiceError(RuntimeError):
    """A part of the system failed, or did not answer within its deadline; the message names the part."""


class GroupError(ServiceError):
    """One group could not be generated, which says more of its prompt than of the engines."""


class NobodyLoadedError(ServiceError):
    """Every engine that was to load weights failed to."""


class StorageError(ServiceError):
    """A file or folder could not be read or written; the message has its path, the reason, and the way out."""

    def __init__(self, message: str, path: str = "", number: int = 0) -> None:
        """`number`: the system's (`errno`)."""
        super().__init__(message)
        self.path, self.number = path, number

    @property
    def is_full(self) -> bool:
        """Whether there was no room, which may come."""
        return self.number in FULL

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.path, self.number)


FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the system's for: no room."""
_WAYS_OUT = {
    errno.ENOSPC: "free some room there, or give the run another place",
    errno.EDQUOT: "the quota is used up: free some room there, or ask for more",
    errno.EROFS: "it can only be read: mount it for writing, or choose another place",
    errno.EACCES: "who runs this may not: change the rights, or choose another place",
    errno.EPERM: "who runs this may not: change the rights, or choose another place",
    errno.ENOENT: "it is not there, or has been taken away meanwhile: put it back, or name another",
    errno.ENOTDIR: "a part of the path is a file: choose another place",
    errno.EISDIR: "it is a folder: move it away, or choose another name",
    errno.EEXIST: "something stands there: move it away, or choose another name",
    errno.ENOTEMPTY: "something stands there: move it away, or choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle: mend them",
    errno.EFBIG: "a file may not be that large there (ulimit -f, or the file system)",
    errno.EMFILE: "this process has too many files open: raise `ulimit -n`",
    errno.ENFILE: "the machine has too many files open: end something",
    errno.ENOMEM: "the machine is out of memory: end something, or ask for less",
    errno.EIO: "the disk failed: look at the machine's log (dmesg)",
    errno.ESTALE: "the network's file system has lost it: mount it again",
    errno.ETXTBSY: "it is being run: end that first",
    errno.EBUSY: "it is in use: end what uses it",
}
_NO_STORAGE = (ConnectionError, TimeoutError, InterruptedError, BlockingIOError, ChildProcessError, ProcessLookupError)


def is_storage(problem: BaseException | None) -> bool:
    """Whether a failure is one of a file or a folder."""
    return isinstance(problem, OSError) and not isinstance(problem, _NO_STORAGE) and problem.errno is not None


def told(problem: OSError, what: str = "") -> ServiceError:
    """A failure of the system's as one line: what, where, how much room there is where that lacks, and the way out.

    `what`: what was being done, at the start of the message.
    """
    number = problem.errno or 0
    reason = problem.strerror or " ".join(str(problem).split()) or type(problem).__name__
    before = f"{what}: " if what else ""
    path = "" if problem.filename is None else os.fsdecode(problem.filename)
    other = "" if problem.filename2 is None else f" → {os.fsdecode(problem.filename2)}"
    if not is_storage(problem):
        return ServiceError(f"{before}{type(problem).__name__}: {reason}{f': {path}' if path else ''}")
    where = f"{path}{other}: " if path else ""
    room = f" ({free_bytes(path):,} bytes are free)" if number in FULL and path and "free" not in reason else ""
    way_out = f"; {_WAYS_OUT[number]}" if number in _WAYS_OUT else ""
    return StorageError(f"{before}{where}{reason}{room}{way_out}", path, number)


def free_bytes(path: str | Path) -> int:
    """Bytes that are free where a path lies or would lie; 0 where that cannot be told."""
    place = Path(path).absolute()
    for folder in (place, *place.parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return 0


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: `; did you mean 'ranks'?`, or nothing when no known one is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def visible(text: str) -> str:
    """A message that may quote a model or a file: what a terminal would obey, or not show, is written out: `\\x1b`."""
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode() for sign in text
    )
