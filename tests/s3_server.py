"""A real S3-compatible server on loopback: `moto`'s, in a process of its own."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BUCKET = "models"
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "not-a-real-one",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def lacking() -> str:
    """Why there is no server here; empty: there is."""
    there = all(importlib.util.find_spec(name) for name in ("moto", "flask_cors"))
    return "" if there else "moto's server is not installed"


class S3Server:
    """The server, with one bucket."""

    def __init__(self, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.port, self.process = port, process

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def uri(self, path: str, bucket: str = BUCKET) -> str:
        return f"s3://{bucket}/{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    @contextmanager
    def away(self) -> Iterator[None]:
        """It answers nothing for the length of a block."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def s3_server(folder: Path, monkeypatch: pytest.MonkeyPatch, *, checks_keys: bool = False) -> Iterator[S3Server]:
    """Start it; the environment has keys for it meanwhile. Skips where moto is not installed.

    Args:
        folder: for its log.
        checks_keys: whether it refuses keys that it does not know; it knows none then.
    """
    if missing := lacking():
        pytest.skip(missing)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    # It looks whether the bucket is there, and makes it.
    environment = {**os.environ, **({"INITIAL_NO_AUTH_ACTION_COUNT": "2"} if checks_keys else {})}
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "s3.log").read_text()[-2000:]
                assert time.monotonic() < until, "moto does not come up"
                time.sleep(0.1)
        server = S3Server(port, process)
        make_bucket(server)
        yield server
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def make_bucket(server: S3Server) -> None:
    import pyarrow.fs as fs

    endpoint = {"endpoint_override": f"127.0.0.1:{server.port}", "scheme": "http"}
    fs.S3FileSystem(**endpoint, allow_bucket_creation=True, region="us-east-1").create_dir(BUCKET)
