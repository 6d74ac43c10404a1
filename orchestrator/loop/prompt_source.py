"""Prompts by number: what makes a resumed run ask exactly what the interrupted one would have asked."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rollout.data.prompts import PromptStream
from rollout.types import Prompt


class PromptSource:
    """Group number n gets prompt n of the stream, whenever it is asked for."""

    def __init__(self, stream: PromptStream, weights: Sequence[Mapping[str, float]] = ()) -> None:
        """`weights`: shares of the sources, by segment of the stage's schedule; none: they never change."""
        self._stream = stream
        self._weights = weights
        self._segments: list[tuple[int, int]] = []
        """(first number, segment) wherever another segment began."""
        self._owed: dict[int, Prompt] = {}

    def prompt(self, number: int, segment: int = 0) -> Prompt:
        """The prompt of a group just admitted, in a segment of the schedule. Numbers come in order, but for those owed
        after a resume."""
        if number in self._owed:
            return self._owed.pop(number)
        assert number == self._stream.taken, f"prompt {number} asked, {self._stream.taken} is next"
        self._enter(number, segment)
        return self._stream.take()

    @property
    def segments(self) -> list[tuple[int, int]]:
        """(first number, segment) wherever another segment of the schedule began."""
        return list(self._segments)

    def state(self) -> dict[str, Any]:
        return {**self._stream.state(), "segments": list(self._segments)}

    def restore(self, state: Mapping[str, Any], buffer: Mapping[str, Any], waiting: Collection[int] = ()) -> None:
        """Go on from a state. `waiting`: numbers that are owed to nobody, since their groups are back.

        Raises:
            InputError: the sources are not the ones it was made with.
        """
        begin, owed = self._stream.state(), set(buffer["owed"]) - set(waiting)
        self._stream.restore(state)  # raises when the sources are not the same
        self._stream.restore(begin)
        began = dict(state["segments"])
        # The buffer's count leads: a group may have been admitted at the checkpoint without its prompt taken yet.
        for number in range(buffer["admitted"]):
            if number in began:
                self._enter(number, began[number])
            prompt = self._stream.take()
            if number in owed:
                self._owed[number] = prompt

    def _enter(self, number: int, segment: int) -> None:
        if segment != (self._segments[-1][1] if self._segments else 0):
            self._segments.append((number, segment))
            self._stream.reweight(self._weights[segment])
