"""The two ways in which a run can fail on purpose, and the words for a near miss.

Exception
├── InputError    something the user gave is wrong: printed as it is, exit code 2, no traceback
└── ServiceError  the infrastructure failed after its retries: named, exit code 1, the run can be resumed
"""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A mistake of the user's, told in one or two lines: what, the value, the way out."""


class ServiceError(RuntimeError):
    """A part of the system failed, or did not answer within its deadline; the message names the part."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: `; did you mean 'ranks'?`, or nothing when no known one is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
