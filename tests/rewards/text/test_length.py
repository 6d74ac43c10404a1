"""Equation 13 of the paper, by hand."""

import pytest

from rewards.text.length import soft_overlong
from rollout.errors import InputError


@pytest.mark.parametrize(
    ("tokens", "value"),
    [
        (0, 0),
        (16384, 0),
        (16385, -1 / 4096),
        (18432, -0.5),
        (20479, -4095 / 4096),
        (20480, -1),
        (20481, -1),
        (10**9, -1),
    ],
)
def test_the_punishment(tokens: int, value: float) -> None:
    found = soft_overlong("p", "c", tokens=tokens, max_tokens=20480, buffer=4096)
    assert found == pytest.approx(value)
    assert str(found) != "-0.0"


def test_a_buffer_of_everything_punishes_every_token() -> None:
    assert [soft_overlong("", "", tokens=n, max_tokens=4, buffer=4) for n in range(6)] == [
        0,
        -0.25,
        -0.5,
        -0.75,
        -1,
        -1,
    ]


@pytest.mark.parametrize("buffer", [0, -1, 101])
def test_a_buffer_outside_the_completion_is_an_input_error(buffer: int) -> None:
    with pytest.raises(InputError, match=f"buffer = {buffer} must be between 1 and max_tokens = 100"):
        soft_overlong("", "", tokens=1, max_tokens=100, buffer=buffer)


def test_an_unknown_length_is_not_guessed() -> None:
    with pytest.raises(InputError, match="number of tokens is not known"):
        soft_overlong("", "some text", max_tokens=100, buffer=10)
