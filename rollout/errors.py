"""The ways in which a run can fail on purpose, and how their messages are worded.

Exception
├── InputError    something the user gave is wrong: printed as it is, exit code 2, no traceback
└── ServiceError  the infrastructure failed after its retries: named, exit code 1, the run can be resumed
    ├── GroupError  one group could not be generated, by engines that are well: it is dropped, and the run goes on
    └── NobodyLoadedError  every engine failed to take a publish: it may be tried again when they are back
"""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A mistake of the user's, told in one or two lines: what, the value, the way out."""


class ServiceError(RuntimeError):
    """A part of the system failed, or did not answer within its deadline; the message names the part."""


class GroupError(ServiceError):
    """One group could not be generated, which says more of its prompt than of the engines."""


class NobodyLoadedError(ServiceError):
    """Every engine that was to load weights failed to."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: `; did you mean 'ranks'?`, or nothing when no known one is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def visible(text: str) -> str:
    """A message that may quote a model or a file: what a terminal would obey, or not show, is written out: `\\x1b`."""
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode() for sign in text
    )
