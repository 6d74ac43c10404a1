"""The report of a run over HTTP: the page as the run stands at the moment it is asked for, and nothing else.

A page of another origin can neither read the answer nor, by a name of its own that it lets resolve to this machine (DNS
rebinding), ask under it: the name that a request asks for must be this machine's.
"""

import ipaddress
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.report.page import report_page
from orchestrator.run.lock import holder
from orchestrator.run.reading import RunCopy
from orchestrator.run.state import STATE
from rollout.errors import InputError, ServiceError

PAGES = ("/", "/report.html")
SECONDS = 10.0
"""Longest wait for a client that has connected and says nothing."""
LINE = 200
"""Characters of an error that are answered."""


class ReportServer(ThreadingHTTPServer):
    """Serves one run. `serve_forever` blocks, `close` ends it."""

    daemon_threads = True

    def __init__(self, run_dir: Path, host: str = "127.0.0.1", port: int = 0, copy: RunCopy | None = None) -> None:
        """`port`: 0 for a free one. `copy`: what the folder is a copy of, brought anew before each answer.

        Raises:
            InputError: the folder holds no run; the address cannot be listened on.
        """
        report_page(run_dir)
        self._run_dir, self._copy = run_dir, copy
        self._lock = threading.Lock()
        self._made: tuple[object, bytes] | None = None
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._loopback = host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
        self._names = {"localhost"} if self._loopback else {"localhost", host.lower(), *_own_names()}
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as problem:
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            reason = getattr(problem, "strerror", None) or str(problem)
            raise InputError(f"--serve: cannot listen on {where}: {reason}; choose another --port or --host") from None

    @property
    def url(self) -> str:
        """Where the report is."""
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}/" if ":" in str(host) else f"http://{host!s}:{port}/"

    def admits(self, asked: str | None) -> bool:
        """Whether a request may ask for this host, as its header `Host` names it.

        An address cannot be rebound; a name can, so it has to be one of this machine's.
        """
        try:
            name = urlsplit(f"//{asked}").hostname if asked else None
            if not name:
                return False
            if _is_address(name):
                return not self._loopback or ipaddress.ip_address(name).is_loopback
            return name in self._names
        except ValueError:
            return False

    def handle_error(self, *_: object) -> None:
        """A client that has gone is no news; anything else is."""
        if not isinstance(sys.exception(), ConnectionError):
            traceback.print_exc()

    def page(self) -> bytes:
        """The report, made again where the run's files have changed. Raises InputError where they cannot be read, ServiceError
        where their storage is away."""
        with self._lock:
            if self._copy:
                self._copy.refresh(samples=True)
            files = tuple(_stamp(self._run_dir / name) for name in ("recipe.toml", "metrics.jsonl", STATE))
            # A run that was killed writes nothing more, and is held by nobody.
            stamp = (files, holder(self._run_dir))
            if self._made is None or self._made[0] != stamp:
                self._made = (stamp, report_page(self._run_dir).encode("utf-8", "replace"))
            return self._made[1]


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer
    timeout = SECONDS
    server_version, sys_version = "RayZero", ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: object) -> None:
        """Nothing: whoever reloads a page should fill no terminal."""

    def _answer(self, with_body: bool) -> None:
        status, kind, body = self._found()
        self.send_response(status)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _found(self) -> tuple[int, str, bytes]:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.server.admits(hosts[0]):
            return 403, "text/plain", b"this server is asked under a name that is not its own\n"
        if self.path.partition("?")[0] not in PAGES:
            return 404, "text/plain", b"only the report is served here, at /\n"
        try:
            return 200, "text/html", self.server.page()
        except (InputError, ServiceError) as problem:
            return 503, "text/plain", f"{str(problem)[:LINE]}\n".encode("utf-8", "replace")


def serve_report(server: ReportServer, tell: Callable[[str], None]) -> None:
    """Say where the report is, and answer until Ctrl-C, which is the ordinary end."""
    try:
        tell(f"{server.url} (Ctrl-C ends it)")
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _own_names() -> set[str]:
    return {socket.gethostname().lower(), socket.getfqdn().lower()}


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
