"""Which replica gets the next group: the one with the least outstanding work. Plain Python, no clock, no Ray."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from rollout.errors import ServiceError


class Health(Enum):
    SERVING = "serving"
    DEAD = "dead"
    """The actor of the replica or its engine is gone; it gets no more work until it has loaded the current weights again."""


@dataclass(slots=True)
class _Replica:
    health: Health = Health.SERVING
    outstanding: int = 0


class Router:
    """Counts the tokens that each replica still owes."""

    def __init__(self, replicas: int) -> None:
        self._replicas = [_Replica() for _ in range(replicas)]

    def acquire(self, tokens: int, tried: Collection[int] = ()) -> int:
        """Index of the serving replica with the least outstanding tokens, now charged with `tokens` more.

        Args:
            tried: replicas to be taken only where no other serves.

        Raises:
            ServiceError: no replica is serving.
        """
        serving = [i for i, replica in enumerate(self._replicas) if replica.health is Health.SERVING]
        if not serving:
            raise ServiceError(f"none of the {len(self._replicas)} rollout replicas is serving")
        index = min(serving, key=lambda i: (i in tried, self._replicas[i].outstanding))
        self._replicas[index].outstanding += tokens
        return index

    def release(self, index: int, tokens: int) -> None:
        """The work charged by `acquire` is done or lost."""
        self._replicas[index].outstanding -= tokens

    def mark(self, index: int, health: Health) -> None:
        self._replicas[index].health = health

    @property
    def serving(self) -> tuple[int, ...]:
        return tuple(i for i, replica in enumerate(self._replicas) if replica.health is Health.SERVING)

    @property
    def outstanding(self) -> tuple[int, ...]:
        """Tokens that each replica still owes at most."""
        return tuple(replica.outstanding for replica in self._replicas)
