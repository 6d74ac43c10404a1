"""Several named sources as one seeded, resumable stream.

Each source is passed through in a fresh permutation every time, so nothing of a source comes again before all the rest
of it has come. Item number i of the stream depends on the seed, the sources and i alone: not on the order of the
mappings, nor on restarts.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from rollout.data.unchanged import WAY_OUT, check_unchanged
from rollout.errors import InputError

T = TypeVar("T")


class Mixture(Generic[T]):
    """Endless, or so many epochs long. Not thread-safe: one producer takes.

    Endless: the source of item number i is drawn by weight from (seed, i).

    Epochs: in each of them every source is passed through `weight` times, so with whole weights every item comes exactly
    epochs · weight times. Parts (1.5 epochs, a weight of 0.3) are exact to half an item of each source. Within an epoch
    the sources are mixed evenly, at random.
    """

    noun = "rows"
    """Name of the items in messages."""

    def __init__(
        self, items: Mapping[str, Sequence[T]], weights: Mapping[str, float], seed: int, epochs: float = 0
    ) -> None:
        """
        Args:
            items: source name → what it holds, at least one, in file order.
            weights: source name → share relative to the others, or passes an epoch; the same names, not negative, one
                above 0.
            seed: of every permutation and draw.
            epochs: 0: endless.

        Raises:
            InputError: no source, an empty one, names that differ, weights that are no shares, or epochs so few that they
                hold no item.
        """
        if not items:
            raise InputError(f"there are no {self.noun}: add [data.sources.NAME] with `path` or `task`")
        for name, held in items.items():
            if not held:
                raise InputError(
                    f"data source {name!r} has no {self.noun}; raise the length limit or remove the source"
                )
        self._names = sorted(items)
        self._items = {name: tuple(items[name]) for name in self._names}
        self._seed = seed
        self.reweight(weights)
        self._weights = {name: float(weights[name]) for name in self._names}
        self._counts = dict.fromkeys(self._names, 0)
        self._permutations: dict[str, tuple[int, np.ndarray]] = {}
        self._fingerprints = {name: self.fingerprint(held) for name, held in self._items.items()}
        self._dealt = self._deal(epochs) if epochs else None

    @staticmethod
    def fingerprint(items: Sequence[T]) -> str:
        """Digest of everything in the items that matters, in order."""
        raise NotImplementedError

    @property
    def taken(self) -> int:
        """Items taken so far: the number of the next one."""
        return sum(self._counts.values())

    @property
    def total(self) -> int:
        """Items of all epochs."""
        assert self._dealt is not None, "an endless stream"
        return len(self._dealt)

    def take(self) -> T:
        """The next item."""
        name = self._source_of(self.taken)
        epoch, position = divmod(self._counts[name], len(self._items[name]))
        item = self._items[name][self._permutation(name, epoch)[position]]
        self._counts[name] += 1
        return item

    def reweight(self, weights: Mapping[str, float]) -> None:
        """Draw by other weights from the next item on. Raises InputError as the constructor does."""
        if set(weights) != set(self._names):
            raise InputError(f"weights are for {sorted(weights)}, but the data sources are {self._names}")
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise InputError(f"data source {name!r}: weight {weight} is neither 0 nor a positive number")
        self._drawn = [name for name in self._names if weights[name] > 0]
        if not self._drawn:
            raise InputError(f"the weights of the data sources {', '.join(self._names)} are all 0")
        total = math.fsum(float(weights[name]) for name in self._drawn)
        # [drawn sources] upper end of each one's share of [0, 1).
        self._shares = np.cumsum([float(weights[name]) / total for name in self._drawn])

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as plain JSON data; its size does not grow with the items."""
        return {
            "seed": self._seed,
            "taken": self.taken,
            "counts": dict(self._counts),
            "weights": dict(self._weights),
            "fingerprints": dict(self._fingerprints),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where the stream that gave `state` stood.

        Raises:
            InputError: the seed, a weight, the set of sources or what a source holds is not what it was (the
                continuation would be another one), or the state is not one that `state()` gave.
        """
        try:
            seed, taken = int(state["seed"]), int(state["taken"])
            counts, weights, fingerprints = (dict(state[key]) for key in ("counts", "weights", "fingerprints"))
            counts = {name: int(count) for name, count in counts.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the saved state of the stream of {self.noun} is damaged: {error!r}") from None
        self._check_unchanged(seed, weights, fingerprints)
        if set(counts) != set(self._names) or sum(counts.values()) != taken or min(counts.values()) < 0:
            raise InputError(f"the saved state of the stream of {self.noun} is damaged: {taken} taken, counts {counts}")
        self._counts = counts

    def _check_unchanged(self, seed: int, weights: Mapping[str, float], fingerprints: Mapping[str, str]) -> None:
        if seed != self._seed:
            raise InputError(f"the run was started with seed {seed}, now it is {self._seed}; {WAY_OUT}")
        check_unchanged(self.noun, fingerprints, self._fingerprints)
        for name in self._names:
            if weights.get(name) != self._weights[name]:
                raise InputError(
                    f"data source {name!r} had weight {weights.get(name)} when the run was started, "
                    f"now it has {self._weights[name]}; {WAY_OUT}"
                )

    def _deal(self, epochs: float) -> np.ndarray:
        """[items of all epochs] int32 index of the source that each comes from."""
        blocks = []
        for epoch in range(math.ceil(epochs)):
            ends = [
                [math.floor(passes * self._weights[name] * len(self._items[name]) + 0.5) for name in self._names]
                for passes in (epoch, min(epoch + 1, epochs))
            ]
            block = np.repeat(np.arange(len(self._names), dtype=np.int32), np.diff(ends, axis=0)[0])
            blocks.append(block[permutation(len(block), "deal", self._seed, epoch)])
        dealt = np.concatenate(blocks)
        if not len(dealt):
            raise InputError(f"{epochs:g} epochs of so few {self.noun} are not a single one; raise sft.epochs")
        return dealt

    def _source_of(self, number: int) -> str:
        if self._dealt is not None:
            return self._names[self._dealt[number]]
        uniform = _hash("source", self._seed, number) / 2**128
        # Rounding can leave the last share a hair under 1, or the draw at 1.
        chosen = int(np.searchsorted(self._shares, uniform, side="right"))
        return self._drawn[min(chosen, len(self._drawn) - 1)]

    def _permutation(self, name: str, epoch: int) -> np.ndarray:
        """[items of the source] order of one pass through it; the current one is kept."""
        kept = self._permutations.get(name)
        if kept is None or kept[0] != epoch:
            kept = (epoch, permutation(len(self._items[name]), "permutation", self._seed, name, epoch))
            self._permutations[name] = kept
        return kept[1]


def permutation(size: int, *key: str | int) -> np.ndarray:
    """[size] an order that belongs to a key."""
    # Raw bits, because numpy promises those to stay the same over its versions; the `permutation` of its generators may
    # change, and a run may outlive the numpy that it was started with.
    return np.argsort(np.random.Philox(key=_hash(*key)).random_raw(size), kind="stable")


def _hash(*key: str | int) -> int:
    """128 evenly spread bits that belong to a key, on every machine and in every process."""
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")
