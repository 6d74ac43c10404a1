"""Which of several blocks of a response is the solution: not a draft, and not the example of its use that follows it.

What the tests ask for decides: the last block that defines it, or the last program that reads standard input. Blocks before
it that define what it lacks come with it. It is decided by tokens (`rewards/code/outline.py`); running each block and taking
the one that passes would let a model guess as often as it has blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rewards.code.outline import outline


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What tests need of a program."""

    names: frozenset[str] = frozenset()
    """Names that they call or use; those that no block defines do not matter. Empty: the program is run."""
    reads: bool = False
    """Whether there is something on its standard input."""
    given: frozenset[str] = frozenset()
    """Names that are there without the program."""


def find_solution(blocks: Sequence[str], asked: Asked) -> str:
    """The solution among blocks of Python, in their order; empty where none has what is asked for."""
    found = _Blocks(blocks, asked.given)
    chosen = (found.defining(asked.names) or _bodies(blocks)[-1:]) if asked.names else found.running(asked.reads)
    return "\n".join(blocks[number] for number in chosen)


def _bodies(blocks: Sequence[str]) -> list[int]:
    """Numbers of the blocks that begin indented: bodies of a function whose head is in the prompt."""
    return [number for number, block in enumerate(blocks) if block.lstrip("\r\n")[:1] in (" ", "\t")]


class _Blocks:
    """The outlines of blocks, and what each adds to those before it."""

    def __init__(self, blocks: Sequence[str], given: frozenset[str]) -> None:
        self.outlines = [outline(block) for block in blocks]
        self._given = given
        self._provided: list[frozenset[str]] = []
        self.examples: list[bool] = []
        """Whether a block takes from a file what a block before it defines."""
        defined = frozenset[str]().union(*(each.defined for each in self.outlines))
        earlier: set[str] = set()
        for each in self.outlines:
            self.examples.append(not each.foreign.isdisjoint(earlier))
            # Who imports what another block defines has it from there.
            own = each.defined | (each.imported - defined)
            self._provided.append(frozenset() if self.examples[-1] else frozenset(own))
            earlier |= each.defined

    def defining(self, names: frozenset[str]) -> list[int]:
        """Numbers of the last blocks that define names, and of those that they need."""
        return self._with_needed(set(names), len(self.outlines))

    def running(self, reads: bool) -> list[int]:
        """Numbers of the last block that is a program, and of those that it needs."""
        candidates = []
        for number, each in enumerate(self.outlines):
            needed = self._with_needed(each.free - self._given, number)
            writes = each.writes or (each.methods and any(self.outlines[n].prints for n in needed))
            # What calls a program that stands before it is an example of its use.
            if writes and not self.examples[number] and not any(self.outlines[n].writes for n in needed):
                candidates.append([*needed, number])
        if reads:
            candidates = [each for each in candidates if any(self.outlines[n].reads for n in each)] or candidates
        candidates = [each for each in candidates if not any(self.outlines[n].starts for n in each)] or candidates
        return candidates[-1] if candidates else []

    def _with_needed(self, missing: set[str], end: int) -> list[int]:
        """Numbers of the blocks before `end` that define what is missing, the last of each, and what those lack."""
        chosen: list[int] = []
        for number in range(end - 1, -1, -1):
            if found := missing & self._provided[number]:
                chosen.insert(0, number)
                missing = (missing - found) | (self.outlines[number].free - self._given)
        return chosen
