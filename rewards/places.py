"""Which host a reward worker lives on: one without GPUs, while such hosts have room. Plain Python, no Ray.

Reward workers run programs and verifiers on cores that engines and ranks of GPU hosts need for themselves. They reserve no core,
so Ray would place them anywhere.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Host:
    """One node of the cluster."""

    node: str
    """Id of the node."""
    cores: float
    """Cores that nobody has reserved."""
    gpus: float


def place_of(hosts: Collection[Host], workers: Mapping[str, int]) -> str:
    """Id of the node for the next worker; empty: any, since the hosts are of one kind.

    A host without GPUs has room while it has fewer workers than free cores. When none has, one with GPUs is taken, and when those
    have none either, the one that is the least crowded.

    Args:
        workers: node → reward workers that live there, or are on their way.
    """

    def room(host: Host) -> int:
        return int(host.cores) - workers.get(host.node, 0)

    quiet = [host for host in hosts if not host.gpus]
    if not quiet or len(quiet) == len(hosts):
        return ""
    free = [host for host in quiet if room(host) > 0] or [host for host in hosts if room(host) > 0]
    return max(free or hosts, key=room).node
