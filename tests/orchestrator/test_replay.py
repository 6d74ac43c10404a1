"""A resumed run asks exactly what the interrupted one would have asked."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.stages.replay import PromptSource
from rollout.errors import InputError
from rollout.prompts import PromptStream
from tests.factories import prompt


def stream(seed: int = 3, sizes: tuple[int, int] = (5, 7)) -> PromptStream:
    sources = {
        name: [prompt(f"{name}/{i}", source=name, text=f"{name}{i}", token_ids=(i, 9)) for i in range(size)]
        for name, size in zip(("left", "right"), sizes, strict=True)
    }
    return PromptStream(sources, {"left": 1.0, "right": 2.0}, seed)


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
