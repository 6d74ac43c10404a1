"""The report over HTTP: what is answered, to whom, and that nothing else is."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.report.page import report_page, write_report
from orchestrator.report.server import ReportServer
from orchestrator.run.lock import run_lock
from orchestrator.run.state import write_state
from rollout.errors import InputError
from tests.orchestrator.report.test_page import grpo_step, make_run, sft_records


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", sft_records())


@pytest.fixture
def server(run: Path) -> Iterator[ReportServer]:
    server = ReportServer(run)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ask(server: ReportServer, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_the_report_as_the_run_stands(server: ReportServer, run: Path) -> None:
    status, page = ask(server)
    assert status == 200
    assert "cold-start, step 3 of 3" in page
    assert server.page() is server.page(), "made anew though nothing has changed"
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(grpo_step(2)) + "\n")
    assert "reasoning, step 2 of 4" in ask(server, "/report.html?again")[1]
    assert not (run / "report.html").exists(), "whoever only reads may not be able to write"
    with (run / "metrics.jsonl").open("a") as file:
        file.write("not a record\n{}\n")
    assert ask(server)[0] == 503


@pytest.mark.parametrize(
    "path",
    ["/recipe.toml", "/metrics.jsonl", "/../recipe.toml", "/report.html/../metrics.jsonl", "/%2e%2e/recipe.toml",
     "/index.html", "/report.htm", "http://127.0.0.1/"],
)  # fmt: skip
def test_nothing_else_is_served(server: ReportServer, path: str) -> None:
    status, text = ask(server, path)
    assert status == 404
    assert "cold-start" not in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_else_is_understood(server: ReportServer, method: str) -> None:
    assert ask(server, method=method)[0] == 501


@pytest.mark.parametrize(
    ("host", "admitted"),
    [
        ("127.0.0.1:8360", True),
        ("localhost:9", True),  # through a tunnel, from another port
        ("LOCALHOST", True),
        ("[::1]:8360", True),
        ("rebound.example.org:8360", False),
        ("192.0.2.7", False),
        ("localhost.example.org", False),
        ("localhost@example.org", False),
        ("127.0.0.1.example.org", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_it_answers_under_its_own_name_alone(server: ReportServer, host: str, admitted: bool) -> None:
    assert ask(server, Host=host)[0] == (200 if admitted else 403)


def test_a_request_of_two_names_or_of_none(server: ReportServer) -> None:
    for lines in (b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: example.org\r\n\r\n"):
        with socket.create_connection(server.server_address[:2], timeout=10) as client:  # type: ignore[arg-type]
            client.sendall(lines)
            assert client.recv(100).split()[1] == b"403"


def test_an_address_that_others_reach_answers_under_that_and_no_strange_name(run: Path) -> None:
    server = ReportServer(run, "0.0.0.0")
    try:
        assert server.admits("192.0.2.7:8360")
        assert server.admits(socket.gethostname())
        assert not server.admits("rebound.example.org")
    finally:
        server.server_close()


def test_what_cannot_be_served_is_a_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        ReportServer(tmp_path / "none")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}: .*choose another --port"):
            ReportServer(run, port=port)
    with pytest.raises(InputError, match=r"cannot listen on no\.such\.host\.invalid"):
        ReportServer(run, "no.such.host.invalid")


def test_the_page_of_a_run_that_goes_on_loads_itself_again(run: Path) -> None:
    assert "data-refresh" not in report_page(run).split("<body>")[0]
    with run_lock(run):
        page = write_report(run).read_text()
        assert '<html lang="en" data-refresh="20">' in page
        assert '<noscript><meta http-equiv="refresh" content="20"></noscript>' in page
        assert "running: cold-start, step 3 of 3" in page
    assert "data-refresh" not in write_report(run).read_text().split("<body>")[0]
    write_state(run, {"state": "failed", "reason": "<b>rank 1</b> died\nmore"})
    assert "failed (&lt;b&gt;rank 1&lt;/b&gt; died): cold-start" in report_page(run)
