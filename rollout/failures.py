"""What a failure is to whoever runs this: a mistake of theirs, a failure of the system in one line, or a defect of ours.

Every kind of Ray's errors has words and a way out here. They are known by their names: Ray is not imported.
"""

from collections.abc import Sequence

from rollout.errors import InputError, ServiceError, is_storage, told

_WORDS: Sequence[tuple[str, str, str]] = (
    (
        "ActorUnavailableError",
        "the actor cannot be reached just now",
        "the network, or its host, is to blame; try again",
    ),
    ("RayActorError", "the actor died", ""),
    ("WorkerCrashedError", "its process died", "out of memory, perhaps: look at the machine's log (dmesg)"),
    ("OutOfMemoryError", "Ray ended it because its host is out of memory", "ask for less, or place less on that host"),
    ("NodeDiedError", "its host is gone", "wait for another, or continue with less"),
    ("LocalRayletDiedError", "Ray's own process on this host died", "look at its log (raylet.out) and start it again"),
    (
        "ObjectStoreFullError",
        "Ray's object store is full",
        "give it more memory (ray start --object-store-memory) or place less on that host",
    ),
    ("OutOfDiskError", "the disk that Ray spills to is full", "free some room there (ray start --temp-dir)"),
    ("OwnerDiedError", "what it had made was lost with the process that made it", "continue the run"),
    (
        "ObjectFetchTimedOutError",
        "what it had made did not arrive from another host",
        "look at the network between the hosts",
    ),
    ("ObjectLostError", "what it had made was lost with its host", "continue the run"),
    (
        "RuntimeEnvSetupError",
        "its environment could not be set up",
        "look at cluster.env and at what the job was submitted with",
    ),
    ("ActorUnschedulableError", "it can have no place", "ask for less, or add nodes"),
    ("TaskUnschedulableError", "it can have no place", "ask for less, or add nodes"),
    ("ActorPlacementGroupRemoved", "its place was given back", "continue the run"),
    ("TaskPlacementGroupRemoved", "its place was given back", "continue the run"),
    ("GetTimeoutError", "no answer in time", "look at the network, and whether its host is overloaded"),
    ("RayChannelTimeoutError", "no answer in time", "look at the network, and whether its host is overloaded"),
    ("TaskCancelledError", "it was cancelled", "continue the run"),
    ("PendingCallsLimitExceeded", "too many calls wait for it", "ask for more workers"),
    ("AuthenticationError", "the cluster does not know who asks", "set the cluster's token (RAY_AUTH_TOKEN)"),
    ("RpcError", "Ray's processes cannot reach each other", "look at the network, and whether the cluster's head runs"),
    ("RaySystemError", "Ray failed", "look at its logs (/tmp/ray/session_latest/logs) and continue the run"),
    ("RayError", "Ray failed", "look at its logs (/tmp/ray/session_latest/logs) and continue the run"),
)
"""Class → (what failed, the way out). The first that fits counts: narrower ones stand before wider ones."""


_ADVISING = {"ObjectStoreFullError", "OutOfDiskError"}
"""Kinds whose text ends in Ray's own advice."""


def as_expected(problem: BaseException) -> InputError | ServiceError | None:
    """A failure in words for the user: as it was raised, or of a file, or of Ray; None: a defect, whose traceback is needed.

    What was noted on it (`add_note`) follows, line by line.
    """
    first = problem
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    found: InputError | ServiceError | None = None
    if isinstance(first, InputError | ServiceError):
        found = first
    elif is_rays(first):
        found = failure(first)
    elif isinstance(first, OSError):
        found = told(first)
    notes = [note for each in dict.fromkeys((first, problem)) for note in getattr(each, "__notes__", ())]
    return type(found)("\n".join([str(found), *notes])) if found is not None and notes else found


def failure(problem: BaseException, what: str = "") -> InputError | ServiceError:
    """One of Ray's errors as one of ours: what the actor raised on purpose, or in words. `what`: what was asked for."""
    before = f"{what}: " if what else ""
    cause = getattr(problem, "cause", None) if _is(problem, "RayTaskError") else None
    if cause is None:
        return ServiceError(before + in_words(problem))
    if isinstance(cause, InputError | ServiceError):
        return cause
    if is_rays(cause):
        return failure(cause, what)
    if is_storage(cause):
        return told(cause, what)
    return ServiceError(f"{before}{type(cause).__name__}: {last_line(problem)}")


def is_rays(problem: BaseException) -> bool:
    """Whether an exception is one of Ray's own kinds."""
    return _is(problem, "RayError")


def _is(problem: BaseException, name: str) -> bool:
    return any(kind.__name__ == name and kind.__module__ == "ray.exceptions" for kind in type(problem).__mro__)


def in_words(problem: BaseException) -> str:
    """One of Ray's errors in one line: what failed, what Ray says of it, and the way out."""
    kinds = {kind.__name__ for kind in type(problem).__mro__}
    what, way_out = next((what, way_out) for name, what, way_out in _WORDS if name in kinds)
    said = last_line(problem)
    if kinds & _ADVISING and problem.args:
        said = last_line(Exception(problem.args[0]))
    return f"{what}: {said}" + (f"; {way_out}" if way_out else "")


def last_line(problem: BaseException) -> str:
    """The last line of a failure's text, where Ray has the cause; its type where it has no text."""
    try:
        text = str(problem)
    except Exception:  # noqa: BLE001  # some of Ray's cannot be written out without what they were made with
        text = ""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(problem).__name__
