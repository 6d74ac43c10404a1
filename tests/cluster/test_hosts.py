"""The hosts that the tests of this folder run on: what they share and what they do not, and the ways in which they fail."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Host, Hosts, obstacle

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=obstacle())

SERVE = "import socket, sys; s = socket.create_server((sys.argv[1], 7000)); print('up', flush=True)\nwhile True: s.accept()[0].sendall(b'x')"
ASK = "import socket, sys; print(socket.create_connection((sys.argv[1], 7000), timeout=2).recv(1))"


@pytest.fixture
def pair() -> Iterator[tuple[Host, Host]]:
    with Hosts() as hosts:
        yield hosts.add("alpha"), hosts.add("beta")


def serve(host: Host) -> None:
    process = host.popen("python3", "-c", SERVE, host.address, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"


def reaches(here: Host, there: Host) -> bool:
    return "b'x'" in asked(here, there.address)


def reached_within(seconds: float, here: Host, there: Host) -> bool:
    deadline = time.monotonic() + seconds
    while not (answered := reaches(here, there)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answered


def asked(here: Host, address: str) -> str:
    """What a host gets from the server at an address, or why it does not."""
    return here.run("sh", "-c", f'python3 -c "{ASK}" {address} 2>&1 || true')


def test_a_host_has_everything_of_its_own_but_the_disk(pair: tuple[Host, Host]) -> None:
    alpha, beta = pair
    for host in pair:
        assert host.run("hostname").strip() == host.name
        host.run("sh", "-c", f"echo {host.name} > /tmp/mine; echo {host.name} > /dev/shm/mine")
    for host in pair:
        assert host.run("cat", "/tmp/mine", "/dev/shm/mine").split() == [host.name] * 2
    assert not Path("/dev/shm/mine").exists()
    (alpha.hosts.shared / "both").write_text("seen")
    assert beta.run("cat", str(alpha.hosts.shared / "both")) == "seen"
    assert alpha.run("pwd").strip() == str(Path.cwd())
    assert len(alpha.run("ps", "-e", "-o", "pid").split()) < 10, "it sees its own processes alone"
    assert alpha.environment["RAY_AUTH_TOKEN_PATH"] == str(alpha.hosts.token)
    assert alpha.hosts.token.stat().st_mode & 0o077 == 0


def test_hosts_reach_each_other_and_nothing_else(pair: tuple[Host, Host]) -> None:
    alpha, beta = pair
    serve(beta)
    assert reaches(alpha, beta)
    assert "unreachable" in asked(alpha, "192.0.2.1")


def test_a_cable_is_pulled_and_put_back(pair: tuple[Host, Host]) -> None:
    alpha, beta = pair
    serve(beta)
    beta.cut()
    assert not reaches(alpha, beta)
    beta.mend()
    # Alpha's question for beta's hardware address, asked in vain, is answered with "no route" until it has run out: 3 s.
    assert reached_within(10, alpha, beta)


def test_a_frozen_host_answers_nothing_until_it_goes_on(pair: tuple[Host, Host]) -> None:
    alpha, beta = pair
    serve(beta)
    beta.freeze()
    assert not reaches(alpha, beta)
    beta.thaw()
    assert reached_within(10, alpha, beta)


def test_a_slow_link_has_the_rate_that_was_asked_for(pair: tuple[Host, Host]) -> None:
    alpha, beta = pair
    sends = (
        "import socket, sys; s = socket.create_server((sys.argv[1], 7000)); print('up', flush=True)\n"
        "while True: s.accept()[0].sendall(b'x' * 4_000_000)"
    )
    process = beta.popen("python3", "-c", sends, beta.address, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    beta.slow(mbit=32)
    takes = (
        "import socket, sys, time; s = socket.create_connection((sys.argv[1], 7000)); t = time.time(); n = 0\n"
        "while n < 4_000_000: n += len(s.recv(1 << 20))\nprint(time.time() - t)"
    )
    seconds = float(alpha.run("python3", "-c", takes, beta.address))
    assert seconds > 0.7, "4 MB at 32 Mbit/s are one second"


def test_a_disk_fills_up(pair: tuple[Host, Host]) -> None:
    alpha, beta = pair
    alpha.shrink("/tmp", megabytes=2)
    with pytest.raises(AssertionError, match="No space left"):
        alpha.run("dd", "if=/dev/zero", "of=/tmp/big", "bs=1M", "count=4")
    beta.run("dd", "if=/dev/zero", "of=/tmp/big", "bs=1M", "count=4")


def test_a_host_ends_with_everything_on_it(pair: tuple[Host, Host]) -> None:
    alpha, beta = pair
    serve(beta)
    pids = beta.processes()
    assert len(pids) >= 2
    beta.remove()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not reaches(alpha, beta)
    assert list(alpha.hosts.hosts) == ["alpha"]
    alpha.hosts.add("gamma")
