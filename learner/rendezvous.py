"""Where ranks find each other: a store that rank 0 keeps, on the cluster's own address and under a name that nobody guesses.

Torch's store and gloo's sockets know no passwords. Both listen here on the address alone by which the hosts of the cluster know
each other (loopback, for a private session), and what the ranks write stands under a prefix that travels with Ray's messages.
That keeps out whoever does not reach the address; whoever does can still connect, and disturb (deploy/README.md says what
a network has to keep away).
"""

import os
import socket
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch

INTERFACE = "GLOO_SOCKET_IFNAME"


@dataclass(frozen=True, slots=True)
class Rendezvous:
    address: str
    """Address of rank 0, as the other hosts know it."""
    port: int
    secret: str = field(default="", repr=False)
    """Prefix of everything in the store."""


def listen(address: str) -> socket.socket:
    """A free port, taken: between asking for one and using it nobody else can have it."""
    return socket.create_server(
        (address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET, backlog=1024
    )


def meet(
    place: Rendezvous,
    rank: int,
    ranks: int,
    timeout_s: float,
    device: torch.device,
    listening: socket.socket | None = None,
) -> None:
    """Form the process group of all ranks; returns once all have come.

    Args:
        timeout_s: longest wait for the others, here and in every collective.
        listening: rank 0's socket, if it has been opened already.
    """
    from torch.distributed import PrefixStore, TCPStore, init_process_group

    limit = timedelta(seconds=timeout_s)
    settings: dict[str, Any] = {"is_master": rank == 0, "timeout": limit, "wait_for_workers": False}
    if rank == 0:
        listening = listening or socket.create_server((place.address, place.port))
        settings["master_listen_fd"] = listening.detach()
    store = TCPStore(place.address, place.port, ranks, **settings)
    if device.type == "cuda" and ranks > 1:
        settings = {"device_id": device}
    else:
        settings = {}
        if interface := interface_of(own_address(place)):
            os.environ.setdefault(INTERFACE, interface)
    init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore(f"rayzero-{place.secret}", store),
        rank=rank,
        world_size=ranks,
        timeout=limit,
        **settings,
    )


def own_address(place: Rendezvous) -> str:
    """This host's address on the way to rank 0. Nothing is sent to find it."""
    family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((place.address, place.port))
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str:
    """Name of the network interface that has an address; empty: none has."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address.partition("%")[0] == address for each in addresses):
            return str(name)
    return ""
