"""A resumed run asks exactly what the interrupted one would have asked."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.loop.prompt_source import PromptSource
from rollout.data.prompts import PromptStream
from rollout.errors import InputError
from tests.factories import prompt

SHARES = MappingProxyType({"left": 1.0, "right": 2.0})


def stream(seed: int = 3, sizes: tuple[int, int] = (5, 7), weights: Mapping[str, float] = SHARES) -> PromptStream:
    sources = {
        name: [prompt(f"{name}/{i}", source=name, text=f"{name}{i}", token_ids=(i, 9)) for i in range(size)]
        for name, size in zip(("left", "right"), sizes, strict=True)
    }
    return PromptStream(sources, weights, seed)


def asked(source: PromptSource, numbers: list[int]) -> list[str]:
    return [source.prompt(number).prompt_id for number in numbers]


def checkpoint(source: PromptSource, **buffer: Any) -> tuple[Any, Any]:
    return json.loads(json.dumps([source.state(), buffer]))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 40), st.sets(st.integers(0, 39)), st.integers(0, 20))
def test_owed_numbers_and_new_ones_get_the_prompts_they_would_have_had(
    admitted: int, owed_of: set[int], more: int
) -> None:
    owed = sorted(number for number in owed_of if number < admitted)
    uninterrupted = asked(PromptSource(stream()), list(range(admitted + more)))
    first = PromptSource(stream())
    asked(first, list(range(admitted)))
    state, buffer = checkpoint(first, admitted=admitted, owed=owed)

    resumed = PromptSource(stream())
    resumed.restore(state, buffer)
    assert asked(resumed, owed) == [uninterrupted[number] for number in owed]
    assert asked(resumed, list(range(admitted, admitted + more))) == uninterrupted[admitted:]


def test_a_second_crash_before_the_owed_prompts_were_asked() -> None:
    uninterrupted = asked(PromptSource(stream()), list(range(12)))
    first = PromptSource(stream())
    asked(first, list(range(10)))
    state, buffer = checkpoint(first, admitted=10, owed=[2, 8])
    second = PromptSource(stream())
    second.restore(state, buffer)
    asked(second, [2])
    state, buffer = checkpoint(second, admitted=10, owed=[2, 8])
    third = PromptSource(stream())
    third.restore(state, buffer)
    assert asked(third, [2, 8, 10, 11]) == [uninterrupted[number] for number in (2, 8, 10, 11)]


def test_a_number_out_of_turn_is_noticed() -> None:
    source = PromptSource(stream())
    source.prompt(0)
    with pytest.raises(AssertionError, match="prompt 2 asked, 1 is next"):
        source.prompt(2)


@pytest.mark.parametrize("other", [{"seed": 4}, {"sizes": (5, 8)}])
def test_other_sources_are_an_input_error(other: dict[str, Any]) -> None:
    first = PromptSource(stream())
    asked(first, [0, 1, 2])
    state, buffer = checkpoint(first, admitted=3, owed=[1])
    with pytest.raises(InputError, match="the run"):
        PromptSource(stream(**other)).restore(state, buffer)


WEIGHTS = ({"left": 1.0, "right": 0.0}, {"left": 1.0, "right": 2.0}, {"left": 0.0, "right": 1.0})


def scheduled(begins: tuple[int, int], start: int, count: int, source: PromptSource) -> list[str]:
    """The prompts from number `start` on, with segments that begin at these numbers."""
    numbers = range(start, start + count)
    return [source.prompt(number, sum(begin <= number for begin in begins)).prompt_id for number in numbers]


def weighted() -> PromptSource:
    return PromptSource(stream(weights=WEIGHTS[0]), WEIGHTS)


def test_another_segment_asks_by_its_own_weights() -> None:
    names = [prompt_id.split("/")[0] for prompt_id in scheduled((10, 30), 0, 40, weighted())]
    assert set(names[:10]) == {"left"}
    assert set(names[10:30]) == {"left", "right"}
    assert set(names[30:]) == {"right"}


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 40), st.sets(st.integers(0, 39)), st.integers(0, 20))
def test_segments_are_the_same_after_a_resume(admitted: int, owed_of: set[int], more: int) -> None:
    begins = (10, 30)
    owed = sorted(number for number in owed_of if number < admitted)
    uninterrupted = scheduled(begins, 0, admitted + more, weighted())
    first = weighted()
    scheduled(begins, 0, admitted, first)
    state, buffer = checkpoint(first, admitted=admitted, owed=owed)

    resumed = weighted()
    resumed.restore(state, buffer)
    assert asked(resumed, owed) == [uninterrupted[number] for number in owed]
    assert scheduled(begins, admitted, more, resumed) == uninterrupted[admitted:]
