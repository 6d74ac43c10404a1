"""One folder of a storage, through pyarrow's file systems: objects are written whole or not at all, and asked for again while
the storage is away.
"""

import contextlib
import errno
import hashlib
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pyarrow.fs as fs

from rollout.errors import InputError, ServiceError
from rollout.storage.uri import check_uri, shown

T = TypeVar("T")

AWAY_S = 300.0
"""Longest time that a storage may be away in the middle of a run."""
PROBE_S = 15.0
"""The same at the start, where nothing is lost yet."""
PAUSES_S = (0.5, 15.0)
"""First and longest pause between two tries."""
SILENT_S = 15.0
"""Seconds without a byte after which a try is given up."""
CHUNK = 8 << 20
RENAMES = ("local", "hdfs")
"""File systems that have folders, in which a file that is being written can be seen, and a rename that takes no copy."""
PASSING = {
    *(errno.EAGAIN, errno.EINTR, errno.EIO, errno.EPIPE, errno.ESTALE, errno.ETIMEDOUT),
    *(errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH),
}
"""Errors of an operating system that may be gone at the next try."""
REFUSALS = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE_DOES_NOT_MATCH|MISSING_AUTHENTICATION|EXPIRED_TOKEN|"
    r"NO_SUCH_BUCKET|INVALID_BUCKET|UNRECOGNIZED_CLIENT|HTTP status (30\d|400|401|403|404)|"
    r"PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT|AuthenticationFailed|AuthorizationFailure|ContainerNotFound"
)
"""Words of services for what no patience changes."""
WAYS_OUT = {
    "NO_SUCH_BUCKET|INVALID_BUCKET|ContainerNotFound": "make it, or name another",
    "ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES|TOKEN|UNAUTHENTICATED|PERMISSION_DENIED|HTTP status 40[13]|Auth": "set the keys "
    "of who may write there in the environment (for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; of a job with --env)",
    "NETWORK_CONNECTION|Could not connect|resolve host": "is the address right (AWS_ENDPOINT_URL, endpoint_override), and the server up?",
}
"""Words of services → what to do where nothing has begun."""
REQUEST = re.compile(r"\(Request ID:[^)]*\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file in a storage, as it was when it was put there."""

    name: str
    """Path in its folder, with `/`."""
    size: int
    """Bytes."""
    sha256: str


class Storage:
    """The folder of a URI. Threads may share it."""

    def __init__(self, uri: str, *, away_s: float = AWAY_S) -> None:
        """Nothing is asked yet. Raises InputError where there is no such file system."""
        self.uri = uri
        self.away_s = away_s
        """Longest time for which an operation is tried again; may be changed while one waits."""
        self._files, self._root = _opened(uri)

    def __str__(self) -> str:
        return shown(self.uri)

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError or ServiceError."""

        def read() -> bytes:
            with self._files.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())

        return self._again(f"{name} could not be read", read)

    def write(self, name: str, data: bytes) -> None:
        """Write an object in place of one that is there. Raises ServiceError."""
        self._again(f"{name} could not be written", lambda: self._write(name, lambda: iter((data,))))

    def put_file(self, name: str, file: Path) -> StoredFile:
        """Copy a file of this host there; one that grows meanwhile up to some point. Raises OSError or ServiceError."""

        def put() -> StoredFile:
            digest, size = hashlib.sha256(), 0

            def chunks() -> Iterator[bytes]:
                nonlocal size
                with file.open("rb") as source:
                    while chunk := source.read(CHUNK):
                        digest.update(chunk)
                        size += len(chunk)
                        yield chunk

            self._write(name, chunks)
            return StoredFile(name=name, size=size, sha256=digest.hexdigest())

        os.stat(file)  # That it is gone is no matter of the storage.
        return self._again(f"{name} could not be written", put)

    def get_file(self, name: str, file: Path, known: StoredFile | None = None) -> None:
        """Copy an object to a file of this host, whole or not at all.

        Args:
            known: what it is to be.

        Raises:
            FileNotFoundError: it is not there.
            ServiceError: the storage is away, the disk is full, or the object is another than is known.
        """
        aside = file.with_name(f"{file.name}.{secrets.token_hex(4)}.part")

        def get() -> None:
            digest, size = hashlib.sha256(), 0
            with self._files.open_input_stream(self._path(name)) as source, aside.open("wb") as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                target.flush()
                os.fsync(target.fileno())
            if known and (size, digest.hexdigest()) != (known.size, known.sha256):
                raise ServiceError(
                    f"storage {self}: {name}: {size:,} bytes that are not the {known.size:,} of its manifest"
                )

        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._again(f"{name} could not be read", get)
            aside.replace(file)
        finally:
            aside.unlink(missing_ok=True)

    def list(self) -> dict[str, tuple[int, float]]:
        """Name → (bytes, Unix seconds of its last change) of every object, however deep. Raises ServiceError."""
        selector = fs.FileSelector(self._root, recursive=True, allow_not_found=True)
        found = self._again("its files could not be listed", lambda: self._files.get_file_info(selector))
        start = len(self._root.rstrip("/")) + 1
        return {
            info.path[start:]: (int(info.size), (info.mtime_ns or 0) / 1e9)
            for info in found
            if info.type == fs.FileType.File and not info.path.endswith(".part")
        }

    def delete(self, name: str) -> None:
        """Delete an object; there may be none. Raises ServiceError."""
        with contextlib.suppress(FileNotFoundError):
            self._again(f"{name} could not be deleted", lambda: self._files.delete_file(self._path(name)))

    def delete_all(self) -> None:
        """Delete the folder and what is in it; there may be none. Raises ServiceError."""
        with contextlib.suppress(FileNotFoundError):
            self._again("could not be deleted", lambda: self._files.delete_dir(self._root))

    def probe(self) -> None:
        """Write, read and delete a token. Raises InputError with the reason in a line, without the URI."""
        name, said = f".probe-{secrets.token_hex(8)}", secrets.token_hex(16).encode()
        before, self.away_s = self.away_s, min(self.away_s, PROBE_S)
        try:
            self.write(name, said)
            if self.read(name) != said:
                raise InputError("gives back other bytes than were written")
            self.delete(name)
        except (ServiceError, OSError) as problem:
            reason = _reason(problem.__cause__ or problem)
            raise InputError(f"{reason}{_way_out(reason)}") from problem
        finally:
            self.away_s = before

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _write(self, name: str, chunks: Callable[[], Iterator[bytes]]) -> None:
        path = self._path(name)
        renames = self._files.type_name in RENAMES
        aside = f"{path}.{secrets.token_hex(4)}.part" if renames else path
        if renames:
            self._files.create_dir(path.rpartition("/")[0], recursive=True)
        stream = self._files.open_output_stream(aside)
        try:
            for chunk in chunks():
                stream.write(chunk)
        except BaseException:
            # A stream that is closed in the middle leaves what it has got, which is no object of anybody's.
            with contextlib.suppress(OSError, pa.ArrowException):
                stream.close()
                self._files.delete_file(aside)
            raise
        stream.close()
        if self._files.type_name == "hdfs":
            with contextlib.suppress(FileNotFoundError):
                self._files.delete_file(path)  # its rename takes no name that there is
        if renames:
            self._files.move(aside, path)

    def _again(self, what: str, act: Callable[[], T]) -> T:
        """What `act` returns, at one of its tries.

        Raises:
            FileNotFoundError: as `act` did.
            ServiceError: the storage refuses it, or is away for too long.
        """
        began, pause = time.monotonic(), PAUSES_S[0]
        while True:
            try:
                return act()
            except FileNotFoundError:
                raise
            except (OSError, pa.ArrowException) as problem:
                waited = time.monotonic() - began
                if _is_final(problem):
                    raise ServiceError(f"storage {self}: {what}: {_reason(problem)}") from problem
                if waited + pause > min(self.away_s, _hurry[0]):
                    raise ServiceError(f"storage {self}: {what} within {waited:.0f} s: {_reason(problem)}") from problem
            # Ranks of many hosts come back at different times.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, PAUSES_S[1])


def hurry(seconds: float) -> None:
    """Let no operation of this process, one that waits included, be tried again for longer."""
    _hurry[0] = seconds


_hurry = [float("inf")]


@lru_cache(maxsize=64)
def _opened(uri: str) -> tuple[Any, str]:
    """(file system, path in it) of a URI."""
    check_uri(uri)
    if uri.startswith(("gs:", "gcs:")) and "retry_limit_seconds" not in uri:
        # By itself it asks for a quarter of an hour, in silence.
        uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={PAUSES_S[1]:.0f}"
    try:
        files, root = fs.FileSystem.from_uri(uri)
        options = dict(parse_qsl(urlsplit(uri).query))
        address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if address and "endpoint_override" not in options:
            scheme, _, options["endpoint_override"] = address.rpartition("://")
            options |= {"scheme": scheme} if scheme else {}
        if files.type_name == "s3" and options.keys() <= {"region", "scheme", "endpoint_override"}:
            files = _s3(**options | {"region": files.region})
        return files, root
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise InputError(f"cannot be opened: {_reason(problem)}") from problem


def _s3(**options: str) -> Any:
    """Tries are ours, a server that says nothing is given up sooner than in a minute and a half, and a small object is one request
    where pyarrow can do that (not yet in 20)."""
    once = fs.AwsStandardS3RetryStrategy(max_attempts=1)
    settings = {**options, "connect_timeout": SILENT_S, "request_timeout": SILENT_S, "retry_strategy": once}
    try:
        return fs.S3FileSystem(**settings, allow_delayed_open=True)
    except TypeError:
        return fs.S3FileSystem(**settings)


def _is_final(problem: BaseException) -> bool:
    """Whether no later try will do better."""
    number = getattr(problem, "errno", None)
    return bool(REFUSALS.search(str(problem))) or (number is not None and number not in PASSING)


def _way_out(reason: str) -> str:
    return next((f"; {way}" for words, way in WAYS_OUT.items() if re.search(words, reason)), "")


def _reason(problem: BaseException) -> str:
    """What went wrong, in one line."""
    text = " ".join(REQUEST.sub("", str(problem)).split()) or type(problem).__name__
    said = re.search(r"AWS Error (.+)", text)
    text = re.split(r" error_info=| Learn more | See Azure::|; Details: | dlopen\(", said[1] if said else text)[0]
    return text[:300].strip(" .:")
