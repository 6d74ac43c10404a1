"""The two ways in which a run can fail on purpose.

Exception
├── InputError    something the user gave is wrong: printed as it is, exit code 2, no traceback
└── ServiceError  the infrastructure failed after its retries: named, exit code 1, the run can be resumed
"""


class InputError(ValueError):
    """A mistake of the user's, told in one or two lines: what, the value, the way out."""


class ServiceError(RuntimeError):
    """A part of the system failed, or did not answer within its deadline; the message names the part."""
