"""A private session is reached from this machine alone: whatever its processes listen at is loopback."""

import ipaddress
import os

import psutil

from tests.engine.conftest import Rig


def test_everything_listens_on_loopback(rig: Rig) -> None:
    rig.open()
    rig.publish(900)
    found: dict[str, set[str]] = {}
    for process in psutil.Process(os.getpid()).children(recursive=True):
        for socket in process.net_connections("inet"):
            if socket.status == psutil.CONN_LISTEN:
                found.setdefault(process.name(), set()).add(socket.laddr.ip)
    named = " ".join(found)
    for part in ("gcs_server", "raylet", "LearnerActor", "RolloutRep"):
        assert part in named, f"{part} was not looked at: {named}"
    for process, addresses in found.items():
        for address in addresses:
            plain = ipaddress.ip_address(address.removeprefix("::ffff:"))
            assert plain.is_loopback, f"{process} listens on {address}"
