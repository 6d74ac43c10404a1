"""Files from one host to another, each read while it is still being written, so that hosts in a row pass a publish on.

A server offers files by name on its cluster's address. Whoever asks must know its secret, which travels with Ray's messages
alone (token, and TLS where the cluster has it); what is served is not encrypted. It opens nothing but what it was told to offer.

    asks    secret [32 bytes], then for each file: length of the name [2 bytes], name
    answer  for each file: its size [8 bytes], then its bytes as they come
"""

import hmac
import os
import secrets
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rollout.errors import ServiceError

PIECE_BYTES = 4 << 20
"""Bytes that are passed on at a time."""
BUFFER_BYTES = 1 << 20
"""Bytes that are taken from a link at a time: what a core's cache holds on their way into a file."""
IDLE_S = 60.0
"""Seconds without a byte after which the other side is taken to be gone."""
HANDSHAKE_S = 5.0
"""Seconds that whoever connects has to show that it knows the secret."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where files are fetched from."""

    address: str
    port: int
    secret: bytes = field(repr=False)


class Offered:
    """A file that is there, or on its way here: bytes up to `ready` may be read."""

    def __init__(self, path: Path, size: int, ready: int) -> None:
        self.path, self.size = path, size
        self._ready = ready
        self._failed = False
        self._changed = threading.Condition()

    def grow(self, count: int) -> None:
        """So many bytes more are there."""
        with self._changed:
            self._ready += count
            self._changed.notify_all()

    def fail(self) -> None:
        """No more will come."""
        with self._changed:
            self._failed = True
            self._changed.notify_all()

    def wait_beyond(self, sent: int) -> int:
        """How many bytes are there, once there are more than `sent`. Raises ServiceError when none come."""
        with self._changed:
            come = self._changed.wait_for(lambda: self._ready > sent or self._failed, IDLE_S)
            if self._failed or not come:
                raise ServiceError(f"{self.path.name} stopped at {sent} of {self.size} bytes")
            return self._ready


class FileServer:
    """Offers files to other hosts until it is closed. Its threads are daemons."""

    def __init__(self, address: str) -> None:
        """Listen on an address of this host."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.create_server((address, 0), family=family, backlog=64)
        self._secret = secrets.token_bytes(32)
        self._files: Mapping[str, Offered] = {}
        self._offers = threading.Condition()
        self.source = Source(address, self._socket.getsockname()[1], self._secret)
        threading.Thread(target=self._accept, name="file-server", daemon=True).start()

    def offer(self, files: Mapping[str, Offered]) -> None:
        """Offer these files in place of all before."""
        with self._offers:
            self._files = files
            self._offers.notify_all()

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(link,), name="file-link", daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        """Until the other side hangs up, asks for what is not offered, or an offered file does not come."""
        with link, suppress(OSError, ServiceError):  # the other side sees the end of the link, and says so
            link.settimeout(HANDSHAKE_S)
            if not hmac.compare_digest(_exactly(link, len(self._secret)), self._secret):
                return
            _block(link)
            while True:
                (length,) = struct.unpack("!H", _exactly(link, 2))
                file = self._find(_exactly(link, length).decode())
                link.sendall(struct.pack("!Q", file.size))
                _send(link, file)

    def _find(self, name: str) -> Offered:
        """An offered file; whoever is further down the row may ask before this one was told of it."""
        with self._offers:
            if not self._offers.wait_for(lambda: name in self._files, IDLE_S):
                raise ServiceError(f"{name} is not offered")
            return self._files[name]


def _block(link: socket.socket) -> None:
    """Let the kernel wait, up to `IDLE_S`: `sendfile` does not know Python's timeouts, under which sockets never block."""
    link.settimeout(None)
    whole = int(IDLE_S)
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        link.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", whole, int((IDLE_S - whole) * 1e6)))


def _send(link: socket.socket, file: Offered) -> None:
    if not file.size:
        return
    sent = 0
    file.wait_beyond(0)  # the file is made with its first byte
    with open(file.path, "rb") as content:
        while sent < file.size:
            ready = file.wait_beyond(sent)
            while sent < ready:
                sent += os.sendfile(link.fileno(), content.fileno(), sent, min(ready - sent, PIECE_BYTES))


def fetch(source: Source, files: Mapping[str, Offered]) -> None:
    """Write files as they come from `source`; whoever reads them meanwhile gets what is there.

    Raises:
        ServiceError: the source cannot be reached, hung up, or has other files of these names.
    """
    name = ""
    try:
        with _linked(source) as link:
            for name, file in files.items():
                encoded = name.encode()
                link.sendall(struct.pack("!H", len(encoded)) + encoded)
                (size,) = struct.unpack("!Q", _exactly(link, 8))
                if size != file.size:
                    raise ServiceError(f"it has {size} bytes in place of {file.size}")
                _write(link, file)
    except (OSError, ServiceError) as problem:
        for file in files.values():
            file.fail()
        what = f"weights ({name}) " if name else ""
        raise ServiceError(f"{what}from {source.address}:{source.port} did not arrive: {problem}") from problem


@contextmanager
def _linked(source: Source) -> Iterator[socket.socket]:
    with socket.create_connection((source.address, source.port), timeout=IDLE_S) as link:
        link.sendall(source.secret)
        yield link


def _write(link: socket.socket, file: Offered) -> None:
    # Written and not mapped: a page that finds no room is an error then, and none is cleared before it is filled.
    piece = memoryview(bytearray(min(BUFFER_BYTES, file.size)))
    with open(os.open(file.path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as content:
        got = 0
        while got < file.size:
            count = link.recv_into(piece[: file.size - got])
            if not count:
                raise ServiceError(f"the link ended at {got} of {file.size} bytes")
            content.write(piece[:count])
            content.flush()
            got += count
            file.grow(count)


def _exactly(link: socket.socket, count: int) -> bytes:
    """So many bytes; raises ServiceError when the other side hangs up before."""
    found = b""
    while len(found) < count:
        part = link.recv(count - len(found))
        if not part:
            raise ServiceError("the other side hung up")
        found += part
    return found
